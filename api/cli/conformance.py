"""`isotoken conformance`: run the suite against backends, measure levels of agreement, draw the matrix."""

from __future__ import annotations

import typer

_HELP = """Run the conformance suite, measure how far backends agree, or draw the matrix of the reports.

  isotoken conformance --backend NAME [--backend NAME ...] [--conformance-report FILE] [any option of pytest]
  isotoken conformance --url URL [--model NAME] [--api-key KEY] [--report FILE] [--strict] [any option of pytest]
  isotoken conformance levels [--pair A B | --backend A ...] [--output FILE]
  isotoken conformance matrix REPORT...

Each behaviour that a backend must show has a number in conformance/SPEC.md, and each test cites its numbers.
With --url it is the API of a running server that is tested, isotoken's or another's.
`isotoken conformance -- --help` lists the options of pytest and of the suite, `--url URL --help` those for servers."""


def conformance(context: typer.Context) -> None:
    """Run the conformance suite: `--backend NAME` (may be repeated), `--conformance-report FILE`, any pytest option.

    `isotoken conformance --url URL` tests a running server instead, through its HTTP API.

    `isotoken conformance levels` certifies over 20,000 tokens how far backends agree, with negative controls.

    `isotoken conformance matrix REPORT...` draws the table of what each backend does from such reports.
    """
    arguments = [argument for argument in context.args if argument != "--"]
    if context.args in (["--help"], ["-h"]):
        typer.echo(_HELP)
    elif arguments[:1] == ["matrix"]:
        from ...conformance import matrix  # noqa: PLC0415

        raise typer.Exit(matrix.main(arguments[1:]))
    elif arguments[:1] == ["levels"]:
        from ...conformance import levels_command  # noqa: PLC0415

        raise typer.Exit(levels_command.main(arguments[1:]))
    else:
        from ...conformance import run  # noqa: PLC0415

        raise typer.Exit(run(arguments))
