"""Damaged checkpoints and configurations are refused in words, and at once: none hangs, crashes or is taken."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.timeout(60)  # for what hangs


def _damage() -> ModuleType:
    spec = importlib.util.spec_from_file_location("damage", Path(__file__).with_name("damage.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


damage = _damage()
PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text()


@pytest.mark.parametrize("kind", damage.MODELS)
def test_a_damaged_model_folder_is_refused_in_words(kind: str, tmp_path: Path) -> None:
    check(kind, damage.what_is_said(damage.refuse_model, kind, tmp_path))


@pytest.mark.parametrize("kind", damage.CONFIGURATIONS)
def test_a_damaged_configuration_is_refused_in_words(kind: str, tmp_path: Path) -> None:
    said = damage.what_is_said(damage.refuse_configuration, kind, tmp_path)
    check(kind, said)
    assert damage.CONFIGURATIONS[kind][0] in said  # the file's name


def check(kind: str, said: str) -> None:
    print(f"{kind:60} {said}")
    assert not said.startswith("NOTHING")
    assert len(said) < 500
    assert f"| {kind} |" in PAGE, "run: python tests/security/damage.py, and put its table into docs/security.md"


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path) -> None:
    """Neither a pickle nor the Python files of a repository: each of these would leave a trace."""
    trace = tmp_path / "trace"
    kind = "config.json: unknown architecture with code of its own"
    damage.what_is_said(damage.refuse_model, kind, tmp_path)
    (tmp_path / "model" / "evil.py").write_text(f"open({str(trace)!r}, 'w')")
    with pytest.raises(damage.IsotokenError, match="EvilForCausalLM"):
        damage.Checkpoint.open(tmp_path / "model")
    assert not trace.exists()
