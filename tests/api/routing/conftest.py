"""A real server of two models whose traffic is shared out in every way."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

SERVE = """
import json, logging, sys
from isotoken.api.fleet.settings import FleetSettings
from isotoken.api.routing.settings import RoutingSettings
from isotoken.api.server import ServerSettings, serve
from isotoken.api.server.features import Features
from isotoken.plugins.build import EngineConfig
models, routing = json.loads(sys.argv[1])
logging.basicConfig(level="INFO")
features = Features(fleet=FleetSettings(models=models, parallel_loads=2), routing=RoutingSettings(**routing))
config = EngineConfig(model=models[0]["model"], backend="reference")
sys.exit(serve(config, ServerSettings(port=0, features=features), on_fleet=lambda url, service: print(url, flush=True)))
"""

ROUTING = {
    "experiments": [
        {
            "name": "size",
            "model": "chat",
            "arms": [{"name": "a", "model": "one", "weight": 3}, {"name": "b", "model": "other", "weight": 1}],
        }
    ],
    "routes": [{"model": "fit", "candidates": ["one", "other"]}],
    "escalations": [
        {"model": "sure", "cheap": "one", "strong": "other", "min_confidence": 1e-9},
        {"model": "unsure", "cheap": "one", "strong": "other", "min_confidence": 1.0},
    ],
    "shadows": [
        {"model": "one", "target": "twin", "fraction": 1.0},
        {"model": "other", "target": "one", "fraction": 1.0},
    ],
}


@pytest.fixture(scope="module")
def server(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The models `one` and `twin` are the same; `other` has the output rows of other tokens."""
    other = tmp_path_factory.mktemp("models") / "other"
    shutil.copytree(model_dir, other)
    weights = load_file(other / "model.safetensors")
    weights["lm_head.weight"] = np.roll(weights["lm_head.weight"], 7, axis=0).copy()
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    engine = {"backend": "reference", "num_blocks": 256, "max_model_len": 512, "max_num_seqs": 16}
    folders = {"one": model_dir, "twin": model_dir, "other": other}
    models = [{"name": name, "model": str(folder), **engine} for name, folder in folders.items()]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ISOTOKEN_DATA": str(tmp_path_factory.mktemp("data"))}
    command = [sys.executable, "-c", SERVE, json.dumps([models, ROUTING])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        found, _, _ = select.select([process.stdout], [], [], 120)
        url = process.stdout.readline().strip() if found else ""
        try:
            assert url, "the server did not start"
            with httpx.Client(base_url=url, timeout=60) as client:
                yield client
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
