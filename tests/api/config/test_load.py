"""One configuration: the file, the environment, --set and flags, each over the one before, and errors that help."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from isotoken.api.config.layers import Layer
from isotoken.api.config.load import Loaded, load
from isotoken.api.config.problems import ConfigError
from isotoken.api.config.show import render, with_origins

YAML = """
server:
  host: 0.0.0.0
  port: 9000
limits: {max_headers: 50}
models:
  - name: chat
    model: isotoken-small
    max_num_seqs: 8
  - name: draft
    model: ./folder
"""


def read(folder: Path, text: str = YAML, name: str = "server.yaml", **more: Any) -> Loaded:
    (folder / name).write_text(text)
    return load(folder / name, **{"environment": {}, **more})


def problems(folder: Path, text: str, **more: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(folder, text, **more)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def test_nothing_given_is_everything_by_default() -> None:
    loaded = load(environment={"HOME": "/", "ISOTOKEN_DEBUG": "1", "ISOTOKEN_CPU_ISA": "avx2"})
    assert loaded.origins == {}
    assert (loaded.config.server.port, loaded.config.models) == (8000, [])


def test_each_layer_wins_over_the_one_before(tmp_path: Path) -> None:
    environment = {"ISOTOKEN_SERVER__PORT": "9001", "ISOTOKEN_LIMITS__MAX_HEADERS": "51", "ISOTOKEN_ENGINE__DTYPE": "a"}
    flags = Layer({"server": {}, "engine": {"dtype": "c"}}, lambda path: f"--{path[-1]}")
    loaded = read(tmp_path, environment=environment, assignments=["server.port=9002", "engine.dtype=b"], flags=flags)
    config = loaded.config
    assert (config.server.host, config.limits.max_headers, config.server.port) == ("0.0.0.0", 51, 9002)
    assert config.engine.dtype == "c"
    assert loaded.origin(("server", "host")) == f"{tmp_path}/server.yaml:3"
    assert loaded.origin(("limits", "max_headers")) == "ISOTOKEN_LIMITS__MAX_HEADERS"
    assert loaded.origin(("server", "port")) == "--set server.port"
    assert loaded.origin(("engine", "dtype")) == "--dtype"
    assert loaded.origin(("server", "keep_alive_timeout")) == "default"


def test_toml_says_the_same(tmp_path: Path) -> None:
    toml = """
