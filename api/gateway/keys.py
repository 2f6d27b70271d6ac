"""Keys: create, list, find and revoke, in the store. Each function runs in one transaction of its caller's."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, func, insert, select, update

from ..store.tables.keys import api_keys, key_revisions
from .api_key import digest_of, hint_of, new_key_id, new_secret
from .principal import KeyLimits, Principal, routes_of

MAX_PRIORITY = 100
_NAME = re.compile(r"[\w .@:/+-]{0,128}")
_TENANT = re.compile(r"[\w.@:/+-]{1,128}")


class KeyNotFound(ValueError):
    """No key has this id."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is no key {key_id!r}: `isotoken keys list` shows those there are")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """What a new key is to be good for. Raises ValueError for what makes no sense."""

    tenant: str = "default"
    name: str = ""
    models: tuple[str, ...] | None = None
    routes: tuple[str, ...] | None = None
    is_admin: bool = False
    limits: KeyLimits = field(default_factory=KeyLimits)
    priority: int = 0
    weight: float = 1.0
    expires: datetime | None = None

    def __post_init__(self) -> None:
        if not _TENANT.fullmatch(self.tenant):
            raise ValueError(f"tenant = {self.tenant!r} is not allowed: 1 to 128 letters, digits and _.@:/+-")
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name = {self.name!r} is not allowed: up to 128 letters, digits, spaces and _.@:/+-")
        if not -MAX_PRIORITY <= self.priority <= MAX_PRIORITY:
            raise ValueError(f"priority = {self.priority} is not allowed: -{MAX_PRIORITY} to {MAX_PRIORITY}")
        if not 0.001 <= self.weight <= 1000:
            raise ValueError(f"weight = {self.weight} is not allowed: 0.001 to 1000")
        for path in self.routes or ():
            if not path.startswith("/"):
                raise ValueError(f"routes: {path!r} is no path: it must begin with /")
        for name, value in asdict(self.limits).items():
            if value is not None and value < 1:
                raise ValueError(f"{name} = {value} is not allowed: at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key as it is kept: everything but the key itself."""

    id: str
    digest: str
    hint: str
    request: KeyRequest
    created: datetime
    revoked: datetime | None = None
    revision: int = 0

    @property
    def state(self) -> str:
        """What it is good for now: "active", "expired" or "revoked"."""
        if self.revoked is not None:
            return "revoked"
        expires = self.request.expires
        return "expired" if expires is not None and expires <= datetime.now(UTC) else "active"

    def principal(self) -> Principal:
        """Return its bearer."""
        asked = self.request
        return Principal(
            key_id=self.id,
            tenant=asked.tenant,
            name=asked.name,
            models=None if asked.models is None else frozenset(asked.models),
            routes=None if asked.routes is None else routes_of(asked.routes),
            is_admin=asked.is_admin,
            limits=asked.limits,
            priority=asked.priority,
            weight=asked.weight,
            expires=None if asked.expires is None else asked.expires.timestamp(),
        )

    def shown(self) -> dict[str, Any]:
        """Return what may be shown of it, as JSON has it."""
        asked = self.request
        return {
            "id": self.id,
            "hint": self.hint,
            "state": self.state,
            "tenant": asked.tenant,
            "name": asked.name,
            "models": None if asked.models is None else list(asked.models),
            "routes": None if asked.routes is None else list(asked.routes),
            "admin": asked.is_admin,
            "limits": _set_limits(asked.limits),
            "priority": asked.priority,
            "weight": asked.weight,
            "created": self.created.isoformat(),
            "expires": None if asked.expires is None else asked.expires.isoformat(),
            "revoked": None if self.revoked is None else self.revoked.isoformat(),
        }


def create_key(connection: Connection, asked: KeyRequest) -> tuple[str, Key]:
    """Make a key and return it, which is the only time that anybody sees it, with what is kept of it."""
    secret = new_secret()
    key = Key(
        id=new_key_id(),
        digest=digest_of(secret),
        hint=hint_of(secret),
        request=asked,
        created=datetime.now(UTC),
        revision=_next_revision(connection),
    )
    connection.execute(
        insert(api_keys).values(
            id=key.id,
            digest=key.digest,
            hint=key.hint,
            tenant=asked.tenant,
            name=asked.name,
            models=None if asked.models is None else list(asked.models),
            routes=None if asked.routes is None else list(asked.routes),
            is_admin=asked.is_admin,
            limits=_set_limits(asked.limits),
            priority=asked.priority,
            weight=asked.weight,
            created=key.created,
            expires=asked.expires,
            revision=key.revision,
        )
    )
    return secret, key


def revoke_key(connection: Connection, key_id: str) -> Key:
    """Make a key good for nothing, for ever. Harmless when repeated. Raises KeyNotFound."""
    key = find_key(connection, key_id)
    if key.revoked is None:
        values = {"revoked": datetime.now(UTC), "revision": _next_revision(connection)}
        connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(**values))
    return find_key(connection, key_id)


