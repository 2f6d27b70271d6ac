"""Models that differ in their weights alone, and real servers of several of them."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

START_TIMEOUT = 120.0  # seconds; a loaded machine imports slowly
ENGINE = {"backend": "reference", "num_blocks": 256, "max_model_len": 512, "max_num_seqs": 16}

SERVE = """
import json, logging, sys
from isotoken.api.engine import Limits
from isotoken.api.fleet.settings import FleetSettings
from isotoken.api.gateway.settings import GatewaySettings
from isotoken.api.server import ServerSettings, serve
from isotoken.api.server.features import Features
from isotoken.api.store import StoreSettings
from isotoken.plugins.build import EngineConfig
model, fleet, store, gateway, settings = json.loads(sys.argv[1])
logging.basicConfig(level="INFO")
features = Features(
    fleet=FleetSettings(**fleet),
    store=StoreSettings(url=store) if store else None,
    gateway=GatewaySettings(**gateway) if gateway else None,
)
limits = Limits(**settings.pop("limits", {}))
settings = ServerSettings(**{"port": 0, **settings}, features=features, limits=limits)
config = EngineConfig(model=model, backend="reference", num_blocks=256, max_model_len=512)
sys.exit(serve(config, settings, on_fleet=lambda url, service: print(url, flush=True)))
"""


@dataclass
class Fleet:
    """A running server."""

    url: str
    process: subprocess.Popen[str]
    client: httpx.Client

    def admin(self, command: str, **body: Any) -> httpx.Response:
        """Give a command."""
        return self.client.post(f"/admin/models/{command}", json=body)

    def status(self) -> dict[str, Any]:
        """Return what the admin API tells."""
        answer = self.client.get("/admin/models")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def states(self) -> dict[str, str]:
        """Return {key: state}."""
        return {model["key"]: model["state"] for model in self.status()["models"]}

    def key(self, name: str) -> str:
        """Return the version that a name stands for."""
        return str(self.status()["names"][name]["key"])

    def complete(self, model: str = "", prompt: Any = "the quick", **more: Any) -> httpx.Response:
        """Ask for a completion."""
        body = {"model": model, "prompt": prompt, "max_tokens": 8, "temperature": 0, "ignore_eos": True, **more}
        return self.client.post("/v1/completions", json=body)

    def text(self, model: str = "", prompt: str = "the quick") -> str:
        """Return a completion's text."""
        answer = self.complete(model, prompt)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["text"])

    def wait_for(self, condition: Callable[[], Any], timeout: float = 60.0) -> None:
        """Ask again and again until something is so."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"it did not happen in time: {self.status()}"
            time.sleep(0.02)

    def load(self, name: str, model: Path, **more: Any) -> str:
        """Load a model, wait, and return its key."""
        answer = self.admin("load", name=name, model=str(model), **{**ENGINE, **more})
        assert answer.status_code == 202, answer.text
        number = answer.json()["id"]

        def found() -> dict[str, Any] | None:
            return next((each for each in self.status()["models"] if each["id"] == number), None)

        self.wait_for(lambda: (each := found()) is None or each["state"] not in ("hashing", "loading"))
        told = found()
        return self.key(name) if told is None else str(told["key"])

    def stop(self) -> int:
        """End it as an operator would; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture(scope="session")
def make_version(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Make models that answer differently: the rows of lm_head are another's."""
    made: dict[int, Path] = {}

    def make(number: int) -> Path:
        if number not in made:
            folder = tmp_path_factory.mktemp("versions") / f"v{number}"
            shutil.copytree(model_dir, folder)
            weights = load_file(folder / "model.safetensors")
            weights["lm_head.weight"] = np.roll(weights["lm_head.weight"], 7 * number, axis=0).copy()
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
            made[number] = folder
        return made[number]

    return make


@pytest.fixture(scope="session")
def launch_fleet() -> Callable[..., subprocess.Popen[str]]:
    """Start a server's process without waiting for it."""

    def launch(
        models: list[dict[str, Any]],
        *,
        store: str = "",
        gateway: Any = None,
        settings: Any = None,
        model: str = "",
        **fleet: Any,
    ) -> Any:
        models = [{**ENGINE, **each} for each in models]
        arguments = json.dumps([model, {"models": models, **fleet}, store, gateway, settings or {}])
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([sys.executable, "-c", SERVE, arguments], stdout=subprocess.PIPE, text=True, env=env)

    return launch


@pytest.fixture(scope="session")
def serve_fleet(
    launch_fleet: Callable[..., subprocess.Popen[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Fleet]]:
    """Start servers: serve_fleet([{"name": ..., "model": ...}], memory=...). They are stopped in the end."""
    started: list[Fleet] = []
    os.environ["ISOTOKEN_DATA"] = str(tmp_path_factory.mktemp("data"))

    def start(models: list[dict[str, Any]], **more: Any) -> Fleet:
        process = launch_fleet(models, **more)
        assert process.stdout is not None
        found, _, _ = select.select([process.stdout], [], [], START_TIMEOUT)
        url = process.stdout.readline().strip() if found else ""
        assert url, "the server did not start"
        started.append(Fleet(url, process, httpx.Client(base_url=url, timeout=60)))
        return started[-1]

    yield start
    del os.environ["ISOTOKEN_DATA"]
    for fleet in started:
        fleet.client.close()
        try:
            if fleet.process.poll() is None:
                fleet.stop()
        finally:
            fleet.process.kill()
            assert fleet.process.stdout is not None
            fleet.process.stdout.close()


@pytest.fixture(scope="session")
def two(serve_fleet: Callable[..., Fleet], make_version: Callable[[int], Path]) -> Fleet:
    """A server of two models."""
    models = [
        {"name": "small", "model": str(make_version(1)), "aliases": ["chat"]},
        {"name": "other", "model": str(make_version(2))},
    ]
    return serve_fleet(models, parallel_loads=2)
