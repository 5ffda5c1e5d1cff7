"""Budgets for a monitoring system: checked limits in, Prometheus text or a Grafana dashboard out.

The text is Prometheus' exposition format 0.0.4, for a node exporter's textfile collector or a
pushgateway; the dashboard asks a Prometheus for these very names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeres.measurement.budgets import MEASURES, Result

_METRICS = {
    "edgeres_budget_value": "What was measured, in the unit that the measure's name says.",
    "edgeres_budget_limit": "What the measure may be at most, or has to be at least.",
    "edgeres_budget_met": "1 if the budget is met; 0 if it is missed or was not measured.",
}
# how a measure ends -> Grafana's unit
_UNITS = {"_ms": "ms", "_mb": "decmbytes", "_kb": "deckbytes", "_mj": "mJ", "accuracy":
          "percentunit", "agreement": "percentunit"}  # fmt: skip
_PANEL = (8, 8)  # width of 24, height


def prometheus(results: Sequence[Result], run: str) -> str:
    """The three metrics of each budget."""
    lines = []
    for metric, words in _METRICS.items():
        lines += [f"# HELP {metric} {words}", f"# TYPE {metric} gauge"]
        for number, result in enumerate(results, 1):
            value = {"edgeres_budget_value": result.value, "edgeres_budget_limit": result.limit,
                     "edgeres_budget_met": float(result.verdict == "pass")}[metric]  # fmt: skip
            if value is not None:
                lines.append(f"{metric}{{{_labels(result, run, number)}}} {value:.10g}")
    return "\n".join(lines) + "\n"


def dashboard(results: Sequence[Result], run: str) -> dict[str, object]:
    """A dashboard with what is met on top and a panel per measure, value beside limit."""
    measures = list(dict.fromkeys(result.measure for result in results))
    met = {
        "id": 1, "type": "stat", "title": "Budgets met", "gridPos": _place(0, 0, 24, 5),
        "datasource": _SOURCE, "options": {"colorMode": "background", "textMode": "name"},
        "targets": [_query(f'edgeres_budget_met{{run="{_escaped(run)}"}}',
                           "{{measure}} {{target}} {{device}}")],
        "fieldConfig": {"overrides": [], "defaults": {"thresholds": {
            "mode": "absolute", "steps": [{"color": "red", "value": None},
                                          {"color": "green", "value": 1}]}}},
    }  # fmt: skip
    panels = [met, *(_panel(i, measure, run) for i, measure in enumerate(measures))]
    return {
        "title": f"edgeres budgets: {run}", "uid": None, "schemaVersion": 39, "version": 1,
        "editable": True, "tags": ["edgeres"], "timezone": "browser", "refresh": "1m",
        "time": {"from": "now-7d", "to": "now"}, "annotations": {"list": []},
        "templating": {"list": [{"name": "source", "label": "Data source", "type": "datasource",
                                 "query": "prometheus"}]},
        "panels": panels,
    }  # fmt: skip


_SOURCE = {"type": "prometheus", "uid": "${source}"}


def _panel(index: int, measure: str, run: str) -> dict[str, object]:
    width, height = _PANEL
    at_most = measure in MEASURES and MEASURES[measure][1]
    chosen = f'{{run="{_escaped(run)}",measure="{measure}"}}'
    unit = next((u for end, u in _UNITS.items() if measure.endswith(end)), "short")
    return {
        "id": index + 2, "type": "timeseries", "datasource": _SOURCE,
        "title": f"{measure} ({'at most' if at_most else 'at least'} the limit)",
        "gridPos": _place(width * (index % 3), 5 + height * (index // 3), width, height),
        "targets": [_query(f"edgeres_budget_value{chosen}", "{{target}} {{device}}", "A"),
                    _query(f"edgeres_budget_limit{chosen}", "limit {{target}} {{device}}", "B")],
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": [{
            "matcher": {"id": "byFrameRefID", "options": "B"},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": "red"}}],
        }]},
    }  # fmt: skip


def _query(expression: str, legend: str, name: str = "A") -> dict[str, object]:
    return {"refId": name, "expr": expression, "legendFormat": legend, "datasource": _SOURCE}


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _labels(result: Result, run: str, number: int) -> str:
    """The number keeps two limits on the same measure apart."""
    values: Mapping[str, str] = {"run": run, "measure": result.measure, "target": result.target,
                                 "device": result.device, "budget": str(number)}  # fmt: skip
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in values.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
