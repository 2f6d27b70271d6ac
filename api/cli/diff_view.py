"""What `isotoken diff` prints of an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from ...conformance.diff import Answer, Difference, Question, View
    from ..text import TextModel

_COLOURS = {"equal": "green", "near-tie": "yellow", "real": "red"}


def render(prompt: str, answer: Answer, tokenizer: TextModel, console: Console) -> None:
    """Print a line where the sides agree, else where they part, with the candidates of both and of the base."""
    head = f"[{_COLOURS[answer.verdict]}]{answer.verdict}[/]  {_mode(answer.question)}  {escape(_short(prompt))}"
    if answer.difference is None:
        console.print(f"{head}  ({len(answer.tokens[0])} tokens)")
        return
    found = answer.difference
    console.print(head)
    spoken = tokenizer.decode(answer.tokens[0][: found.index], skip_special_tokens=False)
    console.print(f"  first differing token: output {found.index}, position {found.position}, after")
    console.print(f"    {escape(_short(spoken, from_end=True) or '(the prompt)')}")
    console.print(_table(found, tokenizer))
    for view in found.views:
        console.print(f"  {escape(view.side)} says {_text(view.token, tokenizer)}")
        console.print(f"  {_told(view, tokenizer)}")
    console.print(f"  logits of the two differ by {found.logits_difference:.3g}")
    console.print(f"  [{_COLOURS[found.verdict]}]{found.verdict}[/]: {escape(found.reason)}")


def _mode(question: Question) -> str:
    p = question.params
    return "greedy" if p.temperature == 0 else f"seed {p.seed}, temperature {p.temperature:g}"


def _table(found: Difference, tokenizer: TextModel) -> Table:
    """The best tokens of both sides and of the base, side by side."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 2))
    lists = [view.top for view in found.views] + [found.base_top]
    for view in found.views:
        table.add_column(view.side, no_wrap=True)
    table.add_column(f"{found.base} (base)", no_wrap=True)
    for row in zip(*lists, strict=True):
        table.add_row(*(f"{c.logit:9.4f}  {_text(c.token, tokenizer)}" for c in row))
    return table


def _told(view: View, tokenizer: TextModel) -> str:
    due = f"  due is {_text(view.due, tokenizer)} by a margin of {view.margin:.3g}"
    missed = f", missed by {view.missed_by:.3g} (rounding explains {view.explained:.3g})" if view.missed_by else ""
    return f"{due}{missed}; logits off by {view.error:.3g} (bound {view.bound:.3g})"


def _text(token: int, tokenizer: TextModel) -> str:
    return escape(f"{token} {tokenizer.token_text(token)!r}")


def _short(text: str, *, from_end: bool = False) -> str:
    """One line of it, the end or the beginning."""
    line = text.replace("\n", "\\n")
    if len(line) <= 70:
        return line
    return "..." + line[-67:] if from_end else line[:67] + "..."
