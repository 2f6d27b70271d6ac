"""The engine's process, run in a thread: what it says and when."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Callable, Iterator

from isotoken.api.engine.channel import Channel
from isotoken.api.engine.messages import HEADER_BYTES, FromEngine, Ready, Step, Stop, Submit, pack, unpack_from_engine
from isotoken.api.engine.worker import Worker
from isotoken.core.types import DecodeParams
from isotoken.plugins.build import EngineConfig


def received(connection: socket.socket) -> Iterator[FromEngine]:
    with connection.makefile("rb") as file:
        while header := file.read(HEADER_BYTES):
            yield unpack_from_engine(file.read(int.from_bytes(header, "big")))


def test_every_step_is_told_even_one_without_tokens(engine_config: Callable[..., EngineConfig]) -> None:
    """An engine that says nothing while it reads a long prompt would be taken for hung, its request for waiting."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker = Worker(Channel(theirs))
        worker.build(engine_config(max_num_batched_tokens=4))
        gc.unfreeze()
        thread = threading.Thread(target=worker.run)
        thread.start()
        ours.sendall(pack(Submit("r", list(range(10, 50)), DecodeParams(max_tokens=2, ignore_eos=True))))
        ready, *steps = _until_finished(received(ours))
        ours.sendall(pack(Stop()))
        thread.join()
    assert isinstance(ready, Ready)
    assert all(step.stats is not None for step in steps)
    assert [len(step.outputs) for step in steps] == [0] * 9 + [1, 1]  # 40 tokens by 4, and one more
    assert [step.started for step in steps] == [["r"], *[[]] * 10]


def _until_finished(messages: Iterator[FromEngine]) -> Iterator[FromEngine]:
    for message in messages:
        yield message
        if isinstance(message, Step) and any(output.finish_reason for output in message.outputs):
            return
