"""A running server's /admin routes, as commands use them: the options that name the server, and one request."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Annotated, Any

import typer

UrlOption = Annotated[
    str, typer.Option("--url", metavar="URL", envvar="ISOTOKEN_URL", show_envvar=False, help="The running server.")
]
KeyOption = Annotated[
    str,
    typer.Option(
        "--key",
        metavar="KEY",
        envvar="ISOTOKEN_API_KEY",
        show_envvar=False,
        help="An admin key, or ISOTOKEN_API_KEY. None: on the server's own machine.",
    ),
]
DEFAULT_URL = "http://127.0.0.1:8000"

_TIMEOUT_S = 60.0


class ServerRefused(ValueError):
    """The server does not do as it was told. The message is the server's own."""


def ask(url: str, key: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Return the JSON of an answer: of GET, or of POST where there is a body.

    Raises ServerRefused with the server's words, and OSError where there is no server.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url.rstrip("/") + path, data, {"Content-Type": "application/json"})
    if key:
        request.add_unredirected_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise ServerRefused(_words(error)) from error
    except urllib.error.URLError as error:
        raise ServerRefused(f"no server answers at {url}: {error.reason}") from error


def _words(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the server answers {error.code} {error.reason}: is it isotoken?"
