"""Compare what came alone with what came in company: equal texts, or a parting at a near-tie that is told as one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .routes import Route
from .server import Server
from .stream import Stream


@dataclass(slots=True)
class Told:
    """A choice's text, and its tokens with their log-probabilities where they were asked for."""

    text: str
    tokens: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    tops: list[dict[str, float]] = field(default_factory=list)  # of each token, the alternatives

    def add(self, route: Route, choice: dict[str, Any]) -> None:
        """Take in the log-probabilities of a choice, or of a part of one."""
        found = choice.get("logprobs")
        if not found:
            return
        if route.is_chat:
            for item in found.get("content") or ():
                self.tokens.append(item["token"])
                self.logprobs.append(item["logprob"])
                self.tops.append({top["token"]: top["logprob"] for top in item["top_logprobs"]})
        else:
            self.tokens += found["tokens"]
            self.logprobs += found["token_logprobs"]
            self.tops += found["top_logprobs"] or [{} for _ in found["tokens"]]


def told(route: Route, choice: dict[str, Any]) -> Told:
    """Read a whole choice."""
    found = Told(route.text(choice))
    found.add(route, choice)
    return found


def told_in_stream(route: Route, stream: Stream, index: int = 0) -> Told:
    """Read a streamed choice."""
    found = Told(stream.text(index))
    for part in stream.choices(index):
        found.add(route, part)
    return found


def asked(server: Server, route: Route) -> dict[str, Any]:
    """The fields that `agree` needs: log-probabilities where near-ties are to be told."""
    return route.logprobs(5) if server.facts.near_tie else {}


def agree(server: Server, alone: Told, other: Told, *, greedy: bool, where: str) -> None:
    """Fail where two texts differ for another reason than a near-tie; count those."""
    server.compared += 1
    if alone.text == other.text:
        return
    at = next((i for i, (a, b) in enumerate(zip(alone.text, other.text, strict=False)) if a != b), -1)
    report = f"{where} the text is another from character {at} on:\n  alone {alone.text!r}\n  then  {other.text!r}"
    near = server.facts.near_tie
    assert near, f"{report}\n  (should the backend not be batch-invariant, see --near-tie)"
    pairs = list(zip(alone.tokens, other.tokens, strict=False))
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    assert first is not None, f"{report}\n  though the tokens are the same"
    for i in range(first):
        apart = abs(alone.logprobs[i] - other.logprobs[i])
        assert apart <= near, f"{report}\n  token {i} has a log-probability that is {apart:.3g} off before"
    mine, theirs = pairs[first]
    for tops in (alone.tops[first], other.tops[first]) if greedy else ():
        margin = abs(tops[mine] - tops[theirs]) if mine in tops and theirs in tops else float("inf")
        assert margin <= near, f"{report}\n  token {first}: {mine!r} and {theirs!r} are {margin:.3g} apart, no near-tie"
    shared = alone.tops[first].keys() & other.tops[first].keys()
    apart = max((abs(alone.tops[first][name] - other.tops[first][name]) for name in shared), default=float("inf"))
    assert apart <= near, f"{report}\n  the log-probabilities of token {first} are {apart:.3g} off"
    server.near_ties += 1
