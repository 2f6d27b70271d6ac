"""Cases: requests with the tokens that are expected of them, as frozen in goldens/."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..core.types import DecodeParams, FinishReason, Request

GOLDENS = Path(__file__).parent / "goldens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request to make, and what must come of it."""

    name: str
    prompt: tuple[int, ...]
    params: DecodeParams
    tokens: tuple[int, ...] | None = None  # expected output; None: the oracle judges whatever comes
    margins: tuple[float, ...] = ()  # of each expected token, in logit units
    cache_salt: bytes = b""
    priority: int = 0
    deadline: float | None = None
    done: tuple[int, ...] = ()  # output that the request starts with: a replay

    def request(self) -> Request:
        """Make the request anew."""
        return Request(
            id=self.name,
            token_ids=[*self.prompt, *self.done],
            num_prompt_tokens=len(self.prompt),
            params=self.params,
            priority=self.priority,
            deadline=self.deadline,
            cache_salt=self.cache_salt,
        )

    def but(self, name: str | None = None, **changes: Any) -> Case:
        """Copy with other parameters, judged by the oracle instead of the golden."""
        fields = {k: changes.pop(k) for k in tuple(changes) if k in _CASE_FIELDS}
        params = replace(self.params, **changes)
        return replace(self, name=name or self.name, params=params, tokens=None, margins=(), **fields)


_CASE_FIELDS = {"prompt", "cache_salt", "priority", "deadline", "done"}


def finish_of(case: Case, output: list[int], eos: frozenset[int], max_model_len: int) -> FinishReason | None:
    """Why a request that has produced `output` is over, or None if it is not."""
    ends = case.params.stop_token_ids | (frozenset() if case.params.ignore_eos else eos)
    if output and output[-1] in ends:
        return FinishReason.STOP
    if len(output) >= case.params.max_tokens or len(case.prompt) + len(output) >= max_model_len:
        return FinishReason.LENGTH
    return None


@lru_cache
def golden_file(model: str) -> Mapping[str, Any]:
    """The frozen file of a model, with its version and the digest of the weights that it was made with."""
    contents: dict[str, Any] = json.loads((GOLDENS / f"{model}.json").read_text())
    return contents


@lru_cache
def goldens(model: str) -> tuple[Case, ...]:
    """The frozen cases of a model."""
    return tuple(_thaw(entry) for entry in golden_file(model)["cases"])


def freeze_case(case: Case) -> dict[str, Any]:
    """Write a case as JSON values, parameters that differ from the defaults only."""
    default = DecodeParams()
    changed = {f: v for f in DecodeParams.__slots__ if (v := getattr(case.params, f)) != getattr(default, f)}
    params = {k: sorted(v) if isinstance(v, frozenset) else v for k, v in changed.items()}
    assert case.tokens is not None
    margins = [float(f"{m:.4g}") for m in case.margins]
    return {"name": case.name, "params": params, "prompt": case.prompt, "tokens": case.tokens, "margins": margins}


def _thaw(entry: Mapping[str, Any]) -> Case:
    params = dict(entry["params"])
    if "stop_token_ids" in params:
        params["stop_token_ids"] = frozenset(params["stop_token_ids"])
    return Case(
        name=entry["name"],
        prompt=tuple(entry["prompt"]),
        params=DecodeParams(**params),
        tokens=tuple(entry["tokens"]),
        margins=tuple(entry["margins"]),
    )
