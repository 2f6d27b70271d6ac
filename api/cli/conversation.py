"""A conversation with a model in this process: messages, commands, and answers as they come."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from types import TracebackType

from ...plugins.build import EngineConfig
from ..engine import EngineInfo, LocalEngine
from ..engine.local import Job
from ..errors import EngineFailed, ParameterError
from ..sampling_params import SamplingParams

HELP = "/reset starts over, /system TEXT sets the system prompt and starts over, /quit leaves. Ctrl-C ends an answer."


class Conversation:
    """The messages so far and the model that answers them. Answers go to stdout, everything else to stderr."""

    def __init__(self, config: EngineConfig, params: SamplingParams, system: str | None) -> None:
        self._params, self._system = params, system
        self._messages: list[dict[str, str]] = []
        self._engine = LocalEngine(config, progress=sys.stderr.isatty())
        self._reset()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._engine.close()

    @property
    def info(self) -> EngineInfo:
        """What the engine settled on."""
        return self._engine.info

    def run(self, lines: Iterable[str]) -> None:
        """Answer lines until there are no more, or /quit."""
        for line in lines:
            match line.split(maxsplit=1):
                case []:
                    pass
                case ["/quit" | "/exit"]:
                    return
                case ["/reset"]:
                    self._reset()
                    print("a new conversation", file=sys.stderr)
                case ["/system", text]:
                    self._system = text
                    self._reset()
                    print("a new conversation with this system prompt", file=sys.stderr)
                case [command, *_] if command.startswith("/") and "/" not in command[1:]:
                    print(f"no such command: {command}. {HELP}" if command != "/help" else HELP, file=sys.stderr)
                case _:
                    self._answer(line)

    def _reset(self) -> None:
        self._messages = [{"role": "system", "content": self._system}] if self._system else []

    def _answer(self, line: str) -> None:
        messages = [*self._messages, {"role": "user", "content": line}]
        try:
            text = self._stream(messages)
        except (ParameterError, EngineFailed) as error:  # the conversation goes on without this message
            print(f"isotoken: {error}. {HELP}", file=sys.stderr)
        else:
            self._messages = [*messages, {"role": "assistant", "content": text}]

    def _stream(self, messages: list[dict[str, str]]) -> str:
        """Print the answer as it comes, and return it. Ctrl-C ends it early."""
        arriving = self._engine.generate([Job(self._engine.text.apply_chat_template(messages), self._params)])
        text = ""
        with contextlib.suppress(KeyboardInterrupt):
            for _, delta, error in arriving:
                if error is not None:
                    raise EngineFailed(error)
                text += delta.text
                print(delta.text, end="", flush=True)
        print(flush=True)
        return text
