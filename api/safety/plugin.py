"""The built-in filters and classifiers, registered through hooks like anyone's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from ...plugins.hookspecs import Register, hookimpl
from .filters import Classifier, FilterContext, FilterFactory, MakeFilter

ISOTOKEN_API = "1.3"


def _later(module: str, name: str) -> FilterFactory:
    """Return a factory that imports what it makes when it is called, so that listing plugins imports nothing."""

    def factory(options: Mapping[str, Any], context: FilterContext) -> MakeFilter:
        made: Callable[..., MakeFilter] = getattr(import_module(f"{__package__}.{module}"), name)
        return made(options, context)

    return factory


def _lexicon() -> Classifier:
    from .lexicon import LexiconClassifier  # noqa: PLC0415

    return LexiconClassifier()


@hookimpl
def register_filters(register: Register) -> None:
    """Claim pii, block_list, length, repetition and moderation."""
    register("pii", _later("pii", "pii"), description="e-mail, phones, cards, IBANs, keys: redact, block or flag")
    register("block_list", _later("block_list", "block_list"), description="words, phrases and RE2 patterns")
    register("length", _later("guards", "length"), description="texts that are too long")
    register("repetition", _later("guards", "repetition"), description="outputs that go round in circles")
    register("moderation", _later("moderation", "moderation"), description="a classifier reads each sentence")


@hookimpl
def register_classifiers(register: Register) -> None:
    """Claim lexicon."""
    register("lexicon", _lexicon, description="English phrases with weights, OpenAI's categories")
