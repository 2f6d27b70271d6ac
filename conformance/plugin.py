"""The pytest plugin of the conformance suite: its options, and the way in to the rest when the suite is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

SUITE = Path(__file__).resolve().parent
HTTP = "isotoken-conformance-http"  # the plugin of a run over a server, which has its own tests
_CHOICES = {
    "backend": "backend to test, by the name it is registered under; may be repeated",
    "device": "device to test on, such as cpu or cuda (default: the fastest that the backend declares)",
    "dtype": "compute dtype to test, or all, or NAME:DTYPE for one backend; may be repeated (default: float32)",
    "quantization": "quantised weights to test, such as int8, none, all, or NAME:int8 for one backend; may be repeated",
}


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the options. The short ones are claimed only in a run that uses them on this suite: they are plain words."""
    group = parser.getgroup("isotoken conformance")
    group.addoption("--conformance-report", metavar="FILE", help="write what was found as JSON")
    group.addoption(
        "--conformance-option",
        metavar="K=V",
        action="append",
        default=[],
        help="backend-specific option (RunnerConfig.options); may be repeated",
    )
    config = pluginmanager.get_plugin("pytestconfig")
    args = [str(arg) for arg in config.invocation_params.args] if isinstance(config, pytest.Config) else []
    asked = any(map(_names_suite, args))
    for name, text in _CHOICES.items():
        short = [f"--{name}"] if asked and _uses(args, f"--{name}") else []
        action = {"action": "append", "default": []} if name != "device" else {"default": "auto"}
        group.addoption(*short, f"--conformance-{name}", dest=f"conformance_{name}", help=text, **action)


def _uses(args: list[str], option: str) -> bool:
    return any(arg.split("=")[0] in (option, "-h", "--help") for arg in args)


def _names_suite(arg: str) -> bool:
    """Whether a command-line argument names this suite or a part of it."""
    if arg.startswith("-"):
        return False
    name = arg.split("::", maxsplit=1)[0]
    if name.split(".")[:2] == ["isotoken", "conformance"]:
        return True
    path = Path(name)
    return path.exists() and path.resolve().is_relative_to(SUITE)


def _asked(config: pytest.Config) -> bool:
    return any(_names_suite(str(arg)) for arg in config.invocation_params.args)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks; where the suite is asked for, bring in the rest of it."""
    config.addinivalue_line(
        "markers", "isotoken_spec(*numbers): behaviours of the conformance suite that a test proves"
    )
    config.addinivalue_line("markers", "isotoken_requires(*capabilities): capabilities that a conformance test needs")
    if _asked(config) and not config.pluginmanager.has_plugin(HTTP):
        from . import session  # noqa: PLC0415  (a run without the suite must not pay for it)

        session.start(config)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Keep the suite out of runs that did not ask for it, such as `pytest .` in its own repository."""
    if collection_path == SUITE / "http":
        return None if config.pluginmanager.has_plugin(HTTP) else True
    return True if collection_path == SUITE and not _asked(config) else None
