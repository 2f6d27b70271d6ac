"""`isotoken top`: figures from two readings, in any width, for people and for scripts."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from isotoken.api.telemetry.top.figures import Figures, figures, quantile
from isotoken.api.telemetry.top.scrape import Scrape, metrics_url, parse
from isotoken.api.telemetry.top.screen import Screen, bars
from rich.console import Console

COMMAND = [sys.executable, "-P", "-c", "import sys; from isotoken.api.cli import main; sys.exit(main())"]

BEFORE = """
llm_http_requests_in_flight 3
llm_ready 1
llm_requests_total{route="/v1/completions",status="200"} 100
llm_requests_total{route="/v1/completions",status="500"} 0
llm_requests_total{route="/metrics",status="200"} 1
llm_rate_limited_total{limit="queue"} 5
llm_tokens_generated_total{model="m"} 1000
llm_tokens_generated_total{model="with a rather long name, as they come from a hub/of-models-7B"} 10
llm_prefix_cache_queries_total{model="m"} 100
llm_prefix_cache_hits_total{model="m"} 0
llm_draft_tokens_total{model="m"} 0
llm_accepted_tokens_total{model="m"} 0
llm_engine_ready{model="m"} 1
llm_engine_ready{model="with a rather long name, as they come from a hub/of-models-7B"} 1
llm_engine_stuck{model="with a rather long name, as they come from a hub/of-models-7B"} 1
llm_requests_running{model="m"} 7
llm_requests_running_max{model="m"} 64
llm_batch_size{model="m"} 7
llm_kv_usage_ratio{model="m"} 0.25
llm_step_duration_seconds{model="m"} 0.0125
llm_time_to_first_token_seconds_bucket{model="m",le="0.1"} 100
llm_time_to_first_token_seconds_bucket{model="m",le="0.5"} 100
llm_time_to_first_token_seconds_bucket{model="m",le="+Inf"} 100
llm_cpu_seconds_total{process="server"} 10
llm_resident_memory_bytes{process="server"} 2147483648
llm_tenant_requests_total{tenant="acme",model="m",outcome="answered"} 50
llm_tenant_tokens_total{tenant="acme",model="m",kind="prompt"} 100
llm_tenant_tokens_total{tenant="acme",model="m",kind="cached"} 0
llm_tenant_tokens_total{tenant="acme",model="m",kind="generated"} 0
llm_cost_total{tenant="acme",model="m"} 1
"""
GROWN = {
    'llm_requests_total{route="/metrics",status="200"}': 999,  # which nobody wants to see
    'llm_requests_total{route="/v1/completions",status="200"}': 118,
    'llm_requests_total{route="/v1/completions",status="500"}': 2,
    'llm_rate_limited_total{limit="queue"}': 25,
    'llm_tokens_generated_total{model="m"}': 3000,
    'llm_prefix_cache_queries_total{model="m"}': 300,
    'llm_prefix_cache_hits_total{model="m"}': 100,
    'llm_draft_tokens_total{model="m"}': 40,
    'llm_accepted_tokens_total{model="m"}': 10,
    'llm_time_to_first_token_seconds_bucket{model="m",le="0.1"}': 150,
    'llm_time_to_first_token_seconds_bucket{model="m",le="0.5"}': 200,
    'llm_time_to_first_token_seconds_bucket{model="m",le="+Inf"}': 200,
    'llm_cpu_seconds_total{process="server"}': 13,
    'llm_tenant_requests_total{tenant="acme",model="m",outcome="answered"}': 70,
    'llm_tenant_tokens_total{tenant="acme",model="m",kind="prompt"}': 300,
    'llm_tenant_tokens_total{tenant="acme",model="m",kind="cached"}': 50,
    'llm_tenant_tokens_total{tenant="acme",model="m",kind="generated"}': 100,
    'llm_cost_total{tenant="acme",model="m"}': 2,
}


def readings() -> tuple[Scrape, Scrape]:
    """Two readings, two seconds apart."""
    lines = BEFORE.strip().splitlines()
    after = [f"{name} {GROWN.get(name, value)}" for name, _, value in (line.rpartition(" ") for line in lines)]
    return parse("\n".join(lines) + "\n", 10.0), parse("\n".join(after) + "\n", 12.0)


@pytest.fixture
def found() -> Figures:
    return figures(*readings())


def test_figures_are_of_the_time_between(found: Figures) -> None:
    assert found.ready
    assert found.requests_per_s == 10
    assert found.error_share == 0.1
    assert found.limited_per_s == {"queue": 10}
    assert found.tokens_per_s == 1000
    assert found.cores == 1.5
    assert found.cost_per_h == 1800
    mine, other = found.models
    assert (mine.name, mine.state, mine.running, mine.places, mine.kv_share) == ("m", "ready", 7, 64, 0.25)
    assert (mine.hit_share, mine.accepted_share) == (0.5, 0.25)
    assert (other.state, other.hit_share, other.tokens_per_s) == ("stuck", None, 0)
    (tenant,) = found.tenants
    assert (tenant.requests_per_s, tenant.generated_per_s, tenant.cached_share) == (10, 50, 0.25)
    first = found.latencies["first token"]
    assert first.p50 == pytest.approx(0.1)
    assert first.p99 == pytest.approx(0.1 + 0.4 * 49 / 50)
    assert found.latencies["in the queue"].p50 is None


def test_a_server_that_was_started_anew_counts_from_nothing() -> None:
    before, after = readings()
    found = figures(after, replace(before, at=14.0))  # every counter fell
    assert found.requests_per_s == 50
    assert found.latencies["first token"].p50 == pytest.approx(0.05)


def test_quantiles_are_prometheus_own() -> None:
    assert quantile(0.5, []) is None
    assert quantile(0.5, [(1.0, 0.0), (float("inf"), 0.0)]) is None
    assert quantile(0.5, [(1.0, 10.0), (2.0, 10.0), (float("inf"), 10.0)]) == 0.5
    assert quantile(0.99, [(1.0, 10.0), (2.0, 10.0), (float("inf"), 20.0)]) == 2.0


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_it_fits(found: Figures, width: int) -> None:
    screen = Screen("isotoken top  http://127.0.0.1:8000")
    screen.note(found)
    screen.note(found)
    console = Console(file=io.StringIO(), width=width, height=50, force_terminal=True, color_system=None)
    console.print(screen.draw(found, width, problem="cannot reach it " * 30))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for expected in ("model", "stuck", "tenant", "acme", "p99", "first token", "█"):
        assert expected in text, text
    assert ("drafts" in text) == (width >= 110)


def test_curves() -> None:
    assert bars([], 10) == ""
    assert bars([0, 1, 2, 4, 8], 10) == "▁▂▃▅█"
    assert len(bars(range(500), 30)) == 30


def test_addresses() -> None:
    assert metrics_url("127.0.0.1:8000") == "http://127.0.0.1:8000/metrics"
    assert metrics_url("https://here/") == "https://here/metrics"
    assert metrics_url("http://here/proxied/metrics") == "http://here/proxied/metrics"
    with pytest.raises(ValueError, match="is no address"):
        metrics_url("ftp://here")


def test_once_for_scripts(server: Any) -> None:
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            server.post("/v1/completions", {"prompt": "the quick", "max_tokens": 4, "ignore_eos": True})

    traffic = threading.Thread(target=ask)
    traffic.start()
    try:
        done = subprocess.run(
            [*COMMAND, "top", server.url, "--once", "--json", "--interval", "1"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    finally:
        over.set()
        traffic.join()
    said = json.loads(done.stdout)
    assert said["ready"] is True
    assert [model["name"] for model in said["models"]] == ["tiny"]
    assert said["requests_per_s"] > 0
    assert said["models"][0]["tokens_per_s"] > 0
    plain = subprocess.run(
        [*COMMAND, "top", server.url, "--once", "--interval", "0.1"], capture_output=True, text=True, check=True
    )
    assert "tiny" in plain.stdout and "\x1b" not in plain.stdout


def test_a_server_that_is_not_there_is_an_error_of_one_line() -> None:
    done = subprocess.run([*COMMAND, "top", "127.0.0.1:9", "--once"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("isotoken: cannot reach http://127.0.0.1:9/metrics")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_at_a_terminal(server: Any, key: bytes) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 70, 0, 0))
    start = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); " + COMMAND[-1]
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    process = subprocess.Popen(
        [*COMMAND[:-1], start, "top", server.url, "--interval", "0.2"],
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=environment,
    )  # fmt: skip
    usual = termios.tcgetattr(slave)
    try:
        _read_until(master, lambda seen: seen.count("latency") >= 3 and "tiny" in seen)
        os.write(master, key)
        rest = _read_until(master, lambda seen: "\x1b[?1049l" in seen)  # the screen as it was before
        assert "\x1b[?25h" in rest  # the cursor is back
        assert process.wait(30) == 0
        assert termios.tcgetattr(slave)[3] == usual[3]
    finally:
        process.kill()
        process.wait()
        os.close(slave)
        os.close(master)


def _read_until(master: int, enough: Callable[[str], bool]) -> str:
    seen = b""
    while not enough(seen.decode(errors="replace")):
        ready, _, _ = select.select([master], [], [], 60)
        assert ready, f"nothing came but {seen!r}"
        seen += os.read(master, 4096)
    return seen.decode(errors="replace")
