"""How recovery is measured and judged: pure arithmetic on times."""

from orderflow.chaos.assessment import backlog, recovery
from orderflow.chaos.assessment.recovery import InjectedFault, Life
from orderflow.chaos.faults.schedule import Fault


def injected(kind="db-restart", target="kill", *, began, back=None, problem=""):
    back = began if back is None else back
    fault = Fault(start=began, kind=kind, target=target)
    return InjectedFault(fault=fault, began_at=began, ended_at=began, recovered_at=back, problem=problem)


def life(*moves, is_over=True):
    return Life(moves=moves, is_over=is_over)


def test_recovery_lasts_until_the_slowest_order_in_progress_has_moved_again():
    fault = injected(began=10, back=12)
    lives = {"quick": life(9, 12.5), "slow": life(5, 17), "over": life(1, 8), "later": life(13, 40)}
    measured = recovery.measure(fault, lives, [fault])
    assert measured.affected == 2
    assert (measured.first, measured.slowest, measured.slowest_id) == (0.5, 5, "slow")


def test_recovery_counts_from_the_death_of_a_worker_and_from_the_return_of_a_relay():
    lives = {"order": life(9, 20)}
    worker = injected("kill-worker", "orders", began=10, back=13)
    relay = injected("kill-relay", "relay", began=10, back=13)
    assert recovery.measure(worker, lives, [worker]).slowest == 10
    assert recovery.measure(relay, lives, [relay]).slowest == 7


def test_the_time_of_other_faults_is_not_charged_to_this_one():
    fault = injected(began=10)
    others = [
        injected(began=12, back=14),
        injected(began=13, back=15),
        injected(began=2, back=10.5),
        injected(began=16, back=18, problem="no effect"),
    ]
    measured = recovery.measure(fault, {"order": life(9, 20)}, [fault, *others])
    assert measured.slowest == 10 - 3 - 0.5
    assert measured.longest == 10


def test_planned_waits_for_a_provider_do_not_count_as_recovery():
    fault = injected(began=10)
    waiting = Life(moves=(9, 80), is_over=True, waits=[(12, 72)])
    measured = recovery.measure(fault, {"order": waiting}, [fault])
    assert (measured.slowest, measured.longest) == (10, 70)


def test_the_processing_of_a_long_queue_does_not_count_as_recovery():
    fault = injected(began=10)
    measured = recovery.measure(fault, {"order": life(9, 40)}, [fault], busy=[(12, 30)])
    assert (measured.slowest, measured.longest) == (12, 30)


def test_a_queue_excuses_a_wait_only_while_it_is_long_and_orders_move():
    samples = [(10, 5), (11, 200), (12, 180), (13, 180), (14, 100), (15, 3), (16, 0)]
    moves = [10.5, 11.5, 12.5, 14.5, 15.5]
    assert backlog.worked_off(samples, moves) == [(11, 12), (12, 13), (14, 15)]


def test_a_queue_without_samples_excuses_nothing():
    assert backlog.worked_off([(10, 200), (20, 200)], [15]) == []


def test_work_lost_by_a_broker_may_be_resumed_within_a_minute_despite_other_faults():
    loss = injected("broker-forgets", began=10)
    beat = injected("kill-beat", began=15, back=16)
    resumed = recovery.measure(beat, {"order": life(9, 60)}, [loss, beat])
    assert (resumed.slowest, resumed.is_too_slow) == (0, False)
    late = recovery.measure(beat, {"order": life(9, 90)}, [loss, beat])
    assert (late.slowest, late.is_too_slow) == (90 - 71, True)  # beat was down in one of these seconds
    assert recovery.measure(loss, {"order": life(9, 90)}, [loss]).is_too_slow


def test_other_faults_extend_the_time_in_which_a_loss_is_repaired():
    loss = injected("broker-forgets", began=10)
    network = injected("network-latency", began=20, back=35)
    beat = injected("kill-beat", began=15, back=16)
    late = recovery.measure(beat, {"order": life(9, 90)}, [loss, network, beat])
    assert late.slowest == 90 - (10 + 60 + 15 + 1)


def test_a_long_interruption_of_the_sweeps_restarts_the_search_for_lost_work():
    loss = injected("broker-forgets", began=10)
    beat = injected("kill-beat", began=15, back=16)
    relay = injected("kill-relay", began=40, back=55)
    late = recovery.measure(beat, {"order": life(9, 130)}, [loss, relay, beat])
    assert late.slowest == 130 - (55 + 60)


def test_a_loss_excuses_no_order_that_has_moved_since():
    loss = injected("broker-forgets", began=10)
    beat = injected("kill-beat", began=15, back=16)
    assert recovery.measure(beat, {"order": life(9, 14, 60)}, [loss, beat]).slowest == 60 - 16


def test_work_that_never_moves_again_is_reported():
    fault = injected(began=10)
    measured = recovery.measure(fault, {"stuck": life(9, is_over=False)}, [fault])
    assert measured.stuck == ("stuck",)


def test_limits_are_judged_and_kinds_without_one_are_not():
    lives = {"order": life(9, 26)}
    for kind, target, too_slow in (
        ("kill-worker", "orders", True),
        ("kill-worker", "email", False),
        ("clock-jump", "database", False),
    ):
        fault = injected(kind, target, began=10)
        assert recovery.measure(fault, lives, [fault]).is_too_slow == too_slow


def test_recoveries_are_summarised_by_kind():
    faults = [injected(began=10), injected(began=30), injected(began=50)]
    lives = {"a": life(9, 11), "b": life(29, 34), "c": life(49, 51.5)}
    summary = recovery.by_kind([recovery.measure(fault, lives, []) for fault in faults])
    assert summary == {
        "db-restart": {
            "struck": 3,
            "p50_seconds": 1.5,
            "max_seconds": 4.0,
            "limit_seconds": 10.0,
            "longest_seconds": 4.0,
        }
    }