def revoke_tenant(connection: Connection, tenant: str) -> int:
    """Revoke every key of a tenant, and return how many there were to revoke."""
    values = {"revoked": datetime.now(UTC), "revision": _next_revision(connection)}
    where = (api_keys.c.tenant == tenant, api_keys.c.revoked.is_(None))
    return connection.execute(update(api_keys).where(*where).values(**values)).rowcount


def forget_tenant(connection: Connection, tenant: str) -> int:
    """Revoke a tenant's keys and take its name and theirs off them. Returns how many it had."""
    revoke_tenant(connection, tenant)
    nobody = {"tenant": "deleted", "name": ""}
    return connection.execute(update(api_keys).where(api_keys.c.tenant == tenant).values(nobody)).rowcount


def find_key(connection: Connection, key_id: str) -> Key:
    """Return a key by its id. Raises KeyNotFound."""
    if not key_id.isprintable():  # such as \0, which PostgreSQL takes for no text
        raise KeyNotFound(key_id)
    row = connection.execute(select(api_keys).where(api_keys.c.id == key_id)).mappings().first()
    if row is None:
        raise KeyNotFound(key_id)
    return _key(row)


def list_keys(connection: Connection, tenant: str | None = None, *, all_states: bool = True) -> list[Key]:
    """Return keys in the order in which they were made."""
    query = select(api_keys).order_by(api_keys.c.created, api_keys.c.id)
    if tenant is not None and not _TENANT.fullmatch(tenant):
        return []
    if tenant is not None:
        query = query.where(api_keys.c.tenant == tenant)
    keys = [_key(row) for row in connection.execute(query).mappings()]
    return [key for key in keys if all_states or key.state == "active"]


def changed_keys(connection: Connection, revision: int) -> tuple[int, int, list[Key]]:
    """Return the latest revision, how many keys there are, and those that have changed since a given revision."""
    latest = connection.execute(select(key_revisions.c.revision)).scalar() or 0
    number = connection.execute(select(func.count()).select_from(api_keys)).scalar() or 0
    if latest == revision:
        return latest, number, []
    query = select(api_keys).where(api_keys.c.revision > revision)
    return latest, number, [_key(row) for row in connection.execute(query).mappings()]


def _next_revision(connection: Connection) -> int:
    """Count up, which makes others who change keys wait for this transaction."""
    counted = connection.execute(update(key_revisions).values(revision=key_revisions.c.revision + 1)).rowcount
    if not counted:
        connection.execute(insert(key_revisions).values(id=1, revision=1))
    return int(connection.execute(select(key_revisions.c.revision)).scalar_one())


def _set_limits(limits: KeyLimits) -> dict[str, int]:
    return {name: value for name, value in asdict(limits).items() if value is not None}


def _key(row: RowMapping) -> Key:
    return Key(
        id=row["id"],
        digest=row["digest"],
        hint=row["hint"],
        request=KeyRequest(
            tenant=row["tenant"],
            name=row["name"],
            models=None if row["models"] is None else tuple(row["models"]),
            routes=None if row["routes"] is None else tuple(row["routes"]),
            is_admin=row["is_admin"],
            limits=KeyLimits(**row["limits"]),
            priority=row["priority"],
            weight=row["weight"],
            expires=row["expires"],
        ),
        created=row["created"],
        revoked=row["revoked"],
        revision=row["revision"],
    )
