"""Outputs of requests whose readers wait for the end: they travel in lumps, for nobody looks at them one by one."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.types import RequestOutput

LUMP = 16
"""Tokens that are sent together. The first of a request goes alone, for it says when the prompt was done."""


def joined(before: RequestOutput | None, output: RequestOutput) -> RequestOutput:
    """Return what two outputs of one request say together. Uses up the first; the second may still be looked at."""
    if before is None:
        return output
    before.token_ids += output.token_ids
    if output.logprobs is not None:
        before.logprobs = (before.logprobs or []) + output.logprobs
    if output.prompt_logprobs is not None:
        before.prompt_logprobs = (before.prompt_logprobs or []) + output.prompt_logprobs
    if output.finish_reason is not None:  # the last
        before.finish_reason, before.stop_token_id = output.finish_reason, output.stop_token_id
        before.error = output.error
    before.num_cached_tokens = max(before.num_cached_tokens, output.num_cached_tokens)
    if output.num_drafted:
        before.num_drafted += output.num_drafted
        before.num_accepted += output.num_accepted
    return before


@dataclass(slots=True)
class _Lump:
    held: RequestOutput | None = None
    has_begun: bool = False


class Lumps:
    """Holds outputs of some requests back for a while; those of others pass."""

    def __init__(self) -> None:
        self._lumps: dict[str, _Lump] = {}

    def expect(self, request_id: str) -> None:
        """Hold this request's outputs from now on."""
        self._lumps[request_id] = _Lump()

    def forget(self, request_id: str) -> None:
        """Drop what is held: the request is gone."""
        self._lumps.pop(request_id, None)

    def ripe(self, outputs: list[RequestOutput]) -> list[RequestOutput]:
        """Take what a step brought, and return what is to be sent now."""
        if not self._lumps:
            return outputs
        return [ripe for ripe in map(self._take, outputs) if ripe is not None]

    def _take(self, output: RequestOutput) -> RequestOutput | None:
        lump = self._lumps.get(output.request_id)
        if lump is None:
            return output
        output, lump.held = joined(lump.held, output), None
        if output.finish_reason is not None:
            del self._lumps[output.request_id]
        elif lump.has_begun and len(output.token_ids) < LUMP:
            lump.held = output
            return None
        lump.has_begun = lump.has_begun or bool(output.token_ids)
        return output
