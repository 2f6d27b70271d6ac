"""Plugins are found by entry point, own names exclusively, and their failures are remembered."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from isotoken.api.cli import main
from isotoken.plugins import manager
from isotoken.plugins.hookspecs import API_VERSION, hookimpl, hookspec
from isotoken.plugins.manager import PluginError, Plugins


def install(site: Path, distribution: str, plugin: str, source: str, version: str = "1.0") -> None:
    """Lay down what pip would: a module, and dist-info with an entry point in the group "isotoken"."""
    module = f"{distribution.replace('-', '_')}_module"
    (site / f"{module}.py").write_text(source)
    info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[isotoken]\n{plugin} = {module}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder that Python takes for site-packages during the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.endswith("_module"):
            del sys.modules[name]


class Given:
    """A plugin as an object: claims the names it is given."""

    ISOTOKEN_API = API_VERSION

    def __init__(self, *names: str, factory: Any = None) -> None:
        self._names, self._factory = names, factory

    @hookimpl
    def register_schedulers(self, register: Any) -> None:
        for name in self._names:
            register(name, self._factory or object, description=f"the scheduler {name}")


GOOD = """
from isotoken.plugins.hookspecs import hookimpl

ISOTOKEN_API = "1.0"

@hookimpl
def register_schedulers(register):
    register("lottery", lambda kv_cache, config: "a scheduler", description="draws lots")
