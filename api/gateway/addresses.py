"""Whose request it is, by IP address: the peer's, or what proxies that are trusted say of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from litestar.types import Scope

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_MAX_HOPS = 32  # of X-Forwarded-For that are looked at
_IPV6_SITE = 64  # bits: one customer has at least a whole /64, whose addresses are free to them


class Addresses:
    """Tells the client's address."""

    def __init__(self, trusted_proxies: Sequence[str] = ()) -> None:
        """Raises ValueError for what is no address or network."""
        self._trusted = tuple(ip_network(proxy, strict=False) for proxy in trusted_proxies)

    def of(self, scope: Scope) -> str:
        """Return the client's address; that of the last hop which no trusted proxy vouches for. Empty: unknown.

        X-Forwarded-For is read from its end, where the nearest proxy wrote: a client may put what it likes at its
        beginning.
        """
        client = scope.get("client")
        address = client[0] if client else ""
        if not self._trusted or not self._trusts(address):
            return address
        for hop in self._hops(scope):
            if _parse(hop) is None:  # a proxy that writes no addresses is as far as the truth goes
                break
            address = hop
            if not self._trusts(hop):
                break
        return address

    def _trusts(self, text: str) -> bool:
        address = _parse(text)
        return address is not None and any(
            address in network for network in self._trusted if network.version == address.version
        )

    @staticmethod
    def _hops(scope: Scope) -> list[str]:
        values = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        hops = b",".join(values).decode("latin-1").rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]
        return [_bare(hop) for hop in reversed(hops)]


def site_of(address: str) -> str:
    """Return what is limited as one: an IPv4 address, or the /64 that an IPv6 address lies in."""
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        return f"{IPv6Network((parsed, _IPV6_SITE), strict=False)}"
    return address if parsed is None else str(parsed)


def is_loopback(address: str) -> bool:
    """Whether an address is one of this machine, reachable from nowhere else."""
    parsed = _parse(address)
    return parsed is not None and parsed.is_loopback


@lru_cache(4096)
def _parse(text: str) -> Address | None:
    """Return an address; IPv4 that comes dressed as IPv6 is IPv4."""
    try:
        parsed = ip_address(text)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def _bare(hop: str) -> str:
    """Take the port off: some proxies write 192.0.2.1:4711, or [2001:db8::1]:4711."""
    hop = hop.strip()
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
