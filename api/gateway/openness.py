"""Whether a server may be reached from other machines: not by chance without keys."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

from ...core.types import IsotokenError
from .addresses import is_loopback

if TYPE_CHECKING:
    from .settings import GatewaySettings

log = logging.getLogger("isotoken.gateway")


class TooOpen(IsotokenError):
    """The server would serve whoever reaches it, and nobody said that this is meant."""


def check_openness(host: str, settings: GatewaySettings | None) -> None:
    """Accept a host that is of this machine alone, keys, or an open server that is meant. Raises TooOpen."""
    if (settings is not None and settings.authenticator) or _is_of_this_machine(host):
        return
    if settings is None or not settings.open:
        raise TooOpen(
            f"the host {host} can be reached from other machines and no API keys are asked for: "
            "make some (isotoken keys create) and add --set gateway.authenticator=keys, "
            "or say with --set gateway.open=true that whoever reaches the port may use it"
        )
    log.warning("OPEN: other machines can reach %s, and nobody is asked for an API key", host)


def _is_of_this_machine(host: str) -> bool:
    if is_loopback(host):
        return True
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return True  # the bind that follows says so in better words
    return bool(found) and all(is_loopback(str(entry[4][0])) for entry in found)
