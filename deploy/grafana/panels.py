"""
What a dashboard consists of, and its JSON for Grafana 11 and newer.

A panel names its queries, its unit and the value from which something is wrong, in words for a person who is
woken at night. Its links lead to the runbook of the alert that watches the same value, and to the page of the
admin that shows the rows behind it.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

SCHEMA_VERSION = 39
"""Of Grafana 11.0; newer versions convert the JSON when they load it."""

COLUMNS = 24
"""Grafana's grid is this wide; see `gridPos` in its documentation of the dashboard's JSON."""

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WEB = "http://localhost:8000"
"""Where the admin is, unless `deploy/grafana/start` writes another address into the dashboards."""

RUNBOOKS = "https://orderflow.example/docs/runbooks"
"""Where your copy of docs/runbooks is; the same beginning as in the links of alerts. `start` writes it, too."""

TAG = "orderflow"

SECONDS, BYTES, SHARE, NUMBER, PER_SECOND = "s", "bytes", "percentunit", "short", "cps"


class Kind(enum.Enum):
    """How a panel shows its values: Grafana's name of the visualization."""

    STAT = "stat"
    LINES = "timeseries"
    BARS = "bargauge"
    STATES = "state-timeline"
    HEATMAP = "heatmap"
    TEXT = "text"


@dataclasses.dataclass(frozen=True)
class Query:
    """A PromQL expression. `legend` names its series; `{{label}}` stands for the value of a label."""

    expression: str
    legend: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """From `warning` on a value is yellow, from `critical` on red; `falling`: the lower, the worse."""

    warning: float | None = None
    critical: float | None = None
    falling: bool = False

    def steps(self) -> list[dict[str, Any]]:
        """Return Grafana's steps, each of which is the color from its value upwards."""
        marks = [("yellow", self.warning), ("red", self.critical)]
        known = [(color, value) for color, value in marks if value is not None]
        if not self.falling:
            return [{"color": "green", "value": None}, *({"color": c, "value": v} for c, v in known)]
        colors = [color for color, _ in reversed(known)] + ["green"]
        values = [None, *(value for _, value in reversed(known))]
        return [{"color": color, "value": value} for color, value in zip(colors, values, strict=True)]


