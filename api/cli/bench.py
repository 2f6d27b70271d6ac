"""`isotoken bench`: engines side by side, as a table and as one page of HTML."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .flags import DEFAULT_MODEL, flag

if TYPE_CHECKING:
    from ..bench.results import Report
    from ..bench.run import Plan
    from ..bench.tables import Table

_WHAT, _HOW, _OUT = "What is compared", "How it is measured", "What is written"

_MODEL_HELP = "As for `isotoken serve`, or random-125m, random-500m: made when first needed, for speed alone."


def bench(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=_MODEL_HELP)] = DEFAULT_MODEL,
    backend: Annotated[
        list[str] | None, flag(_WHAT, "Repeatable. None: all installed but reference and null.", metavar="NAME")
    ] = None,
    dtype: Annotated[
        list[str] | None, flag(_WHAT, "Or NAME:DTYPE for one backend. Repeatable.", metavar="DTYPE")
    ] = None,
    quantization: Annotated[
        list[str] | None,
        flag(_WHAT, "Of the weights; none is one. Or NAME:KIND. Repeatable.", metavar="KIND"),
    ] = None,
    scheduler: Annotated[list[str] | None, flag(_WHAT, "Repeatable. None: continuous.", metavar="NAME")] = None,
    workload: Annotated[
        list[str] | None, flag(_WHAT, "W1, W2, W3, W4, prefill, or none. Repeatable. None: all.", metavar="NAME")
    ] = None,
    concurrency: Annotated[
        str, flag(_WHAT, "Streams at the same time, for throughput and latency; or none.", metavar="N,N,...")
    ] = "1,2,4,8,16,32",
    rounds: Annotated[
        int | None,
        flag(_HOW, "After a warm-up; in each every engine runs. None: 3, or 1 with --quick.", metavar="N", least=1),
    ] = None,
    quick: Annotated[bool, flag(_HOW, "A look in a fraction of the time: a part of each workload.", "--quick")] = False,
    device: Annotated[str, flag(_HOW, "cpu, cuda, cuda:1, ...", metavar="NAME")] = "auto",
    num_threads: Annotated[int, flag(_HOW, "CPU threads. 0: one for each CPU.", metavar="N", least=0)] = 0,
    html: Annotated[Path | None, flag(_OUT, "One page with charts; it needs nothing else.", metavar="FILE")] = None,
    as_json: Annotated[Path | None, flag(_OUT, "The figures, to compare with.", "--json", metavar="FILE")] = None,
    compare: Annotated[
        Path | None, flag(_OUT, "A file of --json, or of `pytest benchmarks`: what changed since.", metavar="FILE")
    ] = None,
) -> None:
    """Compare engines: every combination of backend, dtype, quantization and scheduler that is asked for.

    Tokens are checked against the reference before anything is timed, rounds run in turns, and the machine's own
    limits are measured beside them. Exit code 1 if an engine's tokens are wrong.
    """
    from ...plugins.manager import Plugins  # noqa: PLC0415  (each command imports what it needs)
    from ..bench.compare import load_results  # noqa: PLC0415
    from ..bench.run import QUICK_SHARE, Plan, run  # noqa: PLC0415
    from ..bench.workloads import ALL_WORKLOADS  # noqa: PLC0415

    then = None if compare is None else load_results(compare)
    plan = Plan(
        model=model,
        backends=backend or (),
        dtypes=dtype or (),
        quantizations=quantization or (),
        schedulers=scheduler or ("continuous",),
        workloads=_workloads(workload, ALL_WORKLOADS),
        concurrencies=_counts(concurrency),
        rounds=rounds or (1 if quick else 3),
        share=QUICK_SHARE if quick else 1,
        device=device,
        threads=num_threads,
        command=shlex.join(["isotoken", *sys.argv[1:]]),
    )
    plugins = Plugins.load()
    with _progress(plan, len(plan.variants(plugins))) as tell:
        report = run(plan, plugins, tell)
    since = None
    if compare is not None and then is not None:
        from ..bench.compare import compare as compare_results  # noqa: PLC0415
        from ..bench.compare import unlike  # noqa: PLC0415
        from ..bench.tables import change_table  # noqa: PLC0415

        since = change_table(compare_results(then, report.results), str(compare), unlike(compare, report))
    _show(report, since)
    _write(report, since, html, as_json)
    if not report.ok:
        raise typer.Exit(1)


def _workloads(names: list[str] | None, known: tuple[str, ...]) -> list[str]:
    if unknown := [name for name in names or () if name not in (*known, "none")]:
        raise typer.BadParameter(f"unknown {unknown[0]!r}: one of {', '.join(known)}, none", param_hint="--workload")
    return [name for name in names or known if name != "none"]


def _counts(text: str) -> list[int]:
    try:
        counts = [] if text == "none" else [int(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if any(count < 1 for count in counts):
        raise typer.BadParameter(f"{text!r} is not of the form 1,2,4", param_hint="--concurrency")
    return sorted(set(counts))


@contextmanager
def _progress(plan: Plan, num_variants: int) -> Iterator[Callable[[str], None]]:
    """Show what is being done on stderr: a bar on a terminal, a line for each part elsewhere."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    console = Console(stderr=True)
    if not console.is_terminal:
        told: set[str] = set()

        def say(text: str) -> None:
            part = text.partition(":")[0]
            if part not in told:
                told.add(part)
                print(part, file=sys.stderr, flush=True)

        yield say
        return
    columns = (
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=plan.num_steps(num_variants))
        yield lambda text: bar.update(task, advance=1, description=text)


def _show(report: Report, since: Table | None) -> None:
    from rich.console import Console  # noqa: PLC0415

    from ..bench.tables import disturbance, facts, rich_table, stream_table, workload_tables  # noqa: PLC0415

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    if disturbed := disturbance(report):
        console.print(f"{disturbed}\n", markup=False, style="yellow")
    for table in workload_tables(report.results):
        console.print(rich_table(table), "")
    if report.points:
        console.print(rich_table(stream_table(report.points)), "")
    if since is not None:
        console.print(rich_table(since), "")
    for name, value in facts(report):
        console.print(f"{name:<16} {value}", markup=False, soft_wrap=True)
    for reason in report.left_out:
        console.print(f"left out: {reason}", markup=False, soft_wrap=True)


def _write(report: Report, since: Table | None, html: Path | None, as_json: Path | None) -> None:
    if html is not None:
        from ..bench.page import write_page  # noqa: PLC0415

        write_page(report, html, since)
    if as_json is not None:
        report.save(as_json)
    for path in filter(None, (html, as_json)):
        print(f"written: {path}", file=sys.stderr)
