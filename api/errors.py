"""The errors that callers of the API meet, each carrying what an HTTP layer needs to answer well."""

from __future__ import annotations

from ..core.types import IsotokenError


class ParameterError(IsotokenError, ValueError):
    """A request's field has a value that is not allowed."""

    code = "invalid_value"  # in HTTP's errors

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field = field
        self.value = value
        self.allowed = allowed
        super().__init__(f"{field} = {_short(value)} is not allowed: {allowed}")


class NotOffered(ParameterError):
    """A request's field asks for what the engine's backend cannot do."""

    code = "unsupported_parameter"

    def __init__(self, field: str, value: object, reason: str) -> None:
        super().__init__(field, value, "null")
        self.reason = reason
        self.args = (f"{field} is not available here: {reason}",)


class ContextLengthError(ParameterError):
    """The prompt, or the prompt with what was asked for, does not fit the model's context."""

    code = "context_length_exceeded"

    def __init__(self, num_prompt_tokens: int, max_tokens: int, max_model_len: int) -> None:
        self.num_prompt_tokens = num_prompt_tokens
        self.max_tokens = max_tokens
        self.max_model_len = max_model_len
        super().__init__("prompt", num_prompt_tokens, f"at most {max_model_len} tokens")
        wanted = f" and {max_tokens} more were asked for" if max_tokens else ""
        self.args = (
            f"this model's maximum context length is {max_model_len} tokens: "
            f"the prompt has {num_prompt_tokens}{wanted}; shorten the prompt or lower max_tokens",
        )


class NoChatTemplate(ParameterError):
    """A conversation was given to a model that has no chat template."""

    def __init__(self, model: str) -> None:
        super().__init__("messages", model, "a model with a chat template")
        self.args = (f"the model {model!r} has no chat template: complete a text instead, or give a chat_template",)


class Overloaded(IsotokenError):
    """The queue is full. Try again after `retry_after` seconds."""

    def __init__(self, reason: str, retry_after: float) -> None:
        self.reason = reason
        self.retry_after = retry_after
        super().__init__(f"the server is overloaded: {reason}; retry after {retry_after:.0f} s")


class NotReady(IsotokenError):
    """The engine takes no requests now: it starts, drains or has stopped."""

    def __init__(self, state: str, detail: str = "") -> None:
        self.state = state
        super().__init__(f"the engine is not ready: it is {state}" + (f" ({detail})" if detail else ""))


class EngineFailed(IsotokenError):
    """The engine could not start, gave up, or failed on this request."""


class ModelNotFound(IsotokenError):
    """No model of that name is built in, in a local folder, in the cache or to be had from the hub."""


class UnknownModel(IsotokenError):
    """A request, or an operator, names a model that is not served here."""


def _short(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
