"""text-generation-inference's answers as pydantic models: for the documentation and the tests."""

from __future__ import annotations

from typing import Any, Literal

from .openai_answers import Answer

FinishReason = Literal["length", "eos_token", "stop_sequence"]


class PrefillToken(Answer):
    """A token of the prompt; the first has no logprob."""

    id: int
    text: str
    logprob: float | None


class Token(Answer):
    """A generated token."""

    id: int
    text: str
    logprob: float
    special: bool


class Details(Answer):
    """How the text came about."""

    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    prefill: list[PrefillToken]
    tokens: list[Token]
    top_tokens: list[list[Token]] | None = None
    best_of_sequences: list[Any] | None = None


class GenerateResponse(Answer):
    """The answer of POST /generate to `inputs`."""

    generated_text: str
    details: Details | None = None


class ShortResponse(Answer):
    """The answer of POST /generate to `prompt`."""

    text: str


class StreamDetails(Answer):
    """How the text came about; with the last event."""

    finish_reason: FinishReason
    generated_tokens: int
    input_length: int
    seed: int | None


class StreamEvent(Answer):
    """One token of a stream. The last has the whole text and its details."""

    index: int
    token: Token
    top_tokens: list[Token] | None = None
    generated_text: str | None
    details: StreamDetails | None


class TgiError(Answer):
    """Every error on TGI's routes."""

    error: str
    error_type: str


class Info(Answer):
    """The answer of GET /info."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    quantize: str | None
    model_device_type: str
    model_pipeline_tag: str
    max_concurrent_requests: int
    max_best_of: int
    max_stop_sequences: int
    max_input_tokens: int
    max_total_tokens: int
    validation_workers: int
    max_client_batch_size: int
    router: str
    version: str
    sha: str | None
    docker_label: str | None
