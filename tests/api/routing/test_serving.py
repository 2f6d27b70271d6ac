"""Through a real server: which model answers, what the answer says of it, and what the reports make of it."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

import httpx
import pytest

PROMPT = "the quick brown"
ASKED: Counter[str] = Counter()  # requests by the name that they asked for


def ask(server: httpx.Client, model: str, *, prompt: str = PROMPT, **more: Any) -> httpx.Response:
    body = {"model": model, "prompt": prompt, "max_tokens": 6, "temperature": 0, "ignore_eos": True, **more}
    answer = server.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    ASKED[model] += 1
    return answer


def text(answer: httpx.Response) -> str:
    return str(answer.json()["choices"][0]["text"])


def who(answer: httpx.Response) -> str:
    """Return the family of the model that says it answered."""
    return answer.headers["x-isotoken-model"].partition("@")[0]


@pytest.fixture(scope="module")
def texts(server: httpx.Client) -> dict[str, str]:
    """What each model says to PROMPT."""
    found = {name: text(ask(server, name)) for name in ("one", "other")}
    assert found["one"] != found["other"]
    return found


def test_a_user_stays_with_an_arm_and_the_answer_is_that_arms(server: httpx.Client, texts: dict[str, str]) -> None:
    arms: Counter[str] = Counter()
    for user in range(24):
        answers = [ask(server, "chat", user=f"user-{user}") for _ in range(2)]
        arm = answers[0].headers["x-isotoken-arm"]
        assert arm in ("size/a", "size/b")
        assert answers[1].headers["x-isotoken-arm"] == arm
        model = {"size/a": "one", "size/b": "other"}[arm]
        assert {who(answer) for answer in answers} == {model}
        assert {text(answer) for answer in answers} == {texts[model]}
        arms[arm] += 1
    assert arms["size/a"] > arms["size/b"] > 0  # 3 to 1; which users is fixed by a hash


def test_the_report_counts_what_was_asked_and_has_intervals(server: httpx.Client) -> None:
    def requests() -> Counter[str]:
        (report,) = server.get("/admin/experiments").json()["experiments"]
        return Counter({arm["arm"]: arm["requests"] for arm in report["arms"]})

    before = requests()
    served = Counter(ask(server, "chat", user=f"u{n}").headers["x-isotoken-arm"] for n in range(12))
    assert requests() - before == Counter({name.removeprefix("size/"): count for name, count in served.items()})
    (report,) = server.get("/admin/experiments").json()["experiments"]
    first, second = report["arms"]
    for arm in (first, second):
        low, high = arm["latency_seconds"]["interval"]
        assert low <= arm["latency_seconds"]["mean"] <= high
        assert arm["output_tokens"]["mean"] == 6
        assert arm["error_rate"]["value"] == 0
        assert 0 < arm["error_rate"]["interval"][1] < 1
    low, high = second["difference_from"]["intervals"]["latency_seconds"]
    assert low <= second["latency_seconds"]["mean"] - first["latency_seconds"]["mean"] <= high
    metrics = server.get("/metrics").text
    assert 'llm_arm_requests_total{arm="size/a"' in metrics


def test_a_hard_prompt_goes_to_the_larger_model(server: httpx.Client) -> None:
    easy = ask(server, "fit", prompt="who was the king")
    hard = ask(server, "fit", prompt="explain step by step why 17 * 23 == 391 and write def f(x): return x")
    assert who(easy) == "one"
    assert who(hard) == "other"
    assert float(easy.headers["x-isotoken-route"].removeprefix("complexity=")) < 0.3


def test_a_sure_cheap_answer_is_taken_and_an_unsure_one_is_not(server: httpx.Client, texts: dict[str, str]) -> None:
    sure, unsure = ask(server, "sure"), ask(server, "unsure")
    assert who(sure) == "one"
    assert text(sure) == texts["one"]
    assert "escalated" not in sure.headers["x-isotoken-route"]
    assert who(unsure) == "other"
    assert text(unsure) == texts["other"]
    assert "escalated" in unsure.headers["x-isotoken-route"]
    assert sure.json()["usage"]["completion_tokens"] == unsure.json()["usage"]["completion_tokens"] == 6
    assert sure.json()["choices"][0]["logprobs"] is None  # asked for by the server, not by the client


def test_an_escalated_stream_says_what_the_whole_answer_says(server: httpx.Client, texts: dict[str, str]) -> None:
    for model, expected in (("sure", "one"), ("unsure", "other")):
        body = {"model": model, "prompt": PROMPT, "max_tokens": 6, "temperature": 0, "ignore_eos": True, "stream": True}
        with server.stream("POST", "/v1/completions", json=body) as answer:
            lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
        assert lines[-1] == "[DONE]"
        pieces = [json.loads(line)["choices"][0] for line in lines[:-1]]
        assert "".join(piece["text"] for piece in pieces) == texts[expected]
        assert pieces[-1]["finish_reason"] == "length"


def test_several_choices_go_to_the_strong_model_at_once(server: httpx.Client) -> None:
    answer = ask(server, "sure", n=2)
    assert who(answer) == "other"
    assert answer.headers["x-isotoken-route"] == "escalated"


def shadows(server: httpx.Client) -> dict[str, Any]:
    return {each["model"]: each for each in server.get("/admin/shadows").json()["shadows"]}


def settled(server: httpx.Client, name: str) -> dict[str, Any]:
    """Wait until every request for a name has been compared, and return what came of it."""
    for _ in range(1500):
        found = shadows(server)[name]
        if sum(found[each] for each in ("equal", "differs", "skipped", "failed")) == ASKED[name]:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{ASKED[name]} requests, and the shadow says {found}")


def test_a_shadow_of_the_same_model_draws_the_same_tokens(server: httpx.Client) -> None:
    before = settled(server, "one")
    ask(server, "one", prompt="a new prompt", temperature=1.0)  # no seed: the server's is the shadow's too
    found = settled(server, "one")
    assert found["equal"] == before["equal"] + 1
    assert found["differs"] == before["differs"] == 0
    assert found["tokens_compared"] == before["tokens_compared"] + 6


def test_where_a_shadow_differs_is_told_with_its_margin(server: httpx.Client, texts: dict[str, str]) -> None:
    before = settled(server, "other")
    answer = ask(server, "other", return_token_ids=True)
    found = settled(server, "other")
    assert found["differs"] == before["differs"] + 1
    latest = found["divergences"][-1]
    own = ask(server, "one", return_token_ids=True, logprobs=5).json()["choices"][0]
    served = answer.json()["choices"][0]["token_ids"]
    position = next(i for i, pair in enumerate(zip(served, own["token_ids"], strict=True)) if pair[0] != pair[1])
    assert latest["request_id"] == answer.headers["x-request-id"]
    assert latest["position"] == position
    assert latest["served"]["id"] == served[position]
    assert latest["shadow"]["id"] == own["token_ids"][position]
    assert latest["margin"] > 0
    assert PROMPT not in str(found)


def test_what_nobody_serves_is_not_found(server: httpx.Client) -> None:
    assert server.post("/v1/completions", json={"model": "nobody", "prompt": "x"}).status_code == 404


def test_the_command_shows_arms_and_shadows(server: httpx.Client, capsys: pytest.CaptureFixture[str]) -> None:
    from isotoken.api.cli import main

    url = str(server.base_url)
    for user in range(8):
        ask(server, "chat", user=f"cli-{user}")
    ask(server, "other", prompt="one more")
    assert main(["experiments", "--url", url]) == 0
    shown = capsys.readouterr().out
    assert "size: requests for chat, by user" in shown
    assert " ms (" in shown and "6 tokens" in shown
    settled(server, "other")
    assert main(["experiments", "--shadows", "--url", url]) == 0
    shown = capsys.readouterr().out
    assert "twin in the shadow of one: " in shown and "one in the shadow of other: " in shown
    assert "the shadow drew" in shown and "nats" in shown
