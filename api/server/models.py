"""GET /v1/models: what is served, under which names and with how long a context."""

from __future__ import annotations

from typing import Any

from litestar import Request, get
from litestar.params import FromPath

from .documentation import answers
from .exchange import Exchange
from .openai_answers import ModelCard, ModelList
from .served import ServedModel
from .service import Served, Service


@get("/v1/models", tags=["OpenAI"], summary="List the served models", responses=answers(ModelList))
async def list_models(request: Request[Any, Any, Any], service: Served) -> dict[str, Any]:
    """List what is served, once for each name: as far as the key that is shown is good for it."""
    principal = Exchange.of(request.scope).principal
    named = [(model, name) for model in service.models for name in model.names if principal.may_use_model(name)]
    return {"object": "list", "data": [_card(service, model, name) for model, name in named]}


@get("/v1/models/{name:path}", tags=["OpenAI"], summary="Look at a model", responses=answers(ModelCard))
async def show_model(name: FromPath[str], request: Request[Any, Any, Any], service: Served) -> dict[str, Any]:
    """Return one model. Names may hold slashes."""
    name = name.removeprefix("/")
    service.check_use(name, Exchange.of(request.scope))
    return _card(service, service.find(name), name)


def _card(service: Service, model: ServedModel, name: str) -> dict[str, Any]:
    permission = {
        "id": f"modelperm-{model.fingerprint}",
        "object": "model_permission",
        "created": service.created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    info = model.engine.info
    engine = {
        "backend": info.backend,
        "device": info.device,
        "dtype": info.dtype,
        "quantization": info.settings.get("quantization", "none"),
        "batch_invariant": info.batch_invariant,
    }
    return {
        "id": name,
        "object": "model",
        "created": service.created,
        "owned_by": "isotoken",
        "root": info.model,
        "parent": None if name == model.name else model.name,
        "max_model_len": info.max_model_len,
        "engine": engine,
        "permission": [permission],
    }
