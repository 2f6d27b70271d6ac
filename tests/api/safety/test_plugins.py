"""Anyone's filter: the documentation's works as it stands there; a classifier comes in by the same door."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isotoken.api.engine import GenerationDelta
from isotoken.api.safety.outputs import OutputFilters
from isotoken.api.safety.safety import Safety
from isotoken.api.safety.settings import SafetySettings
from isotoken.api.text import TextModel
from isotoken.plugins.hookspecs import Register, hookimpl
from isotoken.plugins.manager import Plugins

from .conftest import cut, write_model
from .test_chain import fed
from .texts import in_pieces, whole

DOCS = Path(__file__).resolve().parents[3] / "docs" / "safety.md"


class Contrary:
    """A classifier that objects to everything."""

    ISOTOKEN_API = "1.3"
    name = "contrary-1"
    categories = ("bad",)

    def classify(self, texts: Sequence[str]) -> list[dict[str, float]]:
        return [{"bad": 1.0} for _ in texts]

    @hookimpl
    def register_classifiers(self, register: Register) -> None:
        register("contrary", Contrary)


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    """Those that are installed, the documentation's, and one with a classifier."""
    (source,) = [code for code in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL) if "hookimpl" in code]
    module = ModuleType("no_shouting")
    exec(compile(source, str(DOCS), "exec"), module.__dict__)
    return Plugins.load([("no_shouting", module), ("contrary", Contrary())])


def made(plugins: Plugins, **policy: object) -> Safety:
    return Safety(SafetySettings(default=policy), plugins)


@settings(max_examples=60, deadline=None)
@given(text=st.text("ab! ", max_size=20), cuts=st.lists(st.integers(0, 20), max_size=6))
def test_the_filter_of_the_documentation(plugins: Plugins, text: str, cuts: list[int]) -> None:
    (make,) = made(plugins, outputs=[{"filter": "no_shouting"}])._default.outputs
    assert whole(make(), text)[0] == re.sub("!+", ".", text)
    assert in_pieces(make(), text, cuts) == whole(make(), text)


def test_its_edits_withhold_tokens(plugins: Plugins) -> None:
    from isotoken.api.safety.chain import Chain

    (make,) = made(plugins, outputs=[{"filter": "no_shouting"}])._default.outputs
    text, tokens = fed(Chain([make()]), ["Hi", "!", "!!", " you", "!"])
    assert text == "Hi. you."
    assert [token.token_id for token in tokens] == [0, 3]


def test_a_classifier_of_a_plugin(plugins: Plugins) -> None:
    (make,) = made(plugins, outputs=[{"filter": "moderation", "classifier": "contrary"}])._default.outputs
    assert whole(make(), "Anything.") == ("", "it was judged as bad")


def test_choices_are_filtered_each_for_itself(plugins: Plugins, tmp_path: Path) -> None:
    """One that is blocked stays silent from then on, and keeps nobody else from going on."""
    import numpy as np

    text = TextModel.load(write_model(tmp_path / "one", [cut("a text", np.random.default_rng(1))]))
    makers = made(plugins, outputs=[{"filter": "block_list", "words": ["stop"]}])._default.outputs
    told: list[object] = []
    filters = OutputFilters(makers, text, True, told.extend)
    filters.with_tokens = False
    assert filters.feed(0, GenerationDelta(index=0, text="a stop ")).finish_reason == "content_filter"  # type: ignore[union-attr]
    assert filters.feed(0, GenerationDelta(index=0, text="more", finish_reason="stop")) is None
    going = filters.feed(1, GenerationDelta(index=1, text="a sto"))
    assert going is not None
    assert going.text == "a "
    last = filters.feed(1, GenerationDelta(index=1, text="ry", finish_reason="length"))
    assert last is not None
    assert (last.text, last.finish_reason) == ("story", "length")
    assert len(told) == 1
