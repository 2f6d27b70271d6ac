"""Weights that are replaced under a running engine: no answer begins with one version and goes on with another."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from isotoken.api.engine import AsyncEngine, Limits
from isotoken.api.errors import EngineFailed
from isotoken.api.text import SamplingParams
from isotoken.plugins.build import EngineConfig


def test_an_engine_that_dies_does_not_come_back_as_another(make_version: Callable[[int], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(make_version(1), tmp_path / "model")
    config = EngineConfig(model=str(folder), backend="reference", max_model_len=2048, num_blocks=256)

    async def main() -> None:
        engine = await AsyncEngine.start(config, Limits(max_start_attempts=2, backoff_s=0.01))
        try:
            params = SamplingParams(max_tokens=1500, temperature=0, ignore_eos=True)
            stream = engine.generate([5, 6, 7], params, request_id="r")
            await anext(stream)
            shutil.copy(make_version(2) / "model.safetensors", folder / "model.safetensors")
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGKILL)
            with pytest.raises(EngineFailed, match="no longer those that were loaded at first"):
                async for _ in stream:
                    pass
            assert engine.state == "stopped" and "no longer those" in engine.failure
        finally:
            await engine.stop()

    asyncio.run(asyncio.wait_for(main(), 120))
