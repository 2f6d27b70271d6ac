"""/admin/keys: make, list, look at and revoke API keys over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from litestar import Response, get, post
from litestar.params import FromPath, FromQuery, JSONBody
from pydantic import AwareDatetime, Field, model_validator

from ..server.errors import ApiError
from ..server.schemas import RequestModel
from ..server.service import Served, Service
from .admin_guard import admin_only
from .key_admin import KeyAdmin
from .principal import KeyLimits
from .settings import LimitSettings

_TAG = ["Administration"]


class NewKey(RequestModel):
    """POST /admin/keys."""

    tenant: str = "default"
    name: str = ""
    models: list[str] | None = Field(default=None, description="Names that it may ask for; null: every one.")
    routes: list[str] | None = Field(default=None, description="Paths, * at the end for all below; null: every one.")
    admin: bool = Field(default=False, description="May use /admin.")
    limits: LimitSettings = Field(default_factory=LimitSettings)
    priority: int = Field(default=0, description="Lower runs first.")
    weight: float = Field(default=1.0, description="Share beside other tenants.")
    expires: AwareDatetime | None = Field(default=None, description="A time with its zone, such as 2030-01-01T00:00Z.")
    expires_in_s: float | None = Field(default=None, gt=0, le=1e9, description="Or seconds from now.")

    @model_validator(mode="after")
    def _one_end(self) -> NewKey:
        if self.expires is not None and self.expires_in_s is not None:
            raise ValueError("one of expires and expires_in_s")
        return self


@post("/admin/keys", status_code=201, tags=_TAG, summary="Make an API key", guards=[admin_only])
async def create(data: JSONBody[NewKey], service: Served) -> Response[dict[str, Any]]:
    """Return the new key as `key`, this once, and what is kept of it."""
    from .keys import KeyRequest  # noqa: PLC0415  (sqlalchemy, which only a store needs)

    expires = data.expires
    if data.expires_in_s is not None:
        expires = datetime.now(UTC) + timedelta(seconds=data.expires_in_s)
    try:
        asked = KeyRequest(
            tenant=data.tenant,
            name=data.name,
            models=None if data.models is None else tuple(data.models),
            routes=None if data.routes is None else tuple(data.routes),
            is_admin=data.admin,
            limits=KeyLimits(**data.limits.model_dump()),
            priority=data.priority,
            weight=data.weight,
            expires=expires,
        )
    except ValueError as error:
        raise ApiError(400, str(error)) from error
    secret, key = await _keys(service).create(asked)
    return Response({"key": secret, **key.shown()}, status_code=201, headers={"cache-control": "no-store"})


@get("/admin/keys", tags=_TAG, summary="List API keys", guards=[admin_only])
async def list_all(service: Served, tenant: FromQuery[str | None] = None) -> dict[str, Any]:
    """Return what is kept of each key, or of each of a tenant's: never the keys themselves."""
    return {"object": "list", "data": [key.shown() for key in await _keys(service).list(tenant)]}


@get("/admin/keys/{key_id:str}", tags=_TAG, summary="Look at an API key", guards=[admin_only])
async def show(key_id: FromPath[str], service: Served) -> dict[str, Any]:
    """Return what is kept of a key."""
    return (await _keys(service).find(key_id)).shown()


@post("/admin/keys/{key_id:str}/revoke", status_code=200, tags=_TAG, summary="Revoke an API key", guards=[admin_only])
async def revoke(key_id: FromPath[str], service: Served) -> dict[str, Any]:
    """Make a key good for nothing, here at once and in other servers within `gateway.refresh_s` seconds."""
    return (await _keys(service).revoke(key_id)).shown()


ROUTES = (create, list_all, show, revoke)


def _keys(service: Service) -> KeyAdmin:
    gate = service.stages.gate
    keys = getattr(gate, "keys", None)
    if not isinstance(keys, KeyAdmin):
        raise ApiError(
            404, "this server keeps no API keys: start it with --set gateway.authenticator=keys", code="no_keys"
        )
    return keys
