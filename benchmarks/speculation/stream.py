"""One stream through a whole engine, with drafts or without, and the comparison of what both say."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from isotoken.core.types import DecodeParams, Request, RequestOutput, TokenLogprobs
from isotoken.plugins.build import Built, EngineConfig, build_engine
from isotoken.plugins.manager import Plugins

NEAR_TIE = {"float64": 1e-4, "float32": 1e-3}
"""Log-probability between the two best tokens below which rounding may decide; 0.3 in 16 bits."""


class Answer(NamedTuple):
    """What one request brought."""

    tokens: list[int]
    times: list[float]  # seconds at which each came out
    logprobs: list[TokenLogprobs]

    @property
    def speed(self) -> float:
        """Tokens a second after the first."""
        return (len(self.times) - 1) / (self.times[-1] - self.times[0])


class Stream:
    """An engine as it is served, for one request at a time."""

    def __init__(self, folder: Path, plugins: Plugins, **settings: Any) -> None:
        config = EngineConfig(model=str(folder), **settings)
        self._outputs: list[tuple[float, list[RequestOutput]]] = []
        self.built: Built = build_engine(config, plugins, self._publish)
        self._salts = count()

    def _publish(self, outputs: list[RequestOutput]) -> None:
        self._outputs.append((time.perf_counter(), outputs))

    def run(self, prompt: Sequence[int], params: DecodeParams) -> Answer:
        """Answer one request, of which the prefix cache knows nothing."""
        self._outputs.clear()
        salt = str(next(self._salts)).encode()
        tokens = list(prompt)
        request = Request(id="0", token_ids=tokens, num_prompt_tokens=len(tokens), params=params, cache_salt=salt)
        self.built.engine.add(request)
        self.built.engine.run()
        answer = Answer([], [], [])
        for at, outputs in self._outputs:
            for output in outputs:
                if output.error:
                    raise RuntimeError(output.error)
                answer.tokens.extend(output.token_ids)
                answer.times.extend([at] * len(output.token_ids))
                answer.logprobs.extend(output.logprobs or ())
        return answer

    def close(self) -> None:
        """Give the memory back."""
        self.built.engine.close()


def difference(plain: Stream, drafted: Stream, prompt: Sequence[int], want: list[int], got: list[int]) -> str:
    """Say where an answer with drafts differs from the one that is wanted; empty where it does not.

    Raises AssertionError unless a near-tie fell otherwise on a backend that does not promise equal bits.
    """
    if got == want:
        return ""
    at = next(index for index, pair in enumerate(zip(got, want, strict=True)) if pair[0] != pair[1])
    told = f"token {at} is {got[at]} with drafts, {want[at]} without"
    assert not drafted.built.capabilities.batch_invariant, f"{told}; batch_invariant is declared"
    scored = plain.run([*prompt, *want[:at]], DecodeParams(max_tokens=1, temperature=0.0, num_logprobs=-1))
    chances = dict(scored.logprobs[0].top)
    margin = chances[want[at]] - chances[got[at]]
    assert margin <= NEAR_TIE.get(drafted.built.dtype, 0.3), f"{told}, which is {margin:.3g} less likely"
    return f"{told}: a near-tie"
