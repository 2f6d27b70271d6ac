"""A plugin whose engine is not installed is told as that, in one line, and passed over by "auto"."""

from __future__ import annotations

from typing import Any

import pytest
from isotoken.core.capabilities import Capabilities
from isotoken.core.types import Unsupported
from isotoken.plugins.build import EngineConfig
from isotoken.plugins.choice import AUTO_ORDER, choose_backend
from isotoken.plugins.hookspecs import API_VERSION, hookimpl
from isotoken.plugins.manager import Plugins


class Engineless:
    """Claims names for a factory that imports what is not there."""

    ISOTOKEN_API = API_VERSION

    def __init__(self, *names: str) -> None:
        self._names = names

    @hookimpl
    def register_backends(self, register: Any) -> None:
        for name in self._names:
            register(name, self._load)

    def _load(self) -> Any:
        import no_such_engine  # noqa: F401


def test_a_missing_engine_is_told_in_one_line() -> None:
    plugins = Plugins.load([("mine", Engineless("mine"))])
    with pytest.raises(Unsupported) as refused:
        choose_backend(EngineConfig(model="", backend="mine"), plugins, [])
    assert str(refused.value) == (
        "backend mine of (given in code) cannot be used here: No module named 'no_such_engine'; "
        "is what it needs installed?"
    )
    assert isinstance(refused.value.__cause__, ImportError)


def test_auto_passes_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AUTO_ORDER, "cpu", ("mine", "reference"))
    plugins, reasons = Plugins.load([("mine", Engineless("mine"))]), []
    assert choose_backend(EngineConfig(model="", device="cpu"), plugins, reasons)[0] == "reference"


class Elsewhere:
    """A backend that runs on no device that is here."""

    name = "mine"
    capabilities = Capabilities(
        dtypes=frozenset({"float32"}), devices=frozenset(), missing_devices={"cuda": "no driver was found"}
    )


@pytest.mark.parametrize(
    ("device", "installed", "words", "unsaid"),
    [
        ("cuda", True, "no driver was found.*Let this process see the device", "pip install"),
        ("cuda:1", True, "Let this process see the device", "pip install"),
        ("cuda", False, r"pip install torch, in a build for CUDA", "onnxruntime"),
        ("cpu", False, r"isotoken\[onnxruntime\].*backend reference", "CUDA"),
        ("cpu", False, r"a C\+\+ compiler \(g\+\+ or clang\+\+\) and then isotoken anew", "CUDA"),
        ("auto", False, r"isotoken\[onnxruntime\].*backend reference", "CUDA"),
        ("tpu", True, "name the backend for another device", "pip install"),
    ],
)
def test_the_advice_suits_the_device(
    device: str, installed: bool, words: str, unsaid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("cuda", "cpu"):
        monkeypatch.setitem(AUTO_ORDER, kind, ("mine",))
    owner = Engineless("mine")
    if installed:
        monkeypatch.setattr(owner, "_load", Elsewhere)
    plugins = Plugins.load([("mine", owner)])
    with pytest.raises(Unsupported, match=f"(?s){words}") as refused:
        choose_backend(EngineConfig(model="", device=device), plugins, [])
    assert unsaid not in str(refused.value).rpartition("\n")[2]
