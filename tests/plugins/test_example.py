"""The example plugin of the documentation: installed as pip would, it is found, speeds up and changes no token."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from isotoken.conformance.models import LLAMA, write_checkpoint
from isotoken.core.types import DecodeParams, Request, RequestOutput, StepStats
from isotoken.plugins.build import EngineConfig, build_engine
from isotoken.plugins.hookspecs import API_VERSION, hookimpl
from isotoken.plugins.manager import Plugins

EXAMPLE = Path(__file__).parents[2] / "examples" / "bigram"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay down the distribution's metadata from its pyproject.toml, beside its module."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    info = tmp_path / f"isotoken_bigram-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    entries = "".join(f"{name} = {module}\n" for name, module in project["entry-points"]["isotoken"].items())
    (info / "entry_points.txt").write_text(f"[isotoken]\n{entries}")
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.syspath_prepend(str(tmp_path))


class Watcher:
    """Adds up what was drafted and accepted."""

    ISOTOKEN_API = API_VERSION

    def __init__(self) -> None:
        self.drafted = self.accepted = self.steps = 0

    @hookimpl
    def on_step(self, stats: StepStats) -> None:
        self.steps += 1
        self.drafted += stats.num_drafted
        self.accepted += stats.num_accepted


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield str(write_checkpoint(LLAMA, tmp_path_factory.mktemp("models") / "llama"))


def run(model: str, drafter: str) -> tuple[dict[str, list[int]], Watcher]:
    tokens: dict[str, list[int]] = {}

    def publish(outputs: list[RequestOutput]) -> None:
        for output in outputs:
            tokens.setdefault(output.request_id, []).extend(output.token_ids)

    watcher = Watcher()
    config = EngineConfig(model=model, backend="reference", drafter=drafter)
    engine = build_engine(config, Plugins.load([("watcher", watcher)]), publish).engine
    for temperature in (0.0, 0.7):
        params: dict[str, Any] = {"max_tokens": 100, "temperature": temperature, "seed": 3, "ignore_eos": True}
        name = str(temperature)
        engine.add(Request(id=name, token_ids=[5, 6, 7], num_prompt_tokens=3, params=DecodeParams(**params)))
    engine.run()
    engine.close()
    return tokens, watcher


@pytest.mark.usefixtures("installed")
def test_it_is_found() -> None:
    plugins = Plugins.load()
    (info,) = [info for info in plugins.infos if info.name == "bigram"]
    assert (info.distribution, info.error, info.provides) == ("isotoken-bigram", None, ["drafter bigram"])


@pytest.mark.usefixtures("installed")
def test_it_saves_steps_and_changes_no_token(model: str) -> None:
    plain, without = run(model, "none")
    drafted, watcher = run(model, "bigram")
    assert drafted == plain
    assert without.drafted == 0
    assert 0 < watcher.accepted <= watcher.drafted
    assert watcher.steps < without.steps
