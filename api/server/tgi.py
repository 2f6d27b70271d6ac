"""The native routes: POST /generate, /generate_stream and /, and GET /info, as text-generation-inference has them."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import Any

from litestar import Request, Response, get, post
from litestar.params import JSONBody
from litestar.types import ASGIApp

from ... import __version__
from ..sampling_checks import MAX_STOP_STRINGS
from .disconnect import UntilDisconnect
from .documentation import answers
from .errors import ApiError, failure_of
from .exchange import Exchange
from .generation import Generation
from .requests import context_of
from .sampling import named
from .service import Served, Service
from .sse import EventStream, encode, event
from .structured import vet
from .tgi_answers import GenerateResponse, Info, TgiError
from .tgi_forms import ShortForm, TgiForm
from .tgi_params import PARAMETER_NAMES, generate_params, generate_prompt
from .tgi_schemas import GenerateRequest

ERRORS = {
    422: "A field is wrong",
    424: "The engine failed on this request",
    429: "The queue is full: see retry-after",
    503: "The engine starts or drains",
}
_ANSWERS = answers(GenerateResponse, error=TgiError, statuses=ERRORS)


@post(
    "/generate",
    status_code=200,
    tags=["TGI"],
    summary="Continue a prompt",
    responses=_ANSWERS,
)
async def generate(request: Request[Any, Any, Any], data: JSONBody[GenerateRequest], service: Served) -> ASGIApp:
    """Answer `inputs` as text-generation-inference does, and `prompt` with {"text"}. Streams when `stream` is true."""
    return await _answer(request, data, service)


@post(
    "/generate_stream",
    status_code=200,
    tags=["TGI"],
    summary="Continue a prompt, streamed",
    responses=_ANSWERS,
)
async def generate_stream(request: Request[Any, Any, Any], data: JSONBody[GenerateRequest], service: Served) -> ASGIApp:
    """Stream one event for each token."""
    return await _answer(request, data, service, stream=True)


@post(
    "/",
    status_code=200,
    tags=["TGI"],
    summary="Continue a prompt (compatible with hosted endpoints)",
    responses=_ANSWERS,
)
async def compat_generate(request: Request[Any, Any, Any], data: JSONBody[GenerateRequest], service: Served) -> ASGIApp:
    """Like /generate, with the answer in a list."""
    return await _answer(request, data, service, in_list=True)


@get(
    "/info",
    tags=["TGI"],
    summary="Say what is served",
    responses=answers(Info, error=TgiError, statuses={503: ERRORS[503]}),
)
async def info(service: Served) -> dict[str, Any]:
    """Return the model and its limits."""
    model, limits = service.default, service.settings.limits
    facts = model.engine.info
    weights = facts.settings.get("quantization", "none")
    return {
        "model_id": model.name,
        "model_sha": None,
        "model_dtype": facts.dtype,
        "quantize": None if weights == "none" else weights,
        "model_device_type": facts.device,
        "model_pipeline_tag": "text-generation",
        "max_concurrent_requests": facts.max_num_seqs + limits.max_waiting_requests,
        "max_best_of": 1,
        "max_stop_sequences": MAX_STOP_STRINGS,
        "max_input_tokens": facts.max_model_len - 1,
        "max_total_tokens": facts.max_model_len,
        "validation_workers": 1,
        "max_client_batch_size": 1,
        "router": "isotoken",
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }


async def _answer(
    request: Request[Any, Any, Any],
    data: GenerateRequest,
    service: Service,
    *,
    stream: bool = False,
    in_list: bool = False,
) -> ASGIApp:
    started = time.monotonic()
    exchange = Exchange.of(request.scope)
    model = service.choose("", exchange)
    facts = model.engine.info
    stream = stream or data.stream
    if stream and data.parameters.decoder_input_details:
        raise ApiError(400, "decoder_input_details is not available in a stream", param="decoder_input_details")
    if service.stages.filters is not None:
        await service.stages.filters.prompt(exchange, data)
    with named(PARAMETER_NAMES):
        prompt = await generate_prompt(data, model.prompter)
        params = generate_params(data, prompt, facts.max_model_len, stream=stream)
        await vet(model, params, exchange)
        context = context_of(request.scope, "gen-")
        validated = time.monotonic()
        exchange.timings["tokenize"] = validated - started
        generation = await service.submit(
            exchange,
            model,
            [prompt],
            params,
            request_id=context.id,
            deadline=context.deadline,
            whole=not stream,
        )
    form = ShortForm(generation) if data.is_short else TgiForm(data, params, generation, model.text)
    if stream:
        return EventStream(
            form.events(),
            error_event=lambda error: event(failure_of(error).tgi()),
            headers=_headers(facts.device, prompt.text or ""),
            slow_reader_timeout=service.settings.slow_reader_timeout,
        )
    async with aclosing(generation):
        with UntilDisconnect(request.scope, request.receive):
            (choice,) = await generation.collect()
        headers = dict(_timings(generation, started, validated))
    answer = form.answer(choice)
    return Response(
        encode([answer] if in_list else answer),
        headers=headers | {name.decode(): value.decode() for name, value in _headers(facts.device, prompt.text or "")},
        media_type="application/json",
    ).to_asgi_response(app=None, request=request)


def _headers(device: str, prompt: str) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"x-compute-type", device.encode()), (b"x-compute-characters", b"%d" % len(prompt)))


def _timings(generation: Generation, started: float, validated: float) -> list[tuple[str, str]]:
    """Return TGI's timing headers: milliseconds, and x-compute-time in seconds."""
    total = time.monotonic() - started
    queued = (generation.streams[0].stats.queue_time if generation.streams[0].stats else None) or 0.0
    inference = max(0.0, total - (validated - started) - queued)
    num_tokens = generation.num_output_tokens
    return [
        ("x-compute-time", f"{total:.6f}"),
        ("x-total-time", f"{total * 1000:.0f}"),
        ("x-validation-time", f"{(validated - started) * 1000:.0f}"),
        ("x-queue-time", f"{queued * 1000:.0f}"),
        ("x-inference-time", f"{inference * 1000:.0f}"),
        ("x-time-per-token", f"{inference * 1000 / max(1, num_tokens):.0f}"),
        ("x-prompt-tokens", str(generation.num_prompt_tokens)),
        ("x-generated-tokens", str(num_tokens)),
    ]
