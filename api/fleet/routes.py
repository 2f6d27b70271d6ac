"""/admin/models: what is loaded, and the commands that load, unload and rename while requests run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from litestar import Response, get, post
from litestar.params import JSONBody
from pydantic import Field

from ...core.types import IsotokenError
from ..errors import UnknownModel
from ..gateway.admin_guard import admin_only
from ..server.errors import ApiError
from ..server.schemas import RequestModel
from ..server.service import Served, Service
from .deployment import Deployment
from .errors import FleetError
from .fleet import Fleet
from .settings import ModelSettings, Name
from .status import status

_TAG = ["Administration"]


class LoadModel(ModelSettings, frozen=True):
    """POST /admin/models/load: a model as the configuration has it, and what to do once it is there."""

    activate: bool = Field(default=True, description="Its name and aliases then stand for this version.")

    def settings(self) -> ModelSettings:
        """Return the model's part."""
        return ModelSettings(**{name: getattr(self, name) for name in self.model_fields_set - {"activate"}})


class WhichModel(RequestModel):
    """POST /admin/models/drain and /resume."""

    model: str = Field(description="A name, an alias, name@version, or name@ with the version's first digits.")


class UnloadModel(WhichModel):
    """POST /admin/models/unload."""

    timeout: float | None = Field(
        default=None, ge=0, le=1e6, description="Seconds for requests in hand; null: the server's."
    )
    force: bool = Field(default=False, description="Even where aliases stand for it: they are removed.")


class SetAlias(RequestModel):
    """POST /admin/models/alias."""

    alias: Name
    target: str = Field(description="name@version, or anything that names a model. One that was here is loaded again.")


class WhichAlias(RequestModel):
    """POST /admin/models/unalias and /rollback."""

    alias: str = Field(description="An alias, or a model's name.")


@get("/admin/models", tags=_TAG, summary="List models, names and memory", guards=[admin_only])
async def show_models(service: Served) -> dict[str, Any]:
    """Return every model with its state and memory, what every name stands for, and the budget."""
    return status(_fleet(service))


@post("/admin/models/load", status_code=202, tags=_TAG, summary="Load a model", guards=[admin_only])
async def load(data: JSONBody[LoadModel], service: Served) -> dict[str, Any]:
    """Begin to load a model and answer at once: `GET /admin/models` tells how it goes. The old version serves on."""
    with _explained():
        return _told(_fleet(service), _fleet(service).begin_load(data.settings(), activate=data.activate))


@post("/admin/models/unload", status_code=202, tags=_TAG, summary="Unload a model", guards=[admin_only])
async def unload(data: JSONBody[UnloadModel], service: Served) -> dict[str, Any]:
    """Send a model no new requests, and end it after its last."""
    with _explained():
        return _told(_fleet(service), _fleet(service).unload(data.model, timeout=data.timeout, force=data.force))


@post("/admin/models/drain", status_code=200, tags=_TAG, summary="Send a model no new requests", guards=[admin_only])
async def drain(data: JSONBody[WhichModel], service: Served) -> dict[str, Any]:
    """Send a model no new requests; it stays loaded."""
    with _explained():
        return _told(_fleet(service), _fleet(service).drain(data.model))


@post("/admin/models/resume", status_code=200, tags=_TAG, summary="Send requests again", guards=[admin_only])
async def resume(data: JSONBody[WhichModel], service: Served) -> dict[str, Any]:
    """Send requests again to a model that drains."""
    with _explained():
        return _told(_fleet(service), _fleet(service).resume(data.model))


@post(
    "/admin/models/alias", status_code=200, tags=_TAG, summary="Let an alias stand for a version", guards=[admin_only]
)
async def set_alias(data: JSONBody[SetAlias], service: Served) -> Response[dict[str, Any]]:
    """Let an alias stand for a version: 202 where that is loaded first."""
    with _explained():
        return _moved(_fleet(service), _fleet(service).set_alias(data.alias, data.target))


@post("/admin/models/unalias", status_code=200, tags=_TAG, summary="Remove an alias", guards=[admin_only])
async def remove_alias(data: JSONBody[WhichAlias], service: Served) -> dict[str, Any]:
    """Remove an alias. The model stays loaded as long as another name stands for it."""
    with _explained():
        _fleet(service).remove_alias(data.alias)
    return {"alias": data.alias, "removed": True}


@post(
    "/admin/models/rollback", status_code=200, tags=_TAG, summary="Go back to the version before", guards=[admin_only]
)
async def rollback(data: JSONBody[WhichAlias], service: Served) -> Response[dict[str, Any]]:
    """Let a name stand for what it stood for before: 202 where that is loaded first."""
    with _explained():
        return _moved(_fleet(service), _fleet(service).rollback(data.alias))


ROUTES = (show_models, load, unload, drain, resume, set_alias, remove_alias, rollback)


def _fleet(service: Service) -> Fleet:
    if service.fleet is None:
        message = (
            "this server serves one model as it was started: list `models` in its configuration, or enable `fleet`"
        )
        raise ApiError(404, message, code="no_fleet")
    return service.fleet


def _told(fleet: Fleet, deployment: Deployment) -> dict[str, Any]:
    return deployment.told(fleet.roster.names.names_of(deployment.key))


def _moved(fleet: Fleet, deployment: Deployment) -> Response[dict[str, Any]]:
    """Answer a command that let a name stand for a version, or will once that is loaded."""
    code: Literal[200, 202] = 202 if deployment.is_coming else 200
    return Response(_told(fleet, deployment), status_code=code)


@contextmanager
def _explained() -> Iterator[None]:
    """Tell what is wrong with a command in HTTP's words."""
    try:
        yield
    except FleetError as error:
        raise ApiError(error.status, str(error), code="not_possible") from error
    except UnknownModel as error:
        raise ApiError(404, str(error), code="model_not_found") from error
    except IsotokenError as error:
        raise ApiError(409, str(error), code="not_possible") from error
