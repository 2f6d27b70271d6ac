"""What lm-eval's local-completions sends, read the way it reads it."""

from __future__ import annotations

from typing import Any

CONTEXT = "the capital of France is"


def loglikelihoods(server: Any, pairs: list[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
    """Return (log-likelihood, is greedy) of each continuation after its context."""
    body = {
        "model": "tiny",
        "prompt": [context + continuation for context, continuation in pairs],
        "temperature": 0,
        "max_tokens": 1,
        "logprobs": 1,
        "seed": 1234,
        "echo": True,
    }
    answer = server.post("/v1/completions", body).json()
    found = []
    for choice, (context, _) in zip(sorted(answer["choices"], key=lambda c: c["index"]), pairs, strict=True):
        own = choice["logprobs"]["token_logprobs"][len(context) : -1]
        best = [max(top.values()) for top in choice["logprobs"]["top_logprobs"][len(context) : -1]]
        found.append((sum(own), own == best))
    return found


def test_loglikelihoods(server: Any) -> None:
    context = server.post("/tokenize", {"prompt": CONTEXT}).json()["tokens"]
    body = {"prompt": CONTEXT, "temperature": 0, "max_tokens": 4, "logprobs": 1, "return_token_ids": True}
    greedy = server.post("/v1/completions", {**body, "ignore_eos": True}).json()["choices"][0]
    best = greedy["token_ids"]
    other = [best[0], (best[1] + 1) % 300, best[2], best[3]]
    (likely, is_greedy), (unlikely, is_other_greedy), *batch = loglikelihoods(
        server, [(context, best), (context, other), (context[:3], context[3:])]
    )
    assert is_greedy
    assert not is_other_greedy
    assert likely > unlikely
    assert abs(likely - sum(greedy["logprobs"]["token_logprobs"])) < 1e-4
    assert batch == loglikelihoods(server, [(context[:3], context[3:])])  # alone or in a batch


def test_generate_until(server: Any) -> None:
    prompts = [server.post("/tokenize", {"prompt": text}).json()["tokens"] for text in (CONTEXT, "the quick")]
    body = {"model": "tiny", "prompt": prompts, "max_tokens": 8, "temperature": 0, "stop": ["\n\n", "."], "seed": 1234}
    answer = server.post("/v1/completions", body).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert all("." not in choice["text"] for choice in answer["choices"])
