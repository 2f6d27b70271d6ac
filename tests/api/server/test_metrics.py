"""/metrics: the names that dashboards rely on, and that they count what they say."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

NAMES = {
    "llm_requests": "counter",
    "llm_request_latency_seconds": "histogram",
    "llm_tokens_generated": "counter",
    "llm_tokens_per_second": "gauge",
    "llm_gpu_memory_bytes": "gauge",
    "llm_gpu_utilization_ratio": "gauge",
    "llm_batch_size": "gauge",
    "llm_time_to_first_token_seconds": "histogram",
    "llm_inter_token_latency_seconds": "histogram",
    "llm_queue_time_seconds": "histogram",
    "llm_requests_running": "gauge",
    "llm_requests_waiting": "gauge",
    "llm_kv_usage_ratio": "gauge",
    "llm_error_rate": "gauge",
    "llm_prefix_cache_hits": "counter",
    "llm_prefix_cache_queries": "counter",
    "llm_preemptions": "counter",
    "llm_draft_tokens": "counter",
    "llm_accepted_tokens": "counter",
    "llm_draft_stops": "counter",
    "llm_requests_undrafted": "gauge",
    "llm_rejections": "counter",
    "llm_rate_limited": "counter",
    "llm_ready": "gauge",
    "llm_engine_stuck": "gauge",
    "llm_engine_silence_seconds": "gauge",
    "llm_requests_running_max": "gauge",
    "llm_tenant_requests": "counter",
    "llm_tenant_tokens": "counter",
    "llm_cost": "counter",
    "llm_arm_requests": "counter",
    "llm_cpu_seconds": "counter",
    "llm_resident_memory_bytes": "gauge",
}


TINY = '{model="tiny"}'


def families(server: Any) -> dict[str, Any]:
    response = server.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    return {family.name: family for family in text_string_to_metric_families(response.text)}


def test_names_and_types(server: Any) -> None:
    found = families(server)
    assert {name: found[name].type for name in NAMES if name in found} == NAMES
    assert all(family.documentation for family in found.values())


def test_a_request_is_counted_everywhere(server: Any) -> None:
    counters = {
        "llm_requests_total": '{route="/v1/completions",status="200"}',
        "llm_request_latency_seconds_count": '{route="/v1/completions"}',
        "llm_tokens_generated_total": TINY,
        "llm_prompt_tokens_total": TINY,
        "llm_time_to_first_token_seconds_count": TINY,
        "llm_inter_token_latency_seconds_count": TINY,
        "llm_queue_time_seconds_count": TINY,
        "llm_choices_finished_total": '{model="tiny",reason="length"}',
        "llm_prefix_cache_queries_total": TINY,
        "llm_prefix_cache_hits_total": TINY,
        "llm_tenant_requests_total": '{tenant="default",model="tiny",outcome="answered"}',
        "llm_tenant_tokens_total": '{tenant="default",model="tiny"}',
    }
    prompt = [80 + i % 30 for i in range(33)]
    body = {"prompt": prompt, "max_tokens": 5, "temperature": 0, "ignore_eos": True}
    server.post("/v1/completions", body)

    def read() -> dict[str, float]:
        return {name: server.metric(name, labels) for name, labels in counters.items()}

    before = read()
    server.post("/v1/completions", body)
    grown = {name: value - before[name] for name, value in read().items()}
    assert grown == {
        "llm_requests_total": 1,
        "llm_request_latency_seconds_count": 1,
        "llm_tokens_generated_total": 5,
        "llm_prompt_tokens_total": 33,
        "llm_time_to_first_token_seconds_count": 1,
        "llm_inter_token_latency_seconds_count": 4,
        "llm_queue_time_seconds_count": 1,
        "llm_choices_finished_total": 1,
        "llm_prefix_cache_queries_total": 33,
        "llm_prefix_cache_hits_total": 32,
        "llm_tenant_requests_total": 1,
        "llm_tenant_tokens_total": 33 + 32 + 5,
    }
    assert server.metric("llm_tokens_per_second") > 0
    assert server.metric("llm_kv_blocks_used") == 0


def test_rejections_are_counted_by_reason(server: Any) -> None:
    before = server.metric("llm_rejections_total", '{reason="model_not_found"}')
    server.post("/v1/completions", {"model": "gpt", "prompt": "a"})
    assert server.metric("llm_rejections_total", '{reason="model_not_found"}') == before + 1


def series(server: Any) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    return {
        (sample.name, frozenset(sample.labels.items()))
        for family in families(server).values()
        for sample in family.samples
    }


def test_a_hostile_client_adds_no_labels(server: Any) -> None:
    def attack(word: str) -> None:
        hostile = {"authorization": f"Bearer {word}", "x-request-id": word, "user-agent": word, "x-tenant": word}
        server.post("/v1/completions", {"model": word, "prompt": "a", "user": word}, headers=hostile)
        server.post("/v1/completions", {"prompt": "a", "max_tokens": 1, "user": word}, headers=hostile)
        server.post("/v1/completions", content=word.encode(), headers=hostile)
        server.get(f"/v1/models/{word}", headers=hostile)
        server.get(f"/{word}?{word}={word}", headers=hostile)
        server.client.request(word, "/v1/completions", headers=hostile)

    attack("first")
    before = series(server)
    for number in range(20):
        attack(f"word{number}")
    assert series(server) == before
    assert not any("word" in value for _, labels in before for _, value in labels)


def test_what_processes_use(server: Any) -> None:
    for process in ("server", "engine"):
        assert server.metric("llm_cpu_seconds_total", f'{{process="{process}"}}') > 0
        assert server.metric("llm_resident_memory_bytes", f'{{process="{process}"}}') > 2**20


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing_to_say(server: Any) -> None:
    text = server.get("/metrics").text
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
