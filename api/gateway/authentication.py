"""What a request brings to prove whose it is, and who looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from litestar.types import Scope

from .principal import Principal

MAX_CREDENTIAL_LENGTH = 8192
"""Characters: more than any token has, and little to hash."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What a client sent."""

    token: str  # the bearer token, or x-api-key; empty: none
    headers: tuple[tuple[bytes, bytes], ...]  # all of the request's, names in lower case
    address: str  # the client's


class Authenticator(Protocol):
    """Says who a client is. One for each server process."""

    async def authenticate(self, credential: Credential) -> Principal | None:
        """Return whose request it is; None: nobody's that is known, which is answered with 401.

        Called for each request, on the event loop: it must not block, and look-ups are to be remembered. Raises
        NotReady when it cannot tell now, which is answered with 503.
        """
        ...

    async def close(self) -> None:
        """The server ends."""
        ...


def credential_of(scope: Scope, address: str) -> Credential:
    """Read the credential: `Authorization: Bearer TOKEN`, else `x-api-key: TOKEN`. Odd ones are as good as none."""
    headers = tuple((name, value) for name, value in scope["headers"])
    bearers = [value for name, value in headers if name == b"authorization"]
    keys = [value for name, value in headers if name == b"x-api-key"]
    token = ""
    if len(bearers) == 1:  # two that contradict each other prove nothing
        token = _bearer(bearers[0])
    elif not bearers and len(keys) == 1:
        token = _text(keys[0])
    return Credential(token, headers, address)


def _bearer(value: bytes) -> str:
    scheme, _, token = value.partition(b" ")
    return _text(token) if scheme.lower() == b"bearer" else ""


def _text(value: bytes) -> str:
    value = value.strip()
    return value.decode("ascii") if 0 < len(value) <= MAX_CREDENTIAL_LENGTH and value.isascii() else ""
