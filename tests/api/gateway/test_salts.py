"""Salts keep tenants apart, and no client can make another tenant's."""

from __future__ import annotations

import pytest
from isotoken.api.gateway.salts import Salts


def test_each_tenant_has_its_own_and_keeps_it() -> None:
    salts = Salts()
    assert salts.of("a") == salts.of("a")
    assert salts.of("a") != salts.of("b")
    assert len(salts.of("a")) == 32  # a fixed length: what a client appends cannot look like another's


def test_it_cannot_be_foretold() -> None:
    assert Salts().of("a") != Salts().of("a")


def test_tenants_share_where_their_operator_lets_them() -> None:
    salts = Salts({"house": ["a", "b"]})
    assert salts.of("a") == salts.of("b")
    assert salts.of("c") != salts.of("a")
    assert salts.of("house") != salts.of("a")  # a tenant that is called like the group
    assert salts.of("group house") != salts.of("a")


def test_all_may_share() -> None:
    salts = Salts({"all": ["*"], "apart": ["secretive"]})
    assert salts.of("a") == salts.of("b")
    assert salts.of("secretive") != salts.of("a")


def test_a_tenant_in_two_groups_is_refused() -> None:
    with pytest.raises(ValueError, match="'a' is in two groups"):
        Salts({"one": ["a"], "two": ["a"]})
