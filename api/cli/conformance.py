"""`isotoken conformance`: run the suite against backends, or draw the matrix from its reports."""

from __future__ import annotations

import typer


def conformance(context: typer.Context) -> None:
    """Run the conformance suite: `--backend NAME` (may be repeated), `--conformance-report FILE`, any pytest option.

    `isotoken conformance matrix REPORT...` draws the table of what each backend does from such reports.
    """
    from ...conformance.run import main  # noqa: PLC0415

    raise typer.Exit(main(context.args))
