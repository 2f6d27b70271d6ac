"""TGI's routes: shapes, sampling rules and errors."""

from __future__ import annotations

from typing import Any

import pytest
from isotoken.api.server.tgi_answers import GenerateResponse, Info, ShortResponse, StreamEvent, TgiError


def generate(server: Any, inputs: str = "the quick", **parameters: Any) -> dict[str, Any]:
    response = server.post("/generate", {"inputs": inputs, "parameters": parameters})
    assert response.status_code == 200, response.text
    GenerateResponse.model_validate(response.json(), strict=True)
    return dict(response.json())


def test_greedy_unless_asked_to_sample(server: Any) -> None:
    greedy = server.post("/v1/completions", {"prompt": "the quick", "temperature": 0, "max_tokens": 8}).json()
    assert generate(server, max_new_tokens=8)["generated_text"] == greedy["choices"][0]["text"]
    sampled = generate(server, max_new_tokens=8, do_sample=True, seed=11, details=True)
    assert sampled["details"]["seed"] == 11
    openai = server.post("/v1/completions", {"prompt": "the quick", "seed": 11, "max_tokens": 8}).json()
    assert sampled["generated_text"] == openai["choices"][0]["text"]
    assert isinstance(generate(server, max_new_tokens=1, temperature=0.7, details=True)["details"]["seed"], int)


def test_details(server: Any) -> None:
    answer = generate(server, max_new_tokens=4, details=True, decoder_input_details=True, top_n_tokens=2)
    details = answer["details"]
    assert (details["finish_reason"], details["generated_tokens"], details["seed"]) == ("length", 4, None)
    assert len(details["tokens"]) == len(details["top_tokens"]) == 4
    assert all(len(top) == 2 for top in details["top_tokens"])
    assert [token["id"] for token in details["prefill"]] == server.post("/tokenize", {"prompt": "the quick"}).json()[
        "tokens"
    ]
    assert details["prefill"][0]["logprob"] is None
    assert all(token["logprob"] < 0 for token in details["prefill"][1:])


def test_text_rules(server: Any) -> None:
    text = generate(server, max_new_tokens=12)["generated_text"]
    stop = text[3:5]
    stopped = generate(server, max_new_tokens=12, stop=[stop], details=True)
    assert stopped["generated_text"] == text[: text.index(stop) + len(stop)]  # TGI keeps what stopped it
    assert stopped["details"]["finish_reason"] == "stop_sequence"
    assert generate(server, max_new_tokens=12, return_full_text=True)["generated_text"] == "the quick" + text
    assert generate(server, "brown fox the quick", max_new_tokens=12, truncate=3)["generated_text"] != ""


def test_headers(server: Any) -> None:
    response = server.post("/generate", {"inputs": "the quick", "parameters": {"max_new_tokens": 4}})
    headers = response.headers
    assert (headers["x-prompt-tokens"], headers["x-generated-tokens"], headers["x-compute-type"]) == ("3", "4", "cpu")
    for name in ("time", "total", "validation", "queue", "inference"):
        assert float(headers["x-compute-time" if name == "time" else f"x-{name}-time"]) >= 0


def test_short_form(server: Any) -> None:
    response = server.post("/generate", {"prompt": "the quick", "max_tokens": 8})
    ShortResponse.model_validate(response.json(), strict=True)
    assert response.json()["text"] == generate(server, max_new_tokens=8)["generated_text"]
    events = server.events("/generate_stream", {"prompt": "the quick", "max_tokens": 8})
    assert "".join(event["text"] for event in events) == response.json()["text"]


def test_compatible_route_answers_with_a_list(server: Any) -> None:
    response = server.post("/", {"inputs": "the quick", "parameters": {"max_new_tokens": 3}})
    assert response.json() == [{"generated_text": generate(server, max_new_tokens=3)["generated_text"]}]


@pytest.mark.parametrize("path", ["/generate_stream", "/generate", "/"])
def test_stream(server: Any, path: str) -> None:
    parameters = {"max_new_tokens": 12, "top_n_tokens": 1, "seed": 5, "do_sample": True}
    events = server.events(path, {"inputs": "the quick", "parameters": parameters, "stream": True})
    for event in events:
        StreamEvent.model_validate(event, strict=True)
    whole = generate(server, **parameters)["generated_text"]
    assert [event["index"] for event in events] == list(range(1, 13))
    assert "".join(event["token"]["text"] for event in events) == whole
    assert [event["generated_text"] for event in events] == [None] * 11 + [whole]
    details = {"finish_reason": "length", "generated_tokens": 12, "input_length": 3, "seed": 5}
    assert events[-1]["details"] == details


def test_info(server: Any) -> None:
    info = server.get("/info").json()
    Info.model_validate(info, strict=True)
    assert (info["model_id"], info["max_total_tokens"]) == ("tiny", 2048)
    assert info["quantize"] is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"inputs": ""},
        {"inputs": 3},
        {"inputs": "a", "prompt": "a"},
        {"inputs": "a", "parameters": {"max_new_tokens": 0}},
        {"inputs": "a", "parameters": {"max_new_tokens": 100_000}},
        {"inputs": "a", "parameters": {"temperature": 0}},
        {"inputs": "a", "parameters": {"top_p": 2}},
        {"inputs": "a", "parameters": {"grammar": {"type": "poem", "value": {}}}},
        {"inputs": "a", "parameters": {"grammar": {"type": "json", "value": 5}}},
        {"inputs": "a", "parameters": {"best_of": 2}},
        {"inputs": "a", "parameters": {"typical_p": 0.5}},
        {"inputs": "a", "parameters": {"watermark": True}},
        {"inputs": "a", "parameters": {"decoder_input_details": True}},
        [],
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/"])
def test_validation_errors(server: Any, path: str, body: Any) -> None:
    response = server.post(path, body)
    assert response.status_code == 422
    TgiError.model_validate(response.json(), strict=True)
    assert response.json()["error_type"] == "validation"


@pytest.mark.parametrize(("path", "stream"), [("/generate_stream", False), ("/generate", True)])
def test_a_stream_does_not_tell_the_prompts_scores(server: Any, path: str, stream: bool) -> None:
    parameters = {"details": True, "decoder_input_details": True}
    response = server.post(path, {"inputs": "a", "parameters": parameters, "stream": stream})
    assert response.status_code == 422
    assert "decoder_input_details" in response.json()["error"]


def test_other_errors_have_the_same_shape(server: Any) -> None:
    TgiError.model_validate(server.post("/generate", content=b"{").json(), strict=True)
    wrong_method = server.get("/generate")
    assert wrong_method.status_code == 405
    TgiError.model_validate(wrong_method.json(), strict=True)
