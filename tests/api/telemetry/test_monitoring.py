"""The dashboard and the rules, evaluated by a real Prometheus that scrapes a real server under traffic."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import shutil
import signal
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import psutil
import pytest
import yaml

from ...services import INSTALL, ServiceProcess, free_port
from ..server.conftest import Served

MONITORING = Path(__file__).parents[3] / "examples" / "production" / "monitoring"
RULES = MONITORING / "prometheus" / "rules"
PANELS = [panel for row in tomllib.loads((MONITORING / "dashboard.toml").read_text())["row"] for panel in row["panel"]]
ELSEWHERE = {"a GPU"}  # what this run does not have
METRIC = re.compile(r"\b(?:\w+:)?llm_\w+(?::\w+)?")

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None, reason=f"no Prometheus here: {INSTALL}"
)


def script(name: str) -> ModuleType:
    """Import a script that stands beside the dashboard."""
    spec = importlib.util.spec_from_file_location(name, MONITORING / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def all_rules() -> list[dict[str, Any]]:
    groups = [group for path in sorted(RULES.glob("*.yml")) for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


class Prometheus:
    """One that scrapes a server every half second, with the rules that are shipped."""

    def __init__(self, folder: Path, target: str) -> None:
        config = yaml.safe_load((MONITORING / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
        config["rule_files"] = [str(MONITORING / "prometheus" / path) for path in config["rule_files"]]
        config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(base_url=self.url, timeout=30)
        self.process = ServiceProcess(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            "Server is ready to receive web requests",
            folder=folder,
        )

    def api(self, path: str, **parameters: str) -> Any:
        answer = self.client.get(f"/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, query: str) -> list[tuple[dict[str, str], float]]:
        """Return what a query finds, without what is not a number."""
        found = [(one["metric"], float(one["value"][1])) for one in self.api("query", query=query)["result"]]
        return [(labels, value) for labels, value in found if not math.isnan(value)]

    def wait_for(self, query: str, seconds: float = 30.0) -> list[tuple[dict[str, str], float]]:
        """Ask until something is found."""
        deadline = time.monotonic() + seconds
        while not (found := self.query(query)):
            assert time.monotonic() < deadline, f"nothing is found by {query}"
            time.sleep(0.2)
        return found


@pytest.fixture(scope="module")
def watched(serve: Callable[..., Any], tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of two models that guesses ahead, counts money, filters and experiments."""
    folder = tmp_path_factory.mktemp("watched")
    config = {
        "engine": {"backend": "reference", "drafter": "ngram", "num_blocks": 256},
        "limits": {"stall_after": 1.0},
        "models": [{"name": name, "model": str(tiny_model)} for name in ("tiny", "twin")],
        "routing": {
            "experiments": [
                {
                    "name": "greeting",
                    "model": "chat",
                    "arms": [{"name": "old", "model": "tiny"}, {"name": "new", "model": "twin"}],
                    "sticky": "request",
                }
            ]
        },
        "store": {"url": f"sqlite:///{folder / 'store.db'}"},
        "ledger": {
            "enabled": True,
            "folder": str(folder / "ledger"),
            "prices": [{"model": "*", "prompt": 1.5, "generated": 6}],
        },
        "safety": {"default": {"prompts": [{"filter": "block_list", "words": ["forbidden"]}]}},
    }
    (folder / "isotoken.yaml").write_text(yaml.safe_dump(config))
    with serve("--config", str(folder / "isotoken.yaml")) as serving:
        client = httpx.Client(base_url=serving.url, timeout=60)
        yield Served(serving.url, serving.process, _engines_of(serving.process.pid)[0], client)
        client.close()