[server]
host = "0.0.0.0"
port = 9000
[limits]
max_headers = 50
[[models]]
name = "chat"
model = "isotoken-small"
max_num_seqs = 8
[[models]]
name = "draft"
model = "./folder"
"""
    loaded = read(tmp_path, toml, "server.toml")
    assert loaded.config == read(tmp_path).config
    assert loaded.origin(("server", "port")) == f"{tmp_path}/server.toml:4"
    assert loaded.origin(("models", 1, "model")) == f"{tmp_path}/server.toml:13"


def test_paths_start_from_the_files_own_folder(tmp_path: Path) -> None:
    (tmp_path / "chat.jinja").write_text("{{ messages }}")
    loaded = read(tmp_path, YAML.replace("port: 9000", "chat_template: chat.jinja"))
    assert loaded.config.server.chat_template == tmp_path / "chat.jinja"
    assert loaded.config.models[1].model == str(tmp_path / "folder")
    assert loaded.config.models[0].model == "isotoken-small"


def test_a_list_is_changed_by_number(tmp_path: Path) -> None:
    loaded = read(tmp_path, environment={"ISOTOKEN_MODELS__1__NAME": "other"}, assignments=['models[0].aliases=["x"]'])
    assert [model.name for model in loaded.config.models] == ["chat", "other"]
    assert loaded.config.models[0].aliases == ["x"]
    assert loaded.origin(("models", 1, "name")) == "ISOTOKEN_MODELS__1__NAME"
    assert loaded.origin(("models", 0, "name")).endswith("server.yaml:7")


def test_a_list_can_be_given_whole(tmp_path: Path) -> None:
    loaded = read(tmp_path, environment={"ISOTOKEN_MODELS": '[{"name": "only"}]'})
    assert [model.name for model in loaded.config.models] == ["only"]
    assert load(environment={"ISOTOKEN_MODELS__0__NAME": "a"}).config.models[0].name == "a"


def test_a_model_has_what_the_engine_section_says_unless_it_says_otherwise(tmp_path: Path) -> None:
    fleet = read(tmp_path, YAML + "engine: {max_num_seqs: 4, backend: reference}").config.fleet_settings()
    assert [(model.max_num_seqs, model.backend) for model in fleet.models] == [(8, "reference"), (4, "reference")]


def test_a_flag_wins_over_a_models_own_engine(tmp_path: Path) -> None:
    flags = Layer({"engine": {"max_num_seqs": 2}}, lambda path: "--max-num-seqs")
    assert [model.max_num_seqs for model in read(tmp_path, flags=flags).config.fleet_settings().models] == [2, 2]


def test_an_empty_section_is_one_without_fields(tmp_path: Path) -> None:
    assert read(tmp_path, "server:\nlimits:\n").config == load(environment={}).config


def test_yaml_merges_defaults(tmp_path: Path) -> None:
    text = "models:\n  - &base {name: a, max_num_seqs: 3}\n  - <<: *base\n    name: b\n"
    assert [(m.name, m.max_num_seqs) for m in read(tmp_path, text).config.models] == [("a", 3), ("b", 3)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server:\n  prot: 1", "server.yaml:2: server.prot does not exist; did you mean 'port'?"),
        ("server:\n  max_headers: 1", "server.yaml:2: server.max_headers does not exist here: it belongs to limits"),
        ("sever: {}", "server.yaml:1: sever does not exist; did you mean 'server'?"),
        ("server:\n\n  port: 70000", "server.yaml:3: server.port = 70000 is not allowed: expected at most 65535"),
        ("server: {port: many}", "server.yaml:1: server.port = 'many' is not allowed: expected a whole number"),
        ("limits: {head_timeout: 0}", "server.yaml:1: limits.head_timeout = 0 is not allowed: expected above 0"),
        (
            "limits: {head_timeout: .nan}",
            "server.yaml:1: limits.head_timeout = nan is not allowed: expected a finite number",
        ),
        (
            "server: {log_level: loud}",
            "server.yaml:1: server.log_level = 'loud' is not allowed: "
            "expected one of 'debug', 'info', 'warning' or 'error'",
        ),
        ("server: {chat_template: x}", "expected a file that exists"),
        ("models:\n  - model: a\n", "server.yaml:2: models[0].name is missing"),
        ("models:\n  - name: a\n  - name: a\n", "the name 'a' is given to two models"),
        ("fleet: {models: [{name: a}]}", "the models are listed at the top, under `models`"),
    ],
)
def test_an_error_says_where_what_and_what_was_expected(tmp_path: Path, text: str, said: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert said in problem


def test_every_error_is_told_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, "server:\n  port: x\n  prot: 1\nlimits:\n  max_headers: 0\n")
    assert [problem.split(":")[1] for problem in found] == ["2", "3", "5"]


@pytest.mark.parametrize(
    ("environment", "assignments", "said"),
    [
        ({"ISOTOKEN_SERVER__PROT": "1"}, [], "ISOTOKEN_SERVER__PROT: server.prot does not exist; did you mean 'port'?"),
        (
            {"ISOTOKEN_SEVER__PORT": "1"},
            [],
            "ISOTOKEN_SEVER__PORT: there is no section 'sever'; did you mean",
        ),
        (
            {"ISOTOKEN_SERVER__PORT": "x"},
            [],
            "ISOTOKEN_SERVER__PORT: server.port = 'x' is not allowed: expected a whole number",
        ),
        ({"ISOTOKEN_MODELS": "a, b"}, [], "ISOTOKEN_MODELS: 'a, b' is not allowed: expected JSON"),
        ({"ISOTOKEN_MODELS__3__NAME": "a"}, [], "ISOTOKEN_MODELS__3__NAME: there is no models[3]: the list has 0"),
        ({}, ["server.port"], "--set server.port: expected section.field=value"),
        ({}, ["port=1"], "--set port: there is no section 'port'"),
        ({}, ["server.prot=1"], "--set server.prot: server.prot does not exist; did you mean 'port'?"),
    ],
)
def test_errors_of_the_environment_and_set_name_them(
    environment: dict[str, str], assignments: list[str], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(environment=environment, assignments=assignments)
    assert said in str(caught.value)


def test_what_is_shown_can_be_read_again(tmp_path: Path) -> None:
    loaded = read(tmp_path)
    again = read(tmp_path, render(loaded), "shown.yaml")
    assert again.config.fleet_settings() == loaded.config.fleet_settings()
    assert again.config.server == loaded.config.server
    assert read(tmp_path, render(loaded, changed=True), "changed.yaml").config == loaded.config


def test_every_value_is_shown_with_its_origin(tmp_path: Path) -> None:
    variable = "ISOTOKEN_LIMITS__MAX_BODY_BYTES"
    lines = [line.strip() for line in render(read(tmp_path, environment={variable: "9"})).splitlines()]
    assert any(line.startswith("port: 9000 ") and line.endswith("server.yaml:4") for line in lines)
    assert any(line.startswith("max_body_bytes: 9 ") and line.endswith(variable) for line in lines)
    assert any(line.startswith("drain_timeout: 30") and line.endswith("# default") for line in lines)


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    text = "store: {url: 'postgresql://me:hush@host/db'}\ntelemetry: {tracing: {headers: {authorization: hush}}}\n"
    loaded = read(tmp_path, text)
    shown = render(loaded) + json.dumps(with_origins(loaded))
    assert "hush" not in shown
    assert "postgresql://me:**********@host/db" in shown
    said = problems(tmp_path, "telemetry: {tracing: {headers: {authorization_token: [hush]}}}")
    assert "hush" not in str(said)
