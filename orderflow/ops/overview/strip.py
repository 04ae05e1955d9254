"""The status strip: how the database, the broker, the processes, the queues and the providers are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from django.urls import reverse

from orderflow import health
from orderflow.ops.overview import amounts, servers
from orderflow.ops.overview.moment import Moment
from orderflow.ops.overview.parts import Part, State
from orderflow.ops.overview.patience import Known
from outbox import periodic, processes
from outbox.broker.inspection import QueueLength
from outbox.resilience import Circuit
from outbox.verification.examination import PASSING

SILENT_FOR = 2.0
"""The broker does not answer if it has been asked for so many seconds; see `broker_connection_timeout`."""

VERIFY = "outbox.tasks.verify"


def database(milliseconds: float | None, trouble: str) -> Part:
    """The database, by what became of the page's own queries; `milliseconds` is what the first one took."""
    took = "" if milliseconds is None else f"in {amounts.duration(milliseconds / 1000)}"
    return Part(
        slug="database",
        name="Database",
        state=State.BAD if trouble else State.GOOD,
        word=trouble or "answers",
        detail="" if trouble else took,
        runbook="DatabaseDown",
    )


def broker(known: Known[servers.Broker] | None, *, pending: float | None) -> Part:
    """The broker. That it does not answer delays work; orders are accepted."""
    if known is None and pending and pending < SILENT_FOR:
        detail = f"not yet, after {amounts.duration(pending)}"
        return Part(slug="broker", name="Broker", state=State.UNKNOWN, word="unknown", detail=detail)
    if known is None or known.answer is None:
        # The text of the error is in the log of whoever needs the broker; it may name hosts and accounts.
        silent = f"for {amounts.duration(pending)}" if pending else "within the time that a page has"
        why = type(known.error).__name__ if known and known.error else silent
        return Part(
            slug="broker",
            name="Broker",
            state=State.BAD,
            word="does not answer",
            detail=f"{why}; orders are accepted, and wait in the outbox",
            runbook="BrokerDown",
        )
    if wrong := known.answer.wrong_keys:
        return Part(
            slug="broker",
            name="Broker",
            state=State.WARN,
            word="holds keys of another type",
            detail="; ".join(f"{key}: {what}" for key, what in sorted(wrong.items())),
            runbook="BrokerDown",
        )
    detail = f"in {amounts.duration(known.answer.milliseconds / 1000)}"
    return Part(slug="broker", name="Broker", state=State.GOOD, word="answers", detail=detail)


def oldest_due(seconds: float | None) -> Part:
    """The age of the oldest message that is due: how far the relay is behind."""
    if seconds is None:
        return _unknown("oldest-due", "Oldest due message")
    late = seconds > health.LATE
    return Part(
        slug="oldest-due",
        name="Oldest due message",
        state=State.BAD if late else State.GOOD,
        word=amounts.duration(seconds) if seconds else "none waits",
        detail=f"late: more than {amounts.duration(health.LATE)}" if late else "",
        url=f"{reverse('admin:outbox_outboxmessage_changelist')}?status__exact=pending",
        link="pending messages",
        runbook="OutboxStalled",
    )


ROLES = {"relay": "Relay", "beat": "Beat", "worker": "Workers"}


def of_processes(found: Sequence[processes.Standing] | None) -> Iterator[Part]:
    """The relay, beat and the workers, by the heartbeats that they write."""
    for role, name in ROLES.items():
        if found is None:
            yield _unknown(role, name)
        else:
            yield _process(role, name, [one for one in found if one.role == role], f"{role.capitalize()}Gone")


def _unknown(slug: str, name: str) -> Part:
    return Part(slug=slug, name=name, state=State.UNKNOWN, word="unknown", detail="the database did not say")


def _process(slug: str, name: str, found: Sequence[processes.Standing], runbook: str) -> Part:
    alive, gone = sum(one.alive for one in found), sum(one.gone for one in found)
    seen = max((one.oldest_seen_seconds for one in found if one.oldest_seen_seconds is not None), default=None)
    detail = f"seen {amounts.ago(seen)}" if seen is not None else ""
    if gone:
        pools = ", ".join(sorted(one.pool or one.role for one in found if one.gone))
        state, word, detail = State.BAD, f"{gone} gone", f"{pools}; {alive} alive; last {detail}"
    elif alive:
        state, word = State.GOOD, f"{alive} alive"
    elif found:
        state, word, detail = State.BAD, "stopped", "ended in order, and not started again"
    else:
        state, word, detail = State.BAD, "never seen", "no heartbeat in the last day"
    return Part(slug=slug, name=name, state=state, word=word, detail=detail, runbook=runbook)


