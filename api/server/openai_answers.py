"""OpenAI's answers as pydantic models: what the documentation shows and what the tests hold real answers against."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

FinishReason = Literal["stop", "length"]
ChatFinishReason = Literal["stop", "length", "tool_calls"]


class Answer(BaseModel):
    """A part of an answer: exactly these fields."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class PromptTokensDetails(Answer):
    """Of the prompt's tokens."""

    cached_tokens: int
    audio_tokens: int


class CompletionTokensDetails(Answer):
    """Of the answer's tokens."""

    reasoning_tokens: int
    audio_tokens: int
    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class Usage(Answer):
    """Tokens in and out; a prompt counts once however many choices it has."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class LegacyLogprobs(Answer):
    """One entry for each token in each list. A prompt's first token has nulls."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(Answer):
    """One continuation. token_ids and prompt_token_ids come with return_token_ids."""

    index: int
    text: str
    logprobs: LegacyLogprobs | None
    finish_reason: FinishReason
    stop_reason: str | int | None
    prompt_logprobs: list[dict[str, Any] | None] | None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class CompletionResponse(Answer):
    """The answer of POST /v1/completions."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage


class CompletionChunkChoice(Answer):
    """What is new in one choice."""

    index: int
    text: str
    logprobs: LegacyLogprobs | None
    finish_reason: FinishReason | None
    stop_reason: str | int | None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class CompletionChunk(Answer):
    """One event of a streamed completion."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChunkChoice]
    usage: Usage | None = None


class FunctionCall(Answer):
    """A function and its arguments: JSON, as the model wrote it."""

    name: str
    arguments: str


class ToolCall(Answer):
    """A call that the model asks for."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class ChatMessageAnswer(Answer):
    """What the model said: text, or null where there are calls only."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[ToolCall] | None = None


class TopLogprob(Answer):
    """One alternative."""

    token: str
    logprob: float
    bytes: list[int]


class ChatLogprob(TopLogprob):
    """One token with its alternatives."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(Answer):
    """Of the message's tokens."""

    content: list[ChatLogprob]
    refusal: None


class ChatChoice(Answer):
    """One answer. token_ids comes with return_token_ids."""

    index: int
    message: ChatMessageAnswer
    logprobs: ChatLogprobs | None
    finish_reason: ChatFinishReason
    stop_reason: str | int | None
    token_ids: list[int] | None = None


class ChatResponse(Answer):
    """The answer of POST /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    prompt_logprobs: list[dict[str, Any] | None] | None = None
    prompt_token_ids: list[int] | None = None


class FunctionDelta(Answer):
    """A function's name, with which a call begins, or more of its arguments."""

    name: str | None = None
    arguments: str


class ToolCallDelta(Answer):
    """What is new in a call: its id and name first, then arguments."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class Delta(Answer):
    """What is new in a message."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChatChunkChoice(Answer):
    """What is new in one choice."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: ChatFinishReason | None
    stop_reason: str | int | None = None
    token_ids: list[int] | None = None


class ChatChunk(Answer):
    """One event of a streamed chat completion."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None
    prompt_token_ids: list[int] | None = None


class ErrorDetail(Answer):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(Answer):
    """Every error on OpenAI's routes."""

    error: ErrorDetail


class EngineCard(Answer):
    """What computes a model, and whether its answers are equal bit by bit in any company."""

    backend: str
    device: str
    dtype: str
    quantization: str  # of the weights; none: as they are
    batch_invariant: bool


class ModelCard(Answer):
    """A served model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: str | None
    max_model_len: int
    engine: EngineCard
    permission: list[dict[str, Any]]


class ModelList(Answer):
    """The answer of GET /v1/models."""

    object: Literal["list"]
    data: list[ModelCard]


class TokenizeResponse(Answer):
    """The answer of POST /tokenize."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeResponse(Answer):
    """The answer of POST /detokenize."""

    prompt: str
