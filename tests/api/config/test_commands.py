"""`isotoken config` and `isotoken serve --config` from the outside."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "server.yaml"
    path.write_text("server:\n  port: 9000\nmodels:\n  - name: chat\n    model: isotoken-small\n")
    return path


def test_a_good_file_is_said_to_be_good(command: Run, file: Path) -> None:
    done = command("config", "check", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{file}: a good configuration (3 values given, the others by default; models: chat)\n"


def test_a_bad_file_is_refused_with_every_reason(command: Run, file: Path) -> None:
    file.write_text("server:\n  prot: 9000\nmodels:\n  - name: isotoken-smal\n")
    done = command("config", "check", str(file))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{file}:2: server.prot does not exist; did you mean 'port'?" in done.stderr
    file.write_text("models:\n  - name: isotoken-smal\n")
    done = command("config", "check", str(file), ISOTOKEN_SERVER__PORT="9")
    assert done.returncode == 1
    assert f"{file}:2: models[0].name: unknown model 'isotoken-smal'" in done.stderr


def test_a_model_that_nobody_serves_is_noticed(command: Run, file: Path) -> None:
    file.write_text(
        "models: [{name: isotoken-small}]\nrouting:\n  shadows:\n    - {model: chat, target: isotoken-smal}\n"
    )
    done = command("config", "check", str(file))
    said = "routing.shadows[0].target: 'isotoken-smal' is no served model; did you mean 'isotoken-small'?"
    assert (done.returncode, f"{file}:4: {said}" in done.stderr) == (1, True)


def test_a_file_that_is_not_there_is_named(command: Run, tmp_path: Path) -> None:
    done = command("config", "check", str(tmp_path / "none.yaml"))
    assert done.returncode == 1
    assert "none.yaml: cannot be read: No such file or directory" in done.stderr


def test_show_says_what_and_from_where(command: Run, file: Path) -> None:
    done = command("config", "show", "--config", str(file), "--set", "server.host=::1", "--changed")
    assert done.returncode == 0
    assert [" ".join(line.split()) for line in done.stdout.splitlines()] == [
        "server:",
        'host: "::1" # --set server.host',
        f"port: 9000 # {file}:2",
        "models:",
        f'- name: "chat" # {file}:4',
        f'model: "isotoken-small" # {file}:5',
    ]
    rows = json.loads(command("config", "show", "--json", ISOTOKEN_CONFIG=str(file)).stdout)
    assert {"field": "server.port", "value": 9000, "origin": f"{file}:2"} in rows


def test_the_schema_describes_every_field(command: Run) -> None:
    schema = json.loads(command("config", "schema").stdout)
    server = schema["$defs"]["ServerSection"]["properties"]
    assert server["port"]["maximum"] == 65535
    assert all("description" in field for field in server.values())
    assert schema["additionalProperties"] is False


def test_serve_takes_a_file_and_flags_win(serve: Any, model_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(
        f'[server]\nport = 1\n[limits]\nmax_body_bytes = 100\n[engine]\nbackend = "none such"\nmax_model_len = 64\n'
        f'[[models]]\nname = "mine"\nmodel = "{model_dir}"\n'
    )
    environment = {"ISOTOKEN_ENGINE__BACKEND": "nor this one"}
    with serve("--config", str(file), "--backend", "reference", **environment) as server:  # and --port 0
        with urllib.request.urlopen(server.url + "/v1/models", timeout=60) as response:
            models = {model["id"]: model["max_model_len"] for model in json.load(response)["data"]}
        assert models["mine"] == 64
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(server.url + "/v1/completions", b"x" * 200, timeout=60)
        assert refused.value.code == 413
        refused.value.close()


def test_the_environment_alone_configures(command: Run, model_dir: Path) -> None:
    done = command("serve", str(model_dir), ISOTOKEN_SERVER__PORT="many")
    assert done.returncode == 1
    assert "ISOTOKEN_SERVER__PORT: server.port = 'many' is not allowed: expected a whole number" in done.stderr


def test_serving_without_configuration_needs_none_of_it() -> None:
    code = (
        "import os, sys; [os.environ.pop(n) for n in list(os.environ) if n.startswith('ISOTOKEN_')];"
        "from isotoken.api.cli import main; assert main(['serve', '/nowhere']) == 1;"
        "print([m for m in sys.modules if m.startswith(('pydantic_settings', 'isotoken.api.config.', 'sqlalchemy'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_reading_a_configuration_imports_nothing_heavy() -> None:
    code = (
        "import sys; from isotoken.api.config.load import load; load(environment={});"
        "heavy = {'torch', 'numpy', 'litestar', 'uvicorn', 'transformers', 'tokenizers', 'sqlalchemy', 'redis'};"
        "print(heavy & {m.split('.')[0] for m in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "set()\n"