@pytest.fixture(scope="module")
def prometheus(watched: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has seen some traffic, and an engine that died."""
    found = Prometheus(tmp_path_factory.mktemp("prometheus"), watched.url.removeprefix("http://"))
    found.process.start()
    try:
        _traffic(watched)
        found.wait_for('llm_requests_total{status="200", route="/v1/completions"}')
        os.kill(watched.engine_pid, signal.SIGKILL)
        watched.wait_for(lambda: watched.metric("llm_engine_restarts_total") == 1)
        _traffic(watched)
        found.wait_for('increase(llm_requests_total{status="200", route="/v1/completions"}[1m]) > 0')
        found.wait_for("sum(llm_engine_restarts_total) == 1")
        yield found
    finally:
        found.process.stop()
        found.client.close()


def _traffic(server: Any) -> None:
    """Requests that repeat themselves, which fills the cache and lets guesses be right; and one that is refused."""
    same = {str(token): 90 for token in range(70, 74)}
    for i in range(3):
        body = {"prompt": [70, 71, 72, 73] * 8, "max_tokens": 40, "temperature": 0, "logit_bias": same, "n": 1 + i}
        for model in ("tiny", "chat"):
            assert server.post("/v1/completions", {**body, "model": model, "ignore_eos": True}).status_code == 200
    assert server.post("/v1/completions", {"model": "another", "prompt": "a"}).status_code == 404
    assert server.post("/v1/completions", {"model": "tiny", "prompt": "what is forbidden"}).status_code == 400


@needs_prometheus
@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: str(panel["title"]))
def test_every_panel_shows_something(prometheus: Prometheus, panel: dict[str, Any]) -> None:
    fill = script("draw_dashboard").fill
    for legend, query in panel["queries"]:
        if panel.get("needs") in ELSEWHERE:
            prometheus.query(fill(query))  # it is valid
            continue
        found = prometheus.wait_for(fill(query))
        for label in re.findall(r"\{\{(\w+)\}\}", legend):
            assert all(label in labels for labels, _ in found), f"{legend} has no {label}"


@needs_prometheus
def test_every_rule_is_evaluated(prometheus: Prometheus) -> None:
    def rules() -> list[dict[str, Any]]:
        return [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]

    deadline = time.monotonic() + 30
    while any(rule["health"] == "unknown" for rule in rules()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert [(rule["name"], rule.get("lastError")) for rule in rules() if rule["health"] != "ok"] == []
    assert len(rules()) == len(all_rules())
    for rule in all_rules():
        if "record" in rule:
            prometheus.wait_for(rule["record"])


@needs_prometheus
def test_every_metric_that_is_asked_for_exists(prometheus: Prometheus, watched: Any) -> None:
    shown = set(re.findall(r"^# TYPE (\S+)", watched.get("/metrics").text, re.MULTILINE))
    shown.add("llm_spans_exported_total")  # where there are traces
    recorded = {rule["record"] for rule in all_rules() if "record" in rule}
    queries = [query for panel in PANELS for _, query in panel["queries"]] + [rule["expr"] for rule in all_rules()]
    asked = {name for query in queries for name in METRIC.findall(query)}
    known = {name for name in asked if re.sub(r"_(bucket|sum|count)$", "", name) in shown}
    assert asked - known - recorded == set()
    assert len(asked) > 30


@needs_prometheus
def test_an_engine_that_died_fires_and_one_that_is_stuck_is_pending(prometheus: Prometheus, watched: Any) -> None:
    fired = prometheus.wait_for('ALERTS{alertname="IsotokenEngineRestarted", alertstate="firing"}')
    assert [labels["model"] for labels, _ in fired] in (["tiny"], ["twin"])
    body = {"model": "tiny", "prompt": "the quick", "max_tokens": 50, "ignore_eos": True, "stream": True}
    engines = _engines_of(watched.process.pid)
    for pid in engines:
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(httpx.ReadTimeout):
            watched.client.post("/v1/completions", json=body, timeout=0.5)
        prometheus.wait_for('ALERTS{alertname="IsotokenEngineStuck", model="tiny"}')
        prometheus.wait_for('ALERTS{alertname="IsotokenNotReady"}')
    finally:
        for pid in engines:
            os.kill(pid, signal.SIGCONT)


def _engines_of(server: int) -> list[int]:
    """The engines of a server by now: its only children, the oldest first."""
    workers = [child for child in psutil.Process(server).children() if "isotoken.api.engine.worker" in child.cmdline()]
    return [child.pid for child in sorted(workers, key=psutil.Process.create_time)]


@needs_prometheus
def test_the_rules_pass_their_own_tests() -> None:
    for command in (
        ["check", "config", str(MONITORING / "prometheus" / "prometheus.yml")],
        ["check", "rules", *map(str, sorted(RULES.glob("*.yml")))],
        ["test", "rules", str(MONITORING / "prometheus" / "tests" / "alerts_test.yml")],
    ):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_and_every_record_has_a_test() -> None:
    text = (MONITORING / "prometheus" / "tests" / "alerts_test.yml").read_text()
    alerts = [rule["alert"] for rule in all_rules() if "alert" in rule]
    assert [name for name in alerts if f'alertname="{name}"' not in text and f"alertname: {name}" not in text] == []
    for rule in all_rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("critical", "warning", "info")
            assert set(rule["annotations"]) == {"summary", "description"}


@needs_prometheus
def test_the_picture_is_drawn(prometheus: Prometheus, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure = script("draw_dashboard").draw(prometheus.url, 1.0)
    empty = [text.get_text() for ax in figure.axes for text in ax.texts if text.get_text().startswith("no data")]
    assert set(empty) <= {f"no data: needs {what}" for what in ELSEWHERE}
    figure.savefig(tmp_path / "dashboard.png", dpi=40)
    assert (tmp_path / "dashboard.png").read_bytes().startswith(b"\x89PNG")


def test_the_dashboard_is_as_described() -> None:
    made = script("make_dashboard")
    model = json.loads(made.DASHBOARD.read_text())
    assert model == made.dashboard(tomllib.loads(made.DESCRIPTION.read_text())), "run make_dashboard.py"
    panels = model["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, f"{panel['title']} lies over another"
        assert place["x"] + place["w"] <= 24
        taken |= cells
    uids = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert uids[0]["type"] == "prometheus"
    assert yaml.safe_load((MONITORING / "grafana/provisioning/dashboards/isotoken.yml").read_text())["providers"]
