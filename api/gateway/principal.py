"""Principal: on whose behalf a request is made, and what that entitles it to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """How much a key, or a client's address, may ask for. None: as much as it likes."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None  # prompt and output together
    max_concurrency: int | None = None  # requests in hand at once
    max_context: int | None = None  # prompt and output tokens of one answer together
    max_output: int | None = None  # output tokens of one answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The bearer of a key. Values only: it is found out once a request and passed along."""

    key_id: str = ""  # empty: nobody was asked for a key
    tenant: str = "default"
    name: str = ""  # of the key, for people
    models: frozenset[str] | None = None  # names that the key may ask for; None: every one
    routes: frozenset[str] | None = None  # likewise, of paths; one that ends with * stands for all that begin so
    is_admin: bool = False  # may use /admin
    limits: KeyLimits = field(default_factory=KeyLimits)
    priority: int = 0  # lower runs first
    weight: float = 1.0  # share beside other tenants
    cache_salt: bytes = b""  # keeps the tenant's blocks of the prefix cache apart
    expires: float | None = None  # time.time() seconds

    def may_use_route(self, path: str) -> bool:
        """Whether the key is good for a path."""
        if self.routes is None:
            return True
        return path in self.routes or any(
            route.endswith("*") and path.startswith(route.removesuffix("*")) for route in self.routes
        )

    def may_use_model(self, name: str) -> bool:
        """Whether the key is good for a model, by the name that was asked for; a name stands for all its versions."""
        return self.models is None or name in self.models or name.partition("@")[0] in self.models


def routes_of(paths: Iterable[str]) -> frozenset[str]:
    """Return paths that a person wrote as the router takes them: a slash at the end says nothing."""
    return frozenset(path.rstrip("/") or "/" for path in paths)


ANONYMOUS = Principal()
"""Whoever asks a server that knows no keys."""
