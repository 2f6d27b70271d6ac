"""The example backend, built as a wheel and installed as a stranger would, conforms, and agrees with transformers."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from .stranger import Stranger

EXAMPLE = Path(__file__).parents[2] / "examples" / "transformers"

pytest.importorskip("transformers")
pytest.importorskip("torch")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    """Somebody who has built the example's wheel and installed it."""
    stranger = Stranger(tmp_path_factory.mktemp("stranger"))
    wheel = stranger.install_wheel(EXAMPLE)
    names = zipfile.ZipFile(wheel).namelist()
    assert "isotoken_transformers/runner.py" in names
    assert not [name for name in names if name.startswith("isotoken/")]
    return stranger


def test_it_is_listed_without_importing_an_engine(stranger: Stranger) -> None:
    code = (
        "import sys; from isotoken.api.cli import main; assert main(['plugins']) == 0; "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = stranger.run("-c", code)
    assert done.returncode == 0, done.stderr
    assert "transformers  (isotoken-transformers 0.1.0)" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_conforms(stranger: Stranger) -> None:
    done = stranger.conformance("--backend", "transformers", "--tb=short")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "transformers-float32:" in done.stdout
    assert " failed" not in done.stdout
    (absences,) = {line.split(" (")[0].strip() for line in done.stdout.splitlines() if "prefix_caching (" in line}
    assert absences == "declared absent: prefix_caching"


def test_it_gives_the_tokens_of_generate(stranger: Stranger) -> None:
    """Greedy tokens through isotoken, in a batch and with another attention, are those of transformers' generate."""
    code = """
import torch
from isotoken import LLM, SamplingParams
from isotoken.models import BUILTIN
from transformers import AutoModelForCausalLM

folder = BUILTIN["isotoken-small"]
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
prompts = [[5, 6, 7], list(range(20, 60)), [99]]
expected = []
for prompt in prompts:
    done = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                          max_new_tokens=20, min_new_tokens=20, do_sample=False)
    expected.append(done[0, len(prompt):].tolist())
for attention in ("eager", "sdpa"):
    with LLM(backend="transformers", dtype="float32", max_model_len=128, options={"attention": attention}) as llm:
        params = SamplingParams(max_tokens=20, min_tokens=20, temperature=0.0)
        got = [result.outputs[0].token_ids for result in llm.generate(prompts, params)]
    assert got == expected, (attention, got, expected)
"""
    done = stranger.run("-c", code)
    assert done.returncode == 0, done.stderr
