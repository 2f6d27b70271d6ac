"""The load benchmark measures what it says, finds wrong answers, and shows what was reached."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from isotoken.models import BUILTIN, DEFAULT_MODEL

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from benchmarks.load.client import Connection, Stream, ask, stream  # noqa: E402
from benchmarks.load.figures import Figure, Measurement, markdown, percentile, plain  # noqa: E402
from benchmarks.load.requests import WrongAnswer, _hold  # noqa: E402
from benchmarks.load.server import Server, long_context_model  # noqa: E402
from benchmarks.load.streams import _check, flow, gaps, silent_tokens  # noqa: E402
from benchmarks.load.truth import Truth, completion, http, prompt  # noqa: E402

MODEL = BUILTIN[DEFAULT_MODEL]


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth(MODEL)


@pytest.mark.slow
@pytest.mark.parametrize("without_wrk", [False, True])
def test_one_command_measures_all_four(without_wrk: bool, tmp_path: Path) -> None:
    saved = tmp_path / "load.json"
    command = [sys.executable, "-m", "benchmarks.load", "--rounds", "1", "--seconds", "1", "--json", str(saved)]
    if without_wrk:
        command += ["--only", "requests"]
    else:
        command += ["--only", "requests", "--only", "streams", "--only", "latency"]
    environment = os.environ | ({"PATH": str(tmp_path)} if without_wrk else {})
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: a target is missed, as on a busy machine
    report = json.loads(saved.read_text())
    assert done.returncode == 1 or "  no" not in done.stdout
    found = {m["name"]: m["figures"] for m in report["measurements"]}
    assert list(found) == (["requests"] if without_wrk else ["requests", "streams", "latency"])
    assert all(figure["rounds"] and min(figure["rounds"]) > 0 for figures in found.values() for figure in figures)
    assert found["requests"][0]["target"] == 3000
    assert report["machine"]["processor"]


class Made(asyncio.Protocol):
    """A server that gives made answers."""

    def __init__(self, answer: Callable[[bytes], list[bytes]]) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        for piece in self._answer(data):
            self._transport.write(piece)


def served(answer: Callable[[bytes], list[bytes]], body: Callable[[int], Any]) -> Any:
    """Run a coroutine with the port of a server of made answers."""

    async def main() -> Any:
        server = await asyncio.get_running_loop().create_server(lambda: Made(answer), "127.0.0.1", 0)
        async with server, asyncio.timeout(30):
            return await body(server.sockets[0].getsockname()[1])

    return asyncio.run(main())


def test_the_client_reads_answers_in_any_pieces() -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Type: x\r\ncontent-length: 5\r\n\r\nhello"
    for cut in range(1, len(whole)):
        status, body = served(
            lambda _, cut=cut: [whole[:cut], whole[cut:]],
            lambda port: ask("127.0.0.1", port, b"POST / HTTP/1.1\r\n\r\n"),
        )
        assert (status, body) == (200, b"hello")


def test_a_closed_connection_is_an_answer_too() -> None:
    async def body(port: int) -> tuple[int, bytes]:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
        answered = asyncio.get_running_loop().create_future()
        connection.ask(b"x", lambda *answer: answered.set_result(answer))
        connection._transport.close()
        return await answered

    assert served(lambda _: [], body) == (0, b"")


def chunked(*events: bytes) -> list[bytes]:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    return [head, *(b"%x\r\n%b\r\n" % (len(event), event) for event in events), b"0\r\n\r\n"]


def answered(pieces: list[bytes]) -> Stream:
    async def body(port: int) -> Stream:
        opened = await stream("127.0.0.1", port, b"POST / HTTP/1.1\r\n\r\n")
        await opened.ended
        return opened

    found: Stream = served(lambda _: pieces, body)
    return found


def events_of(text: str, count: int, tokens: int) -> list[bytes]:
    size = -(-len(text) // count)
    chunks: list[dict[str, Any]] = [
        {"choices": [{"text": text[i : i + size]}], "usage": None} for i in range(0, len(text), size)
    ]
    chunks.append({"choices": [], "usage": {"completion_tokens": tokens}})
    return [*(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks), b"data: [DONE]\n\n"]


def test_streams_are_held_to_the_truth(truth: Truth) -> None:
    text, count = prompt("x"), 30
    answer = truth.answer(text, count)
    good = events_of(answer, 20, count)
    assert _check(truth, text, answered(chunked(*good)), count) == len(good) - 1
    wrong = events_of(answer[:-1] + "?", 20, count)
    short = events_of(answer, 20, count - 1)
    for events in (wrong, short, good[:-1], good[1:], []):
        with pytest.raises(WrongAnswer):
            _check(truth, text, answered(chunked(*events)), count)
    with pytest.raises(WrongAnswer):
        _check(truth, text, answered([b"HTTP/1.1 500 No\r\n\r\n", b"0\r\n\r\n"]), count)


def test_whole_answers_are_held_to_the_truth(truth: Truth) -> None:
    text = prompt("y")
    answer: dict[str, Any] = {
        "choices": [{"text": truth.answer(text, 16), "finish_reason": "length"}],
        "usage": {"prompt_tokens": len(truth.ids(text)), "completion_tokens": 16},
    }
    _hold(truth, text, 200, json.dumps(answer).encode())
    for change in (
        {"choices": [{"text": "no", "finish_reason": "length"}]},
        {"choices": [{**answer["choices"][0], "finish_reason": "stop"}]},
        {"usage": {"prompt_tokens": 1, "completion_tokens": 16}},
    ):
        with pytest.raises(WrongAnswer):
            _hold(truth, text, 200, json.dumps({**answer, **change}).encode())
    with pytest.raises(WrongAnswer, match="status 429"):
        _hold(truth, text, 429, b"{}")


def test_a_flow_counts_tokens_while_all_streams_run(truth: Truth) -> None:
    """Streams that end at once have no time to be measured in; the benchmark says so instead of dividing by nothing."""
    count = 12

    def answer(request: bytes) -> list[bytes]:
        asked = json.loads(request.partition(b"\r\n\r\n")[2])
        return [b"".join(chunked(*events_of(truth.answer(asked["prompt"], count), 6, count)))]

    async def body(port: int) -> Any:
        return await flow(Server("127.0.0.1", port, None, None), truth, 2, count, 0.01)  # type: ignore[arg-type]

    with pytest.raises(RuntimeError, match="never ran at the same time"):
        served(answer, body)


class Nowhere(asyncio.Transport):
    def write(self, data: object) -> None:
        pass

    def close(self) -> None:
        pass


def test_a_stream_ends_however_its_end_is_cut() -> None:
    whole = b"".join(chunked(b"data: {}\n\n"))

    async def main() -> None:
        for cut in range(1, len(whole)):
            found = Stream(b"")
            found.connection_made(Nowhere())
            found.data_received(whole[:cut])
            assert not found.ended.done()
            found.data_received(whole[cut:])
            assert found.ended.done()
            assert found.body() == b"data: {}\n\n"

    asyncio.run(main())


def test_gaps_are_those_between_events() -> None:
    async def main() -> list[Stream]:
        return [Stream(b""), Stream(b"")]

    first, second = asyncio.run(main())
    first.arrivals = [(0.0, 1), (1.0, 1), (1.5, 3), (9.0, 1)]
    second.arrivals = [(0.5, 1), (2.0, 2)]
    assert sorted(gaps([first, second], 0.9, 2.0).tolist()) == [0.0, 0.0, 0.0, 0.5, 1.0, 1.5]


def test_steps_without_text_are_taken_off_the_gaps_they_leave() -> None:
    """The third token is a part of a character: its event is the fourth's, two steps after the one before."""

    async def main() -> Stream:
        return Stream(b"")

    only = asyncio.run(main())
    only.arrivals = [(0.0, 1), (1.0, 1), (3.0, 1), (6.5, 2)]
    silent = silent_tokens(["a", "bc", "", "d", "", "", "e", "f", ""], ["a", "bc", "d", "e", "f", ""])
    assert silent == [0, 0, 1, 2, 0, 1]
    assert gaps([only], 0.5, 9.0, [[float(n) for n in silent]]).tolist() == [1.0, 1.0, 1.5, 0.0]


