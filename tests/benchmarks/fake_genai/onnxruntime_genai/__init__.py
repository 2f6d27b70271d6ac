"""Stands in for onnxruntime-genai in the tests of its worker: the calls used, and a model whose tokens are a sum.

Padding on the left counts as context, as in the real one.
"""

from __future__ import annotations

import json
from enum import IntFlag
from pathlib import Path
from typing import Any

import numpy as np

__version__ = "0.0"
PAD = 2


def next_token(tokens: list[int]) -> int:
    return 3 + (7 * sum(tokens) + len(tokens)) % 900


class Config:
    def __init__(self, folder: str) -> None:
        self.values: dict[str, Any] = json.loads((Path(folder) / "genai_config.json").read_text())

    def overlay(self, text: str) -> None:
        self.values |= json.loads(text)


class Model:
    def __init__(self, config: Config) -> None:
        self.values = config.values
        Path(config.values["log"]).write_text(json.dumps(config.values))


class GeneratorParams:
    def __init__(self, model: Model) -> None:
        self.options: dict[str, Any] = {}

    def set_search_options(self, **options: Any) -> None:
        self.options |= options


class Generator:
    def __init__(self, model: Model, params: GeneratorParams) -> None:
        self.options = params.options
        self.rows: list[list[int]] = [[] for _ in range(params.options["batch_size"])]
        self.drawn: list[int] = []

    def append_tokens(self, tokens: Any) -> None:
        assert tokens.dtype == np.int32 and len(tokens) == len(self.rows)
        for row, new in zip(self.rows, tokens.tolist(), strict=True):
            row.extend(new[: len(new) - next((i for i, token in enumerate(new[::-1]) if token != PAD), 0)])

    def generate_next_token(self) -> None:
        self.drawn = [next_token(row) for row in self.rows]
        for row, token in zip(self.rows, self.drawn, strict=True):
            row.append(token)
        assert max(map(len, self.rows)) <= self.options["max_length"]

    def get_next_tokens(self) -> Any:
        return np.array(self.drawn, np.int32)

    def rewind_to(self, length: int) -> None:
        assert len(self.rows) == 1
        del self.rows[0][length:]


class EngineEventFlags(IntFlag):
    NONE = 0
    TOKEN = 1
    FAILED = 4


class RequestOptions:
    def set_max_session_tokens(self, count: int) -> None:
        self.most = count


class TurnOptions:
    def __init__(self, request: Request) -> None:
        self.count = self.least = 0

    def set_max_generated_tokens(self, count: int) -> None:
        self.count = count

    def set_min_generated_tokens(self, count: int) -> None:
        self.least = count

    def set_do_sample(self, sample: bool) -> None:
        assert not sample


class Request:
    def __init__(self, most: int) -> None:
        self.most, self.closed = most, False

    def begin_turn(self, tokens: Any, turn: TurnOptions) -> None:
        self.tokens, self.left = tokens.tolist(), turn.count
        assert turn.least == turn.count and len(self.tokens) + turn.count <= self.most

    def close(self) -> None:
        self.closed = True


class Event:
    def __init__(self, request: Request, token: int) -> None:
        self.request, self.token, self.flags = request, token, EngineEventFlags.TOKEN


class Engine:
    def __init__(self, model: Model) -> None:
        self.most = model.values["engine"]["static_batching"]["max_batch_size"]
        self.requests: list[Request] = []

    def create_request(self, options: RequestOptions) -> Request:
        self.requests.append(Request(options.most))
        return self.requests[-1]

    def create_event_buffer(self, size: int) -> None:
        return None

    def has_pending_requests(self) -> bool:
        return any(request.left for request in self.requests)

    def run(self, buffer: None) -> list[Event]:
        events = []
        for request in [r for r in self.requests if r.left][: self.most]:
            request.left -= 1
            request.tokens.append(next_token(request.tokens))
            events.append(Event(request, request.tokens[-1]))
        return events
