"""OpenAI's request bodies, with vLLM's extra fields, as pydantic models."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, PlainValidator, model_validator

from .errors import ApiError
from .schemas import UNSUPPORTED, Items, RequestModel, SamplingFields, TokenIds

MAX_PROMPTS = 2048


def check_prompt(value: Any) -> Any:
    """Accept a string, a list of token ids, or a list of either; a union's complaints would be a page long."""
    if isinstance(value, str) or _is_token_ids(value):
        return value
    if isinstance(value, list) and 0 < len(value) <= MAX_PROMPTS:
        kinds = {str if isinstance(item, str) else list if _is_token_ids(item) else None for item in value}
        if kinds in ({str}, {list}):
            return value
    raise ValueError(f"a string, a list of 1 to {MAX_PROMPTS} strings, a list of token ids, or a list of such lists")


def _is_token_ids(value: Any) -> bool:
    return isinstance(value, list) and set(map(type, value)) == {int}


Prompt = Annotated[str | list[str] | TokenIds | list[TokenIds], PlainValidator(check_prompt)]


class CompletionRequest(SamplingFields):
    """POST /v1/completions."""

    unsupported: ClassVar = {**UNSUPPORTED, "suffix": ("",)}

    prompt: Prompt
    max_tokens: int = Field(default=16, description="0 scores the prompt only.")
    echo: bool = Field(default=False, description="Put the prompt before the text.")
    logprobs: int | None = Field(default=None, description="Alternatives at each position, besides the token itself.")

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, one or several, as a list."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]
        return self.prompt  # type: ignore[return-value]


class ContentPart(RequestModel):
    """A part of a message's content; only text is served."""

    type: str = "text"
    text: str = ""

    @model_validator(mode="after")
    def _only_text(self) -> ContentPart:
        if self.type not in ("text", "input_text", "output_text"):
            raise ValueError('a part of type "text": this server serves text only')
        return self


class ChatMessage(RequestModel):
    """One message. Fields besides these reach the chat template as they are."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Items[ContentPart] = ""

    @property
    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)

    def for_template(self) -> dict[str, Any]:
        """Return the message as chat templates know them: text content, and no developer role."""
        role = "system" if self.role == "developer" else self.role
        return {**(self.model_extra or {}), "role": role, "content": self.text}


class ChatRequest(SamplingFields):
    """POST /v1/chat/completions."""

    unsupported: ClassVar = {
        **UNSUPPORTED,
        "functions": ([],),
        "function_call": ("none", "auto"),
        "modalities": (["text"],),
        "audio": (),
        "prediction": (),
        "web_search_options": (),
        "documents": ([],),
        "reasoning_effort": ("none",),
    }

    messages: Items[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, description="Deprecated by OpenAI: max_completion_tokens.")
    max_completion_tokens: int | None = Field(
        default=None, description="Left out: as many as the context has room for."
    )
    logprobs: bool = False
    top_logprobs: int = Field(default=0, description="Alternatives at each position; needs logprobs.")
    echo: bool = Field(default=False, description="Put the last message before the answer.")
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = Field(default=False, description="The chat template writes them itself.")
    chat_template: str = Field(default="", description="Jinja text that replaces the model's template.")
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    tools: Items[dict[str, Any]] = Field(default_factory=list, description="Functions that may be called.")
    tool_choice: str | dict[str, Any] | None = Field(
        default=None, description="none, auto, required, or a function by its name."
    )
    parallel_tool_calls: bool = Field(default=True, description="Several calls in one answer.")

    @model_validator(mode="after")
    def _check_chat(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs to be true", param="top_logprobs")
        if (
            self.continue_final_message
            and "add_generation_prompt" in self.model_fields_set
            and self.add_generation_prompt
        ):
            message = "continue_final_message and add_generation_prompt exclude each other"
            raise ApiError(400, message, param="continue_final_message")
        return self


class TokenizeRequest(RequestModel):
    """POST /tokenize: vLLM's shape with prompt or messages; TGI's with inputs."""

    model: str = ""
    prompt: str = ""
    messages: Items[ChatMessage] = Field(default_factory=list)
    inputs: str = ""
    add_special_tokens: bool = True
    return_token_strs: bool = False
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template: str = ""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_input(self) -> TokenizeRequest:
        given = [name for name in ("prompt", "messages", "inputs") if name in self.model_fields_set]
        if len(given) != 1:
            raise ApiError(400, "exactly one of prompt, messages and inputs is required", param="prompt")
        return self


class DetokenizeRequest(RequestModel):
    """POST /detokenize."""

    model: str = ""
    tokens: TokenIds
