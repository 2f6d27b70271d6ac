"""What the suite over a server is told on its command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Which server, and how strictly to judge it."""

    url: str  # without a slash or /v1 at its end
    model: str | None = None  # None: the first that the server lists
    api_key: str | None = None
    report: str | None = None  # file for the JSON report
    strict: bool = False  # nothing may be absent, whoever made the server
    near_tie: float | None = None  # log-probabilities this close may fall either way; None: by what the server says
    timeout: float = 120.0  # seconds without a byte


def parse(argv: Sequence[str]) -> tuple[Settings, list[str]]:
    """Return the settings and the arguments that are pytest's."""
    parser = argparse.ArgumentParser(
        prog="isotoken conformance --url URL",
        description="Check a running server. Any option of pytest may follow: -k stream, -x, -q, ...",
        allow_abbrev=False,
    )
    parser.add_argument("--url", type=_url, required=True, help="where the server is, such as http://127.0.0.1:8000")
    parser.add_argument("--model", metavar="NAME", help="default: the first that the server lists")
    parser.add_argument("--api-key", metavar="KEY", help="sent as a bearer token, and shown nowhere")
    parser.add_argument("--report", "--conformance-report", metavar="FILE", help="write what was found as JSON")
    parser.add_argument(
        "--strict", action="store_true", help="fail what the server lacks, instead of calling it absent"
    )
    parser.add_argument(
        "--near-tie",
        type=float,
        metavar="NATS",
        help="let tokens whose log-probabilities lie this close fall either way in another batch; each is counted "
        "(default: 0, no such excuse, unless the server says that its engine is not batch-invariant)",
    )
    parser.add_argument(
        "--timeout", type=float, default=120.0, metavar="SECONDS", help="give up on silence (default 120)"
    )
    known, rest = parser.parse_known_args([arg for arg in argv if arg != "--"])
    return Settings(**vars(known)), rest


def _url(text: str) -> str:
    """Return a base URL in one form. Raises ArgumentTypeError for what is none."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise argparse.ArgumentTypeError(f"{text!r} is no URL: expected one such as http://127.0.0.1:8000")
    return text.rstrip("/").removesuffix("/v1").rstrip("/")
