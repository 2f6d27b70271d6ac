"""`isotoken generate`: continue prompts from the command line or standard input, streamed to standard output."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .flags import DEFAULT_MODEL, EngineFlags, ModelOption, SamplingFlags

if TYPE_CHECKING:
    from .session import Answer, Session


def generate(
    engine: EngineFlags,
    sampling: SamplingFlags,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT", help="Texts to continue. None: standard input is the prompt."),
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    echo: Annotated[bool, typer.Option("--echo", metavar="", help="Print the prompt before what follows it.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", metavar="", help="One JSON object a prompt, with token ids and the finish reason.")
    ] = False,
) -> None:
    """Continue one or more prompts and print what follows. Several prompts run as one batch.

    Without sampling flags the answer is greedy: the same prompt gives the same text each time.
    """
    texts = prompts or [_read_prompt()]
    params = sampling.params()
    config = engine.config(model)
    from .session import Session  # noqa: PLC0415  (the engine: only once the arguments are known to be good)

    with Session(config) as session:
        answers = [session.submit(session.engine.text.encode(text), params) for text in texts]
        for text, answer in zip(texts, answers, strict=True):
            if as_json:
                _print_json(session, text, answer)
            else:
                _print_text(text if echo else "", answer)


def _read_prompt() -> str:
    if sys.stdin.isatty():
        raise typer.BadParameter("give a prompt, or pipe one in", param_hint="PROMPT")
    text = sys.stdin.read()
    return text.removesuffix("\n")  # of the last line, which the shell added


def _print_text(prompt: str, answer: Answer) -> None:
    sys.stdout.write(prompt)
    for delta in answer:
        sys.stdout.write(delta.text)
        sys.stdout.flush()
    sys.stdout.write("\n")
    sys.stdout.flush()


def _print_json(session: Session, prompt: str, answer: Answer) -> None:
    text, token_ids, finish_reason, stop_reason = "", [], None, None
    for delta in answer:
        text += delta.text
        token_ids += delta.token_ids
        finish_reason, stop_reason = delta.finish_reason, delta.stop_reason
    line = {
        "prompt": prompt,
        "text": text,
        "token_ids": token_ids,
        "finish_reason": finish_reason,
        "stop_reason": stop_reason,
        "backend": session.engine.info.backend,
    }
    typer.echo(json.dumps(line, ensure_ascii=False))
