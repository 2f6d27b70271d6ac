"""A run of the suite: which targets, which tests for them, what may fail, and what is reported."""

from __future__ import annotations

import fnmatch
import json
import sys
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path

import pytest

from ..core.capabilities import Exclusion
from ..core.interfaces import Backend
from ..core.types import Unsupported
from ..plugins.manager import PluginError, Plugins
from .judge import Tally
from .lab import Lab
from .plugin import SUITE
from .report import PROPERTY, Collector, describe
from .spec import behaviours
from .targets import QUANTIZATIONS, Target, wanted_dtypes, wanted_quantizations

_STATE = pytest.StashKey["Run"]()


class Run:
    """What a session holds: plugins, targets, a lab for each target in use, and the results."""

    def __init__(self, config: pytest.Config) -> None:
        self.plugins = Plugins.load()
        self.backends: dict[str, Backend] = {}
        self.targets = self._targets(config)
        self.labs: dict[Target, Lab] = {}
        self.exclusions = {name: self._exclusions(name) for name in self.backends}
        described = [describe(t, self.backends[t.backend], self.plugins) for t in self.targets]
        self.collector = Collector(described, config.option.conformance_report)

    def _targets(self, config: pytest.Config) -> list[Target]:
        options = config.option
        if not options.conformance_backend:
            raise pytest.UsageError(f"which backend? --backend NAME; installed: {', '.join(self.plugins.backends)}")
        pairs = [pair.partition("=") for pair in options.conformance_option]
        settings = tuple((key, value) for key, _, value in pairs)
        targets = []
        for name in dict.fromkeys(options.conformance_backend):
            try:
                self.backends[name] = self.plugins.backends.get_factory(name)()
            except (PluginError, Unsupported, ImportError) as error:
                raise pytest.UsageError(f"backend {name}: {error}") from error
            can = self.backends[name].capabilities
            dtypes = wanted_dtypes(name, can.dtypes, options.conformance_dtype)
            if not dtypes:
                raise pytest.UsageError(f"backend {name} declares {sorted(can.dtypes)}, none of the dtypes asked for")
            forms = wanted_quantizations(name, can.quantizations, options.conformance_quantization)
            if not forms:
                raise pytest.UsageError(
                    f"backend {name} declares the quantizations {sorted(can.quantizations)}, none of those asked for "
                    f"among them, or none that SPEC.md defines ({', '.join(QUANTIZATIONS)})"
                )
            targets += [
                Target(backend=name, dtype=d, quantization=q, device=options.conformance_device, options=settings)
                for d in dtypes
                for q in forms
            ]
        return targets

    def _exclusions(self, backend: str) -> list[Exclusion]:
        return [e for found in self.plugins.hook.conformance_exclusions(backend=backend) for e in found or ()]

    def lab(self, target: Target, folder: Path) -> Lab:
        """Return the lab of a target; only one target's runners are kept loaded."""
        if target not in self.labs:
            for other in self.labs.values():
                other.close()
            self.labs[target] = Lab(target, self.plugins, folder)
        return self.labs[target]


def start(config: pytest.Config) -> None:
    """Set the session up and register this module as a plugin."""
    run = config.stash[_STATE] = Run(config)
    config.pluginmanager.register(sys.modules[__name__], "isotoken-conformance-session")
    config.pluginmanager.register(run.collector, "isotoken-conformance-report")


def _ours(node: pytest.Item) -> bool:
    return node.path.resolve().parent == SUITE


def _target(item: pytest.Item) -> Target | None:
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("isotoken_target") if callspec else None


def _cited(item: pytest.Item) -> list[str]:
    return [number for mark in item.iter_markers("isotoken_spec") for number in mark.args]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test of the suite for every target."""
    if "isotoken_target" in metafunc.fixturenames and _ours(metafunc.definition):
        targets = metafunc.config.stash[_STATE].targets
        metafunc.parametrize("isotoken_target", targets, ids=str, indirect=True, scope="session")


@pytest.fixture(scope="session")
def isotoken_target(request: pytest.FixtureRequest) -> Target:
    """The backend, dtype and device under test."""
    target: Target = request.param
    return target


@pytest.fixture(scope="session")
def isotoken_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the suite's checkpoints are written."""
    return tmp_path_factory.mktemp("isotoken-models")


@pytest.fixture
def lab(request: pytest.FixtureRequest, isotoken_target: Target, isotoken_models: Path) -> Lab:
    """The lab of the target, with an empty tally."""
    lab = request.config.stash[_STATE].lab(isotoken_target, isotoken_models)
    lab.tally = Tally()
    for mark in request.node.iter_markers("isotoken_requires"):
        lab.need(*mark.args)
    return lab


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Turn exclusions into strict xfails, and keep the caller's warning filters out of it."""
    run, mine = config.stash[_STATE], [item for item in items if _ours(item)]
    for item in mine:
        item.add_marker(pytest.mark.filterwarnings("ignore"))
    whole = any(str(arg) in ("isotoken.conformance", str(SUITE)) for arg in config.args)
    for backend, exclusions in run.exclusions.items():
        for exclusion in exclusions:
            hits = [item for item in mine if _matches(exclusion, backend, item)]
            run.collector.excluded[f"{backend}: exclusion {exclusion.test!r}"] = {item.nodeid for item in hits}
            for item in hits:
                reason = f"excluded by the plugin: {exclusion.reason} {exclusion.issue}".rstrip()
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
            known = exclusion.test in behaviours()
            if not hits and (whole or not known):
                run.collector.problems.append(
                    f"{backend}: exclusion {exclusion.test!r} matches no test: remove or correct it"
                )


def _matches(exclusion: Exclusion, backend: str, item: pytest.Item) -> bool:
    target = _target(item)
    if target is None or target.backend != backend:
        return False
    return exclusion.test in _cited(item) or fnmatch.fnmatchcase(item.nodeid, exclusion.test)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach what was measured to the test's report, in values that travel between processes."""
    report = yield
    target = _target(item)
    if target is not None and _ours(item) and (call.when == "call" or report.outcome != "passed"):
        lab = item.config.stash[_STATE].labs.get(target)
        found = {"target": str(target), "spec": _cited(item), "tally": asdict(lab.tally) if lab else {}}
        report.user_properties.append((PROPERTY, json.dumps(found)))
    return report
