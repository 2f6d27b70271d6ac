"""`isotoken experiments`: the arms of a running server's experiments beside each other, and where shadows differ."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from .admin import DEFAULT_URL, KeyOption, UrlOption, ask

_MEANS = {
    "latency_seconds": ("latency", 1000.0, "ms"),
    "first_token_seconds": ("first token", 1000.0, "ms"),
    "output_tokens": ("length", 1.0, "tokens"),
    "cost": ("cost", 1.0, ""),
}


def experiments(
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
    shadows: Annotated[bool, typer.Option("--shadows", metavar="", help="Show where shadows differ instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="As JSON, for programs.")] = False,
) -> None:
    """Compare the arms of a running server's experiments: errors, latency, length and cost with 95% intervals.

    After an arm's figure stands how far it is from the first arm's, where that is more than chance would explain.
    """
    told = ask(url, key, "/admin/shadows" if shadows else "/admin/experiments")
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    elif shadows:
        for shadow in told["shadows"]:
            _print_shadow(shadow)
    else:
        for experiment in told["experiments"]:
            _print_experiment(experiment)


def _print_experiment(experiment: dict[str, Any]) -> None:
    typer.echo(f"{experiment['experiment']}: requests for {experiment['model']}, by {experiment['sticky']}")
    rows = [("ARM", "MODEL", "REQUESTS", "ERRORS", *(title.upper() for title, _, _ in _MEANS.values()))]
    rows += [_row(arm) for arm in experiment["arms"]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(arm: dict[str, Any]) -> tuple[str, ...]:
    against = arm.get("difference_from", {}).get("intervals", {})
    errors = _figure(arm["error_rate"]["value"], arm["error_rate"]["interval"], 100.0, "%", against.get("error_rate"))
    means = (
        _figure(arm[name]["mean"], arm[name]["interval"], scale, unit, against.get(name))
        for name, (_, scale, unit) in _MEANS.items()
    )
    return arm["arm"], arm["model"], str(arm["requests"]), errors, *means


def _figure(
    value: float | None, interval: list[float] | None, scale: float, unit: str, against: list[float] | None
) -> str:
    """Return such as "12.1 ms (11.8 to 12.4), +1.2 to +1.9"."""
    if value is None:
        return "-"
    text = f"{value * scale:.4g} {unit}".strip()
    if interval is not None:
        text += f" ({interval[0] * scale:.4g} to {interval[1] * scale:.4g})"
    if against is not None and against[0] * against[1] > 0:
        text += f", {against[0] * scale:+.3g} to {against[1] * scale:+.3g}"
    return text


def _print_shadow(shadow: dict[str, Any]) -> None:
    compared = shadow["equal"] + shadow["differs"]
    typer.echo(
        f"{shadow['target']} in the shadow of {shadow['model']}: {shadow['equal']} of {compared} answers equal, "
        f"{shadow['tokens_compared']} equal tokens, {shadow['skipped']} skipped, {shadow['failed']} failed"
    )
    for reason, count in shadow["reasons"].items():
        typer.echo(f"  {count} times: {reason}")
    for each in shadow["divergences"]:
        served, drawn = (_token(each[name]) for name in ("served", "shadow"))
        margin = "" if each["margin"] is None else f", margin {'at least ' * each['is_more']}{each['margin']:.4f} nats"
        typer.echo(f"  {each['request_id']} token {each['position']}: served {served}, the shadow drew {drawn}{margin}")


def _token(token: dict[str, Any] | None) -> str:
    return "the end" if token is None else repr(token["text"])
