"""Logs hold no prompt and no answer unless asked, and never a key: every line of a run at level debug is read."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from isotoken.api.safety.log_privacy import SecretScrubber, scrub

from .conftest import Serve, cut, say, write_model

ANSWER = "quokkas and platypuses are the canaries of this test."
PROMPT = "wombat-marmalade-7519"
KEY = "itk_7Hq2Zk9Wm4Xn8Bv3Lc6Jd1Fg5Rt0Yp7Qs2Ua4Ie9Ow8Px3Kz"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(12)
    return write_model(tmp_path_factory.mktemp("privacy") / "saying", [cut(ANSWER, rng)])


def talk(served: object, *, path: str = "") -> None:
    """Send what goes well and what goes wrong, with canaries everywhere that a client can put one."""
    headers = {"authorization": f"Bearer {KEY}", "x-api-key": KEY, "cookie": f"session={PROMPT}"}
    post = served.post  # type: ignore[attr-defined]
    text = f"{PROMPT} {say(0)}"
    good = {"max_tokens": 60, "temperature": 0}
    assert ANSWER in post("/v1/completions", {"prompt": text, **good}, headers=headers).text
    post("/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **good}, headers=headers)
    post("/v1/completions", {"prompt": text, "stream": True, **good}, headers=headers)
    post("/generate", {"inputs": text, "parameters": {"details": True}}, headers=headers)
    post("/tokenize", {"prompt": text}, headers=headers)
    post("/v1/moderations", {"input": text}, headers=headers)
    post("/v1/completions", {"prompt": text, "request_id": KEY, **good}, headers={**headers, "x-request-id": KEY})
    post("/v1/completions", {"prompt": text, **good}, headers={**headers, "x-request-id": KEY})
    # What goes wrong: fields, JSON, sizes, models, routes, templates, tokens that are none.
    for content in (f'{{"prompt": "{PROMPT}"', f'{{"prompt": ["{PROMPT}", 5]}}', f'"{PROMPT}"'):
        post("/v1/completions", content=content, headers=headers)
    for surrogate in (r"\ud800", r"\udfff \u0000"):
        post("/v1/completions", content=f'{{"prompt": "{surrogate}{PROMPT}"}}', headers=headers)
        messages = f'[{{"role": "user", "content": "{surrogate}{PROMPT}"}}]'
        post("/v1/chat/completions", content=f'{{"messages": {messages}}}', headers=headers)
        post("/generate", content=f'{{"inputs": "{surrogate}{PROMPT}"}}', headers=headers)
        post("/v1/moderations", content=f'{{"input": "{surrogate}{PROMPT}"}}', headers=headers)
    post("/v1/completions", {"prompt": PROMPT, "model": PROMPT}, headers=headers)
    post("/v1/completions", {"prompt": PROMPT, "temperature": PROMPT}, headers=headers)
    post("/v1/completions", {"prompt": PROMPT * 2000}, headers=headers)
    post("/v1/completions", {"prompt": PROMPT, "stop": [PROMPT] * 50}, headers=headers)
    post("/v1/chat/completions", {"messages": [{"role": PROMPT, "content": PROMPT}]}, headers=headers)
    post(f"/v1/{PROMPT}?key={KEY}", {"prompt": PROMPT}, headers=headers)
    post("/v1/completions", {"prompt": PROMPT, "user": KEY, "logit_bias": {PROMPT: 1}}, headers=headers)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_logs_hold_neither_texts_nor_keys(serve_saying: Serve, model: Path, tmp_path: Path, log_format: str) -> None:
    log = tmp_path / "log"
    safety = {"default": {"prompts": [{"filter": "pii", "action": "flag"}]}, "moderations": "lexicon"}
    features = {} if log_format == "text" else {"telemetry": {"log_format": "json", "access_log": True}}
    served = serve_saying(model, safety, log=log, **features)
    talk(served)
    served.process.terminate()
    served.process.wait(60)
    lines = log.read_text()
    assert ("isotoken.requests" if log_format == "text" else "isotoken.access") in lines  # it was a log of something
    for canary in (PROMPT, KEY, KEY[4:20], "wombat", "quokkas"):
        assert canary not in lines


def test_prompts_are_logged_when_asked_for_and_keys_still_are_not(
    serve_saying: Serve, model: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    served = serve_saying(model, {"log_prompts": True}, log=log)
    served.post("/v1/completions", {"prompt": f"{PROMPT} {KEY} {say(0)}", "max_tokens": 2})
    served.process.terminate()
    served.process.wait(60)
    lines = log.read_text()
    assert PROMPT in lines
    assert KEY not in lines


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"key {KEY} of tenant a", "key [SECRET] of tenant a"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer [SECRET]"),
        ("postgresql+psycopg://me:hunter2@db/isotoken", "postgresql+psycopg://[SECRET]@db/isotoken"),
        ("redis://:hunter2@cache:6379/0 does not answer", "redis://[SECRET]@cache:6379/0 does not answer"),
        ("http://127.0.0.1:8000/v1 took 12 ms", "http://127.0.0.1:8000/v1 took 12 ms"),
        ("sk-proj-Ab3dEf6hIj9lMn2pQr5tUv8x", "[SECRET]"),
    ],
)
def test_scrubbing(text: str, clean: str) -> None:
    assert scrub(text) == clean


def test_tracebacks_are_scrubbed() -> None:
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler = Lines()
    handler.addFilter(SecretScrubber())
    logger = logging.Logger("one")
    logger.addHandler(handler)
    try:
        raise ValueError(f"cannot read {KEY}")
    except ValueError:
        logger.exception("with %s", KEY)
    assert "cannot read [SECRET]" in lines[0]
    assert KEY not in lines[0]
