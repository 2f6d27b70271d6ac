"""What the API's process and the engine's tell each other: one message per request in, one per step out, as msgpack."""

from __future__ import annotations

import msgspec

from ...core.types import DecodeParams, FinishReason, Request, RequestOutput, StepStats, TokenLogprobs
from ...plugins.build import EngineConfig
from .types import EngineInfo


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all messages."""


class Configure(Message, frozen=True):
    """First message in: what to build."""

    config: EngineConfig


class Submit(Message, frozen=True):
    """A request, maybe one that another process had begun."""

    id: str
    prompt_ids: list[int]
    params: DecodeParams
    output_ids: list[int] = []  # that the client already has
    priority: int = 0
    timeout_s: float | None = None  # left until the deadline
    cache_salt: bytes = b""
    whole: bool = False  # nobody looks at the outputs before the last

    def to_request(self, now: float) -> Request:
        """Return the core's form of it. `now` is time.monotonic() of the engine's process."""
        return Request(
            id=self.id,
            token_ids=self.prompt_ids + self.output_ids,
            num_prompt_tokens=len(self.prompt_ids),
            params=self.params,
            priority=self.priority,
            deadline=None if self.timeout_s is None else now + self.timeout_s,
            cache_salt=self.cache_salt,
        )


class Abort(Message, frozen=True):
    """Callers left: free what these requests hold."""

    ids: list[str]


class Stop(Message, frozen=True):
    """End now."""


class Ready(Message, frozen=True):
    """The engine stands."""

    info: EngineInfo


class Failed(Message, frozen=True):
    """The engine cannot be built, or must end."""

    error: str  # for the user
    details: str  # the traceback, for the log


class Output(msgspec.Struct, frozen=True, array_like=True):
    """RequestOutput on the wire: the usual few fields first."""

    id: str
    token_ids: list[int]
    finish_reason: FinishReason | None = None
    stop_token_id: int | None = None
    logprobs: list[TokenLogprobs] | None = None
    prompt_logprobs: list[TokenLogprobs] | None = None
    num_cached_tokens: int = 0
    error: str | None = None
    num_drafted: int = 0
    num_accepted: int = 0

    @classmethod
    def from_core(cls, output: RequestOutput) -> Output:
        """Return the wire's form of what the engine published."""
        return cls(
            output.request_id,
            output.token_ids,
            output.finish_reason,
            output.stop_token_id,
            output.logprobs,
            output.prompt_logprobs,
            output.num_cached_tokens,
            output.error,
            output.num_drafted,
            output.num_accepted,
        )

    def to_core(self) -> RequestOutput:
        """Return the core's form again."""
        return RequestOutput(
            request_id=self.id,
            token_ids=self.token_ids,
            finish_reason=self.finish_reason,
            stop_token_id=self.stop_token_id,
            logprobs=self.logprobs,
            prompt_logprobs=self.prompt_logprobs,
            num_cached_tokens=self.num_cached_tokens,
            error=self.error,
            num_drafted=self.num_drafted,
            num_accepted=self.num_accepted,
        )


class Step(Message, frozen=True):
    """All that one turn of the engine brought."""

    outputs: list[Output]
    stats: StepStats | None  # None: requests were refused or aborted, nothing was computed
    started: list[str]  # requests that were scheduled for the first time


ToEngine = Configure | Submit | Abort | Stop
FromEngine = Ready | Failed | Step

_encoder = msgspec.msgpack.Encoder()
_to_engine = msgspec.msgpack.Decoder(ToEngine)
_from_engine = msgspec.msgpack.Decoder(FromEngine)

HEADER_BYTES = 4


def pack(message: Message) -> bytes:
    """Return a frame: the body's length in 4 bytes, big-endian, and the body."""
    body = _encoder.encode(message)
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def unpack_to_engine(body: bytes | bytearray | memoryview) -> ToEngine:
    """Decode a frame's body in the engine's process."""
    message: ToEngine = _to_engine.decode(body)
    return message


def unpack_from_engine(body: bytes | bytearray | memoryview) -> FromEngine:
    """Decode a frame's body in the API's process."""
    message: FromEngine = _from_engine.decode(body)
    return message
