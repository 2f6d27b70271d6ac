"""Charts as inline SVG: drawn here, styled by the page's own style sheet so that they follow light and dark."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .results import Point, Result, Variant
from .scales import Scale, linear_scale, log_scale
from .tables import factor, milliseconds, number, roof_share

NUM_COLOURS = 6
DASHES = {"continuous": "", "adaptive": "10 3", "static": "7 4", "naive": "2 4"}
SHAPES = {
    "continuous": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "adaptive": "M-4.5 0h3v-4.5h3v4.5h3v3h-3v4.5h-3v-4.5h-3z",
    "static": "M-4 -4h8v8h-8z",
    "naive": "M0 -5l5 9h-10z",
}
OTHER_SHAPE = "M0 -5l5 5l-5 5l-5 -5z"

WIDTH, HEIGHT = 460, 270
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 30, 44


@dataclass(frozen=True, slots=True)
class Style:
    """How an engine looks everywhere: a colour for backend and precision, dashes and marks for the scheduler."""

    colour: int
    dash: str
    shape: str


def styles(variants: Iterable[Variant]) -> dict[Variant, Style]:
    """Give each its looks."""
    colours: dict[tuple[str, str, str | None], int] = {}
    found = {}
    for variant in variants:
        engine = (variant.backend, variant.dtype, variant.quantization)
        colour = colours.setdefault(engine, len(colours)) % NUM_COLOURS
        shape = SHAPES.get(variant.scheduler, OTHER_SHAPE)
        found[variant] = Style(colour, DASHES.get(variant.scheduler, "10 3 2 3"), shape)
    return found


def swatch(style: Style) -> str:
    """A piece of line with its mark, for the legend."""
    line = f'<path class="line c{style.colour}" stroke-dasharray="{style.dash}" d="M0 7H34"/>'
    mark = f'<path class="mark c{style.colour}" transform="translate(17 7)" d="{style.shape}"/>'
    return f'<svg class="swatch" viewBox="0 0 34 14" width="34" height="14" aria-hidden="true">{line}{mark}</svg>'


def stream_chart(
    name: str,
    points: Sequence[Point],
    looks: dict[Variant, Style],
    value: Callable[[Point], float],
    *,
    title: str,
    seconds: bool,
) -> str:
    """Lines over the number of streams: rates from zero up, times on a logarithmic axis."""
    right = [point for point in points if point.check.ok]
    counts = sorted({point.concurrency for point in points})
    values = [value(point) for point in right] or [1.0]
    low, high = HEIGHT - BOTTOM, TOP
    y = log_scale(min(values), max(values), low, high) if seconds else linear_scale(max(values), low, high)
    text = milliseconds if seconds else number
    x = {count: LEFT + 12 + (WIDTH - LEFT - RIGHT - 24) * (i + 0.5) / len(counts) for i, count in enumerate(counts)}
    parts = [_axis(y, text)]
    parts += [f'<text class="tick" x="{at:.1f}" y="{low + 18}" text-anchor="middle">{c}</text>' for c, at in x.items()]
    parts.append(
        f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">streams</text>'
    )
    for variant, style in looks.items():
        line = [point for point in right if point.variant == variant]
        places = [(x[point.concurrency], y(value(point))) for point in line]
        if places:
            parts.append(_polyline(places, style))
        for point, (px, py) in zip(line, places, strict=True):
            said = f"{variant.label}, {point.concurrency} streams: {text(value(point))}"
            parts.append(_mark(px, py, style, said))
    described = "; ".join(
        f"{point.variant.label} with {point.concurrency} streams {text(value(point))}" for point in right
    )
    return _svg(name, title, described, parts, HEIGHT)


def workload_chart(name: str, results: Sequence[Result], looks: dict[Variant, Style], title: str) -> str:
    """Bars side by side: the rate, and how much of the roof it is."""
    row, top, bar, share = 40, 22, 200, 130
    height = top + row * len(results) + 6
    shown = [result for result in results if result.check.ok]
    x = linear_scale(max((result.rate for result in shown), default=1.0), 0, bar)
    middle = WIDTH - share - RIGHT
    parts = [
        f'<text class="tick" x="0" y="{top - 8}">tokens a second</text>',
        f'<text class="tick" x="{middle}" y="{top - 8}">of the {results[0].roof} roof</text>',
    ]
    for index, result in enumerate(results):
        y = top + row * index
        colour = looks[result.variant].colour
        parts.append(f'<text class="label" x="0" y="{y + 12}">{_e(result.variant.label)}</text>')
        if not result.check.ok:
            parts.append(f'<text class="wrong" x="0" y="{y + 30}">wrong tokens: no figure</text>')
            continue
        label = f"{number(result.rate)} ({factor(result.ratio)})"
        parts.append(_bar(0, y + 17, x(result.rate), colour, f"{result.variant.label}: {label}"))
        parts.append(f'<text class="value" x="{x(result.rate) + 6:.1f}" y="{y + 29}">{label}</text>')
        parts += _fraction(result, middle, y + 17, share, colour)
    described = "; ".join(
        f"{result.variant.label} {number(result.rate)} tokens a second"
        + ("" if result.fraction is None else f", {roof_share(result.fraction)} of the {result.roof} roof")
        for result in shown
    )
    return _svg(name, title, described, parts, height, heading="")


def _fraction(result: Result, x: float, y: float, width: float, colour: int) -> list[str]:
    if result.fraction is None:
        return [f'<text class="tick" x="{x}" y="{y + 12}">not measured</text>']
    bar, told = 84.0, roof_share(result.fraction)
    return [
        f'<rect class="track" x="{x}" y="{y}" width="{bar}" height="15" rx="2"/>',
        _bar(x, y, bar * min(result.fraction, 1.0), colour, f"{result.variant.label}: {told}"),
        f'<text class="value" x="{x + width}" y="{y + 12}" text-anchor="end">{_e(told)}</text>',
    ]


def _bar(x: float, y: float, width: float, colour: int, said: str) -> str:
    shape = f'x="{x}" y="{y}" width="{max(width, 1):.1f}" height="15" rx="2"'
    return f'<rect class="bar c{colour}" {shape}><title>{_e(said)}</title></rect>'


def _axis(y: Scale, text: Callable[[float], str]) -> str:
    lines = []
    for tick in y.ticks:
        at = f"{y(tick):.1f}"
        lines.append(f'<path class="grid" d="M{LEFT} {at}H{WIDTH - RIGHT}"/>')
        place = f'x="{LEFT - 8}" y="{at}" dy="0.35em" text-anchor="end"'
        lines.append(f'<text class="tick" {place}>{text(tick) if tick else 0}</text>')
    return "".join(lines)


def _polyline(places: Sequence[tuple[float, float]], style: Style) -> str:
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    return f'<path class="line c{style.colour}" stroke-dasharray="{style.dash}" d="{path}"/>'


def _mark(x: float, y: float, style: Style, said: str) -> str:
    shape = f'transform="translate({x:.1f} {y:.1f})" d="{style.shape}"'
    return f'<path class="mark c{style.colour}" {shape}><title>{_e(said)}</title></path>'


def _svg(name: str, title: str, described: str, parts: Sequence[str], height: float, heading: str | None = None) -> str:
    head = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{name}-title {name}-desc">'
    said = f'<title id="{name}-title">{_e(title)}</title><desc id="{name}-desc">{_e(described)}</desc>'
    text = title if heading is None else heading
    above = f'<text class="heading" x="0" y="15" aria-hidden="true">{_e(text)}</text>' if text else ""
    return "".join((head, said, above, *parts, "</svg>"))


def _e(text: str) -> str:
    return html.escape(text, quote=True)
