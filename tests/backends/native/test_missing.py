"""Without its compiled kernels the backend says so, everywhere, and nothing stands in for them unasked."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from isotoken.api.cli.app import app
from isotoken.backends.native import plugin
from isotoken.backends.native.plugin import load_backend
from isotoken.core.types import Unsupported
from isotoken.kernels.cpu import library
from isotoken.plugins.build import EngineConfig
from isotoken.plugins.choice import choose_backend
from isotoken.plugins.manager import Plugins
from typer.testing import CliRunner


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The kernels as if they had never been built."""
    library._load.cache_clear()
    assert plugin.LIBRARY == library.PATH
    monkeypatch.setattr(library, "PATH", tmp_path / "_native.so")
    monkeypatch.setattr(plugin, "LIBRARY", tmp_path / "_native.so")
    yield
    library._load.cache_clear()


@pytest.mark.usefixtures("no_library")
def test_the_backend_says_what_is_missing_and_what_to_do() -> None:
    with pytest.raises(Unsupported, match=r"backend native: the CPU kernels are not built.*Install g\+\+"):
        load_backend()


@pytest.mark.usefixtures("no_library")
def test_auto_goes_on_to_the_next_and_says_why() -> None:
    reasons: list[str] = []
    name, _ = choose_backend(EngineConfig(model="unused", device="cpu"), Plugins.load(), reasons)
    assert name in ("onnxruntime", "torch")
    assert "native: backend native: the CPU kernels are not built" in reasons[0]


@pytest.mark.usefixtures("no_library")
def test_the_list_of_plugins_shows_it() -> None:
    done = CliRunner().invoke(app, ["plugins", "--check", "--json"])
    assert done.exit_code == 0, done.output
    assert "the CPU kernels are not built" in json.loads(done.output)["checks"]["native"]
    shown = CliRunner().invoke(app, ["plugins"]).output
    assert "not built here" in next(line for line in shown.splitlines() if line.startswith("  backend      native"))


@pytest.mark.usefixtures("no_library")
def test_without_any_engine_each_is_told_on_a_line_of_its_own() -> None:
    plugins = Plugins.load()
    for name in ("onnxruntime", "torch"):
        del plugins.backends._claims[name]
    with pytest.raises(Unsupported) as raised:
        choose_backend(EngineConfig(model="unused", device="cpu"), plugins, [])
    lines = str(raised.value).splitlines()
    assert lines[0] == "no engine is installed that runs on device 'cpu':"
    assert lines[1].startswith("  native: the CPU kernels are not built: ")
    assert lines[2:4] == ["  onnxruntime: not installed", "  torch: not installed"]
    assert lines[4].startswith("Install one (pip install 'isotoken[onnxruntime]'")


def test_a_library_that_cannot_be_loaded_is_told_from_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "_native.so"
    path.write_bytes(b"not a library")
    library._load.cache_clear()
    monkeypatch.setattr(library, "PATH", path)
    with pytest.raises(Unsupported, match="backend native: the CPU kernels cannot be loaded"):
        load_backend()
    library._load.cache_clear()


@pytest.mark.parametrize(("isas", "is_slow"), [(("plain",), True), (("avx2", "plain"), False)])
def test_a_cpu_without_vectors_makes_it_a_second_choice(
    isas: tuple[str, ...], is_slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named, it runs there all the same."""
    monkeypatch.setattr(library, "load", lambda _: SimpleNamespace(isas=isas))
    monkeypatch.setattr(library, "why_unavailable", lambda: "")
    assert ("only the plain C++ kernels" in load_backend().capabilities.second_choice) == is_slow
    reasons: list[str] = []
    name, _ = choose_backend(EngineConfig(model="unused", device="cpu"), Plugins.load(), reasons)
    assert (name != "native") == is_slow
    assert ("not native: this CPU runs only the plain" in reasons[0]) == is_slow
