"""Importing is light: what a fresh interpreter has in sys.modules after an import is checked."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from importlib.metadata import entry_points

import isotoken.core
import pytest

ENGINES = {"torch", "onnx", "onnxruntime", "tensorrt", "triton", "jax"}
TEXT_AND_HTTP = {"tokenizers", "transformers", "jinja2", "litestar", "uvicorn", "granian", "prometheus_client"}
BY_TYPER = {"pydantic", "rich"}  # which newer versions of Typer import by themselves, the latter to draw the help
HEAVY = ENGINES | TEXT_AND_HTTP | {"pydantic", "msgspec", "huggingface_hub", "httpx", "rich"}


STRANGERS = any(each.dist and each.dist.name != "isotoken" for each in entry_points(group="isotoken"))
LISTING = HEAVY - BY_TYPER if STRANGERS else (HEAVY | {"numpy", "safetensors"}) - BY_TYPER  # theirs may need numpy


def modules_after(code: str) -> set[str]:
    """Run code in a fresh interpreter and return the top-level names of what was imported."""
    report = "\nimport json, sys; print('\\n' + json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stdout.splitlines()[-1]))


def isotoken_modules_after(code: str) -> set[str]:
    report = "\nimport json, sys; print(json.dumps([m for m in sys.modules if m.startswith('isotoken.')]))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_isotoken_imports_next_to_nothing() -> None:
    loaded = modules_after("import isotoken")
    assert loaded & (HEAVY | {"numpy", "pluggy", "safetensors"}) == set()
    assert isotoken_modules_after("import isotoken") == set()


def test_the_public_names_are_there_on_first_use() -> None:
    loaded = modules_after("import isotoken; isotoken.SamplingParams(max_tokens=1); assert isotoken.__version__")
    assert loaded & (ENGINES | {"litestar", "uvicorn", "transformers"}) == set()


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'LLMs'"):
        isotoken.LLMs  # noqa: B018


@pytest.mark.parametrize("module", sorted(m.name for m in pkgutil.iter_modules(isotoken.core.__path__)))
def test_the_core_knows_no_engine_no_text_and_no_http(module: str) -> None:
    loaded = modules_after(f"import isotoken.core.{module}")
    assert loaded & (HEAVY | {"pluggy"}) == set()
    layers = {name.split(".")[1] for name in isotoken_modules_after(f"import isotoken.core.{module}")}
    assert layers == {"core"}


def test_listing_plugins_imports_nothing_heavy() -> None:
    loaded = modules_after("from isotoken.api.cli import main; assert main(['plugins']) == 0")
    assert loaded & LISTING == set()


@pytest.mark.parametrize("arguments", [["--version"], ["plugins", "--json"]])
def test_light_commands_import_no_engine(arguments: list[str]) -> None:
    loaded = modules_after(f"from isotoken.api.cli import main; assert main({arguments!r}) == 0")
    assert loaded & LISTING == set()


def test_the_help_imports_no_engine() -> None:
    loaded = modules_after("from isotoken.api.cli import main; assert main(['serve', '--help']) == 0")
    assert loaded & ((HEAVY | {"numpy"}) - BY_TYPER) == set()


def test_the_api_reaches_no_backend_on_import() -> None:
    loaded = isotoken_modules_after("import isotoken.api.llm, isotoken.api.engine, isotoken.api.server.settings")
    assert not {name for name in loaded if name.startswith("isotoken.backends.")}
