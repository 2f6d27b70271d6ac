"""Ask two backends the same and find where they first say different things: what `isotoken diff` shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from ..core.checkpoint import Checkpoint
from ..core.types import DecodeParams, FinishReason, Request, RequestOutput
from ..plugins.build import EngineConfig, build_engine
from ..plugins.manager import Plugins
from .divergence import Difference, Side, View, first_difference, judge_difference
from .oracle import Array
from .quantized import RoundedCheckpoint
from .rig import Rig
from .sides import label, load, parse
from .targets import Target

__all__ = ["Answer", "Comparison", "Difference", "Question", "View", "label", "parse"]

_STEP = 512  # prompt tokens in one forward


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt, and how to draw what follows."""

    prompt: tuple[int, ...]
    params: DecodeParams


@dataclass(frozen=True, slots=True)
class Answer:
    """What both sides said to a question."""

    question: Question
    tokens: tuple[list[int], list[int]]
    difference: Difference | None

    @property
    def verdict(self) -> str:
        """equal, near-tie or real."""
        return self.difference.verdict if self.difference else "equal"

    def as_json(self) -> dict[str, Any]:
        """Everything; a token that was filtered out missed by null."""
        found = asdict(self.difference) if self.difference else None
        for view in found["views"] if found else ():
            view["missed_by"] = view["missed_by"] if np.isfinite(view["missed_by"]) else None
        return {"verdict": self.verdict, "tokens": list(self.tokens), "difference": found}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A model, two sides, and a wider and slower backend that judges them."""

    folder: Path
    sides: tuple[Target, Target]
    base: Target
    plugins: Plugins
    top: int = 5  # candidates listed
    num_threads: int = 0
    tell: Callable[[str], None] = lambda line: None

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Let both sides answer, and judge the first difference of each answer.

        Raises ValueError where a side ends a request with an error, or the model's files change meanwhile.
        """
        key = Checkpoint.open(self.folder).key
        one, other = (self._answers(side, questions) for side in self.sides)
        apart = [i for i in range(len(questions)) if one[i] != other[i]]
        found = dict(zip(apart, self._judge(questions, one, other, apart), strict=True)) if apart else {}
        if Checkpoint.open(self.folder).key != key:
            raise ValueError(f"{self.folder}: the model was changed while it was compared; ask again")
        return [Answer(q, (one[i], other[i]), found.get(i)) for i, q in enumerate(questions)]

    def _answers(self, side: Target, questions: Sequence[Question]) -> list[list[int]]:
        """Tokens of each question, all served together."""
        self.tell(f"{label(side)} answers")
        said: list[list[int]] = [[] for _ in questions]
        failed: list[str] = []

        def publish(outputs: list[RequestOutput]) -> None:
            for output in outputs:
                said[int(output.request_id)] += output.token_ids
                if output.finish_reason is FinishReason.ERROR:
                    failed.append(output.error or "no reason given")

        config = EngineConfig(
            model=str(self.folder),
            backend=side.backend,
            device=side.device,
            dtype=side.dtype,
            quantization=side.quantization,
            max_model_len=_longest(questions),
            max_num_seqs=min(len(questions), 16),
            num_threads=self.num_threads,
        )
        built = build_engine(config, self.plugins, publish)
        for i, q in enumerate(questions):
            request = Request(id=str(i), token_ids=[*q.prompt], num_prompt_tokens=len(q.prompt), params=q.params)
            built.engine.add(request)
        built.engine.run()
        built.engine.close()
        if failed:
            raise ValueError(f"{label(side)} failed: {failed[0]}")
        return said

    def _judge(
        self, questions: Sequence[Question], one: list[list[int]], other: list[list[int]], apart: list[int]
    ) -> list[Difference]:
        longest, prefixes = _longest(questions), []
        for i in apart:
            index = first_difference(one[i], other[i]) or 0
            prefixes.append((questions[i].prompt, one[i][:index]))
        rows = []
        for side in self.sides:
            self.tell(f"{label(side)}: its logits where the two part")
            rows.append(self._logits(side, Checkpoint.open(self.folder), prefixes, longest))
        exact: dict[str | None, list[Array]] = {}
        self._need_memory(Checkpoint.open(self.folder))
        for form in dict.fromkeys(side.quantization for side in self.sides):
            self.tell(f"{label(self.base)}: what they should be" + (f", with {form} weights" if form else ""))
            checkpoint = RoundedCheckpoint(self.folder, form) if form else Checkpoint.open(self.folder)
            exact[form] = self._logits(self.base, checkpoint, prefixes, longest)
        eos = Checkpoint.open(self.folder).eos_token_ids
        found = []
        for place, i in enumerate(apart):
            a, b = (
                Side(side, said[i], mine[place], exact[side.quantization][place])
                for side, said, mine in zip(self.sides, (one, other), rows, strict=True)
            )
            found.append(judge_difference(questions[i].prompt, questions[i].params, (a, b), self.base, eos, self.top))
        return found

    def _need_memory(self, checkpoint: Checkpoint) -> None:
        """Raise ValueError where the base would not fit: it is wide, and models may be large."""
        items = sum(prod(checkpoint.shape(name)) for name in checkpoint.names())
        needed = items * {"float64": 8, "float32": 4}.get(self.base.dtype, 2)
        free = psutil.virtual_memory().available
        if self.base.device == "cpu" and needed > free:
            raise ValueError(
                f"the sides differ, and {label(self.base)} would need {needed / 1e9:.0f} GB to judge them, "
                f"{free / 1e9:.0f} GB are free: choose another base, such as --base torch:float32"
            )

    def _logits(
        self,
        target: Target,
        checkpoint: Checkpoint,
        prefixes: Sequence[tuple[tuple[int, ...], list[int]]],
        max_model_len: int,
    ) -> list[Array]:
        """Logits [V] after each prefix: a prompt in large pieces, and what followed it one by one, as in the answer.

        max_model_len must be the answer's: some rope scalings are settled by it.
        """
        asked = {"max_model_len": max_model_len, "max_num_seqs": 1, "max_num_batched_tokens": _STEP}
        _, runner = load(target, self.plugins, checkpoint, **asked, num_threads=self.num_threads)
        found = []
        for prompt, output in prefixes:
            rig = Rig(runner)
            strand = rig.strand([*prompt, *output])
            ends = [*range(_STEP, len(prompt), _STEP), len(prompt), *range(len(prompt) + 1, len(strand.tokens) + 1)]
            rows = rig.feed(strand, np.diff([0, *ends]).tolist(), all_rows=False)
            found.append(rows[-1])
        runner.close()
        return found


def _longest(questions: Sequence[Question]) -> int:
    """Tokens of the longest question with its answer."""
    return max(len(q.prompt) + q.params.max_tokens for q in questions)