"""


def info_of(plugins: Plugins, name: str) -> Any:
    (info,) = [info for info in plugins.infos if info.name == name]
    return info


def test_a_plugin_is_found_by_its_entry_point(site: Path) -> None:
    install(site, "isotoken-lottery", "lottery", GOOD, version="2.5")
    plugins = Plugins.load()
    assert plugins.schedulers.get_factory("lottery")(None, None) == "a scheduler"
    assert plugins.schedulers["lottery"].description == "draws lots"
    assert "lottery" in plugins.schedulers
    assert "raffle" not in plugins.schedulers
    assert plugins.schedulers.get("raffle") is None
    info = info_of(plugins, "lottery")
    assert (info.distribution, info.version, info.provides) == ("isotoken-lottery", "2.5", ["scheduler lottery"])
    assert info.error is None


def test_the_built_ins_come_in_by_the_same_door() -> None:
    plugins = Plugins.load()
    owners = {info.distribution for info in plugins.infos if info.name in ("builtin", "reference", "torch")}
    assert owners == {"isotoken"}
    assert {"reference", "torch"} <= set(plugins.backends)
    assert {"continuous", "adaptive", "naive", "static"} <= set(plugins.schedulers)
    assert {"paged", "contiguous"} <= set(plugins.kv_caches)
    assert {"ngram", "model"} <= set(plugins.drafters)
    assert not [info for info in plugins.infos if info.distribution == "isotoken" and info.error]


def test_two_owners_of_a_name_are_refused_and_both_named(site: Path) -> None:
    install(site, "isotoken-lottery", "lottery", GOOD)
    install(site, "isotoken-raffle", "raffle", GOOD)
    plugins = Plugins.load()
    with pytest.raises(PluginError, match="claimed by") as refused:
        plugins.schedulers.get_factory("lottery")
    assert "isotoken-lottery" in str(refused.value)
    assert "isotoken-raffle" in str(refused.value)
    assert set(plugins.schedulers.conflicts()) == {"lottery"}


def test_a_built_in_name_cannot_be_taken_over(site: Path) -> None:
    install(site, "isotoken-usurper", "usurper", GOOD.replace('"lottery"', '"continuous"'))
    with pytest.raises(PluginError, match=r"isotoken .*isotoken-usurper|isotoken-usurper .*isotoken "):
        Plugins.load().schedulers.get_factory("continuous")


def test_a_misspelt_hook_is_an_error(site: Path) -> None:
    install(site, "isotoken-typo", "typo", GOOD.replace("register_schedulers", "register_shedulers"))
    info = info_of(Plugins.load(), "typo")
    assert "register_shedulers" in info.error
    assert info.error.endswith("did you mean 'register_schedulers'?")
    assert info.provides == []


def test_a_hook_with_a_misspelt_argument_is_an_error(site: Path) -> None:
    install(site, "isotoken-typo", "typo", GOOD.replace("(register)", "(registrar)"))
    info = info_of(Plugins.load(), "typo")
    assert "registrar" in info.traceback
    assert "registrar" in info.error  # the reason, which pluggy tells in its third line
    assert "\n" not in info.error


def test_a_failed_import_is_remembered_with_its_traceback_and_harms_nobody(site: Path) -> None:
    install(site, "isotoken-broken", "broken", "import no_such_engine\n")
    install(site, "isotoken-lottery", "lottery", GOOD)
    plugins = Plugins.load()
    info = info_of(plugins, "broken")
    assert info.error == "ModuleNotFoundError: No module named 'no_such_engine'"
    assert "isotoken_broken_module.py" in info.traceback
    assert "lottery" in set(plugins.schedulers)


def test_asking_for_a_failed_plugin_says_why(site: Path) -> None:
    install(site, "isotoken-broken", "mytorch", "import no_such_engine\n")
    with pytest.raises(PluginError) as refused:
        Plugins.load().backends.get_factory("mytorch")
    assert str(refused.value) == (
        "no backend 'mytorch'; plugin 'mytorch' of isotoken-broken failed to load: "
        "ModuleNotFoundError: No module named 'no_such_engine'; `isotoken plugins --verbose` shows the traceback"
    )


def test_an_unknown_name_tells_of_failed_plugins_that_may_have_claimed_it(site: Path) -> None:
    install(site, "isotoken-broken", "broken", "import no_such_engine\n")
    with pytest.raises(PluginError, match=r"unknown backend 'other'; installed: .*torch.*no_such_engine.*--verbose"):
        Plugins.load().backends.get_factory("other")


def test_an_exception_while_registering_takes_back_every_claim(site: Path) -> None:
    install(site, "isotoken-half", "half", GOOD + "    raise RuntimeError('half way')\n")
    plugins = Plugins.load()
    assert "half way" in info_of(plugins, "half").error
    assert "lottery" not in set(plugins.schedulers)


def test_an_unknown_name_lists_what_there_is_and_the_nearest() -> None:
    with pytest.raises(PluginError, match=r"unknown scheduler 'continous'; installed: .*continuous") as refused:
        Plugins.load().schedulers.get_factory("continous")
    assert "did you mean 'continuous'?" in str(refused.value)


def test_plugins_can_be_given_in_code() -> None:
    plugins = Plugins.load([("mine", Given("lottery", "raffle", factory=dict))])
    assert plugins.schedulers.get_factory("raffle") is dict
    assert info_of(plugins, "mine").provides == ["scheduler lottery", "scheduler raffle"]


def test_loading_twice_shares_nothing() -> None:
    Plugins.load([("mine", Given("lottery"))])
    assert "lottery" not in set(Plugins.load().schedulers)


def test_hooks_reach_every_plugin() -> None:
    seen: list[tuple[str, Any]] = []

    class Observer(Given):
        @hookimpl
        def on_step(self, stats: Any) -> None:
            seen.append((self._names[0], stats))

    Plugins.load([("a", Observer("one")), ("b", Observer("two"))]).hook.on_step(stats=7)
    assert sorted(seen) == [("one", 7), ("two", 7)]


def test_routes_come_only_from_plugins_enabled_by_name() -> None:
    class Routes(Given):
        @hookimpl
        def api_routes(self) -> list[str]:
            return [f"/{self._names[0]}"]

    plugins = Plugins.load([("a", Routes("one")), ("b", Routes("two"))])
    assert plugins.routes([]) == []
    assert plugins.routes(["b"]) == ["/two"]
    with pytest.raises(PluginError, match="'c'"):
        plugins.routes(["c"])


def test_a_deprecated_hook_is_told_and_works(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the next minor version of the plugin API would deprecate one."""
    hooks = ModuleType("hooks of the future")
    vars(hooks).update(vars(manager.hookspecs))
    notice = "register_schedulers goes in plugin API 2.0: use register_planners"

    def register_schedulers(register: Any) -> None: ...

    hooks.register_schedulers = hookspec(warn_on_impl=DeprecationWarning(notice))(register_schedulers)
    monkeypatch.setattr(manager, "hookspecs", hooks)
    install(site, "isotoken-lottery", "lottery", GOOD)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pluggy's own
        assert info_of(Plugins.load(), "lottery").deprecations == [notice]
        assert info_of(Plugins.load(), "lottery").api == "1.0"
        assert "lottery" in Plugins.load().schedulers
        assert main(["plugins", "--verbose"]) == 0
    said = capsys.readouterr().out.split("lottery  (isotoken-lottery 1.0)")[1]
    assert f"  deprecated: {notice}\n  plugin API 1.0\n" in said


def test_a_plugin_may_be_any_module() -> None:
    module = ModuleType("lone")
    module.ISOTOKEN_API = API_VERSION  # type: ignore[attr-defined]
    info = info_of(Plugins.load([("lone", module)]), "lone")
    assert (info.error, info.provides, info.hooks) == (None, [], [])
