"""`isotoken plugins`, `isotoken models` and `isotoken conformance`: what is here, and what is wrong with it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from isotoken import __version__
from isotoken.api.cli.flags import DEFAULT_MODEL

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def broken_plugin(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH with an installed distribution whose plugin cannot be imported."""
    (tmp_path / "breaks.py").write_text("import no_such_engine\n")
    info = tmp_path / "isotoken_breaks-3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: isotoken-breaks\nVersion: 3.1\n")
    (info / "entry_points.txt").write_text("[isotoken]\nbreaks = breaks\n")
    return tmp_path


def test_plugins_lists_the_built_ins_with_their_distribution(command: Run) -> None:
    done = command("plugins")
    assert done.returncode == 0
    assert f"builtin  (isotoken {__version__})" in done.stdout
    for line in (
        "backend      reference",
        "backend      torch",
        "scheduler    continuous",
        "kv cache     paged",
        "drafter      ngram",
        "quantization int8 ",
        "quantization w4a8 ",
    ):
        assert line in done.stdout
    assert "failed" not in done.stdout


def test_plugins_shows_what_failed_and_why(command: Run, broken_plugin: Path) -> None:
    done = command("plugins", PYTHONPATH=str(broken_plugin))
    assert "breaks  (isotoken-breaks 3.1)" in done.stdout
    assert "failed: ModuleNotFoundError: No module named 'no_such_engine'" in done.stdout
    assert "Traceback" not in done.stdout
    assert "backend      reference" in done.stdout


def test_plugins_verbose_has_the_traceback(command: Run, broken_plugin: Path) -> None:
    done = command("plugins", "--verbose", PYTHONPATH=str(broken_plugin))
    assert "Traceback (most recent call last)" in done.stdout
    assert str(broken_plugin / "breaks.py") in done.stdout


def test_asking_for_a_failed_plugin_says_why_in_one_line(command: Run, broken_plugin: Path) -> None:
    done = command("generate", "--backend", "breaks", "x", PYTHONPATH=str(broken_plugin))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "No module named 'no_such_engine'; `isotoken plugins --verbose` shows" in done.stderr


def test_plugins_as_json(command: Run, broken_plugin: Path) -> None:
    report = json.loads(command("plugins", "--json", PYTHONPATH=str(broken_plugin)).stdout)
    by_name = {plugin["name"]: plugin for plugin in report["plugins"]}
    assert "no_such_engine" in by_name["breaks"]["traceback"]
    assert "backend reference" in by_name["reference"]["provides"]
    assert report["names"]["schedulers"]["naive"]["plugin"] == "builtin"


def test_plugins_names_both_owners_of_a_contested_name(command: Run, broken_plugin: Path) -> None:
    (broken_plugin / "breaks.py").write_text(
        "from isotoken.plugins.hookspecs import hookimpl\nISOTOKEN_API = '1.0'\n"
        "@hookimpl\ndef register_backends(register):\n    register('reference', object)\n"
    )
    done = command("plugins", PYTHONPATH=str(broken_plugin))
    assert "conflict: backend reference is claimed by isotoken-breaks (plugin breaks) and isotoken" in done.stdout
    done = command("generate", "--backend", "reference", "x", PYTHONPATH=str(broken_plugin))
    assert (done.returncode, "claimed by" in done.stderr) == (1, True)


def test_plugins_check_says_what_each_backend_can_do_here(command: Run) -> None:
    done = command("plugins", "--check")
    assert re.search(r"backend reference: devices cpu; dtypes .*float64", done.stdout)
    assert re.search(
        r"backend onnxruntime: .*; quantizations int4, int8; K/V also in float16, float32$", done.stdout, re.M
    )


def test_models_lists_the_built_in_ones(command: Run) -> None:
    done = command("models")
    assert re.search(rf"^{DEFAULT_MODEL} +built-in +\d+\.\d MB +\S+ +\(served when none is named\)$", done.stdout, re.M)
    (entry, *_) = json.loads(command("models", "--json").stdout)
    assert (Path(entry["path"]) / "config.json").is_file()


def test_conformance_passes_its_arguments_on(command: Run) -> None:
    done = command("conformance", "--backend", "reference", "--collect-only", "-q", "-k", "greedy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "conformance" in done.stdout


def test_conformance_matrix_needs_reports(command: Run) -> None:
    done = command("conformance", "matrix")
    assert done.returncode == 2
    assert "matrix" in done.stderr


@pytest.mark.parametrize("content", ["{}", "[]", "not JSON"])
def test_conformance_matrix_refuses_other_files(command: Run, tmp_path: Path, content: str) -> None:
    (tmp_path / "e.json").write_text(content)
    done = command("conformance", "matrix", str(tmp_path / "e.json"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "e.json is not a conformance report" in done.stderr
    assert "Traceback" not in done.stderr
