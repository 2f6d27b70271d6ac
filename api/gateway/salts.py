"""Salts: what keeps the tenants' blocks of the prefix cache apart, so that no tenant can feel what another one asked.

A salt is made of the tenant's name and a secret of this process, so that no client can make another tenant's. What a
client sends as `cache_salt` comes behind it: that divides further within the tenant, and cannot join.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence

EVERYBODY = "*"


class Salts:
    """The salt of each tenant."""

    def __init__(self, groups: Mapping[str, Sequence[str]] | None = None) -> None:
        """`groups`: tenants whose operator lets them share blocks, by the name of the group; "*" is every tenant.

        Raises ValueError for a tenant in two groups.
        """
        self._secret = secrets.token_bytes(32)  # the cache dies with the engine, which dies with this process
        self._group_of: dict[str, str] = {}
        for group, tenants in (groups or {}).items():
            for tenant in tenants:
                if self._group_of.setdefault(tenant, group) != group:
                    raise ValueError(f"tenant {tenant!r} is in two groups that share prefixes")

    def of(self, tenant: str) -> bytes:
        """Return a tenant's salt, 32 bytes."""
        group = self._group_of.get(tenant, self._group_of.get(EVERYBODY))
        whose = f"tenant {tenant}" if group is None else f"group {group}"
        return hashlib.blake2b(whose.encode(), digest_size=32, key=self._secret, person=b"isotoken-tenant").digest()
