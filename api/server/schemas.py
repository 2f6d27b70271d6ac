"""What every request body has in common: null means left out, unknown fields are harmless, absences are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator

from .errors import ApiError

T = TypeVar("T")


class _FirstOnly(FailFast):
    """FailFast that may stand in a union, which wants hashable members."""

    __hash__ = object.__hash__


Items = Annotated[list[T], _FirstOnly()]  # a million wrong items are one complaint, not a million
TokenIds = Items[int]

SAMPLING_FIELDS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "allowed_token_ids",
    "bad_words",
    "stop",
    "stop_token_ids",
    "include_stop_str_in_output",
    "ignore_eos",
    "min_tokens",
    "skip_special_tokens",
    "n",
)
"""Fields that mean the same here and in SamplingParams, which owns their ranges."""

UNSUPPORTED: Mapping[str, Sequence[Any]] = {
    "use_beam_search": (False,),
    "length_penalty": (1, 1.0),
    "logits_processors": ([],),
    "structural_tag": (),
    "prompt_embeds": ("", []),
    "kv_transfer_params": ({},),
    "mm_processor_kwargs": ({},),
    "spaces_between_special_tokens": (True,),
    "max_repetition_pattern_size": (0,),
    "min_repetition_pattern_size": (0,),
    "repetition_min_count": (0,),
}
"""Fields that would change the answer and that nothing here can do, each with the values that ask for nothing."""


class RequestModel(BaseModel):
    """A request body. A null is a field left out, as every client means it."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, protected_namespaces=())
    unsupported: ClassVar[Mapping[str, Sequence[Any]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _tidy(cls, body: Any) -> Any:
        """Drop nulls and refuse what would silently be ignored although it changes the answer."""
        if not isinstance(body, dict):
            return body
        if not body.keys().isdisjoint(cls.unsupported.keys()):
            cls._refuse(body)
        if None not in body.values():
            return body
        return {name: value for name, value in body.items() if value is not None}

    @classmethod
    def _refuse(cls, body: Mapping[str, Any]) -> None:
        for name, neutral in cls.unsupported.items():
            value = body.get(name)
            if value is not None and not any(type(value) is type(other) and value == other for other in neutral):
                raise ApiError(400, f"{name} is not supported by this server", param=name, code="unsupported_parameter")


class StreamOptions(RequestModel):
    """What a stream carries besides the text."""

    include_usage: bool = Field(
        default=False, description="usage: null in each chunk, and one last chunk with the usage."
    )
    continuous_usage_stats: bool = Field(default=False, description="The usage so far in each chunk.")


_NO_OPTIONS = StreamOptions()


class SamplingFields(RequestModel):
    """OpenAI's sampling fields and vLLM's extra ones. SamplingParams (or the model, when so set) has the defaults."""

    model: str = Field(default="", description="May be left out: one model is served.")
    temperature: float = Field(default=1.0, description="0 is greedy.")
    top_p: float = Field(default=1.0, description="Above 0, at most 1; 1 is off.")
    top_k: int = Field(default=0, description="0 or -1 is off.")
    min_p: float = Field(default=0.0, description="0 to 1; 0 is off.")
    seed: int | None = Field(
        default=None, description="The same seed gives the same tokens, on every backend. Drawn when left out."
    )
    presence_penalty: float = Field(default=0.0, description="-2 to 2.")
    frequency_penalty: float = Field(default=0.0, description="-2 to 2.")
    repetition_penalty: float = Field(default=1.0, description="Above 0; 1 is off.")
    logit_bias: dict[str, Any] = Field(default_factory=dict, description="Token id to a bias of -100 to 100.")
    allowed_token_ids: TokenIds | None = Field(default=None, description="Only these may be drawn.")
    bad_words: Items[str] = Field(default_factory=list, description="Words that may not be completed.")
    stop: str | Items[str] = Field(default_factory=list, description="Text that ends the answer.")
    stop_token_ids: TokenIds = Field(default_factory=list, description="Tokens that end the answer.")
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    min_tokens: int = 0
    skip_special_tokens: bool = True
    response_format: dict[str, Any] = Field(
        default_factory=dict, description="text, json_object, or json_schema with a schema."
    )
    structured_outputs: dict[str, Any] = Field(
        default_factory=dict, description="One of json, json_object, regex, choice and grammar."
    )
    guided_json: Any = Field(default=None, description="An older name of structured_outputs.json.")
    guided_regex: str = Field(default="", description="Likewise, of regex.")
    guided_choice: Items[str] = Field(default_factory=list, description="Likewise, of choice.")
    guided_grammar: str = Field(default="", description="Likewise, of grammar.")
    n: int = Field(default=1, description="Choices for each prompt, 1 to 128.")
    best_of: int | None = Field(default=None, description="Must equal n.")
    prompt_logprobs: int | None = Field(
        default=None, description="Alternatives at each prompt position; -1 is the whole vocabulary."
    )
    truncate_prompt_tokens: int | None = Field(
        default=None, ge=-1, description="Keep the last so many; -1: as many as fit."
    )
    add_special_tokens: bool = True
    return_tokens_as_token_ids: bool = False
    return_token_ids: bool = False
    priority: int = Field(default=0, ge=-(2**31), lt=2**31, description="Lower runs first.")
    request_id: str = Field(default="", max_length=128)
    user: str = Field(default="", max_length=512, description="Your user, who stays with one arm of an experiment.")
    cache_salt: str = Field(default="", max_length=1024, description="Prefix caches are shared among equal salts only.")
    stream: bool = False
    stream_options: StreamOptions = Field(default_factory=lambda: _NO_OPTIONS)

    @model_validator(mode="after")
    def _check_together(self) -> SamplingFields:
        """Refuse combinations that have no meaning."""
        if self.best_of not in (None, self.n):
            message = f"best_of = {self.best_of} is not supported: it must equal n ({self.n})"
            raise ApiError(400, message, param="best_of", code="unsupported_parameter")
        if "stream_options" in self.model_fields_set and not self.stream:
            raise ApiError(400, "stream_options is only allowed when stream is true", param="stream_options")
        if self.prompt_logprobs is not None and self.stream:
            raise ApiError(400, "prompt_logprobs is not available when stream is true", param="prompt_logprobs")
        return self
