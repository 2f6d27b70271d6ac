"""SVG by hand: a sheet that shapes and words are put on, in colours that are told apart without seeing them."""

from __future__ import annotations

from html import escape

INK, FAINT, LINE, PAPER = "#1f2328", "#59636e", "#d1d9e0", "#ffffff"
GOOD, FAIR, BAD, NONE, SECOND = "#1a7f5a", "#7fc4a5", "#cf222e", "#e6eaef", "#3b6fb6"


class Sheet:
    """A picture in the making. Lengths are pixels; x goes right, y goes down."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width, self.height, self._title = width, height, title
        self._parts: list[str] = []

    def box(
        self, x: float, y: float, width: float, height: float, fill: str, *, hint: str = "", outline: str = ""
    ) -> None:
        """A rectangle with slightly round corners; `hint` shows under the pointer."""
        told = f"<title>{escape(hint)}</title>" if hint else ""
        stroke = f' stroke="{outline}"' if outline else ""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{max(width, 0):.5g}" height="{height:g}" rx="2" fill="{fill}"{stroke}>'
            f"{told}</rect>"
        )

    def word(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: int = 12,
        fill: str = INK,
        anchor: str = "start",
        bold: bool = False,
    ) -> None:
        """A line of text whose baseline is at y."""
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text x="{x:.5g}" y="{y:g}" font-size="{size}" fill="{fill}" text-anchor="{anchor}"{weight}>'
            f"{escape(text)}</text>"
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str = LINE, *, width: float = 1) -> None:
        """A straight line."""
        self._parts.append(
            f'<line x1="{x1:.5g}" y1="{y1:g}" x2="{x2:.5g}" y2="{y2:g}" stroke="{colour}" stroke-width="{width:g}"/>'
        )

    def dot(self, x: float, y: float, colour: str, *, hollow: bool = False, hint: str = "") -> None:
        """A small disc or ring."""
        fill = PAPER if hollow else colour
        told = f"<title>{escape(hint)}</title>" if hint else ""
        self._parts.append(
            f'<circle cx="{x:.5g}" cy="{y:g}" r="4.5" fill="{fill}" stroke="{colour}" stroke-width="1.5">{told}'
            "</circle>"
        )

    def svg(self) -> str:
        """The picture, with its own background: it reads the same on light and dark pages."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {self.height:g}" '
            f'width="{self.width:g}" height="{self.height:g}" role="img" '
            'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">'
        )
        paper = f'<rect width="{self.width:g}" height="{self.height:g}" rx="8" fill="{PAPER}"/>'
        return "\n".join([head, f"<title>{escape(self._title)}</title>", paper, *self._parts, "</svg>"]) + "\n"
