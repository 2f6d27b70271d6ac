"""`isotoken build`: the engine is there when `serve` or `generate` wants it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from isotoken.api.cli import main
from isotoken.backends.tensorrt import plugin
from isotoken.core.interfaces import AheadOfTime

from .conftest import Bench

BUILD = "Builder.build_serialized_network"


@pytest.fixture
def flags(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The command line's flags for the backend on the fake."""
    monkeypatch.setattr(plugin, "load_backend", lambda: bench.backend)
    cache = ["--option", f"engine_cache={tmp_path / 'kept'}"]
    return ["--backend", "tensorrt", "--dtype", "float32", "--max-model-len", "96", "--max-num-seqs", "2", *cache]


def test_it_prints_where_the_engine_is_and_generate_uses_it(
    flags: list[str], world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", "isotoken-draft", *flags]) == 0
    said = capsys.readouterr()
    path = Path(said.out.strip())
    assert path.exists()
    assert path.suffix == ".plan"
    assert "device cuda" in said.err
    assert world.CALLS.count(BUILD) == 1
    assert main(["generate", "--model", "isotoken-draft", "--max-tokens", "6", "The ", *flags]) == 0
    assert capsys.readouterr().out.strip()
    assert world.CALLS.count(BUILD) == 1
    assert main(["build", "isotoken-draft", *flags]) == 0
    assert capsys.readouterr().out.strip() == str(path)
    assert world.CALLS.count(BUILD) == 1


def test_limits_that_are_settled_for_serving_are_for_building_too(
    flags: list[str], world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """More requests than tokens in a step are not run at once, and an engine is built for how many are."""
    limits = ["--max-num-batched-tokens", "8", "--max-num-seqs", "16"]
    assert main(["build", "isotoken-draft", *flags, *limits]) == 0
    assert "max_num_seqs 8" in capsys.readouterr().err
    assert main(["generate", "--model", "isotoken-draft", "--max-tokens", "4", "The ", *flags, *limits]) == 0
    assert world.CALLS.count(BUILD) == 1


def test_the_text_is_that_of_torch(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for backend in (flags, ["--backend", "torch", "--dtype", "float32"]):
        assert main(["generate", "--model", "isotoken-draft", "--max-tokens", "24", "The first ", *backend]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]


def test_backends_that_compile_nothing_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "isotoken-draft", "--backend", "reference"]) == 1
    assert "backend reference has nothing to build ahead of time" in capsys.readouterr().err


def test_a_failed_build_is_told_in_one_line(flags: list[str], world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    world.FAULTS[BUILD] = "Could not find any implementation for node {Attention}"
    assert main(["build", "isotoken-draft", *flags]) == 1
    said = capsys.readouterr()
    last = said.err.strip().splitlines()[-1]
    assert last.startswith("isotoken: backend tensorrt: could not build the engine. TensorRT says: Could not find")
    assert "raise the option workspace_mib" in last
    assert not said.out


def test_a_bar_is_shown_on_a_terminal(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["build", "isotoken-draft", *flags]) == 0
    assert "Building Engine" in capsys.readouterr().err


def test_the_backend_is_one_that_builds_ahead(bench: Bench) -> None:
    assert isinstance(bench.backend, AheadOfTime)
