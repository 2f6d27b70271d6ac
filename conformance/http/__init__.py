"""The suite over a running server: black-box behaviours of the HTTP API, so that a deployment can be checked."""

from __future__ import annotations

from collections.abc import Sequence

from .settings import parse


def run(argv: Sequence[str]) -> int:
    """Run the suite over the server that `--url` names; what the suite does not know goes to pytest."""
    settings, rest = parse(argv)
    if any(arg.startswith(("-n", "--numprocesses")) for arg in rest):
        print("the suite over a server runs in one process, which sends many requests at once: leave -n out")
        return 4
    try:
        import httpx  # noqa: F401, PLC0415  (needed for this alone, as pytest is)
        import pytest  # noqa: PLC0415
    except ModuleNotFoundError as error:
        print(f"the suite over a server needs {error.name}: pip install 'isotoken[conformance]'")
        return 4
    from .session import Session  # noqa: PLC0415

    quiet = ["-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return int(pytest.main(["--pyargs", "isotoken.conformance.http", *quiet, *rest], plugins=[Session(settings)]))
