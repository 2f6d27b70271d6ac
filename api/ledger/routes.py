"""/v1/usage and /admin/usage: what one's own tenant has used, and what all have."""

from __future__ import annotations

from datetime import date
from functools import partial
from typing import Any

from litestar import Request, get
from litestar.params import FromQuery

from ..gateway.admin_guard import admin_only
from ..server.errors import ApiError
from ..server.exchange import Exchange
from ..server.service import Served, Service
from ..store.errors import StoreError
from .ledger import UsageLedger

_NOTHING = "this server keeps no usage in a database: start it with ledger.enabled=true"


@get("/v1/usage", tags=["Usage"], summary="What your tenant has used")
async def own_usage(
    request: Request[Any, Any, Any],
    service: Served,
    since: FromQuery[date | None] = None,
    until: FromQuery[date | None] = None,
    by: FromQuery[str] = "model,day",
) -> dict[str, Any]:
    """Return what the tenant of the request's key has used, day by day in UTC, and what is left of its budgets.

    The latest requests may take a second to be in it. Costs are exact decimal numbers, in text.
    """
    ledger = _ledger(service)
    principal = Exchange.of(request.scope).principal
    told = await report(ledger, since=since, until=until, by=by, tenant=principal.tenant)
    budgets = [] if ledger.budgets is None else await ledger.budgets.describe(principal)
    return told | {"tenant": principal.tenant, "budgets": budgets}


@get("/admin/usage", tags=["Administration"], summary="What all tenants have used", guards=[admin_only])
async def all_usage(
    service: Served,
    since: FromQuery[date | None] = None,
    until: FromQuery[date | None] = None,
    by: FromQuery[str] = "tenant,model,day",
    tenant: FromQuery[str | None] = None,
    key: FromQuery[str | None] = None,
) -> dict[str, Any]:
    """Return what all tenants have used, or one tenant, or one key."""
    return await report(_ledger(service), since=since, until=until, by=by, tenant=tenant, key_id=key)


ROUTES = (own_usage, all_usage)


def _ledger(service: Service) -> UsageLedger:
    ledger = service.stages.ledger
    if not isinstance(ledger, UsageLedger) or ledger.store is None:
        raise ApiError(404, _NOTHING, code="no_ledger")
    return ledger


async def report(ledger: UsageLedger, *, by: str, **chosen: Any) -> dict[str, Any]:
    """Return what was used, as JSON has it; `chosen`: fields of reports.Wanted. Raises ApiError 400 and 503."""
    from .reports import Wanted, for_people, total, usage  # noqa: PLC0415  (sqlalchemy, which the store has brought)

    try:
        wanted = Wanted(by=tuple(name.strip() for name in by.split(",") if name.strip()), **chosen)
    except ValueError as error:
        raise ApiError(400, str(error)) from error
    assert ledger.store is not None
    try:
        async with ledger.reporting:
            rows = await ledger.store.read(partial(usage, wanted=wanted))
    except StoreError as error:
        raise ApiError(503, "the usage database does not answer", headers=(("retry-after", "5"),)) from error
    return {
        "object": "list",
        "currency": ledger.settings.currency,
        "data": [for_people(row) for row in rows],
        "total": for_people(total(rows)),
    }