def sweeps(found: Sequence[periodic.Standing] | None) -> Part:
    """The periodic tasks: sweeps, drains and checks, by the rows in which each records that it was done."""
    if found is None:
        return _unknown("sweeps", "Sweeps, periodic tasks")
    late = [one for one in found if one.is_late]
    failing = [one for one in found if one.error and not one.is_late]
    if not late and not failing:
        oldest = max((one.seconds_ago or 0 for one in found), default=0)
        never = sum(one.seconds_ago is None for one in found)
        detail = f"{never} not done yet" if never else f"the longest ago {amounts.ago(oldest)}"
        return Part(
            slug="sweeps",
            name="Sweeps, periodic tasks",
            state=State.GOOD,
            word=f"{len(found)} on time",
            detail=detail,
        )
    named = [f"{one.name} {amounts.ago(one.seconds_ago)}" for one in late] + [one.name for one in failing]
    words = [f"{len(late)} late"] * bool(late) + [f"{len(failing)} failing"] * bool(failing)
    return Part(
        slug="sweeps",
        name="Sweeps, periodic tasks",
        state=State.BAD if late else State.WARN,
        word=", ".join(words),
        detail=", ".join(named),
        runbook="SweepNotRunning",
    )


def queues(
    names: Iterable[str], known: Known[servers.Broker] | None, found: Sequence[processes.Standing] | None
) -> Iterator[Part]:
    """
    Each queue: its messages and, if the broker counts them, its consumers.

    Redis knows no consumers; then the living processes that consume the queue count.
    """
    lengths = known.answer.queues if known and known.answer else {}
    for name in names:
        length = lengths.get(name)
        consumers = None if found is None else sum(one.alive for one in found if name in one.queues)
        if length is not None and length.consumers is not None:
            consumers = length.consumers
        if consumers is None:
            state, word = State.UNKNOWN, "consumers unknown"
        elif consumers:
            state, word = State.GOOD, amounts.counted(consumers, "consumer")
        else:
            state, word = State.BAD, "no consumers"
        yield Part(
            slug=f"queue-{name}",
            name=name,
            state=State.UNKNOWN if length is None and state is State.GOOD else state,
            word=word,
            detail=_messages(length),
            runbook="QueueWithoutConsumers",
        )


def _messages(length: QueueLength | None) -> str:
    if length is None:
        return "an unknown number of messages waits"
    held = "" if length.unacknowledged is None else f", {amounts.exact(length.unacknowledged)} unacknowledged"
    return f"{amounts.exact(length.ready)} waiting{held}"


def breakers(names: Sequence[str], known: Known[servers.Providers] | None) -> Iterator[Part]:
    """Each provider's breaker."""
    answer = known.answer if known else None
    for name in names:
        circuit = answer.circuits.get(name) if answer else None
        refused = answer.refused.get(name, "") if answer else ""
        yield _breaker(name, circuit or Circuit(state="unknown"), refused)


def _breaker(name: str, circuit: Circuit, refused: str) -> Part:
    since = f"for {amounts.duration(circuit.open_seconds)}" if circuit.open_seconds is not None else ""
    runbook = "ProviderDown"
    if refused:
        state, word, detail, runbook = State.BAD, "refuses our settings", refused, "CredentialsRefused"
    elif circuit.state == "closed":
        state, word, detail = State.GOOD, "closed", "calls go through"
    elif circuit.state == "open":
        state, word, detail = State.BAD, "open", f"{since}; its work waits, and spends no attempts".lstrip("; ")
    elif circuit.state == "half-open":
        state, word, detail = State.WARN, "half-open", f"{since}; probes are under way".lstrip("; ")
    else:
        state, word, detail = State.UNKNOWN, "unknown", "Redis does not answer, and each process has its own"
    return Part(slug=f"breaker-{name}", name=name, state=state, word=word, detail=detail, runbook=runbook)


def verification(now: Moment | None) -> Part:
    """The verdict of the last verification, and how old it is."""
    if now is None:
        return _unknown("verification", "Verification")
    run, is_late = now.verification, any(one.is_late for one in now.tasks or () if one.name == VERIFY)
    url = reverse("admin:outbox_verification_change", args=[run.pk]) if run else ""
    detail, runbook = amounts.ago(now.verified_seconds_ago), "VerificationNotRun"
    if run is None:
        state, word, detail = State.WARN, "never run", "nobody knows whether every promise is kept"
    elif not run.passed:
        names = [str(one["name"]) for one in run.findings if one["verdict"] not in PASSING]
        state, word, runbook = State.BAD, "not as promised", "VerificationViolated"
        detail = f"{', '.join(names) or 'see the verdict'}; {detail}"
    elif is_late:
        state, word, detail = State.WARN, "passed, but long ago", detail
    else:
        state, word = State.GOOD, "passed"
    return Part(
        slug="verification",
        name="Verification",
        state=state,
        word=word,
        detail=detail,
        url=url,
        link="the verdict",
        runbook=runbook,
    )
