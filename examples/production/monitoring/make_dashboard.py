"""Write grafana/dashboards/isotoken.json from dashboard.toml: `python make_dashboard.py`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DESCRIPTION = HERE / "dashboard.toml"
DASHBOARD = HERE / "grafana" / "dashboards" / "isotoken.json"

WIDTH = 24  # of Grafana's grid
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
LABELS = {"job": "llm_ready", "model": "llm_engine_ready", "tenant": "llm_tenant_requests_total"}
"""What the dashboard can be narrowed to, and where the values come from."""


def dashboard(description: dict[str, Any]) -> dict[str, Any]:
    """Return Grafana's JSON model of the dashboard."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row in description["row"]:
        panels.append(_row(row["title"], top, len(panels) + 1))
        top += 1
        for position, panel in enumerate(row["panel"]):
            across = min(len(row["panel"]), 6 if row["height"] < 7 else 3)
            line, column = divmod(position, across)
            width = WIDTH // across
            place = {"x": column * width, "y": top + line * row["height"], "w": width, "h": row["height"]}
            panels.append(_panel(panel, place, len(panels) + 1))
        top += row["height"] * -(-len(row["panel"]) // across)
    return {
        "title": description["title"],
        "uid": description["uid"],
        "tags": ["isotoken", "llm"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "",
        "annotations": {"list": [_restarts()]},
        "templating": {"list": [_datasource_variable(), *(_variable(name, of) for name, of in LABELS.items())]},
        "panels": panels,
    }


def _row(title: str, top: int, number: int) -> dict[str, Any]:
    place = {"x": 0, "y": top, "w": WIDTH, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _panel(panel: dict[str, Any], place: dict[str, int], number: int) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + i), "datasource": DATASOURCE, "expr": query, "legendFormat": legend, "range": True}
        for i, (legend, query) in enumerate(panel["queries"])
    ]
    is_curve = panel["kind"] == "timeseries"
    custom = {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "spanNulls": True} if is_curve else {}
    curve = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    number_only = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
    return {
        "id": number,
        "type": panel["kind"],
        "title": panel["title"],
        "description": panel["about"],
        "gridPos": place,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": {"unit": panel["unit"], "min": 0, "custom": custom}, "overrides": []},
        "options": curve if is_curve else number_only,
        "targets": targets,
    }


def _restarts() -> dict[str, Any]:
    """Mark on every curve when an engine was started again."""
    return {
        "name": "Engine restarts",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'increase(llm_engine_restarts_total{job=~"$job"}[1m]) > 0',
        "titleFormat": "{{model}} restarted",
    }


def _datasource_variable() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _variable(label: str, metric: str) -> dict[str, Any]:
    query = f"label_values({metric}, {label})"
    return {
        "name": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": label},
        "definition": query,
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def main() -> None:
    """Write the file."""
    model = dashboard(tomllib.loads(DESCRIPTION.read_text("utf-8")))
    DASHBOARD.write_text(json.dumps(model, indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
