"""`isotoken chat`: a conversation with a model, streamed, at a terminal or through a pipe."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from .flags import DEFAULT_MODEL, EngineFlags, ModelArgument, SamplingFlags


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
    from .conversation import HELP, Conversation  # noqa: PLC0415  (the engine: once the arguments are known to be good)

    with Conversation(config, params, system) as conversation:
        if sys.stdin.isatty():
            info = conversation.info
            typer.echo(f"{model} on {info.backend} ({info.device}, {info.dtype}). {HELP}", err=True)
        conversation.run(_lines())


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
