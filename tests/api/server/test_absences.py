"""What the backend declares absent is refused by the field that asks for it, with the backend's reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "the fox"}]
REASON = "the backend scoreless does not score prompts: only the last position has logits"


@pytest.fixture
def scoreless(faulty_plugin: Path, serve_tiny: Callable[..., Any]) -> Any:
    return serve_tiny(config={"backend": "scoreless"})


def test_prompt_scores_that_the_backend_cannot_give(scoreless: Any) -> None:
    for path, field, body in [
        ("/v1/completions", "prompt_logprobs", {"prompt": "the fox", "prompt_logprobs": 1}),
        ("/v1/completions", "echo", {"prompt": "the fox", "echo": True, "logprobs": 1}),
        ("/v1/completions", "echo", {"prompt": "the fox", "echo": True, "logprobs": 1, "stream": True}),
        (CHAT, "prompt_logprobs", {"messages": MESSAGES, "prompt_logprobs": 0}),
    ]:
        answer = scoreless.post(path, body)
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert (error["param"], error["code"]) == (field, "unsupported_parameter")
        assert error["message"] == f"{field} is not available here: {REASON}"
    answer = scoreless.post(
        "/generate", {"inputs": "the fox", "parameters": {"details": True, "decoder_input_details": True}}
    )
    assert (answer.status_code, answer.json()["error_type"]) == (422, "validation")
    assert answer.json()["error"] == f"decoder_input_details is not available here: {REASON}"
    kept = scoreless.post("/v1/completions", {"prompt": "the fox", "echo": True, "max_tokens": 2})
    assert kept.json()["choices"][0]["text"].startswith("the fox"), "echo by itself asks for no scores"
    assert scoreless.metric("llm_engine_restarts_total") == 0
    (card,) = scoreless.get("/v1/models").json()["data"]
    assert card["engine"] == {
        "backend": "scoreless",
        "device": "cpu",
        "dtype": "float32",
        "quantization": "none",
        "batch_invariant": True,
    }
