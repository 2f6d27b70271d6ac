"""What a request on TGI's routes asks for, as a prompt and SamplingParams."""

from __future__ import annotations

import secrets
from dataclasses import replace

from ..errors import ParameterError
from ..structured.outputs import StructuredOutputs
from ..text import SamplingParams
from .generation import Prompt
from .prompts import Prompter
from .tgi_schemas import GenerateParameters, GenerateRequest, Grammar

PARAMETER_NAMES = {
    "max_tokens": "max_new_tokens",
    "logprobs": "top_n_tokens",
    "prompt_logprobs": "decoder_input_details",
    "prompt": "inputs",
}

DEFAULT_MAX_NEW_TOKENS = 1024

_SHORT_FIELDS = ("temperature", "top_k", "top_p", "seed", "stop")
_SAMPLING_FIELDS = ("top_k", "top_p", "repetition_penalty", "frequency_penalty")


async def generate_prompt(request: GenerateRequest, prompter: Prompter) -> Prompt:
    """Tokenize, and keep the last `truncate` tokens."""
    if request.is_short:
        return await prompter.plain(request.prompt, field="prompt")
    prompt = await prompter.plain(request.inputs, keep=request.parameters.truncate, field="inputs")
    return replace(prompt, text=request.inputs)


def generate_params(request: GenerateRequest, prompt: Prompt, max_model_len: int, *, stream: bool) -> SamplingParams:
    """Return the parameters. With no max_new_tokens, as many as TGI's default and the context allow."""
    if request.is_short:
        fields = {name: getattr(request, name) for name in _SHORT_FIELDS if name in request.model_fields_set}
        return SamplingParams(max_tokens=request.max_tokens, **{"temperature": 0.0, **fields})
    asked = request.parameters
    room = max(1, max_model_len - len(prompt.token_ids))
    fields = {name: getattr(asked, name) for name in _SAMPLING_FIELDS if name in asked.model_fields_set}
    sampled = _is_sampled(asked)
    return SamplingParams(
        max_tokens=asked.max_new_tokens or min(DEFAULT_MAX_NEW_TOKENS, room),
        temperature=asked.temperature if sampled else 0.0,
        seed=secrets.randbits(63) if sampled and asked.seed is None else asked.seed,  # told in the details
        stop=[*asked.stop, *asked.stop_sequences],
        include_stop_str_in_output=True,
        logprobs=asked.top_n_tokens if stream or asked.details else None,
        prompt_logprobs=0 if asked.decoder_input_details else None,
        structured_outputs=None if asked.grammar is None else _form(asked.grammar),
        **fields,
    )


def _form(grammar: Grammar) -> StructuredOutputs:
    if grammar.type == "regex":
        return StructuredOutputs(regex=grammar.value, name="grammar")
    schema = grammar.value
    if grammar.type == "json_schema":
        if not isinstance(schema, dict) or "schema" not in schema:
            raise ParameterError("grammar", schema, "an object with a schema")
        schema = schema["schema"]
    return StructuredOutputs(json=schema, name="grammar")


def _is_sampled(asked: GenerateParameters) -> bool:
    return asked.do_sample or asked.temperature != 1.0 or asked.top_k is not None or asked.top_p < 1.0


def seed_of(params: SamplingParams) -> int | None:
    """Return the seed that the details tell: none for greedy answers."""
    return params.seed if params.temperature > 0 else None
