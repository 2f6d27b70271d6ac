"""The client's address: the peer's, unless a proxy that is trusted says otherwise; and who is limited as one."""

from __future__ import annotations

from typing import Any

import pytest
from isotoken.api.gateway.addresses import Addresses, is_loopback, site_of


def scope(peer: str, *forwarded: str) -> Any:
    return {"client": (peer, 4711), "headers": [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]}


def test_nobodys_word_is_taken_where_no_proxy_is_trusted() -> None:
    assert Addresses().of(scope("198.51.100.7", "203.0.113.9")) == "198.51.100.7"


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("198.51.100.7", ["203.0.113.9"], "198.51.100.7"),  # not through the proxy
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9"], "203.0.113.9"),  # the client wrote the first itself
        ("10.0.0.1", ["1.1.1.1", "203.0.113.9"], "203.0.113.9"),  # likewise, in a header of its own
        ("10.0.0.1", ["203.0.113.9, 10.2.3.4"], "203.0.113.9"),  # two proxies
        ("10.0.0.1", ["10.9.9.9"], "10.9.9.9"),  # a client behind the proxies
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9:1234"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db8::1]:1234"], "2001:db8::1"),
        ("2001:db8:1::5", ["2001:db8:ffff::1"], "2001:db8:ffff::1"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["," * 10_000], "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1, " * 10_000 + "203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["\xff\xfe"], "10.0.0.1"),
        ("", [], ""),
    ],
)
def test_trusted_proxies_are_believed_as_far_as_they_can_know(peer: str, forwarded: list[str], address: str) -> None:
    addresses = Addresses(["10.0.0.0/8", "2001:db8:1::/48"])
    assert addresses.of(scope(peer, *forwarded)) == address


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        Addresses(["nonsense"])


def test_an_ipv6_customer_is_one_whatever_address_it_takes() -> None:
    assert site_of("2001:db8:1:2:3:4:5:6") == site_of("2001:db8:1:2::ffff") == "2001:db8:1:2::/64"
    assert site_of("2001:db8:1:3::1") != site_of("2001:db8:1:2::1")
    assert site_of("::ffff:192.0.2.1") == site_of("192.0.2.1") == "192.0.2.1"
    assert site_of("") == ""


def test_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1")))
    assert not any(map(is_loopback, ("192.168.0.1", "::", "", "localhost", "::ffff:8.8.8.8")))
