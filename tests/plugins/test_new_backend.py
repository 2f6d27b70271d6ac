"""`isotoken new-backend` writes a package that installs, passes the contract at once, and says what it cannot do."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from isotoken.api.cli import main
from isotoken.api.cli.new_backend import check_name, render
from isotoken.plugins.api_version import misfit

from .stranger import Stranger

ROOT = Path(__file__).parents[2]
Said = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_installs_and_honours_the_contract_at_once(tmp_path: Path) -> None:
    stranger = Stranger(tmp_path)
    made = stranger.isotoken("new-backend", "my-engine")
    assert made.returncode == 0, made.stderr
    package = tmp_path / "isotoken-my-engine"
    stranger.pip("install", "--editable", package)
    assert "  backend      my-engine    a small decoder in numpy" in stranger.isotoken("plugins").stdout
    own = stranger.run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=package)  # the suite's contract tests too
    assert own.returncode == 0, own.stdout + own.stderr
    assert "3 passed" in own.stdout
    aspects = stranger.conformance("--backend", "my-engine", "-k", "test_aspects")
    assert aspects.returncode == 0, aspects.stdout
    assert "declared absent: block_copies (not_implemented: rows are not copied yet)" in aspects.stdout
    assert "model gemma2 (refused: backend my-engine does not run Gemma2ForCausalLM yet: it has" in aspects.stdout
    again = stranger.isotoken("new-backend", "my-engine", "--out", "other")
    assert again.returncode == 1
    assert "there is a backend 'my-engine' already, of isotoken-my-engine" in again.stderr


def test_every_file_of_the_template_is_in_the_wheel() -> None:
    packing = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    cli = ROOT / "api" / "cli"
    packed = {path for pattern in packing["isotoken.api.cli"] for path in cli.glob(pattern)}
    templates = set(cli.rglob("*.tmpl"))
    assert len(templates) == 10
    assert templates <= packed


def test_what_is_written_is_told(folder: Path, capsys: Said) -> None:
    assert main(["new-backend", "zip2", "--out", "deep/here"]) == 0
    said = capsys.readouterr()
    written = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert sorted(said.out.splitlines()) == written
    assert "deep/here/isotoken_zip2/runner.py" in written
    assert "deep/here/.gitignore" in written
    assert "isotoken conformance --backend zip2 -k test_contract" in said.err
    project = tomllib.loads((folder / "deep" / "here" / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["isotoken"] == {"zip2": "isotoken_zip2.plugin"}


def test_nothing_is_overwritten(folder: Path, capsys: Said) -> None:
    mine = folder / "isotoken-zip2" / "precious.txt"
    mine.parent.mkdir()
    mine.write_text("keep me")
    assert main(["new-backend", "zip2"]) == 1
    assert "isotoken-zip2 is not empty, and nothing is overwritten" in capsys.readouterr().err
    assert list(mine.parent.iterdir()) == [mine]
    assert main(["new-backend", "zip2", "--out", str(mine)]) == 1
    assert "is a file" in capsys.readouterr().err
    assert mine.read_text() == "keep me"


def test_an_empty_folder_may_be_there(folder: Path) -> None:
    (folder / "isotoken-zip2").mkdir()
    assert main(["new-backend", "zip2"]) == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Mine", "; mine would do"),
        ("my engine!", "; my-engine would do"),
        ("2fast", "cannot be a backend's name: expected a small letter"),
        ("", "expected a small letter"),
        ("über", "; ber would do"),
        ("a--b", "; a-b would do"),
        ("../up", "; up would do"),
        ("auto", "isotoken gives the word another meaning"),
        ("none", "isotoken gives the word another meaning"),
        ("reference", "there is a backend 'reference' already, of isotoken: choose another name"),
    ],
)
def test_names_that_cannot_be(name: str, said: str, folder: Path, capsys: Said) -> None:
    assert main(["new-backend", name]) == 1
    assert said in capsys.readouterr().err
    assert not list(folder.iterdir())


def test_a_package_of_that_name_is_not_shadowed(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "bigram"))  # a drafter, so no backend of that name
    assert main(["new-backend", "bigram"]) == 1
    assert "there is a package isotoken_bigram already: choose another name" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x", "my-engine", "my_engine2", "class"])
def test_names_that_can_be(name: str) -> None:
    check_name(name)
    files = {str(path): text for path, text in render(name)}
    module = f"isotoken_{name.replace('-', '_')}"
    for path, text in files.items():
        if path.endswith(".py"):
            compile(text, path, "exec")
            assert (path.split("/")[0].isidentifier()) == path.startswith(module) or path.startswith("tests/")
    stated = re.search(r'^ISOTOKEN_API = "(.*?)"', files[f"{module}/plugin.py"], re.MULTILINE)
    assert stated is not None
    assert misfit(name, "", stated[1]) is None


@pytest.mark.skipif(find_spec("ruff") is None, reason="ruff is not installed")
def test_the_package_is_in_the_house_style(folder: Path) -> None:
    assert main(["new-backend", "zip2"]) == 0
    for command in (["check", "--ignore", "D103"], ["format", "--check"]):  # a test's name is its sentence
        config = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *config, "isotoken-zip2"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
