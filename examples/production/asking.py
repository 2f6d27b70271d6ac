"""What a client meets: keys, limits, filters, structured answers, experiments, and how fast it all is."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from client import QUESTION, Client, load, until

if TYPE_CHECKING:
    from run import Stand


def keys(stand: Stand, _: float) -> tuple[bool, list[str]]:
    """Only who has a key is answered; a revoked one is good no longer."""
    acme, nobody = stand.clients["acme"], Client(stand.url)
    gone = stand.make_key("gone", "--tenant", "acme")
    before = gone.get("/v1/models").status
    listed = json.loads(stand.isotoken("keys", "list", "--json"))
    (key_id,) = [key["id"] for key in listed if key["name"] == "gone"]
    stand.isotoken("keys", "revoke", key_id)
    after = until(lambda: gone.get("/v1/models").status, 401)
    statuses = {"with a key": acme.get("/v1/models").status, "without": nobody.get("/v1/models").status}
    statuses |= {"a key before it is revoked": before, "after": after, "health without": nobody.get("/health").status}
    statuses["metrics of tenants at /admin with a tenant's key"] = acme.get("/admin/usage").status
    return list(statuses.values()) == [200, 401, 200, 401, 200, 403], [
        f"{name}: {code}" for name, code in statuses.items()
    ]


def limits(stand: Stand, _: float) -> tuple[bool, list[str]]:
    """A key's limit holds, and the headers say so."""
    answers = [stand.clients["trial"].chat(QUESTION) for _ in range(8)]
    last = answers[-1]
    names = (
        "retry-after",
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
    )
    lines = [f"a key of 5 requests a minute asks 8 times: {[answer.status for answer in answers]}"]
    lines += [f"{name}: {last.headers.get(name)}" for name in names]
    return Counter(answer.status for answer in answers) == {200: 5, 429: 3}, lines


def safety(stand: Stand, _: float) -> tuple[bool, list[str]]:
    """Personal data is redacted, secrets are refused, and a text can be moderated."""
    acme = stand.clients["acme"]
    text = "Write to jane.doe@example.com or +1 212 555 0123: "
    echo = acme.post(
        "/v1/completions", {"model": "small", "prompt": text, "max_tokens": 1, "echo": True, "temperature": 0}
    )
    secret = acme.chat("my key is AKIA" + "IOSFODNN7EXAMPLE")
    judged = acme.post("/v1/moderations", {"input": "I want to kill you."})
    flagged = judged.body["results"][0]["flagged"]
    shown = echo.body["choices"][0]["text"]
    lines = [
        f"sent:      {text}",
        f"the model read: {shown}",
        f"a secret: {secret.status} {secret.body['error']['code']}",
    ]
    good = "jane" not in shown and "555" not in shown and secret.status == 400 and flagged
    return good, [*lines, f"/v1/moderations: flagged = {flagged}"]


def structured(stand: Stand, _: float) -> tuple[bool, list[str]]:
    """An answer follows a JSON schema, on both models."""
    properties = {"city": {"type": "string", "maxLength": 20}, "capital": {"type": "boolean"}}
    schema = {
        "type": "object",
        "properties": properties,
        "required": ["city", "capital"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    lines = []
    for model in ("small", "draft"):
        answer = stand.clients["acme"].chat(QUESTION, model=model, response_format=form, max_tokens=60)
        if answer.status != 200:
            return False, [str(answer.body)]
        text = answer.body["choices"][0]["message"]["content"]
        lines.append(f"{model}: {text}")
        assert set(json.loads(text)) == {"city", "capital"}
    return True, lines


def load_test(stand: Stand, seconds: float) -> tuple[bool, list[str]]:
    """A load test at rising numbers of clients."""
    acme = stand.clients["acme"]
    lines = [f"{'clients':>7} {'requests/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'200':>6} {'429':>6} {'other':>6}"]
    good = True
    for clients in (1, 4, 16, 48):
        found = load(
            lambda i: acme.chat(f"Question {i}: {QUESTION}", model="small"), clients=clients, seconds=seconds / 2
        )
        well, refused = found.count(200), found.count(429)
        other = len(found.answers) - well - refused
        good = good and well > 0 and other == 0
        rate = well / found.seconds
        p50, p99 = 1000 * found.latency(0.5), 1000 * found.latency(0.99)
        lines.append(f"{clients:>7} {rate:>10.1f} {p50:>8.0f} {p99:>8.0f} {well:>6} {refused:>6} {other:>6}")
    return good, lines


def experiments(stand: Stand, _: float) -> tuple[bool, list[str]]:
    """An A/B experiment: each user stays with one arm, and a report compares them."""
    acme = stand.clients["acme"]
    arms: dict[int, set[str]] = {}
    for i in range(80):
        answer = acme.chat(QUESTION, model="assistant", user=f"user-{i % 40}", max_tokens=12)
        arms.setdefault(i % 40, set()).add(answer.headers.get("x-isotoken-arm", ""))
    sticky = all(len(each) == 1 for each in arms.values())
    counts = Counter(arm for each in arms.values() for arm in each)
    table = stand.isotoken("experiments", "--url", stand.url).splitlines()
    shadows = stand.isotoken("experiments", "--url", stand.url, "--shadows").splitlines()
    lines = [f"40 users, two questions each: {dict(counts)}; each stays with one arm: {sticky}", *table, *shadows]
    return sticky and len(counts) == 2, lines
