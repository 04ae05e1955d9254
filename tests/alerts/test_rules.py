"""The rules, evaluated by promtool: what fires each of them, what does not, and what a lost series means."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import yaml

from orderflow.alerts import catalogue, durations, files
from tests.alerts.series import CRITICAL, HEALTHY, HOUR, SEEN, SWEEP, TASK, VERIFY, constant, growing

needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="promtool is not installed (Debian's package prometheus)"
)
needs_amtool = pytest.mark.skipif(
    not shutil.which("amtool"), reason="amtool is not installed (Debian's package prometheus-alertmanager)"
)

GONE = None
LATER = HOUR + HOUR // 2
ENDS = f"1x{HOUR - 1} stale"
"""A series of ones that ends after an hour."""

LETTERS = 'orderflow_dead_letters_open{consumer="orders.tasks.charge",fingerprint="%s"}'

FIRING = {
    "stuck orders": ({"orderflow_orders_stuck": constant(2)}, {"OrdersStuck"}),
    "a tenth of the orders is late": (
        {"orderflow_orders_late_total": growing(3)},
        {"OrdersLateFastBurn", "OrdersLateSlowBurn"},
    ),
    "one order in a hundred is late": ({"orderflow_orders_late_total": growing(0.3)}, {"OrdersLateSlowBurn"}),
    "slow messages": ({CRITICAL % "1": constant(0), CRITICAL % "60": growing(28)}, {"CriticalTimeHigh"}),
    "no message is delivered": ({"orderflow_outbox_oldest_due_seconds": growing(15)}, {"OutboxStalled"}),
    "the first dead letters": (
        {LETTERS % "first": f"_x{LATER} 3x{HOUR}", LETTERS % "other": f"_x{LATER} 4x{HOUR}"},
        {"DeadLettersGrowing"},
    ),
    "more dead letters": ({LETTERS % "first": f"40x{LATER} 46x{HOUR}"}, {"DeadLettersGrowing"}),
    "a task that fails": ({TASK % "permanent": growing(20)}, {"FailureRatioHigh"}),
    "a task that kills its worker": (
        {TASK % "crash": growing(1), TASK % "succeeded": constant(1)},
        {"FailureRatioHigh"},
    ),
    "a channel that fails": (
        {'orderflow_notifications_total{channel="sms",outcome="failed"}': growing(5)},
        {"NotificationChannelFailing"},
    ),
    "a provider that is down": (
        {'orderflow_breaker_open_seconds{breaker="sms"}': growing(15)},
        {"ProviderDown"},
    ),
    "refused credentials": (
        {
            'orderflow_breaker_open_seconds{breaker="sms"}': growing(15),
            'orderflow_credentials_refused{provider="sms"}': constant(1),
        },
        {"CredentialsRefused"},
    ),
    "a queue without consumers": (
        {'orderflow_queue_consumers{queue="sms"}': constant(0)},
        {"QueueWithoutConsumers"},
    ),
    "a dead worker": ({SEEN % ("worker", "sms"): growing(15)}, {"WorkerGone"}),
    "a dead worker among others": (
        {'orderflow_worker_seen_age_seconds{role="worker",pool="orders"}': growing(15)},
        {"WorkerGone"},
    ),
    "a dead relay": ({SEEN % ("relay", "relay"): growing(15)}, {"RelayGone"}),
    "a relay that never ran": ({SEEN % ("relay", "relay"): GONE}, {"RelayGone"}),
    "a dead beat": ({SEEN % ("beat", "beat"): growing(15)}, {"BeatGone"}),
    "a beat that never ran": ({SEEN % ("beat", "beat"): GONE}, {"BeatGone"}),
    "a sweep that is not done": ({SWEEP % "age_seconds": growing(15)}, {"SweepNotRunning"}),
    "a sweep that was never done": ({SWEEP % "age_seconds": GONE}, {"SweepNotRunning"}),
    "a sweep that fails": ({SWEEP % "failing": constant(1)}, {"SweepNotRunning"}),
    "a violated invariant": ({"orderflow_verification_violated": constant(1)}, {"VerificationViolated"}),
    "no verification": ({"orderflow_verification_age_seconds": constant(11_000)}, {"VerificationNotRun"}),
    "a database near its limit": (
        {"orderflow_database_size_limit_bytes": constant(12e9)},
        {"DatabaseNearLimit"},
    ),
    "a dead database": ({'orderflow_up{component="database"}': f"1x{HOUR} 0x{HOUR}"}, {"DatabaseDown"}),
    "a dead broker": ({'orderflow_up{component="broker"}': constant(0)}, {"BrokerDown"}),
    "an exporter that ends": (
        dict.fromkeys((name for name in HEALTHY if name[:2] != "up"), ENDS),
        {"MetricsAbsent"},
    ),
    "an exporter that cannot count orders": (
        {"orderflow_orders_due_total": ENDS, "orderflow_orders_late_total": ENDS},
        {"MetricsAbsent"},
    ),
    "processes whose series end": (
        {'up{job="orderflow-processes",instance="orders"}': ENDS},
        {"MetricsAbsent"},
    ),
    "processes that do not answer": (
        {'up{job="orderflow-processes",instance="orders"}': constant(0)},
        {"MetricsAbsent"},
    ),
}
"""What differs from the healthy system for the second of two hours, and the alerts that fire at their end."""

QUIET = {
    "a healthy system": {},
    "a healthy system with several exporters": {
        f"orderflow_dead_letters_open{{consumer='a',fingerprint='b',instance='{number}'}}": constant(3)
        for number in range(9)
    },
    "one late order of three thousand": {"orderflow_orders_late_total": f"0x{HOUR} 1x{HOUR}"},
    "a burst of late orders that is over": {"orderflow_orders_late_total": f"0x{HOUR} 900x{HOUR}"},
    "no orders at all": {"orderflow_orders_due_total": constant(5), "orderflow_orders_late_total": constant(2)},
    "old dead letters": {LETTERS % "first": constant(500)},
    "dead letters that are resolved": {LETTERS % "first": f"500x{LATER} 20x{HOUR}"},
    "dead letters that could not be counted during an outage": {
        LETTERS % "first": f"500x{LATER} _x9 500x{HOUR}",
        'orderflow_up{component="database"}': f"1x{LATER} 0x9 1x{HOUR}",
    },
    "outages spend no attempts": {TASK % "outage": growing(30)},
    "a few failures of a rare task": {TASK % "succeeded": constant(1), TASK % "transient": growing(0.05)},
    "one failed notification": {
        'orderflow_notifications_total{channel="sms",outcome="failed"}': f"0x{2 * HOUR - 2} 1x2"
    },
    "a breaker that opened a moment ago": {
        'orderflow_breaker_open_seconds{breaker="sms"}': f"0x{2 * HOUR - 3} 0+60x2"
    },
    "a verification of this hour": {"orderflow_verification_age_seconds": constant(3600)},
    "a task that is due every minute and was not done yet": {VERIFY % "interval_seconds": constant(60)},
    "a new installation that has not verified yet": {"orderflow_verification_age_seconds": GONE},
    "a database without a limit": {"orderflow_database_size_bytes": constant(9e12)},
    "a worker that ended in order": {SEEN % ("worker", "sms"): ENDS},
    "a message that was due for a moment": {"orderflow_outbox_oldest_due_seconds": constant(45)},
    "a short outage of the broker": {'orderflow_up{component="broker"}': f"1x{2 * HOUR - 1} 0x1"},
    "a process that ends, of several": {'up{job="orderflow-processes",instance="sms"}': ENDS},
}


def run(folder, *command):
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def promtool(tmp_path, *words):
    (tmp_path / "rules.yml").write_text(files.rendered()[files.RULES])
    return run(tmp_path, "promtool", *words)


def unit_test(name, changes, expected):
    series = {key: values for key, values in (HEALTHY | changes).items() if values is not GONE}
    found = 'count by (alertname) (ALERTS{alertstate="firing"}) > 0'
    samples = [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(expected)]
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": key, "values": values} for key, values in series.items()],
        "promql_expr_test": [{"expr": found, "eval_time": "2h", "exp_samples": samples}],
    }


def assert_cases(tmp_path, cases):
    document = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": cases}
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(document))
    done = promtool(tmp_path, "test", "rules", "tests.yml")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]


@needs_promtool
@pytest.mark.slow
def test_each_alert_fires_for_its_cause_alone(tmp_path):
    assert_cases(tmp_path, [unit_test(name, *case) for name, case in FIRING.items()])


@needs_promtool
@pytest.mark.slow
def test_what_is_no_fault_raises_no_alert(tmp_path):
    assert_cases(tmp_path, [unit_test(name, changes, set()) for name, changes in QUIET.items()])


@needs_promtool
def test_a_healthy_system_raises_none_and_a_dead_worker_whose_series_are_gone_raises_one(tmp_path):
    name = "a dead worker among others"
    assert_cases(tmp_path, [unit_test("healthy", {}, set()), unit_test(name, *FIRING[name])])


@needs_promtool
@pytest.mark.slow
@pytest.mark.parametrize(("hours", "expected"), [(2, []), (4, ["VerificationNotRun"])])
def test_a_system_that_has_never_verified_anything_raises_an_alert_after_three_hours(tmp_path, hours, expected):
    case = {
        "interval": "1m",
        "input_series": [{"series": 'orderflow_up{component="database"}', "values": f"1x{5 * HOUR}"}],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertname="VerificationNotRun",alertstate="firing"})',
                "eval_time": f"{hours}h",
                "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in expected],
            }
        ],
    }
    assert_cases(tmp_path, [case])


def test_each_alert_has_a_case_in_which_it_fires():
    assert set().union(*(expected for _, expected in FIRING.values())) == set(catalogue.NAMES)


@needs_promtool
def test_an_alert_says_what_it_means_and_links_to_its_runbook_and_dashboard(tmp_path):
    stuck = unit_test("stuck", {"orderflow_orders_stuck": constant(2)}, {"OrdersStuck"}) | {
        "external_labels": {
            "runbooks": "https://docs.example/runbooks",
            "dashboards": "https://grafana.example/d",
        },
        "alert_rule_test": [
            {
                "eval_time": "2h",
                "alertname": "OrdersStuck",
                "exp_alerts": [
                    {
                        "exp_labels": {"severity": "page"},
                        "exp_annotations": {
                            "summary": "2 unfinished orders are overdue, and nothing resumes them",
                            "impact": catalogue.SYMPTOMS[0].impact,
                            "runbook_url": "https://docs.example/runbooks/OrdersStuck.md",
                            "dashboard_url": "https://grafana.example/d/orderflow-orders",
                        },
                    }
                ],
            }
        ],
    }
    assert_cases(tmp_path, [stuck])


@needs_promtool
@pytest.mark.parametrize("factor", [1, 0.1])
def test_prometheus_accepts_the_files(tmp_path, factor):
    files.write(tmp_path, factor=factor)
    done = subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(catalogue.ALERTS) + len(catalogue.RECORDINGS)} rules found" in done.stdout


@needs_amtool
def test_alertmanager_accepts_its_file(tmp_path):
    files.write(tmp_path)
    done = run(tmp_path, "amtool", "check-config", files.ALERTMANAGER)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", [files.RULES, files.PROMETHEUS, files.ALERTMANAGER])
def test_the_files_that_people_copy_are_up_to_date(name):
    assert (files.FOLDER / name).read_text() == files.rendered()[name], (
        "run: python -m orderflow.alerts --write"
    )


@pytest.mark.parametrize("name", [files.RULES, files.PROMETHEUS, files.ALERTMANAGER])
def test_the_files_are_yaml_that_says_what_was_meant(name):
    made = {
        files.RULES: files._rules(),
        files.PROMETHEUS: files._prometheus(files.Addresses()),
        files.ALERTMANAGER: files._alertmanager(files.Addresses()),
    }[name]
    assert durations.shortened(files.rendered()[name], 1) == files.rendered()[name], "no placeholder is left"
    assert yaml.safe_load(files.rendered()[name]) == yaml.safe_load(
        durations.shortened(yaml.safe_dump(made), 1)
    )


@pytest.mark.parametrize("alert", catalogue.ALERTS, ids=lambda alert: alert.name)
def test_each_alert_says_how_urgent_it_is_and_what_it_means(alert):
    assert alert.severity in (catalogue.PAGE, catalogue.TICKET)
    assert alert.impact.endswith(".")
    assert alert.impact.count(". ") == 0, "one sentence"
    assert alert.dashboard in ("orders", "messages", "workers")


@pytest.mark.parametrize("alert", catalogue.ALERTS, ids=lambda alert: alert.name)
def test_a_condition_that_is_over_clears_its_alert_within_five_minutes(alert):
    """Windows of an hour and more stand beside a short one, or look back for a minimum."""
    used = [rule.expression for rule in catalogue.RECORDINGS if rule.name in alert.expression]
    windows = [
        durations.seconds(part.partition("}")[0])
        for text in (alert.expression, *used)
        for part in text.split("[{")[1:]
        if "min_over_time" not in text and "count_over_time" not in text
    ]
    assert min(windows, default=0) <= 240


@pytest.mark.parametrize("rule", catalogue.INHIBITIONS, ids=lambda rule: rule.source)
def test_inhibitions_name_alerts_that_exist_and_never_themselves(rule):
    assert {rule.source, *rule.targets} <= set(catalogue.NAMES)
    assert rule.source not in rule.targets


def test_all_durations_are_shortened_by_one_factor():
    assert durations.shortened('a{b="c"}[{4m}] > {60} for {30s}', 0.1) == 'a{b="c"}[24s] > 6 for 3s'
    assert durations.shortened("[{15s}]", 0.1) == "[1500ms]"


def test_what_is_no_duration_is_refused():
    with pytest.raises(ValueError, match="no duration"):
        durations.seconds("5 minutes")
