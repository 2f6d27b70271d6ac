"""`isotoken chat`: a conversation with a model, streamed, at a terminal or through a pipe."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from .flags import DEFAULT_MODEL, EngineFlags, ModelArgument, SamplingFlags

if TYPE_CHECKING:
    from ..sampling_params import SamplingParams
    from .session import Session

_HELP = "/reset starts over, /system TEXT sets the system prompt and starts over, /quit leaves. Ctrl-C ends an answer."


def chat(
    engine: EngineFlags,
    sampling: SamplingFlags,
    model: ModelArgument = DEFAULT_MODEL,
    system: Annotated[str | None, typer.Option("--system", "-s", metavar="TEXT", help="A system prompt.")] = None,
) -> None:
    """Talk with a model. Each line is a message; the conversation is remembered.

    At the prompt: /reset starts over, /system TEXT sets the system prompt, /quit leaves. Lines may be piped in.
    """
    params = sampling.params()
    config = engine.config(model)
    from .session import Session  # noqa: PLC0415  (the engine: only once the arguments are known to be good)

    with Session(config) as session:
        if sys.stdin.isatty():
            info = session.engine.info
            typer.echo(f"{model} on {info.backend} ({info.device}, {info.dtype}). {_HELP}", err=True)
        _Conversation(session, params, system).run()


class _Conversation:
    """The messages so far and the model that answers them."""

    def __init__(self, session: Session, params: SamplingParams, system: str | None) -> None:
        self._session, self._params, self._system = session, params, system
        self._messages: list[dict[str, str]] = []
        self._reset()

    def run(self) -> None:
        """Answer lines until there are no more, or /quit."""
        for line in _lines():
            match line.strip().split(maxsplit=1):
                case []:
                    continue
                case ["/quit" | "/exit"]:
                    return
                case ["/reset"]:
                    self._reset()
                case ["/system", text]:
                    self._system = text
                    self._reset()
                case ["/help" | "/?"]:
                    typer.echo(_HELP, err=True)
                case [command, *_] if command.startswith("/") and "/" not in command[1:]:
                    typer.echo(f"no such command: {command}. {_HELP}", err=True)
                case _:
                    self._answer(line)

    def _reset(self) -> None:
        self._messages = [{"role": "system", "content": self._system}] if self._system else []

    def _answer(self, line: str) -> None:
        self._messages.append({"role": "user", "content": line})
        prompt_ids = self._session.engine.text.apply_chat_template(self._messages)
        answer = self._session.submit(prompt_ids, self._params)
        text = ""
        try:
            for delta in answer:
                text += delta.text
                sys.stdout.write(delta.text)
                sys.stdout.flush()
        except KeyboardInterrupt:  # what came so far stays in the conversation
            answer.close()
        sys.stdout.write("\n")
        sys.stdout.flush()
        self._messages.append({"role": "assistant", "content": text})


def _lines() -> Iterator[str]:
    if not sys.stdin.isatty():
        yield from (line.rstrip("\n") for line in sys.stdin)
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401, PLC0415  (line editing and history for input())
    while True:
        try:
            yield input("> ")
        except EOFError:
            typer.echo(err=True)
            return
