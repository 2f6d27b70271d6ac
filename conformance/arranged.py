"""One backend, the same requests in several arrangements: level 1, and the goldens that level 2 rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.types import RequestOutput
from ..plugins.build import EngineConfig, build_engine
from ..plugins.manager import Plugins
from .cases import Case, goldens
from .judge import Tally, judge
from .models import MODELS, write_checkpoint
from .targets import Target

ARRANGEMENTS: dict[str, dict[str, Any]] = {
    "all at once": {},
    "one at a time": {"max_num_seqs": 1},
    "in chunks of 16": {"max_num_batched_tokens": 16},
    "one after the other's prompt": {"scheduler": "naive", "prefix_caching": False},
    "guessing ahead": {"drafter": "ngram", "num_draft_tokens": 3},
}
_LIMITS: dict[str, Any] = {"max_model_len": 256, "max_num_seqs": 8, "max_num_batched_tokens": 512}


@dataclass(slots=True)
class Arranged:
    """What came of it."""

    tokens: int = 0
    bitwise: bool = False  # batch_invariant is declared, so that no request may differ
    goldens: bool = True  # every golden came out token by token
    differing: dict[str, int] = field(default_factory=dict)  # by arrangement: requests that differ from the first's
    absent: dict[str, str] = field(default_factory=dict)  # arrangements that the backend declares absent, and why
    tally: Tally = field(default_factory=Tally)
    wrong: list[str] = field(default_factory=list)  # tokens that no rounding explains

    @property
    def holds(self) -> bool:
        """Whether every token was the oracle's or a near-tie, and none differed where that is promised."""
        return not self.wrong and not (self.bitwise and any(self.differing.values()))


def arrange(target: Target, plugins: Plugins, folder: Path) -> Arranged:
    """Serve the goldens of every model, those of the main one in every arrangement, and judge each token."""
    can = plugins.backends.get_factory(target.backend)().capabilities
    found = Arranged(bitwise=bool(can.batch_invariant))
    for model in MODELS:
        first: dict[str, list[int]] = {}
        for name, changes in ARRANGEMENTS.items() if model == "llama" else [("all at once", {})]:
            if "drafter" in changes and not can.speculative:
                found.absent[name] = can.speculative.reason
                continue
            said = _serve(target, plugins, write_checkpoint(MODELS[model], folder / model), goldens(model), changes)
            first = first or said
            found.differing[name] = found.differing.get(name, 0) + sum(said[n] != first[n] for n in first)
            _judge(found, target, model, name, said)
    return found


def _judge(found: Arranged, target: Target, model: str, arrangement: str, said: dict[str, list[int]]) -> None:
    for case in goldens(model):
        tokens = said[case.name]
        found.tokens += len(tokens)
        found.goldens &= tokens == list(case.tokens or ())
        try:
            found.tally.add(judge(case, tokens, model, target.precision))
        except AssertionError as error:
            found.wrong.append(f"{model}, {arrangement}: {error}")


def _serve(
    target: Target, plugins: Plugins, folder: Path, cases: Sequence[Case], changes: dict[str, Any]
) -> dict[str, list[int]]:
    """Tokens by case."""
    said: dict[str, list[int]] = {case.name: [] for case in cases}

    def publish(outputs: list[RequestOutput]) -> None:
        for output in outputs:
            said[output.request_id] += output.token_ids

    config = EngineConfig(
        model=str(folder),
        backend=target.backend,
        device=target.device,
        dtype=target.dtype,
        quantization=target.quantization,
        **(_LIMITS | {"options": dict(target.options)} | changes),
    )
    built = build_engine(config, plugins, publish)
    for case in cases:
        built.engine.add(case.request())
    built.engine.run()
    built.engine.close()
    return said
