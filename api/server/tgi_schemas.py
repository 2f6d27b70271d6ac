"""text-generation-inference's request bodies, and the short form of POST /generate."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from .errors import ApiError
from .schemas import Items, RequestModel


class Grammar(RequestModel):
    """A JSON schema, by itself or with a name, or a regular expression."""

    type: Literal["json", "json_schema", "regex"]
    value: Any


class GenerateParameters(RequestModel):
    """TGI's parameters. Greedy unless do_sample, temperature, top_k or top_p ask for sampling, as TGI has it."""

    unsupported: ClassVar = {
        "adapter_id": ("",),
        "best_of": (1,),
        "typical_p": (1, 1.0),
        "watermark": (False,),
    }

    max_new_tokens: int | None = Field(default=None, ge=1, description="Left out: 1024, or what the context allows.")
    do_sample: bool = False
    temperature: float = Field(default=1.0, gt=0)
    top_k: int | None = Field(default=None, ge=1)
    top_p: float = Field(default=1.0, gt=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0)
    frequency_penalty: float = Field(default=0.0, description="-2 to 2.")
    seed: int | None = Field(default=None, ge=0)
    stop: Items[str] = Field(
        default_factory=list, description="The text ends with the one that was met, as TGI has it."
    )
    stop_sequences: Items[str] = Field(default_factory=list, description="An older name of stop.")
    truncate: int | None = Field(default=None, ge=1, description="Keep the last so many prompt tokens.")
    return_full_text: bool = Field(default=False, description="Put the prompt before the text.")
    details: bool = False
    decoder_input_details: bool = Field(default=False, description="Score the prompt; needs details, and no stream.")
    top_n_tokens: int = Field(default=0, ge=0, description="Alternatives for each token.")
    grammar: Grammar | None = Field(default=None, description="What the text must be.")


class GenerateRequest(RequestModel):
    """POST /generate: `inputs` with `parameters`, or `prompt` with `max_tokens` and other sampling fields."""

    inputs: str = ""
    parameters: GenerateParameters = Field(default_factory=GenerateParameters)
    prompt: str = Field(default="", description="The short form: answered with {text}.")
    max_tokens: int = Field(default=16, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    stop: str | Items[str] = Field(default_factory=list)
    stream: bool = False

    @property
    def is_short(self) -> bool:
        """Whether it is the short form."""
        return "prompt" in self.model_fields_set

    @model_validator(mode="after")
    def _check(self) -> GenerateRequest:
        given = self.model_fields_set & {"inputs", "prompt"}
        if len(given) != 1:
            raise ApiError(400, "exactly one of inputs and prompt is required", param="inputs")
        if not (self.prompt or self.inputs):
            name = given.pop()
            raise ApiError(400, f"{name} = '' is not allowed: it must not be empty", param=name)
        parameters = self.parameters
        if parameters.decoder_input_details and not parameters.details:
            raise ApiError(400, "decoder_input_details needs details", param="decoder_input_details")
        return self
