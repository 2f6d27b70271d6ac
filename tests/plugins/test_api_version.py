"""Which plugins fit the plugin API of this isotoken, and what the others are told to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from isotoken.plugins import api_version
from isotoken.plugins.api_version import SPOKEN_BY, misfit, stated_in_source
from isotoken.plugins.hookspecs import API_VERSION
from isotoken.plugins.manager import PluginError, Plugins

MAJOR, MINOR = map(int, API_VERSION.split("."))
PLUGIN = """
from isotoken.plugins.hookspecs import hookimpl

{statement}

@hookimpl
def register_schedulers(register):
    register("lottery", object)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Lay down a distribution isotoken-lottery with a plugin of the same name."""

    def lay_down(source: str) -> None:
        module = f"lottery_{abs(hash(source))}"  # each its own: Python keeps what it has imported
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / "isotoken_lottery-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: isotoken-lottery\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[isotoken]\nlottery = {module}\n")

    monkeypatch.syspath_prepend(str(tmp_path))
    return lay_down


def error_of(statement: str, install: object, head: str = "") -> str | None:
    install(head + PLUGIN.format(statement=statement))  # type: ignore[operator]
    plugins = Plugins.load()
    (info,) = [info for info in plugins.infos if info.name == "lottery"]
    assert ("lottery" in plugins.schedulers) == (info.error is None)
    return info.error


@pytest.mark.parametrize("minor", range(MINOR + 1))
def test_this_minor_version_and_those_before_it_are_welcome(minor: int, install: object) -> None:
    assert error_of(f'ISOTOKEN_API = "{MAJOR}.{minor}"', install) is None


def test_a_newer_minor_version_is_refused_and_told_to_update_isotoken(install: object) -> None:
    error = error_of(f'ISOTOKEN_API = "{MAJOR}.{MINOR + 2}"', install)
    assert f"needs plugin API {MAJOR}.{MINOR + 2}, this isotoken" in error
    assert f"has {API_VERSION}: update isotoken (pip install --upgrade isotoken)" in error
    assert f"uses nothing newer than {API_VERSION} can state that" in error


def test_a_newer_major_version_is_refused_and_told_both_ways_out(install: object) -> None:
    error = error_of(f'ISOTOKEN_API = "{MAJOR + 1}.0"', install)
    assert "update isotoken (pip install --upgrade isotoken)" in error
    assert f"older version of isotoken-lottery, one for plugin API {MAJOR}" in error


def test_an_older_major_version_is_told_which_isotoken_speaks_it() -> None:
    reason = misfit("lottery", "isotoken-lottery", "1.4", ours="2.1")
    assert "needs plugin API 1.4, this isotoken" in reason
    assert "has 2.1: update the plugin (pip install --upgrade isotoken-lottery)" in reason
    assert f'or install an isotoken for plugin API 1 (pip install "{SPOKEN_BY[1]}")' in reason


def test_an_older_major_version_that_no_isotoken_spoke() -> None:
    assert misfit("lottery", "isotoken-lottery", "0.4").endswith("(pip install --upgrade isotoken-lottery)")


def test_minor_numbers_are_numbers() -> None:
    assert misfit("lottery", "isotoken-lottery", "1.9", ours="1.10") is None
    assert "needs plugin API 1.10" in misfit("lottery", "isotoken-lottery", "1.10", ours="1.9")


@pytest.mark.parametrize("statement", ["", "ISOTOKEN_API = None"])
def test_a_plugin_without_a_version_is_told_what_to_add(statement: str, install: object) -> None:
    assert f'must state the plugin API that it needs: add ISOTOKEN_API = "{API_VERSION}"' in error_of(
        statement, install
    )


@pytest.mark.parametrize("stated", ["1", "1.0", "'1'", "'1.x'", "'v1.0'", "'1.0.0'", "'01.0'", "('1', '0')", "''"])
def test_an_ill_formed_version_is_told_the_form(stated: str, install: object) -> None:
    error = error_of(f"ISOTOKEN_API = {stated}", install)
    assert "states ISOTOKEN_API = " in error
    assert f'two numbers, such as "{API_VERSION}"' in error


def test_a_failed_import_of_a_plugin_for_another_api_is_told_as_that(install: object) -> None:
    head = "from isotoken.core.batch import SomethingOfTheFuture\n"
    error = error_of(f'ISOTOKEN_API: str = "{MAJOR}.{MINOR + 1}"', install, head=head)
    assert f"needs plugin API {MAJOR}.{MINOR + 1}" in error


def test_a_failed_import_of_a_plugin_for_this_api_is_told_as_it_is(install: object) -> None:
    error = error_of(f'ISOTOKEN_API = "{API_VERSION}"', install, head="import no_such_engine\n")
    assert error == "ModuleNotFoundError: No module named 'no_such_engine'"


def test_asking_for_what_a_misfit_would_provide_says_what_to_do(install: object) -> None:
    error_of('ISOTOKEN_API = "9.0"', install)
    with pytest.raises(PluginError, match=re.escape("update isotoken (pip install --upgrade isotoken)")):
        Plugins.load().schedulers.get_factory("lottery")


@pytest.mark.parametrize("module", ["no_such_module", "no_such_package.plugin", "sys"])
def test_a_module_without_source_states_nothing(module: str) -> None:
    assert stated_in_source(module) is None


def test_every_major_version_up_to_ours_says_which_isotoken_speaks_it() -> None:
    assert set(SPOKEN_BY) == set(range(1, MAJOR + 1))


def test_the_documentation_quotes_the_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_version, "version", lambda name: "0.1.0")
    page = (Path(api_version.__file__).parents[1] / "docs" / "plugins.md").read_text()
    (quoted,) = re.findall(r"<!-- said by: plugins/api_version.py -->\n```text\n(.*?)```", page, re.DOTALL)
    said = [misfit("mine", "isotoken-mine", stated, ours="1.1") for stated in (None, 1, "1.3", "2.0", "0.4")]
    assert quoted.splitlines() == said
