"""Real servers with a gateway, keys in SQLite; the engine computes nothing, at a pace that tests choose."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from isotoken.api.gateway.keys import Key, KeyRequest, create_key, revoke_key
from isotoken.api.store import StoreSettings, connect
from isotoken.api.store.database import Store

from ..server.conftest import START_TIMEOUT, tiny_model  # noqa: F401  (a fixture)

SERVE = """
import json, sys
from isotoken.api.gateway.settings import GatewaySettings
from isotoken.api.server import ServerSettings, serve
from isotoken.api.server.features import Features
from isotoken.api.store import StoreSettings
from isotoken.plugins.build import EngineConfig
config, gateway, url, settings = json.loads(sys.argv[1])
features = Features(gateway=GatewaySettings(**gateway), store=StoreSettings(url=url))
settings = ServerSettings(**{"port": 0, "served_model_names": ["tiny", "small"], "features": features, **settings})
sys.exit(serve(EngineConfig(**config), settings, on_started=lambda url, _: print(url, flush=True)))
"""


@dataclass
class Gated:
    """A running server, and the store that its keys are in."""

    client: httpx.Client
    process: subprocess.Popen[str]
    store: Store

    @property
    def url(self) -> str:
        return str(self.client.base_url)

    def make(self, **asked: Any) -> str:
        """Make a key and return it."""
        return self.make_key(**asked)[0]

    def make_key(self, **asked: Any) -> tuple[str, Key]:
        return self.store.call(lambda connection: create_key(connection, KeyRequest(**asked)))

    def revoke(self, key_id: str) -> None:
        self.store.call(lambda connection: revoke_key(connection, key_id))

    def ask(self, key: str | None = None, prompt: Any = "the fox", **more: Any) -> httpx.Response:
        """Ask for a completion."""
        headers = {**({} if key is None else {"Authorization": f"Bearer {key}"}), **more.pop("headers", {})}
        body = {"model": "tiny", "prompt": prompt, "max_tokens": 4, "temperature": 0, **more}
        return self.client.post("/v1/completions", json=body, headers=headers)


Serve = Callable[..., Gated]


@pytest.fixture(scope="module")
def serve_gated(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:  # noqa: F811
    """Start servers: serve_gated({"authenticator": "keys", ...}, step_ms=..., max_num_seqs=...)."""
    started: list[Gated] = []

    def start(gateway: dict[str, Any], *, step_ms: float = 0.0, url: str = "", **config: Any) -> Gated:
        url = url or f"sqlite:///{tmp_path_factory.mktemp('store') / 'store.db'}"
        store = connect(StoreSettings(url=url))
        store.prepare_now()
        engine = {"model": str(tiny_model), "backend": "null", "options": {"step_ms": str(step_ms)}, **config}
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, json.dumps([engine, gateway, url, {}])],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert process.stdout is not None
        found, _, _ = select.select([process.stdout], [], [], START_TIMEOUT)
        line = process.stdout.readline() if found else ""
        assert line, "the server did not start"
        started.append(Gated(httpx.Client(base_url=line.strip(), timeout=60), process, store))
        return started[-1]

    yield start
    for gated in started:
        gated.client.close()
        gated.store.close_now()
        gated.process.send_signal(signal.SIGTERM)
        try:
            assert gated.process.wait(60) == 0
        finally:
            gated.process.kill()
            assert gated.process.stdout is not None
            gated.process.stdout.close()
