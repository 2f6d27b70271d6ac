"""TimedChoice: a choice that measures what turning its tokens into text takes, for requests that are traced."""

from __future__ import annotations

import time

from ...core.types import RequestOutput
from ..choice import Choice, TextDelta
from ..text import SamplingParams, TextModel
from .recorder import Recorder


class TimedChoice(Choice):
    """Adds its times up in the recorder of its request."""

    def __init__(
        self, text: TextModel, params: SamplingParams, eos_token_ids: frozenset[int], recorder: Recorder
    ) -> None:
        super().__init__(text, params, eos_token_ids)
        self._recorder = recorder
        recorder.detokenize_time = 0.0

    def feed(self, output: RequestOutput) -> TextDelta:
        """Return what is new, as any choice does."""
        started = time.perf_counter()
        try:
            return super().feed(output)
        finally:
            self._recorder.detokenize_time = (self._recorder.detokenize_time or 0.0) + time.perf_counter() - started
