"""
Renders the files of Prometheus and Alertmanager from the catalogue: those in `deploy/prometheus`, which people
copy, and those of the matrix, whose durations are shorter.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orderflow.alerts import catalogue
from orderflow.alerts.catalogue import PAGE, TICKET, Alert, Inhibition
from orderflow.alerts.durations import shortened

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
RULES, PROMETHEUS, ALERTMANAGER = "rules.yml", "prometheus.yml", "alertmanager.yml"

INTERVAL = "{15s}"
"""Of scrapes and evaluations: the shortest window of a rule contains twelve."""

GROUP = "orderflow"
HEADER = "# Rendered by `python -m orderflow.alerts --write`; the source is orderflow/alerts/catalogue.py.\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Addresses:
    """
    What differs between installations. `runbooks` and `dashboards` are the beginnings of the links in alerts.

    `exporters` serve the metrics of rows and broker. `processes` names files that list the processes with
    metrics of their own (`file_sd_configs`). `receivers` has a webhook for each severity, or an empty address:
    then nobody is told, and the alerts are on Alertmanager's page only.
    """

    exporters: Sequence[str] = ("127.0.0.1:9808",)
    processes: Sequence[str] = ("/etc/prometheus/orderflow/*.json",)
    alertmanager: str = "127.0.0.1:9093"
    runbooks: str = "https://orderflow.example/docs/runbooks"
    dashboards: str = "https://grafana.orderflow.example/d"
    receivers: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: {PAGE: "http://127.0.0.1:9095/page", TICKET: "http://127.0.0.1:9095/ticket"}
    )


def rendered(addresses: Addresses | None = None, *, factor: float = 1) -> dict[str, str]:
    """Return the files' texts by name; `factor` multiplies all durations."""
    addresses = addresses or Addresses()
    return {
        RULES: shortened(HEADER + _yaml(_rules()), factor),
        PROMETHEUS: shortened(HEADER + PROMETHEUS_COMMENT + _yaml(_prometheus(addresses)), factor),
        ALERTMANAGER: shortened(HEADER + ALERTMANAGER_COMMENT + _yaml(_alertmanager(addresses)), factor),
    }


def write(folder: Path = FOLDER, addresses: Addresses | None = None, *, factor: float = 1) -> None:
    """Write the files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in rendered(addresses, factor=factor).items():
        (folder / name).write_text(text)


def _rules() -> dict[str, Any]:
    recordings = [{"record": rule.name, "expr": rule.expression} for rule in catalogue.RECORDINGS]
    return {
        "groups": [
            {"name": f"{GROUP}-recordings", "interval": INTERVAL, "rules": recordings},
            {
                "name": f"{GROUP}-symptoms",
                "interval": INTERVAL,
                "rules": [_rule(alert) for alert in catalogue.SYMPTOMS],
            },
            {
                "name": f"{GROUP}-causes",
                "interval": INTERVAL,
                "rules": [_rule(alert) for alert in catalogue.CAUSES],
            },
        ]
    }


def _rule(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expression,
        **({"for": alert.lasts} if alert.lasts else {}),
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "impact": alert.impact,
            "runbook_url": f"{{{{ $externalLabels.runbooks }}}}/{alert.name}.md",
            "dashboard_url": f"{{{{ $externalLabels.dashboards }}}}/orderflow-{alert.dashboard}",
        },
    }


PROMETHEUS_COMMENT = """\
# `runbooks` and `dashboards` are the beginnings of the links in alerts. They are no labels of alerts: they are
# dropped before Alertmanager gets these. A token for /metrics belongs in `authorization` of the first job.
"""


def _prometheus(addresses: Addresses) -> dict[str, Any]:
    return {
        "global": {
            "scrape_interval": INTERVAL,
            "scrape_timeout": "{10s}",
            "evaluation_interval": INTERVAL,
            "external_labels": {"runbooks": addresses.runbooks, "dashboards": addresses.dashboards},
        },
        "rule_files": [RULES],
        "alerting": {
            "alert_relabel_configs": [{"action": "labeldrop", "regex": "runbooks|dashboards"}],
            "alertmanagers": [{"static_configs": [{"targets": [addresses.alertmanager]}]}],
        },
        "scrape_configs": [
            {"job_name": "orderflow", "static_configs": [{"targets": list(addresses.exporters)}]},
            {
                "job_name": "orderflow-processes",
                "file_sd_configs": [{"files": list(addresses.processes), "refresh_interval": "{30s}"}],
            },
        ],
    }


ALERTMANAGER_COMMENT = """\
# Replace the two webhooks by what wakes somebody (page) and by what is read within a working day (ticket). The
# inhibitions keep the consequences of a cause from being sent while the cause itself fires.
"""


def _alertmanager(addresses: Addresses) -> dict[str, Any]:
    return {
        "route": {
            "receiver": PAGE,
            "group_by": ["alertname"],
            "group_wait": "{20s}",
            "group_interval": "{1m}",
            "repeat_interval": "{4h}",
            "routes": [{"receiver": TICKET, "matchers": [f'severity="{TICKET}"'], "repeat_interval": "{24h}"}],
        },
        "inhibit_rules": [_inhibition(rule) for rule in catalogue.INHIBITIONS],
        "receivers": [
            {"name": name, **({"webhook_configs": [{"url": url, "send_resolved": True}]} if url else {})}
            for name, url in addresses.receivers.items()
        ],
    }


def _inhibition(rule: Inhibition) -> dict[str, Any]:
    return {
        "source_matchers": [f'alertname="{rule.source}"'],
        "target_matchers": [f'alertname=~"{"|".join(rule.targets)}"'],
        **({"equal": list(rule.equal)} if rule.equal else {}),
    }


def _yaml(value: Mapping[str, Any]) -> str:
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Any) -> Iterator[str]:
    """The lines of a mapping or list. Strings are quoted as in JSON, which is YAML, unless they are words."""
    entries = value.items() if isinstance(value, Mapping) else [("-", item) for item in value]
    for name, item in entries:
        label = name if name == "-" else f"{name}:"
        if not isinstance(item, Mapping | list) or not item:
            yield f"{label} {_scalar(item)}"
        elif name == "-":
            first, *others = _lines(item)
            yield f"- {first}"
            yield from (f"  {line}" for line in others)
        else:
            yield label
            yield from (f"  {line}" for line in _lines(item))


def _scalar(value: Any) -> str:
    is_word = isinstance(value, str) and value.replace("_", "").replace(":", "").replace("-", "").isalnum()
    if is_word and not value[0].isdigit() and value not in ("yes", "no", "on", "off", "true", "false", "null"):
        return str(value)
    return json.dumps(value, ensure_ascii=False)
