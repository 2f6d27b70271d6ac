"""Keys and several models: commands take an admin key, and a key for a model is good for all its versions."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="keys need the extra isotoken[production]")


def test_keys_and_models(
    serve_fleet: Callable[..., Any],
    make_version: Callable[[int], Path],
    command: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    store = f"sqlite:///{tmp_path / 'isotoken.db'}"

    def key(*flags: str) -> dict[str, str]:
        done = command("keys", "create", "--database", store, *flags)
        assert done.returncode == 0, done.stderr
        return {"Authorization": f"Bearer {done.stdout.strip()}"}

    admin, scoped = key("--admin"), key("--model", "small")
    models = [
        {"name": "small", "model": str(make_version(1)), "aliases": ["chat"]},
        {"name": "other", "model": str(make_version(2))},
    ]
    server = serve_fleet(models, store=store, gateway={"authenticator": "keys"})

    assert server.client.get("/admin/models").status_code == 401
    assert server.client.get("/admin/models", headers=scoped).status_code == 403
    assert server.client.post("/admin/models/unload", json={"model": "other"}, headers=scoped).status_code == 403
    told = server.client.get("/admin/models", headers=admin).json()
    assert server.client.get("/admin/models", headers={**admin, "host": "example.com"}).status_code == 200
    version = told["names"]["small"]["key"]

    def status(model: str) -> int:
        body = {"model": model, "prompt": "the quick", "max_tokens": 1}
        return int(server.client.post("/v1/completions", json=body, headers=scoped).status_code)

    asked = ("", "small", version, version[:-4], "chat", "other", told["names"]["other"]["key"])
    assert [status(model) for model in asked] == [200, 200, 200, 200, 403, 403, 403]
