"""Choice: the text of one request as its tokens come, with stop strings and log-probabilities; no input or output."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..core.types import FinishReason, RequestOutput, TokenLogprobs
from .stop_strings import StopStrings

if TYPE_CHECKING:
    from .sampling_params import SamplingParams
    from .text import TextModel


_NO_STOPS = StopStrings(())  # keeps nothing, so that one is enough


@dataclass(slots=True, kw_only=True)
class TextDelta:
    """What one step brought to one choice."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] | None = None  # one for each of token_ids, where asked for
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None  # the stop string or stop token id; None for an end-of-sequence token


class Choice:
    """Feed it what the engine publishes; it gives back what to show."""

    def __init__(self, text: TextModel, params: SamplingParams, eos_token_ids: Collection[int]) -> None:
        self._params = params
        self._eos = () if params.ignore_eos else eos_token_ids
        self._detokenizer = text.detokenizer(
            skip_special_tokens=params.skip_special_tokens, shown=params.shown_special_tokens
        )
        self._stops = StopStrings(params.stop, include=params.include_stop_str_in_output) if params.stop else _NO_STOPS
        self.num_tokens = 0
        self.finish_reason: FinishReason | None = None

    def feed(self, output: RequestOutput) -> TextDelta:
        """Return the new text and tokens. A stop string ends the choice and drops the tokens after it.

        When `finish_reason` is set here but not in the output, the engine does not know yet: abort the request there.
        """
        if not self._params.stop:
            return self._pass_on(output)
        pieces: list[str] = []
        last = len(output.token_ids) - 1
        for i, token_id in enumerate(output.token_ids):
            self.num_tokens += 1
            hidden = i == last and output.stop_token_id is not None and not self._params.include_stop_str_in_output
            stop = None if hidden else self._show(self._detokenizer.push(token_id), pieces)
            if stop is not None:
                return self._end(output, pieces, i + 1, FinishReason.STOP, stop)
        if output.finish_reason is None:
            return TextDelta(text="".join(pieces), token_ids=output.token_ids, logprobs=output.logprobs)
        stop = self._show(self._detokenizer.flush(), pieces)
        if stop is not None:
            return self._end(output, pieces, last + 1, FinishReason.STOP, stop)
        pieces.append(self._stops.flush())
        return self._end(output, pieces, last + 1, output.finish_reason, self._stop_token(output))

    def _pass_on(self, output: RequestOutput) -> TextDelta:
        """Return the new text and tokens where there are no stop strings: nothing is looked for in them."""
        ids = output.token_ids
        self.num_tokens += len(ids)
        is_hidden = output.stop_token_id is not None and not self._params.include_stop_str_in_output
        text = self._detokenizer.extend(ids[:-1] if is_hidden else ids)
        reason = output.finish_reason
        if reason is None:
            return TextDelta(text=text, token_ids=ids, logprobs=output.logprobs)
        self.finish_reason = reason
        return TextDelta(
            text=text + self._detokenizer.flush(),
            token_ids=ids,
            logprobs=output.logprobs,
            finish_reason=reason,
            stop_reason=self._stop_token(output),
        )

    def _stop_token(self, output: RequestOutput) -> int | None:
        """Return the stop token that ended it; none for an end of sequence."""
        return None if output.stop_token_id in self._eos else output.stop_token_id

    def _show(self, text: str, pieces: list[str]) -> str | None:
        """Add what may be shown to the pieces. Returns the stop string that it completes."""
        if not text:
            return None
        shown, stop = self._stops.feed(text, armed=self.num_tokens >= self._params.min_tokens)
        pieces.append(shown)
        return stop

    def _end(
        self, output: RequestOutput, pieces: list[str], kept: int, reason: FinishReason, stop: str | int | None
    ) -> TextDelta:
        self.finish_reason = reason
        return TextDelta(
            text="".join(pieces),
            token_ids=output.token_ids[:kept],
            logprobs=None if output.logprobs is None else output.logprobs[:kept],
            finish_reason=reason,
            stop_reason=stop,
        )