NO_LIMITS = Limits()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
    """
    One panel. `alerts` are the alerts that watch its value, and have a runbook each; `admin` is the path of the
    page below /admin/ that shows the rows behind it.

    What the exporter reads from rows has the same value at every process that serves /metrics: queries take the
    maximum over processes. What processes count for themselves is added up.
    """

    title: str
    description: str
    queries: tuple[Query, ...] = ()
    kind: Kind = Kind.LINES
    unit: str = NUMBER
    limits: Limits = NO_LIMITS
    alerts: tuple[str, ...] = ()
    admin: str = ""
    width: int = 8
    height: int = 7
    stacked: bool = False
    decimals: int | None = None
    nothing: str = "no data"
    """What is shown while there is no value."""
    words: tuple[tuple[float, str, str], ...] = ()
    """Values that are shown as a word: the value, the word, its color."""

    def links(self) -> list[dict[str, Any]]:
        """Return the panel's links: first the runbooks, then the admin."""
        found = [(f"Runbook: {alert}", f"${{runbooks:raw}}/{alert}.md") for alert in self.alerts]
        if self.admin:
            found.append(("Admin: the rows behind it", f"${{web:raw}}/admin/{self.admin}"))
        return [{"title": title, "url": url, "targetBlank": True} for title, url in found]

    def as_json(self, number: int, *, x: int, y: int) -> dict[str, Any]:
        """Return the panel at a place of the grid."""
        panel: dict[str, Any] = {
            "id": number,
            "type": self.kind.value,
            "title": self.title,
            "description": self.description,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
        }
        if self.kind is Kind.TEXT:
            content = {"mode": "markdown", "content": self.description}
            return {**panel, "description": "", "transparent": True, "options": content, "links": self.links()}
        return {
            **panel,
            "datasource": DATASOURCE,
            "targets": [
                self._target(query, letter) for query, letter in zip(self.queries, "ABCDEF", strict=False)
            ],
            "fieldConfig": {"defaults": self._defaults(), "overrides": []},
            "options": self._options(),
            "links": self.links(),
        }

    def _target(self, query: Query, letter: str) -> dict[str, Any]:
        is_now = self.kind in (Kind.STAT, Kind.BARS)
        return {
            "refId": letter,
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": query.expression,
            "legendFormat": query.legend or "__auto",
            "instant": is_now,
            "range": not is_now,
            **({"format": "heatmap"} if self.kind is Kind.HEATMAP else {}),
        }

    def _defaults(self) -> dict[str, Any]:
        steps = self.limits.steps()
        defaults: dict[str, Any] = {
            "unit": self.unit,
            "noValue": self.nothing,
            "thresholds": {"mode": "absolute", "steps": steps},
            "color": {"mode": "palette-classic" if self.kind is Kind.LINES else "thresholds"},
            "mappings": [
                {"type": "value", "options": {f"{value:g}": {"text": word, "color": color, "index": index}}}
                for index, (value, word, color) in enumerate(self.words)
            ],
        }
        if self.decimals is not None:
            defaults["decimals"] = self.decimals
        if self.kind is Kind.LINES:
            defaults["min"] = 0
            defaults["custom"] = {
                "drawStyle": "line",
                "lineWidth": 1,
                "fillOpacity": 30 if self.stacked else 0,
                "showPoints": "never",
                "spanNulls": False,
                "stacking": {"mode": "normal" if self.stacked else "none", "group": "A"},
                "thresholdsStyle": {"mode": "dashed" if len(steps) > 1 else "off"},
            }
        return defaults

    def _options(self) -> dict[str, Any]:
        if self.kind is Kind.LINES:
            return {
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
        if self.kind is Kind.HEATMAP:
            return {
                "calculate": False,
                "yAxis": {"unit": self.unit},
                "cellValues": {"unit": NUMBER},
                "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
            }
        if self.kind is Kind.STATES:
            return {"showValue": "auto", "mergeValues": True, "rowHeight": 0.8}
        reduced = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
        if self.kind is Kind.BARS:
            return {**reduced, "orientation": "horizontal", "displayMode": "basic", "valueMode": "color"}
        return {**reduced, "colorMode": "value", "graphMode": "none", "textMode": "auto", "wideLayout": True}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variable:
    """A choice at the top of a dashboard: the values of one label of a metric. Several can be chosen."""

    label: str
    metric: str
    title: str

    def as_json(self) -> dict[str, Any]:
        """Return the variable, with all values selected."""
        query = f"label_values({self.metric}, {self.label})"
        return {
            "type": "query",
            "name": self.label,
            "label": self.title,
            "datasource": DATASOURCE,
            "definition": query,
            "query": {"query": query, "refId": self.label},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annotation:
    """Marks in all plots of a dashboard, while a query has a value."""

    title: str
    query: Query
    color: str

    def as_json(self) -> dict[str, Any]:
        """Return the annotation, switched on."""
        return {
            "name": self.title,
            "datasource": DATASOURCE,
            "enable": True,
            "hide": False,
            "iconColor": self.color,
            "expr": self.query.expression,
            "titleFormat": self.query.legend,
            "step": "15s",
        }


ANNOTATIONS = (
    Annotation(
        title="Alerts",
        query=Query('ALERTS{alertstate="firing"}', "{{alertname}}"),
        color="red",
    ),
    Annotation(
        title="Releases",
        query=Query(
            "count by (version) (orderflow_build_info)"
            " unless count by (version) (orderflow_build_info offset 2m)",
            "release {{version}}",
        ),
        color="blue",
    ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dashboard:
    """Rows of panels, from left to right. The uid never changes: addresses of the dashboard contain it."""

    uid: str
    title: str
    description: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    variables: tuple[Variable, ...] = ()

    def panels(self) -> list[Panel]:
        """Return all panels, in the order in which they are read."""
        return [panel for _, panels in self.rows for panel in panels]

    def as_json(self) -> dict[str, Any]:
        """Return the dashboard as Grafana stores it."""
        return {
            "uid": self.uid,
            "title": f"OrderFlow: {self.title}",
            "description": self.description,
            "tags": [TAG],
            "schemaVersion": SCHEMA_VERSION,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-6h", "to": "now"},
            "timezone": "browser",
            "templating": {"list": self._variables()},
            "annotations": {"list": [note.as_json() for note in ANNOTATIONS]},
            "links": _links(),
            "panels": self._panels(),
        }

    def _variables(self) -> list[dict[str, Any]]:
        datasource = {
            "type": "datasource",
            "name": "datasource",
            "label": "Prometheus",
            "query": "prometheus",
            "refresh": 1,
            "current": {},
        }
        return [
            datasource,
            *(variable.as_json() for variable in self.variables),
            _constant("web", WEB),
            _constant("runbooks", RUNBOOKS),
        ]

    def _panels(self) -> list[dict[str, Any]]:
        written: list[dict[str, Any]] = []
        y = 0
        for title, panels in self.rows:
            place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
            written.append(
                {
                    "id": len(written) + 1,
                    "type": "row",
                    "title": title,
                    "collapsed": False,
                    "gridPos": place,
                    "panels": [],
                }
            )
            y += 1
            x = height = 0
            for panel in panels:
                if x + panel.width > COLUMNS:
                    x, y, height = 0, y + height, 0
                written.append(panel.as_json(len(written) + 1, x=x, y=y))
                x, height = x + panel.width, max(height, panel.height)
            y += height
        return written


def _constant(name: str, value: str) -> dict[str, Any]:
    """Return a variable that neither a reader nor an address can change: it is part of links."""
    chosen = {"selected": True, "text": value, "value": value}
    return {
        "type": "constant",
        "name": name,
        "query": value,
        "current": chosen,
        "options": [chosen],
        "hide": 2,
        "skipUrlSync": True,
    }


def _links() -> list[dict[str, Any]]:
    others = {"type": "dashboards", "title": "OrderFlow", "tags": [TAG], "asDropdown": False}
    pages = [("Admin", "${web:raw}/admin/"), ("Runbooks", "${runbooks:raw}")]
    return [
        {**others, "keepTime": True, "includeVars": False, "icon": "external link"},
        *(
            {"type": "link", "title": title, "url": url, "targetBlank": True, "icon": "doc"}
            for title, url in pages
        ),
    ]
