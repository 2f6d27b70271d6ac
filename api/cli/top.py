"""`isotoken top`: a server's figures, live in a terminal."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from typing import Annotated

import typer

UrlArgument = Annotated[str, typer.Argument(metavar="URL", help="The server, or its /metrics.")]


def top(
    url: UrlArgument = "http://127.0.0.1:8000",
    interval: Annotated[float, typer.Option(metavar="SEC", min=0.1, help="Between readings.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Read twice, print, and end: for scripts.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --once: print the figures as JSON.")] = False,
    key: Annotated[
        str, typer.Option(metavar="KEY", envvar="ISOTOKEN_API_KEY", help="Where /metrics asks for one.")
    ] = "",
) -> None:
    """Watch a server: latency, throughput, batches, memory, cache hits, tenants and cost. q or Ctrl-C ends it."""
    from rich.console import Console  # noqa: PLC0415

    from ..telemetry.top.scrape import fetch, metrics_url  # noqa: PLC0415
    from ..telemetry.top.screen import Screen  # noqa: PLC0415
    from ..telemetry.top.watch import once as read_twice  # noqa: PLC0415
    from ..telemetry.top.watch import watch  # noqa: PLC0415

    if as_json and not once:
        raise typer.BadParameter("it goes with --once", param_hint="'--json'")
    read = partial(fetch, url, key=key)
    console = Console(highlight=False)
    title = f"isotoken top  {metrics_url(url).removesuffix('/metrics')}"
    if not once:
        watch(read, console, Screen(title), interval)
        return
    found = read_twice(read, interval)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        console.print(Screen(title).draw(found, console.width))
