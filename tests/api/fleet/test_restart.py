"""What operators did survives a restart through the store, until the configuration says something new."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="the store needs the extra isotoken[production]")


def test_names_and_their_past_survive(
    serve_fleet: Callable[..., Any], make_version: Callable[[int], Path], tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path / 'isotoken.db'}"
    models = [{"name": "small", "model": str(make_version(1)), "aliases": ["chat"]}]
    server = serve_fleet(models, store=store)
    first = server.key("small")
    second = server.load("small", make_version(2))
    assert server.admin("alias", alias="prod", target=second).status_code == 200
    names = server.status()["names"]
    assert {name: each["key"] for name, each in names.items()} == {"small": second, "chat": first, "prod": second}
    assert server.stop() == 0

    server = serve_fleet(models, store=store)
    assert server.status()["names"] == names
    assert server.states() == {first: "ready", second: "ready"}
    assert server.complete("prod").headers["x-isotoken-model"] == second
    assert server.admin("rollback", alias="small").status_code == 200
    assert server.key("small") == first
    assert server.stop() == 0

    models[0]["model"] = str(make_version(3))  # a new deployment of the configuration: it says something new
    server = serve_fleet(models, store=store)
    third = server.key("small")
    assert third not in (first, second) and server.key("chat") == third and server.key("prod") == second
    assert server.status()["names"]["small"]["history"][-2:] == [first, third]
    assert server.stop() == 0
