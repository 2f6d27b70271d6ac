"""Levels and certificates as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]

_LEVELS = """## Levels of agreement

L0: given equal logits, samplers draw equal tokens. L1: one backend says the same however requests are arranged. L2:
float32 backends say the same on the goldens, and wherever a margin exceeds what their bounds leave open. L3: in reduced
precision every position with such a margin has the token of the float64 oracle. What is not decided is a near-tie, and
counted. Every target was given the same tokens (teacher forcing):
"""

_ALONE = """### One backend at a time: L0 and L1

Draws on logits that are not its own, and how many differ from the rules (ties: the best two scores within 1e-5); then
requests that said something else than when served all at once, by arrangement. A golden that does not come out is one
that a near-tie or rounded weights led elsewhere: each of its tokens is judged.
"""

_TARGETS = """### Certificates: each target against the float64 oracle with the same weights

Errors and bounds in parts of the row's largest magnitude, margins in logit units. A flip is a near-tie that fell
otherwise, wrong is a decided position with another token. "At seen error" counts the near-ties that would be left if
the bound were the largest error seen.
"""

_PAIRS = """### Certificates: pairs

Where the margin exceeds what both bounds leave open, the two must say the same. Rounded weights are another model's:
there is no bound between them and the others, so nothing is certified and there is no level; the columns show what
rounding did.
"""

_CONTROLS = """### Negative controls

Logits that claim to be float32 and are not. Each must be refused, or the certificates above prove nothing.
"""


def levels_table(levels: Mapping[str, Any]) -> list[str]:
    """Lines: what each level says, and what was found."""
    return [*_introduction(levels), *_same_logits(levels), *_targets(levels), *_pairs(levels), *_controls(levels)]


def _introduction(levels: Mapping[str, Any]) -> Iterator[str]:
    yield from (*_LEVELS.splitlines(), "")
    for entry in levels["subjects"]:
        models = "the trained built-in model, on its own writing"
        if len(entry["models"]) > 1:
            models = f"random weights, random tokens, the harder case: {', '.join(entry['models'])}"
        yield f"- {entry['subject']}: {entry['tokens']:,} tokens in {entry['sequences']} sequences ({models})"
    yield ""


def _same_logits(levels: Mapping[str, Any]) -> Iterator[str]:
    """L0 and L1, a row for each target."""
    yield from (*_ALONE.splitlines(), "")
    arrangements = list(
        dict.fromkeys(name for entry in levels["L1"] for name in (*entry["differing"], *entry["absent"]))
    )
    yield from _table(
        ["", "L0: draws, ties, wrong", *arrangements[1:], "all goldens", "tokens wrong"],
        (
            [
                one["target"],
                drawn["absent"] or f"{drawn['draws']:,}, {drawn['ties']}, {drawn['wrong']}",
                *(str(one["differing"].get(name, "–")) for name in arrangements[1:]),
                "yes" if one["goldens"] else "no",
                str(len(one["wrong"])),
            ]
            for drawn, one in zip(levels["L0"], levels["L1"], strict=True)
        ),
    )


def _targets(levels: Mapping[str, Any]) -> Iterator[str]:
    yield from (*_TARGETS.splitlines(), "")
    yield from _table(
        ["", "on", "tokens", "largest error", "mean", "bound", "decided", "near-ties", "flips", "wrong",
         "at seen error", "least margin", "widest flip"],
        (
            [
                entry["target"],
                entry["subject"],
                f"{entry['tokens']:,}",
                f"{entry['max_error']:.1e}",
                f"{entry['mean_error']:.1e}",
                f"{entry['bound']:.0e}",
                f"{entry['decided']:,}",
                f"{entry['near_ties']:,}",
                str(entry["flips"]),
                f"{entry['wrong']}" + (f", {entry['beyond']} beyond the bound" if entry["beyond"] else ""),
                f"{entry['near_ties_at_max_error']:,}",
                f"{entry['min_margin']:.1e}",
                f"{entry['widest_flip']:.1e}",
            ]
            for entry in levels["targets"]
        ),
    )  # fmt: skip


def _pairs(levels: Mapping[str, Any]) -> Iterator[str]:
    yield from (*_PAIRS.splitlines(), "")
    yield from _table(
        ["pair", "level", "on", "tokens", "largest difference", "mean", "bound", "decided", "near-ties", "flips",
         "wrong", "widest flip"],
        (
            [
                " / ".join(entry["pair"]),
                "–" if entry["bound"] is None else entry["level"],
                entry["subject"],
                f"{entry['tokens']:,}",
                f"{entry['max_error']:.1e}",
                f"{entry['mean_error']:.1e}",
                *_judged(entry),
                f"{entry['widest_flip']:.1e}",
            ]
            for entry in levels["pairs"]
        ),
    )  # fmt: skip


def _judged(entry: Entry) -> list[str]:
    if entry["bound"] is None:
        return ["none", "", "", f"{entry['flips']:,}", ""]
    counts = (f"{entry[key]:,}" for key in ("decided", "near_ties", "flips", "wrong"))
    return [f"{entry['bound']:.0e}", *counts]


def _controls(levels: Mapping[str, Any]) -> Iterator[str]:
    yield from (*_CONTROLS.splitlines(), "")
    yield from _table(
        ["control", "what it does", "on", "largest error", "beyond the bound", "wrong tokens", ""],
        (
            [
                entry["control"],
                entry["does"],
                entry["subject"],
                f"{entry['max_error']:.1e}",
                f"{entry['beyond']:,} of {entry['tokens']:,}",
                str(entry["wrong"]),
                "refused" if entry["caught"] else "**NOT REFUSED**",
            ]
            for entry in levels["controls"]
        ),
    )


def _table(heads: Sequence[str], rows: Iterator[list[str]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "| " + " | ".join(["---"] * len(heads)) + " |"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""