def test_events_that_join_tokens_leave_none_out() -> None:
    assert silent_tokens(["a", "", "b", "c", "", ""], ["ab", "c", ""]) == [1, 0, 2]


def test_pieces_add_up_to_the_answer(truth: Truth) -> None:
    pieces = truth.pieces(prompt("z"), 600)
    assert len(pieces) == 600 and 0 < pieces.count("") < 60
    assert truth.answer(prompt("z"), 600).startswith("".join(pieces))


def test_a_percentile_was_really_seen() -> None:
    values = np.arange(1, 101)[::-1]
    assert (percentile(values, 50), percentile(values, 99), percentile([7.0], 99)) == (51.0, 100.0, 7.0)


def test_what_was_reached_is_told() -> None:
    measurement = Measurement(
        "m", "how", [Figure("rate", "a second", 3000, "more"), Figure("p99", "ms", 10), Figure("x", "s")]
    )
    for values in ((2000.0, 9.0, 1.0), (3500.0, 11.0, 2.0), (3100.0, 9.5, 3.0)):
        measurement.add(values)
    rate, p99, other = measurement.figures
    assert (rate.median, rate.reached, p99.reached, other.reached) == (3100.0, True, True, None)
    assert "3,100" in plain([measurement]) and "2,000 to 3,500" in plain([measurement])
    p99.rounds.append(50.0)
    p99.rounds.append(60.0)
    assert p99.reached is False and "**no**" in markdown([measurement])


def test_a_model_with_a_longer_context_is_the_same_otherwise(tmp_path: Path) -> None:
    made = long_context_model(MODEL, tmp_path / "long", 400_000)
    ours, theirs = (json.loads((folder / "config.json").read_text()) for folder in (made, MODEL))
    assert ours == theirs | {"max_position_embeddings": 400_000}
    assert (made / "tokenizer.json").read_bytes() == (MODEL / "tokenizer.json").read_bytes()


def test_requests_are_whole(truth: Truth) -> None:
    body = completion("né", 3, stream=True)
    head, _, sent = http("host:1", "/v1/completions", body).partition(b"\r\n\r\n")
    assert sent == body and f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body) == {"model": "load", "prompt": "né", "max_tokens": 3, "temperature": 0, "stream": True}
    assert len(truth.ids(truth.long_prompt(20_000))) >= 20_000
