"""A run over a server: the plugin of pytest that reaches the server, hands it to tests and gathers what they find."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from ..plugin import HTTP
from ..report import PROPERTY
from ..spec import http_behaviours
from .probe import probe
from .report import Collector
from .routes import CHAT, COMPLETIONS, Route
from .server import Server
from .settings import Settings

HERE = Path(__file__).resolve().parent
_EXTENSION = "(isotoken)"  # how SPEC.md marks what goes beyond OpenAI's interface


class Session:
    """Made for one run."""

    def __init__(self, settings: Settings) -> None:
        self.__name__ = HTTP  # what pytest registers it under
        self._settings = settings
        self._server = Server(settings)

    def pytest_configure(self, config: pytest.Config) -> None:
        """Reach the server. Raises UsageError where there is none."""
        config.addinivalue_line("markers", "isotoken_spec(*numbers): behaviours that a test proves")
        if config.option.collectonly:
            return
        self._server.facts = probe(self._server)
        config.pluginmanager.register(Collector(self._settings, self._server), f"{HTTP}-report")

    def pytest_unconfigure(self) -> None:
        """Give back the connections."""
        self._server.close()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the warning filters of whatever project is around out of it."""
        for item in items:
            item.add_marker(pytest.mark.filterwarnings("ignore"))

    @pytest.fixture
    def server(self, request: pytest.FixtureRequest) -> Server:
        """The server; the test is skipped where it is about an extension that another's server need not have."""
        server = self._server
        server.exchanges.clear()
        server.compared = server.near_ties = 0
        sentences = [http_behaviours().get(number, "") for number in _cited(request.node)]
        theirs = not server.facts.is_isotoken and not self._settings.strict
        if theirs and all(sentence.startswith(_EXTENSION) for sentence in sentences):
            pytest.skip(f"an extension of isotoken's; this is a server of {server.facts.owned_by}'s")
        return server

    @pytest.fixture(params=[COMPLETIONS, CHAT], ids=lambda route: route.name)
    def route(self, request: pytest.FixtureRequest, server: Server) -> Iterator[Route]:
        """Each of the two routes that the server offers."""
        server.need(request.param)
        yield request.param

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Note what a test cites and counted; show what was last asked where it failed."""
        report = yield
        if call.when == "call" or report.outcome != "passed":
            server = self._server
            found = {"spec": _cited(item), "compared": server.compared, "near_ties": server.near_ties}
            report.user_properties.append((PROPERTY, json.dumps(found)))
        if report.failed and self._server.exchanges:
            told = "\n".join("\n".join(note) for note in self._server.exchanges)
            report.sections.append(("what was last asked", told))
        return report


def _cited(item: pytest.Item) -> list[str]:
    return [number for mark in item.iter_markers("isotoken_spec") for number in mark.args]
