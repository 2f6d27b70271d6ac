"""POST /tokenize and /detokenize, in vLLM's shape and in TGI's."""

from __future__ import annotations

from typing import Any

from litestar import Request, post
from litestar.params import JSONBody

from ..errors import ParameterError
from ..text import TextModel
from .documentation import answers
from .exchange import Exchange
from .openai_answers import DetokenizeResponse, TokenizeResponse
from .openai_schemas import DetokenizeRequest, TokenizeRequest
from .prompts import run_text
from .sampling import named
from .service import Served


@post(
    "/tokenize", status_code=200, tags=["Tokens"], summary="Turn text into tokens", responses=answers(TokenizeResponse)
)
async def tokenize(
    request: Request[Any, Any, Any], data: JSONBody[TokenizeRequest], service: Served
) -> dict[str, Any] | list[dict[str, Any]]:
    """Answer `prompt` or `messages` with {count, max_model_len, tokens}, and `inputs` with TGI's list of tokens."""
    service.check_use(data.model, Exchange.of(request.scope))
    model = service.find(data.model)
    text = model.text
    if "inputs" in data.model_fields_set:
        return await run_text(lambda: _with_offsets(text, data.inputs, data.add_special_tokens), len(data.inputs))
    if data.messages:
        with named({}):
            tokens = await model.prompter.render(data)
    else:
        tokens = await run_text(
            lambda: text.encode(data.prompt, add_special_tokens=data.add_special_tokens), len(data.prompt)
        )
    strings = None
    if data.return_token_strs:
        strings = await run_text(lambda: [text.token_text(token_id) for token_id in tokens], len(tokens))
    return {
        "count": len(tokens),
        "max_model_len": model.engine.info.max_model_len,
        "tokens": tokens,
        "token_strs": strings,
    }


@post(
    "/detokenize",
    status_code=200,
    tags=["Tokens"],
    summary="Turn tokens into text",
    responses=answers(DetokenizeResponse),
)
async def detokenize(
    request: Request[Any, Any, Any], data: JSONBody[DetokenizeRequest], service: Served
) -> dict[str, Any]:
    """Return the text of tokens, special ones included."""
    service.check_use(data.model, Exchange.of(request.scope))
    model = service.find(data.model)
    _check_token_ids(data.tokens, model.engine.info.vocab_size)
    text = model.text
    prompt = await run_text(lambda: text.decode(data.tokens, skip_special_tokens=False), len(data.tokens))
    return {"prompt": prompt}


def _with_offsets(text: TextModel, inputs: str, add_special_tokens: bool) -> list[dict[str, Any]]:
    """Return TGI's shape: each token with the characters that it covers."""
    encoding = text.tokenizer.encode_batch([inputs], add_special_tokens=add_special_tokens)[0]
    return [
        {"id": token_id, "text": text.token_text(token_id), "start": start, "stop": stop}
        for token_id, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True)
    ]


def _check_token_ids(token_ids: list[int], vocab_size: int) -> None:
    """Refuse ids outside the vocabulary. Raises ParameterError."""
    for token_id in (min(token_ids, default=0), max(token_ids, default=0)):
        if not 0 <= token_id < vocab_size:
            raise ParameterError("tokens", token_id, f"token ids from 0 to {vocab_size - 1}")
