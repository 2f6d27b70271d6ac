"""`isotoken export`: write a model in another format, for programs that know nothing of isotoken."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .flags import ModelArgument, pairs

_FORM = "How attention is written: gqa, standard, standard-mask, ..."


def export(
    model: ModelArgument,
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="Such as onnx: see `isotoken plugins`.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where to write; made if need be.")],
    attention: Annotated[str | None, typer.Option("--attention", metavar="FORM", help=_FORM)] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", metavar="NAME", help="To compute in: float32, float16 or bfloat16.")
    ] = None,
    quantization: Annotated[
        str | None, typer.Option("--quantization", metavar="NAME", help="Of the weights: int8, int4, ...")
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option("--max-model-len", metavar="N", help="Longest sequence. 0: the model's limit.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="K=V", help="A setting of the format's own. May be repeated."),
    ] = None,
) -> None:
    """Write a model in another format, with a README beside it that says how to run it.

    The files' paths go to standard output, the main one first.
    """
    named = {"attention": attention, "dtype": dtype, "quantization": quantization, "max_model_len": max_model_len}
    options = {name: str(value) for name, value in named.items() if value is not None} | pairs(option or [])
    from ...plugins.manager import Plugins  # noqa: PLC0415  (each command imports what it needs)

    exporter = Plugins.load().exporters.get_factory(to)()
    from ...core.checkpoint import Checkpoint  # noqa: PLC0415
    from ..models import resolve_model  # noqa: PLC0415

    checkpoint = Checkpoint.open(resolve_model(model))
    for path in exporter.export(checkpoint, out, options, lambda what: typer.echo(f"isotoken: {what}", err=True)):
        typer.echo(path)
