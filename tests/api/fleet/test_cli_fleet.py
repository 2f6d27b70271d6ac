"""`isotoken models ...` against a running server: what an operator types, and what it says."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from isotoken.api.cli.app import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["models", *arguments])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def test_a_new_version_and_back(
    run: Callable[..., tuple[int, str, str]], serve_fleet: Callable[..., Any], make_version: Callable[[int], Path]
) -> None:
    server = serve_fleet([{"name": "small", "model": str(make_version(1))}], memory="8MiB", keep_previous=True)
    url = f"--url={server.url}"
    first = server.key("small")
    settings = ("--set", "backend=reference", "--set", "num_blocks=256", "--set", "max_model_len=512")
    code, out, err = run("load", "small", str(make_version(2)), *settings, "--alias", "chat", url)
    second = server.key("chat")
    assert (code, out) == (0, f"{second} is ready\n"), err
    assert second == server.key("small") != first

    code, out, _ = run("status", url)
    lines = out.splitlines()
    assert code == 0 and lines[0].split() == ["MODEL", "STATE", "MEMORY", "REQUESTS", "NAMES"]
    assert any(line.startswith(second) and line.endswith("small, chat") for line in lines)
    assert lines[-1].startswith("memory: ") and " of 8.00 MiB, " in lines[-1]

    assert run("rollback", "small", url)[:2] == (0, f"small stands for {first}\n")
    assert run("alias", "prod", second[:-4], url)[:2] == (0, f"prod stands for {second}\n")
    assert run("alias", "prod", "--remove", url)[:2] == (0, "prod stands for nothing any more\n")
    assert run("drain", "chat", url)[:2] == (0, f"{second} is draining\n")
    assert run("drain", second, "--resume", url)[:2] == (0, f"{second} is ready\n")
    assert run("unload", "chat", url)[0] == 1
    assert run("unload", "chat", "--force", url)[0] == 0
    server.wait_for(lambda: server.states() == {first: "ready"})


def test_what_goes_wrong_is_one_line(run: Callable[..., tuple[int, str, str]], two: Any, tmp_path: Path) -> None:
    url = f"--url={two.url}"
    code, _, err = run("load", "new", str(tmp_path), url)
    assert code == 1 and "new could not be loaded" in err and "config.json" in err and err.count("\n") == 1
    assert run("unload", "new", url)[0] == 0  # one that failed is forgotten
    code, _, err = run("rollback", "small", url)
    assert code == 1 and "there is nothing to go back to" in err
    code, _, err = run("load", "new", "--set", "quantisation=int8", url)
    assert code == 1 and "quantisation" in err
    code, _, err = run("status", "--url=http://127.0.0.1:9")
    assert code == 1 and "no server answers at http://127.0.0.1:9" in err
    assert run("alias", "chat", url)[0] == run("load", "new", "--set", "x", url)[0] == 2


def test_listing_the_models_at_hand_stays_what_it_was(command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = command("models")
    assert done.returncode == 0 and "isotoken-small" in done.stdout
