"""GET /v1/models: what is served, under which names and with how long a context."""

from __future__ import annotations

from typing import Any

from litestar import get
from litestar.params import FromPath

from .documentation import answers
from .openai_answers import ModelCard, ModelList
from .service import Served, Service


@get("/v1/models", tags=["OpenAI"], summary="List the served model", responses=answers(ModelList))
async def list_models(service: Served) -> dict[str, Any]:
    """List the served model, once for each of its names."""
    return {"object": "list", "data": [_card(service, name) for name in service.names]}


@get("/v1/models/{name:path}", tags=["OpenAI"], summary="Look at a model", responses=answers(ModelCard))
async def show_model(name: FromPath[str], service: Served) -> dict[str, Any]:
    """Return one model. Names may hold slashes."""
    name = name.removeprefix("/")
    service.check_model(name)
    return _card(service, name)


def _card(service: Service, name: str) -> dict[str, Any]:
    permission = {
        "id": f"modelperm-{service.fingerprint}",
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
    info = service.engine.info
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
        "parent": None if name == service.names[0] else service.names[0],
        "max_model_len": info.max_model_len,
        "engine": engine,
        "permission": [permission],
    }
