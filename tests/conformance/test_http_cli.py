"""`isotoken conformance --url`: what it says where there is nothing to test, and what it keeps to itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from isotoken.conformance.http.settings import parse

Run = Callable[..., Any]
KEY = "a-key-of-ours"


class Stub(BaseHTTPRequestHandler):
    """Lists one model to those who have the key, and completes nothing."""

    def do_GET(self) -> None:
        if self.path.startswith("/other"):
            self._answer(200, b"<h1>welcome</h1>")
        elif self.headers.get("authorization") != f"Bearer {KEY}":
            self._answer(401, b'{"error": {"message": "who are you?"}}')
        else:
            self._answer(200, json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._answer(404, b"{}")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def stub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with stub() as found:
        yield found


def test_nobody_there(command: Run) -> None:
    with stub() as gone:
        pass
    done = command("conformance", "--url", gone)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"no server answers at {gone} (GET /v1/models: ConnectError" in done.stderr
    assert "`isotoken serve` starts one" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_somebody_else_there(command: Run, url: str) -> None:
    done = command("conformance", "--url", f"{url}/other")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"{url}/other is no server of the OpenAI API: GET {url}/other/v1/models gave 200 <h1>" in done.stderr


def test_a_server_that_wants_a_key(command: Run, url: str) -> None:
    done = command("conformance", "--url", url)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "wants another key: --api-key KEY (401" in done.stderr
    done = command("conformance", "--url", f"{url}/v1/", "--api-key", KEY, "--model", "n")
    assert "the server does not list the model 'n', but: m" in done.stderr
    done = command("conformance", "--url", url, "--api-key", KEY)
    assert "the server completes nothing: /v1/completions is not offered (404)" in done.stderr
    assert KEY not in done.stderr + done.stdout


@pytest.mark.parametrize("wrong", ["localhost:8000", "", "ftp://x"])
def test_no_url(command: Run, wrong: str) -> None:
    done = command("conformance", f"--url={wrong}")
    assert done.returncode == 2
    assert "expected one such as http://127.0.0.1:8000" in done.stderr


def test_one_process(command: Run) -> None:
    done = command("conformance", "--url", "http://127.0.0.1:1", "-n", "2")
    assert (done.returncode, "leave -n out" in done.stdout) == (4, True)


def test_help(command: Run) -> None:
    told = command("conformance", "--help").stdout
    assert "isotoken conformance --url URL" in told
    told = command("conformance", "--url", "http://x", "--help").stdout
    for option in ("--model", "--api-key", "--report", "--strict", "--near-tie", "--timeout"):
        assert option in told


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("http://h:1", "http://h:1"),
        ("http://h:1/", "http://h:1"),
        ("https://h/v1", "https://h"),
        ("http://h/prefix/v1/", "http://h/prefix"),
    ],
)
def test_the_address_may_be_the_clients(given: str, expected: str) -> None:
    settings, rest = parse(["--url", given, "-k", "stream", "--strict", "-x"])
    assert (settings.url, settings.strict, rest) == (expected, True, ["-k", "stream", "-x"])


def test_the_suite_stays_out_of_runs_on_backends(command: Run, tmp_path: Path) -> None:
    """Neither `pytest --pyargs isotoken.conformance` nor a run on a backend collects the tests of servers."""
    done = command("conformance", "--backend", "reference", "--collect-only", "-q", "-p", "no:cacheprovider")
    assert "test_contract" in done.stdout
    assert "http/" not in done.stdout and "test_streams" not in done.stdout
