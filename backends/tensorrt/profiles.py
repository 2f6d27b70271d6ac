"""Optimisation profiles: the ranges of sizes that an engine is built for, one for each kind of run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..onnx_graph import Port

DECODE, PREFILL, VERIFY = range(3)

Range = tuple[int, int, int]  # least, the one to be fastest at, most
Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Profile:
    """Sizes by the names that the graph's inputs give them: B rows, S padded width, T tokens, L logits."""

    name: str
    sizes: Mapping[str, Range]

    def shapes(self, port: Port) -> Shapes:
        """Return the least, best and largest shape of an input. Raises KeyError for a size that is not in `sizes`."""
        each = [(dim, dim, dim) if isinstance(dim, int) else self.sizes[dim] for dim in port.shape]
        least, best, most = zip(*each, strict=True) if each else ((), (), ())
        return least, best, most

    def largest(self, name: str) -> int:
        """Return the largest of one size."""
        return self.sizes[name][2]


def make_profiles(*, max_num_seqs: int, max_chunk: int, max_num_logits: int, verify_tokens: int) -> tuple[Profile, ...]:
    """Return decode (one token a row), prefill (one row) and verify (a few tokens a row), as DECODE, ... count them."""
    rows, logits = max_num_seqs, min(max_num_logits, max_chunk)
    tokens = rows * verify_tokens
    verified = min(tokens, max_num_logits)
    return (
        Profile("decode", {"B": (1, rows, rows), "S": (1, 1, 1), "T": (1, rows, rows), "L": (1, rows, rows)}),
        Profile(
            "prefill",
            {"B": (1, 1, 1), "S": (1, max_chunk, max_chunk), "T": (1, max_chunk, max_chunk), "L": (1, 1, logits)},
        ),
        Profile(
            "verify",
            {
                "B": (1, rows, rows),
                "S": (1, verify_tokens, verify_tokens),
                "T": (1, tokens, tokens),
                "L": (1, verified, verified),
            },
        ),
    )


def describe_profiles(profiles: Sequence[Profile]) -> list[object]:
    """Return the profiles as values that can be written down and compared."""
    return [[profile.name, {name: list(sizes) for name, sizes in profile.sizes.items()}] for profile in profiles]
