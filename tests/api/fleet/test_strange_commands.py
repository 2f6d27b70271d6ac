"""Whatever is sent to /admin/models is answered with a 2xx or a 4xx, and changes nothing that serves."""

from __future__ import annotations

import random
from typing import Any

import pytest

COMMANDS = ("load", "unload", "drain", "resume", "alias", "unalias", "rollback")
FIELDS = (
    "name",
    "model",
    "alias",
    "target",
    "aliases",
    "timeout",
    "force",
    "activate",
    "kv_memory",
    "options",
    "dtype",
)
VALUES: tuple[Any, ...] = (
    *("", "nobody", "a@b", "nobody@0123", "@", "@@@@@@@@", "../../etc", "owner/name", "\x00", "ü" * 300, "\ud800"),
    *(None, True, -1, 0, 10**400, 1e308, [], [[]], ["x", "x"], {}, {"a": {}}, {"a": "b"}),
)


@pytest.mark.parametrize("seed", range(3))
def test_strange_commands(seed: int, two: Any) -> None:
    chance = random.Random(seed)
    before = two.status()["names"]
    for _ in range(60):
        command = chance.choice(COMMANDS)
        body: Any = {field: chance.choice(VALUES) for field in chance.sample(FIELDS, chance.randrange(5))}
        if chance.random() < 0.1:
            body = chance.choice(VALUES)
        try:
            answer = (
                two.admin(command, **body)
                if isinstance(body, dict)
                else two.client.post(f"/admin/models/{command}", json=body)
            )
        except (UnicodeEncodeError, ValueError):  # what JSON cannot say
            continue
        assert 200 <= answer.status_code < 500, (seed, command, body, answer.text)
    two.wait_for(lambda: not {"hashing", "loading"} & {model["state"] for model in two.status()["models"]})
    assert two.status()["names"] == before
    for model in two.status()["models"]:
        if model["state"] == "failed":
            two.admin("unload", model=model["key"])
    assert two.text("small") and two.text("other")
