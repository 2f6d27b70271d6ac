"""Swaps under load, engines killed meanwhile: no request fails, and every answer is entirely of one version."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

PROMPTS = ("the quick", "zero one two", "brown fox", "lazy dog jumps")
NUM_CLIENTS = 12
TOKENS = 24


@dataclass
class Crowd:
    """Clients that ask without a pause, streamed and whole in turns, until they are told to stop."""

    url: str
    model: str
    stopping: threading.Event = field(default_factory=threading.Event)
    answers: list[tuple[str, str, str]] = field(default_factory=list)  # version, prompt, text
    failures: list[str] = field(default_factory=list)

    def run(self, number: int) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as client:
            turn = number
            while not self.stopping.is_set():
                turn += 1
                prompt = PROMPTS[turn % len(PROMPTS)]
                body = {"model": self.model, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0}
                body |= {"ignore_eos": True, "stream": turn % 3 > 0}
                try:
                    with client.stream("POST", "/v1/completions", json=body) as response:
                        text = response.read().decode()
                        if response.status_code != 200:
                            self.failures.append(f"{response.status_code} {text}")
                            continue
                        self._note(response.headers["x-isotoken-model"], prompt, text, stream=turn % 3 > 0)
                except Exception as error:
                    self.failures.append(repr(error))

    def _note(self, version: str, prompt: str, text: str, *, stream: bool) -> None:
        events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")] if stream else []
        for event in events or [json.loads(text)]:
            if "error" in event or event["model"] != version:
                self.failures.append(text)
                return
        choices = [choice for event in events or [json.loads(text)] for choice in event["choices"]]
        self.answers.append((version, prompt, "".join(choice["text"] for choice in choices)))

    def seen(self, version: str) -> int:
        return sum(found == version for found, _, _ in self.answers)


def alone(server: Any, model: str) -> dict[str, str]:
    """Return {prompt: text} of one version."""
    return {
        prompt: server.complete(model, prompt, max_tokens=TOKENS).json()["choices"][0]["text"] for prompt in PROMPTS
    }


def engines(server: Any) -> list[int]:
    """Return the engines' process ids."""
    children = psutil.Process(server.process.pid).children()
    return [child.pid for child in children if "isotoken.api.engine.worker" in child.cmdline()]


def test_swaps_under_load(serve_fleet: Callable[..., Any], make_version: Callable[[int], Path]) -> None:
    server = serve_fleet([{"name": "small", "model": str(make_version(1)), "aliases": ["chat"]}])
    first = server.key("chat")
    expected = {first: alone(server, first)}
    second = server.load("small", make_version(2), activate=False)
    expected[second] = alone(server, second)
    assert expected[first] != expected[second]

    crowd = Crowd(server.url, "chat")
    threads = [threading.Thread(target=crowd.run, args=(number,)) for number in range(NUM_CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        server.wait_for(lambda: crowd.seen(first) > NUM_CLIENTS)
        assert server.admin("alias", alias="chat", target=second).status_code == 200
        for engine in engines(server):
            os.kill(engine, signal.SIGKILL)  # of both versions, with what they have in hand
        server.admin("alias", alias="small", target=second)  # nothing stands for the first any more: it goes
        server.wait_for(lambda: first not in server.states() and crowd.seen(second) > NUM_CLIENTS)
        before = crowd.seen(first)
        assert server.admin("rollback", alias="chat").status_code == 202  # it is loaded again
        server.wait_for(lambda: server.key("chat") == first)
        server.wait_for(lambda: crowd.seen(first) > before + NUM_CLIENTS)
        assert server.admin("rollback", alias="small").status_code == 200
        server.wait_for(lambda: second not in server.states())
    finally:
        crowd.stopping.set()
        for thread in threads:
            thread.join()
    assert not crowd.failures, crowd.failures[:3]
    mixed = [answer for answer in crowd.answers if expected[answer[0]][answer[1]] != answer[2]]
    assert not mixed, mixed[:3]
    assert {version for version, _, _ in crowd.answers} == {first, second}


def test_a_new_version_of_a_name_takes_over_and_the_old_one_goes(
    serve_fleet: Callable[..., Any], make_version: Callable[[int], Path], tmp_path: Path
) -> None:
    server = serve_fleet([{"name": "small", "model": str(make_version(1))}])
    first, text = server.key("small"), server.text("small")
    body = {"model": "small", "prompt": "the quick", "max_tokens": 450, "temperature": 0, "ignore_eos": True}
    with server.client.stream("POST", "/v1/completions", json={**body, "stream": True}) as response:
        lines = response.iter_lines()
        next(lines)
        second = server.load("small", make_version(2))
        assert server.key("small") == second != first
        server.wait_for(lambda: server.states().get(first) in ("draining", None))
        assert server.text("small") != text
        told = list(lines)
    assert told[-2] == "data: [DONE]" and not any('"error"' in line for line in told)
    server.wait_for(lambda: server.states() == {second: "ready"})

    # A version that cannot be loaded leaves the one before in place, and says why.
    (tmp_path / "config.json").write_text("{}")
    number = server.admin("load", name="small", model=str(tmp_path)).json()["id"]
    server.wait_for(lambda: _model(server, number)["state"] == "failed")
    assert "model.safetensors" in _model(server, number)["reason"]
    assert server.key("small") == second and server.text("small") != text
    assert server.admin("unload", model="small@nothing").status_code == 404

    # The same version once more is no new engine; run in another way it is one, which takes over.
    assert server.load("small", make_version(2)) == second
    assert len(server.states()) == 1
    server.load("small", make_version(2), max_num_seqs=3)
    server.wait_for(lambda: len(server.status()["models"]) == 1)
    assert server.states() == {second: "ready"} and server.text("small") != text


def _model(server: Any, number: int) -> dict[str, Any]:
    return dict(next(model for model in server.status()["models"] if model["id"] == number))
