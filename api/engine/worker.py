"""The engine's process: read requests, step, publish; end when the API's process is gone.

Started as `python -m isotoken.api.engine.worker FD` with one end of a socket pair as file descriptor FD.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import socket
import sys
import time
import traceback
from typing import TYPE_CHECKING

from ...core.types import FinishReason, Request, RequestOutput, StepStats
from ...plugins.build import Built, EngineConfig, build_engine
from ...plugins.hookspecs import API_VERSION, hookimpl
from ...plugins.manager import Plugins
from ..structured.tokens import token_table
from ..text import TextModel
from .channel import Channel
from .lumps import Lumps
from .messages import Abort, Configure, Failed, Output, Ready, Step, Stop, Submit, ToEngine
from .progress import LoadProgress
from .types import EngineInfo

if TYPE_CHECKING:
    from ...core.engine import Engine

PR_SET_PDEATHSIG = 1

log = logging.getLogger("isotoken.engine")


class Worker:
    """The engine between two ends of a channel."""

    ISOTOKEN_API = API_VERSION  # it sees the engine's steps as any plugin does

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._engine: Engine
        self._stats: StepStats | None = None  # not sent yet
        self._unstarted: dict[str, Request] = {}
        self._outputs: list[RequestOutput] = []  # not sent yet
        self._lumps = Lumps()
        self._has_sent = False  # in this turn

    def build(self, config: EngineConfig) -> None:
        """Load everything and say so. Raises whatever building an engine raises."""
        plugins = Plugins.load([("isotoken-worker", self)])
        with LoadProgress() as progress:
            built = build_engine(
                config,
                plugins,
                self._publish,
                on_open=progress.on_open,
                on_read=progress.on_read,
                load_tokens=lambda: token_table(TextModel.load(config.model)),
            )
        self._engine = built.engine
        gc.collect()
        gc.freeze()  # what was loaded stays: leave it out of every later collection
        self._channel.send(Ready(engine_info(config, built)))

    def run(self) -> None:
        """Serve until told to stop. Raises EOFError or OSError when the API's process is gone."""
        engine = self._engine
        while True:
            for message in self._channel.receive(block=not engine.has_work):
                if isinstance(message, Stop):
                    engine.close()
                    return
                self._take(message)
            self._has_sent = False
            engine.step()  # with nothing left to do, after an abort, it still counts what is free
            if self._outputs or not engine.has_work or not self._has_sent:  # silence would be taken for a hang
                self._send()

    @hookimpl(tryfirst=True)
    def on_step(self, stats: StepStats) -> None:
        """Keep a step's numbers, which go along with the next message."""
        self._stats = stats

    def _take(self, message: ToEngine) -> None:
        if isinstance(message, Submit):
            request = message.to_request(time.monotonic())
            try:
                self._engine.add(request)
                self._unstarted[request.id] = request
                if message.whole:
                    self._lumps.expect(request.id)
            except ValueError as error:
                refusal = RequestOutput(
                    request_id=message.id, token_ids=[], finish_reason=FinishReason.ERROR, error=str(error)
                )
                self._outputs.append(refusal)
        elif isinstance(message, Abort):
            for request_id in message.ids:
                self._engine.abort(request_id)
                self._unstarted.pop(request_id, None)
                self._lumps.forget(request_id)

    def _publish(self, outputs: list[RequestOutput]) -> None:
        self._outputs += self._lumps.ripe(outputs)
        if self._engine.info.asynchronous:
            self._send()  # now, while the device computes the next step

    def _send(self) -> None:
        """Send what one step brought to all requests, in one message."""
        outputs, self._outputs = self._outputs, []
        stats, self._stats = self._stats, None
        started = [name for name, request in self._unstarted.items() if has_started(request)]
        for name in started:
            del self._unstarted[name]
        if outputs or started or stats is not None:
            self._has_sent = True
            self._channel.send(Step([Output.from_core(output) for output in outputs], stats, started))


def has_started(request: Request) -> bool:
    """Whether it was ever scheduled."""
    return request.row_id >= 0 or request.num_preemptions > 0 or request.finish_reason is not None


def engine_info(config: EngineConfig, built: Built) -> EngineInfo:
    """Return what the API needs to know of an engine."""
    info, can, packing = built.engine.info, built.capabilities, built.checkpoint.packing
    return EngineInfo(
        model=config.model,
        backend=built.backend,
        device=built.device,
        dtype=built.dtype,
        max_model_len=min(info.max_model_len, info.num_blocks * info.block_size),
        max_num_seqs=info.max_num_seqs,
        max_num_batched_tokens=info.max_num_batched_tokens,
        vocab_size=info.vocab_size,
        eos_token_ids=info.eos_token_ids,
        block_size=info.block_size,
        num_blocks=info.num_blocks,
        weight_bytes=info.weight_bytes,
        kv_cache_bytes=info.kv_cache_bytes,
        checkpoint=built.checkpoint.key,
        batch_invariant=can.batch_invariant is True,
        no_prompt_logprobs="" if can.prompt_logprobs is True else can.prompt_logprobs.reason,
        no_grammars=built.no_grammars,
        why=built.reasons,
        settings={
            "scheduler": config.scheduler,
            "kv_cache": built.kv_cache,
            "sampler": config.sampler,
            "grammars": "llguidance" if config.grammars == "auto" else config.grammars,
            "drafter": "model" if config.drafter == "none" and config.draft_model else config.drafter,
            "quantization": config.quantization or (packing.method if packing else "none"),
        },
    )


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent goes, even in the middle of a step."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main(fd: int) -> int:
    """Serve the socket `fd`; returns the exit status."""
    # Signals sent to the whole group are for the API's process, which drains and then tells this one to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _die_with_parent()
    channel = Channel(socket.socket(fileno=fd))
    try:
        (configure,) = channel.receive(block=True)
        assert isinstance(configure, Configure)
        worker = Worker(channel)
        worker.build(configure.config)
        worker.run()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return 0  # the API's process is gone
    except Exception as error:
        channel.send(Failed(str(error) or type(error).__name__, traceback.format_exc()))
        return 1
    return 0


if __name__ == "__main__":
    status = main(int(sys.argv[1]))
    sys.stderr.flush()
    os._exit(status)  # at once: there is nothing left to save, and engines take their time to unwind
