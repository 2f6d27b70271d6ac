"""`isotoken diff`: whether two backends say the same, and where they do not, whether that is rounding or a mistake."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .flags import ModelArgument

if TYPE_CHECKING:
    from ...conformance.diff import Answer, Question
    from ..text import TextModel

_SIDE = (
    "NAME, then :DTYPE, :QUANTIZATION (int8, int4, w8a8 or w4a8) and :DEVICE as wanted, such as torch:bfloat16 or "
    "native:w4a8. Give it twice. Default: float32, unquantised, cpu."
)


def diff(
    model: ModelArgument,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT", help="Texts to continue. None: standard input is the prompt."),
    ] = None,
    backend: Annotated[list[str], typer.Option("--backend", metavar="SIDE", help=_SIDE)] = [],  # noqa: B006
    max_tokens: Annotated[int, typer.Option(metavar="N", help="Tokens to generate at most.", min=1)] = 64,
    seeds: Annotated[int, typer.Option(metavar="N", help="Draws of each prompt besides the greedy one.", min=0)] = 1,
    temperature: Annotated[float, typer.Option(metavar="X", help="Of the draws.", min=0.01)] = 1.0,
    top_k: Annotated[int, typer.Option(metavar="N", help="Of the draws. 0: all tokens.", min=0)] = 0,
    top_p: Annotated[float, typer.Option(metavar="X", help="Of the draws.", min=0.0, max=1.0)] = 1.0,
    ignore_eos: Annotated[
        bool, typer.Option("--ignore-eos", metavar="", help="Go on after the model has ended.")
    ] = False,
    base: Annotated[str, typer.Option(metavar="SIDE", help="What judges: its logits stand for the exact ones.")] = (
        "reference:float64"
    ),
    top: Annotated[int, typer.Option(metavar="N", help="Candidates shown.", min=2)] = 5,
    num_threads: Annotated[int, typer.Option(metavar="N", help="CPU threads. 0: the runtime's choice.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="One JSON object for each answer.")] = False,
) -> None:
    """Compare what two backends say, greedy and drawn, and judge the first token that differs.

    A difference is a near-tie where rounding explains both sides' tokens: their logits lie within the bound of their
    precision around the base's, and the margin is too small for that bound to decide. Otherwise it is real: a side is
    wrong, or its weights are others.

    Exit code 0: all answers are equal or part at near-ties. 1: some difference is real.
    """
    if len(backend) != 2:
        raise typer.BadParameter(f"two sides are compared, {len(backend)} given", param_hint="--backend")
    texts = prompts or [_read_prompt()]
    from ...conformance import diff as it  # noqa: PLC0415  (numpy and the core: only once the arguments are good)
    from ...core.types import DecodeParams  # noqa: PLC0415
    from ...plugins.manager import Plugins  # noqa: PLC0415
    from ..models import resolve_model  # noqa: PLC0415
    from ..text import TextModel  # noqa: PLC0415

    plugins, folder = Plugins.load(), resolve_model(model)
    tokenizer = TextModel.load(folder)
    greedy = DecodeParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=ignore_eos)
    draws = [
        DecodeParams(
            max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, ignore_eos=ignore_eos
        )
        for seed in range(seeds)
    ]
    questions = [it.Question(tuple(tokenizer.encode(text)), p) for text in texts for p in (greedy, *draws)]
    comparison = it.Comparison(
        folder=folder,
        sides=(it.parse(backend[0], plugins), it.parse(backend[1], plugins)),
        base=it.parse(base, plugins),
        plugins=plugins,
        top=top,
        num_threads=num_threads,
        tell=lambda line: typer.echo(f"{line} ...", err=True),
    )
    answers = comparison.ask(questions)
    names = [text for text in texts for _ in (greedy, *draws)]
    _show(list(zip(names, answers, strict=True)), tokenizer, as_json)
    if any(answer.verdict == "real" for answer in answers):
        raise typer.Exit(1)


def _read_prompt() -> str:
    if sys.stdin.isatty():
        raise typer.BadParameter("give a prompt, or pipe one in", param_hint="PROMPT")
    return sys.stdin.read().removesuffix("\n")


def _described(question: Question) -> dict[str, object]:
    p = question.params
    return {"mode": "seeded" if p.temperature else "greedy", "temperature": p.temperature, "seed": p.seed}


def _show(answers: list[tuple[str, Answer]], tokenizer: TextModel, as_json: bool) -> None:
    if as_json:
        for prompt, answer in answers:
            print(json.dumps({"prompt": prompt} | _described(answer.question) | answer.as_json(), ensure_ascii=False))
        return
    from rich.console import Console  # noqa: PLC0415

    from .diff_view import render  # noqa: PLC0415

    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, 110)  # three lists of candidates side by side
    for prompt, answer in answers:
        render(prompt, answer, tokenizer, console)
    verdicts = [answer.verdict for _, answer in answers]
    console.print(
        f"{verdicts.count('equal')} equal, {verdicts.count('near-tie')} part at a near-tie, "
        f"{verdicts.count('real')} differ for real"
    )
