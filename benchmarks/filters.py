"""What filters cost: microseconds a token of a stream, and a character of a prompt. `python -m benchmarks.filters`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from isotoken.api.safety.chain import Chain, Token
from isotoken.api.safety.filters import FilterContext, MakeFilter
from isotoken.api.safety.plugin import register_classifiers, register_filters

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
REPEATS = 5


def makers() -> dict[str, list[MakeFilter]]:
    """Return the chains that are measured."""
    filters: dict[str, Callable[..., MakeFilter]] = {}
    classifiers: dict[str, Callable[[], object]] = {}
    register_filters(register=lambda name, factory, *, description="": filters.update({name: factory}))
    register_classifiers(register=lambda name, factory, *, description="": classifiers.update({name: factory}))
    context = FilterContext("outputs", lambda name: classifiers[name]())  # type: ignore[arg-type, return-value]
    pii = filters["pii"]({}, context)
    words = filters["block_list"]({"words": [f"phrase{i} of words" for i in range(1000)]}, context)
    pattern = filters["block_list"]({"patterns": [r"(?i)ticket\s+[A-Z]{2}-\d+"]}, context)
    guard = filters["repetition"]({}, context)
    return {
        "pii": [pii],
        "block_list of 1000 phrases": [words],
        "block_list of a pattern": [pattern],
        "repetition": [guard],
        "moderation": [filters["moderation"]({}, context)],
        "pii, block_list of phrases, repetition": [pii, words, guard],
    }


def microseconds(made: Sequence[MakeFilter], pieces: Sequence[str], *, with_tokens: bool) -> float:
    """Return the time for each piece of a stream, the best of several runs."""
    best = float("inf")
    for _ in range(REPEATS):
        chain, place = Chain([make() for make in made]), 0
        started = time.perf_counter()
        for piece in pieces:
            tokens = [Token(1, None, place, place + len(piece))] if with_tokens else []
            chain.feed(piece, tokens, final=False)
            place += len(piece)
        best = min(best, time.perf_counter() - started)
    return best / len(pieces) * 1e6


def microseconds_whole(made: Sequence[MakeFilter]) -> float:
    """Return the time for each character of a prompt, the best of several runs."""
    best = float("inf")
    for _ in range(REPEATS):
        chain = Chain([make() for make in made])
        started = time.perf_counter()
        chain.whole(TEXT)
        best = min(best, time.perf_counter() - started)
    return best / len(TEXT) * 1e6


def main() -> None:
    pieces = re.findall(r" ?\w{1,6}|[^\w]", TEXT)
    print(f"{len(pieces)} tokens of {len(TEXT) / len(pieces):.1f} characters")
    for name, made in makers().items():
        plain = microseconds(made, pieces, with_tokens=False)
        shown = microseconds(made, pieces, with_tokens=True)
        whole = microseconds_whole(made)
        print(f"{name:40} {plain:5.1f} us a token, {shown:5.1f} with log-probabilities, {whole:5.2f} us a character")


if __name__ == "__main__":
    main()
