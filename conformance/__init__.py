"""The conformance suite: what a backend must do, numbered and tested."""

from __future__ import annotations

from collections.abc import Sequence

SUITE_VERSION = "1.1"
"""New behaviours that must pass raise the minor number; a changed meaning raises the major one."""


def run(argv: Sequence[str]) -> int:
    """Run the suite in this process: the same as `pytest --pyargs isotoken.conformance *argv`.

    With `--url` it is the suite over a running server.
    """
    if any(arg.split("=")[0] == "--url" for arg in argv):
        from . import http  # noqa: PLC0415

        return http.run(argv)
    try:
        import pytest  # noqa: PLC0415  (pytest is needed for this alone)
    except ModuleNotFoundError:
        print("the conformance suite runs on pytest: pip install 'isotoken[conformance]' (or pytest alone)")
        return 4
    quiet = ("-W", "ignore::pytest.PytestAssertRewriteWarning")  # the package is imported already: we are in it
    return int(pytest.main([*quiet, "--pyargs", "isotoken.conformance", *argv]))
