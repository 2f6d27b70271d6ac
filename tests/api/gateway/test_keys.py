"""Keys in the store: made, found, listed and revoked; a running ring of them hears of it, the database gone or not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from isotoken.api.errors import NotReady
from isotoken.api.gateway.api_key import digest_of, new_secret
from isotoken.api.gateway.authentication import Credential
from isotoken.api.gateway.key_admin import KeyAdmin
from isotoken.api.gateway.key_ring import KeyRing
from isotoken.api.gateway.keys import (
    Key,
    KeyNotFound,
    KeyRequest,
    create_key,
    find_key,
    list_keys,
    revoke_key,
    revoke_tenant,
)
from isotoken.api.gateway.principal import KeyLimits, Principal
from isotoken.api.gateway.settings import GatewaySettings, LimitSettings
from isotoken.api.server.errors import ApiError
from isotoken.api.store import StoreSettings, connect
from isotoken.api.store.database import Store


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = f"sqlite:///{tmp_path / 'keys.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    store = connect(StoreSettings(url=url))
    store.prepare_now()
    yield store
    store.close_now()


def make(store: Store, **asked: object) -> tuple[str, Key]:
    return store.call(lambda connection: create_key(connection, KeyRequest(**asked)))  # type: ignore[arg-type]


async def who(ring: KeyRing, token: str) -> Principal | None:
    return await ring.authenticate(Credential(token, (), "192.0.2.1"))


def test_a_key_is_kept_as_it_was_asked_for(store: Store) -> None:
    expires = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)
    asked = {
        "tenant": "acme",
        "name": "the website",
        "models": ("chat", "small@v1"),
        "routes": ("/v1/*",),
        "is_admin": True,
        "limits": KeyLimits(requests_per_minute=10, max_output=100),
        "priority": -2,
        "weight": 2.5,
        "expires": expires,
    }
    secret, key = make(store, **asked)
    found = store.look(lambda connection: find_key(connection, key.id))
    assert found == key
    assert found.request == KeyRequest(**asked)  # type: ignore[arg-type]
    principal = found.principal()
    assert principal.expires == expires.timestamp()
    assert principal.models == {"chat", "small@v1"}
    assert secret not in str(found)
    assert secret not in str(found.shown())
    assert found.digest == digest_of(secret)


def test_the_key_itself_is_nowhere_in_the_database(tmp_path: Path) -> None:
    store = connect(StoreSettings(url=f"sqlite:///{tmp_path / 'keys.db'}"))
    store.prepare_now()
    secret, _ = make(store)
    store.close_now()
    kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"api_keys" in kept
    assert secret.encode() not in kept
    assert secret[12:40].encode() not in kept


@pytest.mark.parametrize(
    "wrong",
    [
        {"tenant": ""},
        {"tenant": "a b"},
        {"tenant": "x" * 129},
        {"name": "line\nbreak"},
        {"priority": 101},
        {"weight": 0.0},
        {"weight": float("nan")},
        {"routes": ("v1",)},
        {"limits": KeyLimits(max_output=0)},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}|max_output"):
        KeyRequest(**wrong)  # type: ignore[arg-type]


def test_keys_are_listed_and_revoked(store: Store) -> None:
    _, first = make(store, tenant="a")
    _, second = make(store, tenant="b")
    _, old = make(store, tenant="b", expires=datetime.now(UTC) - timedelta(seconds=1))
    revoked = store.call(lambda connection: revoke_key(connection, first.id))
    again = store.call(lambda connection: revoke_key(connection, first.id))
    assert revoked.revoked is not None
    assert again == revoked
    every = store.look(list_keys)
    assert [key.state for key in every] == ["revoked", "active", "expired"]
    assert [key.id for key in store.look(lambda c: list_keys(c, "b"))] == [second.id, old.id]
    assert [key.id for key in store.look(lambda c: list_keys(c, all_states=False))] == [second.id]
    assert store.call(lambda connection: revoke_tenant(connection, "b")) == 2
    with pytest.raises(KeyNotFound):
        store.call(lambda connection: revoke_key(connection, "key_none"))


def test_a_ring_knows_keys_that_are_made_and_revoked_while_it_runs(store: Store) -> None:
    async def test() -> None:
        old, old_key = make(store, tenant="old")
        ring = KeyRing(store, refresh_s=0.05)
        await ring.open()
        try:
            assert (await who(ring, old)).tenant == "old"  # type: ignore[union-attr]
            await asyncio.sleep(0.06)
            new, _ = await store.run(lambda connection: create_key(connection, KeyRequest(tenant="new")))
            async with asyncio.timeout(30):
                while await who(ring, new) is None:
                    await asyncio.sleep(0.01)
            await store.run(lambda connection: revoke_key(connection, old_key.id))
            async with asyncio.timeout(30):
                while await who(ring, old) is not None:
                    await asyncio.sleep(0.01)
            assert (await who(ring, new)).tenant == "new"  # type: ignore[union-attr]
            assert len(ring) == 1
        finally:
            await ring.close()

    asyncio.run(test())


def test_what_can_be_no_name_is_not_found(store: Store) -> None:
    make(store, tenant="a")
    for odd in ("key_\0", "a\0"):
        with pytest.raises(KeyNotFound):
            store.look(lambda connection: find_key(connection, odd))  # noqa: B023
        assert store.look(lambda connection: list_keys(connection, odd)) == []  # noqa: B023


def test_administrators_are_told_that_the_database_is_gone() -> None:
    store = connect(StoreSettings(url="postgresql://nobody@127.0.0.1:1/none", connect_timeout_s=2))

    async def test() -> None:
        admin = KeyAdmin(store, KeyRing(store))
        for asked in (admin.create(KeyRequest()), admin.list(None), admin.find("key_x"), admin.revoke("key_x")):
            with pytest.raises(ApiError) as told:
                await asked
            assert told.value.failure.status == 503

    asyncio.run(test())
    store.close_now()


def test_limits_of_keys_that_nobody_asks_for_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="set authenticator"):
        GatewaySettings(default_limits=LimitSettings(max_output=9))
    assert GatewaySettings(default_limits=LimitSettings(max_output=9), authenticator="keys").enabled


def test_strangers_keys_are_no_work_for_the_database(tmp_path: Path) -> None:
    store = connect(StoreSettings(url=f"sqlite:///{tmp_path / 'keys.db'}"))
    store.prepare_now()

    async def test() -> None:
        ring = KeyRing(store, refresh_s=60.0, clock=lambda: now)
        await ring.open()
        reads = 0
        read = store.read

        async def counted(work: object) -> object:
            nonlocal reads
            reads += 1
            return await read(work)  # type: ignore[arg-type]

        store.read = counted  # type: ignore[method-assign,assignment]
        for token in ("", "itk_", "Bearer", "x" * 8000, new_secret()[:-1] + "!"):
            assert await who(ring, token) is None
        assert reads == 0
        now_is(100.0)
        assert await asyncio.gather(*(who(ring, new_secret()) for _ in range(100))) == [None] * 100
        assert reads == 1
        await ring.close()

    now = 0.0

    def now_is(moment: float) -> None:
        nonlocal now
        now = moment

    asyncio.run(test())
    store.close_now()


def test_known_keys_stay_good_while_the_database_is_gone(tmp_path: Path) -> None:
    store = connect(StoreSettings(url=f"sqlite:///{tmp_path / 'keys.db'}"))
    store.prepare_now()
    secret, _ = make(store, tenant="a")

    async def test() -> None:
        ring = KeyRing(store, refresh_s=0.02)
        await ring.open()
        read, failing = store.read, True

        async def unreachable(work: object) -> object:
            if failing:
                raise OSError("gone")
            return await read(work)  # type: ignore[arg-type]

        store.read = unreachable  # type: ignore[method-assign,assignment]
        stranger = new_secret()
        async with asyncio.timeout(30):
            while True:
                try:
                    await who(ring, stranger)
                except NotReady:
                    break
                await asyncio.sleep(0.01)
        assert (await who(ring, secret)).tenant == "a"  # type: ignore[union-attr]
        failing = False
        async with asyncio.timeout(30):
            while True:
                try:
                    assert await who(ring, stranger) is None
                    break
                except NotReady:
                    await asyncio.sleep(0.01)
        await ring.close()

    asyncio.run(test())
    store.close_now()
