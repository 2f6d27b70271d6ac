"""The command line: what each command prints, to whom, and with which exit code."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer
from isotoken import SamplingParams, __version__
from isotoken.api.cli.app import app, main
from isotoken.api.cli.flags import DEFAULT_MODEL, EngineFlags, SamplingFlags
from isotoken.api.cli.serve import LimitFlags, ServerFlags
from isotoken.api.engine.limits import Limits
from isotoken.api.server.settings import ServerSettings
from isotoken.models import DEFAULT_MODEL as BUILTIN_DEFAULT
from isotoken.plugins.build import EngineConfig

Run = Callable[..., subprocess.CompletedProcess[str]]


def commands(path: tuple[str, ...] = (), group: Any = None) -> list[tuple[str, ...]]:
    group = group or typer.main.get_command(app)
    found = [path]
    for name, child in getattr(group, "commands", {}).items():
        found += commands((*path, name), child)
    return found


def test_version(command: Run) -> None:
    done = command("--version")
    assert (done.returncode, done.stdout) == (0, f"isotoken {__version__}\n")


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_every_command_has_help_on_80_columns(command: Run, path: tuple[str, ...]) -> None:
    done = command(*path, "--help")
    assert done.returncode == 0, done.stderr
    assert " ".join(("isotoken", *path)) in done.stdout
    if path != ("conformance",):
        assert not [line for line in done.stdout.splitlines() if len(line) > 80]
        assert "…" not in done.stdout  # nothing is cut short


def test_the_help_names_every_command(command: Run) -> None:
    done = command("--help")
    for name in ("serve", "generate", "chat", "models", "plugins", "bench", "conformance"):
        assert re.search(rf"^│ {name} +\S", done.stdout, re.MULTILINE), done.stdout


# --- the flags are the settings ------------------------------------------------------------------


def defaults_of(kind: Any) -> dict[str, Any]:
    return {name: getattr(kind(), name) for name in (each.name for each in fields(kind))}


def test_every_engine_setting_has_a_flag_with_the_same_default() -> None:
    flags = defaults_of(EngineFlags)
    flags["options"] = dict(flags.pop("option"))
    flags["prefix_caching"] = not flags.pop("no_prefix_caching")
    settings = {each.name: getattr(EngineConfig(model=""), each.name) for each in fields(EngineConfig)}
    assert flags == {name: value for name, value in settings.items() if name != "model"}


def test_every_limit_has_a_flag_with_the_same_default() -> None:
    limits = {each.name.removesuffix("_s"): getattr(Limits(), each.name) for each in fields(Limits)}
    assert defaults_of(LimitFlags) == limits


def test_every_server_setting_has_a_flag_with_the_same_default() -> None:
    assert ServerFlags().settings(LimitFlags()) == ServerSettings()
    renamed = {"served_model_names": "served_model_name", "route_plugins": "enable_routes"}
    settings = {renamed.get(each.name, each.name) for each in fields(ServerSettings)} - {"limits", "features"}
    assert settings == {each.name for each in fields(ServerFlags)} - {"log_level"}  # the command's own


def test_sampling_flags_are_sampling_parameters() -> None:
    assert SamplingFlags().params() == SamplingParams(max_tokens=128, temperature=0)
    flags = SamplingFlags(top_k=5, top_p=0.5, seed=3, stop=["a", "b"], ignore_eos=True)
    params = flags.params()
    assert (params.top_k, params.top_p, params.seed, list(params.stop), params.ignore_eos) == (
        5,
        0.5,
        3,
        ["a", "b"],
        True,
    )


def test_flags_reach_the_engine_config(model_dir: Path) -> None:
    flags = EngineFlags(dtype="float64", option=["a=1", "b=x=y"], no_prefix_caching=True, draft_model=str(model_dir))
    config = flags.config(str(model_dir))
    assert (config.model, config.draft_model) == (str(model_dir), str(model_dir))
    assert (config.dtype, config.options, config.prefix_caching) == ("float64", {"a": "1", "b": "x=y"}, False)


def test_the_default_model_is_the_built_in_one() -> None:
    assert DEFAULT_MODEL == BUILTIN_DEFAULT


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["serv"], 2, "No such command 'serv'. Did you mean 'serve'?"),
        (["generate", "--bogus", "x"], 2, "No such option: --bogus"),
        (["serve", "--port", "x"], 2, "Invalid value for '--port'"),
        (["serve", "--port", "70000"], 2, "at most 65535"),
        (["generate", "--block-size", "0", "x"], 2, "'--block-size': 0 is not allowed: at least 1"),
        (["generate", "--memory-fraction", "0", "x"], 2, "above 0"),
        (["generate", "--top-p", "1.5", "x"], 2, "top_p = 1.5 is not allowed: a number above 0 and at most 1"),
        (["generate", "--option", "packed", "x"], 2, "'packed' is not of the form KEY=VALUE"),
        (["serve", "--generation-config", "vllm"], 2, "--generation-config"),
        (["generate", "-m", "isotoken-smal", "x"], 1, "unknown model 'isotoken-smal'"),
        (["generate", "-m", "/no/such/folder", "x"], 1, "there is no folder /no/such/folder"),
        (["chat", "./nowhere"], 1, "there is no folder nowhere"),
        (["chat", "models/nowhere"], 1, "there is no folder models/nowhere, and as an id on the hub: "),
        (["chat", "models\\nowhere"], 1, "there is no folder models\\nowhere"),
        (["models", "pull", "no-such-owner/no-such-model"], 1, "not in the Hugging Face cache"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_use_is_one_clear_line(command: Run, arguments: list[str], code: int, expected: str) -> None:
    done = command(*arguments)
    assert expected in done.stderr
    assert done.stderr.startswith("isotoken: ")
    assert (done.returncode, done.stdout) == (code, "")
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2  # the second says where the help is


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--backend", "reverence"], "unknown backend 'reverence'; installed: .*did you mean 'reference'"),
        (["--backend", "reference", "--quantization", "int4"], "reference does not offer quantization='int4'"),
        (["--backend", "reference", "--tensor-parallel-size", "2"], "tensor_parallel_size=2 is not possible"),
        (["--backend", "reference", "--device", "cuda"], "reference cannot run on device 'cuda'"),
        (["--backend", "reference", "--dtype", "bfloat16"], "reference does not compute in 'bfloat16'"),
        (["--backend", "reference", "--scheduler", "fair"], "unknown scheduler 'fair'"),
        (["--backend", "reference", "--drafter", "model"], "name one with --draft-model"),
        (["--backend", "reference", "--option", "speed=11"], "speed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_refused_in_one_line(
    command: Run, model_dir: Path, flags: list[str], expected: str
) -> None:
    done = command("generate", "-m", str(model_dir), *flags, "x")
    assert re.search(expected, done.stderr)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr


def test_a_damaged_model_names_the_file(command: Run, tmp_path: Path, model_dir: Path) -> None:
    for file in model_dir.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    done = command("generate", "-m", str(tmp_path), "--backend", "reference", "x")
    assert done.returncode == 1
    assert "model.safetensors" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("where", ["before", "after", "environment"])
def test_debug_adds_the_traceback(command: Run, where: str) -> None:
    arguments = ["generate", "-m", "/no/such/folder", "x"]
    if where == "environment":
        done = command(*arguments, ISOTOKEN_DEBUG="1")
    else:
        done = command(*(["--debug", *arguments] if where == "before" else [*arguments, "--debug"]))
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1] == "isotoken: there is no folder /no/such/folder"
    assert done.returncode == 1


def test_a_bug_shows_its_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("isotoken.plugins.manager.Plugins.load", broken)
    assert main(["plugins"]) == 1
    assert "ZeroDivisionError: a bug" in (error := capsys.readouterr().err)
    assert "please report" in error


def test_a_missing_extra_is_named_and_no_bug(capsys: pytest.CaptureFixture[str]) -> None:
    from isotoken.api.cli.app import _tell

    assert _tell(ModuleNotFoundError("No module named 'sqlalchemy'", name="sqlalchemy")) == 1
    told = capsys.readouterr().err
    assert told == "isotoken: this needs sqlalchemy: pip install 'isotoken[production]'\n"
