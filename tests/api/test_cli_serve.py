"""`isotoken serve` from the outside: the banner, the line to paste, what it refuses, and how it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def serving(serve: Any, model_dir: Path) -> Iterator[Any]:
    with serve(str(model_dir), "--backend", "reference", "--served-model-name", "tiny") as server:
        yield server


def ask(url: str, path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def test_the_printed_line_works_when_pasted(serving: Any) -> None:
    done = subprocess.run(["sh", "-c", serving.curl], capture_output=True, text=True, timeout=60, check=True)
    answer = json.loads(done.stdout)
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")
    assert answer["usage"]["completion_tokens"] >= 1


def test_the_banner_says_what_was_picked_and_why(serving: Any) -> None:
    banner = "\n".join(serving.banner)
    assert f"isotoken serves tiny on {serving.url}" in banner
    assert "reference on cpu in float32" in banner
    assert "dtype float32: the checkpoint's own" in banner


def test_the_page_that_the_banner_names_is_there(serving: Any) -> None:
    (page,) = [line.split()[-1] for line in serving.banner if line.strip().startswith("docs")]
    with urllib.request.urlopen(page, timeout=60) as response:
        assert (response.status, response.headers.get_content_type()) == (200, "text/html")


def test_the_served_name_is_the_models_id(serving: Any) -> None:
    assert [model["id"] for model in ask(serving.url, "/v1/models")["data"]] == ["tiny"]


def test_the_model_may_be_left_out_of_a_request(serving: Any) -> None:
    answer = ask(serving.url, "/v1/completions", {"prompt": "one two", "max_tokens": 3})
    assert answer["model"] == "tiny"


def test_a_port_in_use_is_one_clear_line(serving: Any, command: Run, model_dir: Path) -> None:
    port = serving.url.rsplit(":", 1)[1]
    done = command("serve", str(model_dir), "--backend", "reference", "--port", port)
    assert (done.returncode, done.stdout) == (1, "")
    hint = "choose another with --port (0: any free one)"
    assert done.stderr == f"isotoken: cannot listen on 127.0.0.1:{port}: Address already in use; {hint}\n"


@pytest.mark.parametrize(("level", "shown"), [("info", 1), ("warning", 0)])
def test_one_line_for_each_finished_request(serve: Any, model_dir: Path, level: str, shown: int) -> None:
    with serve(str(model_dir), "--backend", "reference", "--log-level", level) as server:
        answer = ask(server.url, "/v1/completions", {"prompt": "one two", "max_tokens": 3, "ignore_eos": True})
        server.stop()
        lines = [line for line in server.log if answer["id"] in line]
    assert len(lines) == shown
    assert all("isotoken.requests" in line and "length" in line and "generated=3" in line for line in lines)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_and_frees_the_port(serve: Any, model_dir: Path, number: signal.Signals) -> None:
    with serve(str(model_dir), "--backend", "reference") as server:
        assert server.stop(number) == 0
        host, port = server.url.removeprefix("http://").split(":")
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind((host, int(port)))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--backend", "reverence"], "did you mean 'reference'?"),
        (["--backend", "reference", "--quantization", "int4"], "reference does not offer quantization='int4'"),
        (["--backend", "reference", "--tensor-parallel-size", "2"], "tensor_parallel_size=2 is not possible"),
        (["--backend", "reference", "--enable-routes", "nonesuch"], "'nonesuch'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_served_is_refused(command: Run, model_dir: Path, flags: list[str], expected: str) -> None:
    done = command("serve", str(model_dir), "--port", "0", *flags)
    assert (done.returncode, done.stdout) == (1, "")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_host_is_named(command: Run, model_dir: Path) -> None:
    done = command("serve", str(model_dir), "--backend", "reference", "--host", "host.invalid")
    assert done.returncode == 2
    assert "'--host': 'host.invalid'" in done.stderr


def test_the_models_own_sampling_defaults_apply_when_asked_for(serve: Any, model_dir: Path) -> None:
    """The tiny model's generation_config.json asks for 20 new tokens; the API's default is 16."""
    body = {"prompt": "one two", "temperature": 0, "ignore_eos": True}
    with serve(str(model_dir), "--backend", "reference", "--generation-config", "model") as server:
        assert ask(server.url, "/v1/completions", body)["usage"]["completion_tokens"] == 20


def test_limits_reach_the_server(serve: Any, model_dir: Path) -> None:
    with serve(str(model_dir), "--backend", "reference", "--max-body-bytes", "100", "--max-model-len", "64") as server:
        assert ask(server.url, "/v1/models")["data"][0]["max_model_len"] == 64
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(server.url, "/v1/completions", {"prompt": "x" * 200})
        assert refused.value.code == 413
        refused.value.close()


def test_the_line_to_paste_takes_a_key_where_keys_are_asked_for() -> None:
    from isotoken.api.cli.serve import _curl

    assert _curl("http://here", {}, True) == _curl("http://here", {}, False) + (
        ' -H "Authorization: Bearer $ISOTOKEN_API_KEY"'
    )
    assert "Authorization" not in _curl("http://here", {}, False)
