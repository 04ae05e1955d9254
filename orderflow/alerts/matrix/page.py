"""The result of the matrix: as lines, as JSON and as the page docs/alerts.md."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from orderflow.alerts import catalogue
from orderflow.alerts.matrix import cases
from orderflow.alerts.matrix.cases import LATE
from orderflow.alerts.matrix.matrix import Outcome, Result, Row

INTRODUCTION = """\
# Alerts

What each alert means is in its runbook; the rules are in
[deploy/prometheus](../deploy/prometheus/rules.yml). They are rendered from `orderflow/alerts/catalogue.py`
by `python -m orderflow.alerts --write`, with your addresses as options. [Decision
0045](decisions/0045-alerts-are-proved-by-faults.md) has the reasons.

## Which alerts there are

"""

PROOF = """\
## Which fault raises which alert, and how fast

`python3 run.py alerts` starts a stack with a real Prometheus and Alertmanager, places orders all the time,
injects one fault after the other, and follows the runbook of the first alert: the commands below its
heading “Mitigation”. It fails if an expected alert does not fire or nobody is told of it, if another one
fires, if the runbook does not clear all of them within five minutes, or if any alert fires in the healthy
time before. `--page docs/alerts.md` writes this page.
"""

COLUMNS = """
| Fault | Alert | Fires after | Somebody is told after | Clears after mitigation |
|---|---|---:|---:|---:|
"""


NOTES = f"""
**Bold** alerts must fire. The others may: they say something true about the same fault. What was late during an
outage is late when it is done after it, so {", ".join(LATE[:-1])} and
{LATE[-1]} accompany many faults. *inhibited*: Alertmanager keeps it back while the alert of its cause fires.
"""


def lines(result: Result) -> Iterator[str]:
    """The verdict and all problems, for the terminal."""
    for outcome in result.outcomes:
        yield f"{'FAIL' if outcome.problems else 'ok':5}{outcome.case.name}"
        yield from (f"       {problem}" for problem in outcome.problems)
    yield from (f"FAIL {problem}" for problem in result.problems)
    yield "PASS" if result.passed else "FAIL"


def as_json(result: Result) -> str:
    """The result as JSON."""
    outcomes = [
        {
            "case": outcome.case.name,
            "fault": outcome.case.fault,
            "rows": [dataclasses.asdict(row) for row in outcome.rows],
            "commands": outcome.commands,
            "problems": outcome.problems,
        }
        for outcome in result.outcomes
    ]
    return json.dumps(dataclasses.asdict(result) | {"outcomes": outcomes, "passed": result.passed}, indent=1)


def with_earlier(result: Result, text: str) -> Result:
    """Return the result together with those of other faults in the JSON of an earlier run."""
    earlier = json.loads(text)
    again = {outcome.case.name for outcome in result.outcomes}
    outcomes = [
        Outcome(
            case=case,
            rows=[Row(**row) for row in outcome["rows"]],
            commands=outcome["commands"],
            problems=outcome["problems"],
        )
        for outcome in earlier["outcomes"]
        for case in cases.CASES
        if case.name == outcome["case"] and case.name not in again
    ]
    return dataclasses.replace(
        result,
        healthy_seconds=result.healthy_seconds + earlier["healthy_seconds"],
        placed=result.placed + earlier["placed"],
        outcomes=sorted(
            [*result.outcomes, *outcomes], key=lambda outcome: cases.NAMES.index(outcome.case.name)
        ),
    )


def write(result: Result, path: Path) -> None:
    """Write the page."""
    path.write_text(markdown(result))


def markdown(result: Result) -> str:
    """Return the page."""
    proof = (PROOF, _conditions(result), COLUMNS, *_rows(result), NOTES)
    return "".join([INTRODUCTION, *_catalogue(), "\n", *proof])


def _catalogue() -> Iterator[str]:
    yield "| Alert | Severity | Impact |\n|---|---|---|\n"
    for alert in catalogue.ALERTS:
        yield f"| [{alert.name}](runbooks/{alert.name}.md) | {alert.severity} | {alert.impact} |\n"


def _conditions(result: Result) -> str:
    times = f"{1 / result.factor:g}"
    return f"""
Measured on {result.label}, with {result.placed} orders at {result.rate:g} per second and
{result.healthy_seconds:.0f} seconds without a fault before the first one. All durations of the rules, the
intervals of Prometheus and Alertmanager, the heartbeats and the objective of 60 seconds were divided by
{times}: most times are {times} times as long in production. Not divided is what does not depend on the rules,
such as the probes of a breaker, the start of a process and the reconnection to a broker.
"""


def _rows(result: Result) -> Iterator[str]:
    for outcome in result.outcomes:
        fault = outcome.case.fault
        for row in sorted(outcome.rows, key=lambda row: (not row.is_required, row.fired_after)):
            yield f"| {fault} | {_name(row)} | {row.fired_after:.0f} s | {_told(row)} | {_cleared(row)} |\n"
            fault = ""
        if not outcome.rows:
            yield f"| {fault} | none | | | |\n"


def _name(row: Row) -> str:
    return f"**{row.alert}**" if row.is_required else row.alert


def _told(row: Row) -> str:
    return "inhibited" if row.told_after is None else f"{row.told_after:.0f} s"


def _cleared(row: Row) -> str:
    return "not cleared" if row.cleared_after is None else f"{row.cleared_after:.0f} s"
