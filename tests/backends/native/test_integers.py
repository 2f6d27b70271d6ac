"""GPTQ and AWQ checkpoints are computed with the integers that they hold, and take no more memory than these."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from isotoken.backends.native.integers import read_integers
from isotoken.core.checkpoint import Checkpoint
from isotoken.kernels.cpu import program as kernels

from ..families import Case
from ..test_packed import FORMS, write_packed
from .helpers import load_on_twins

CaseOf = Callable[[str], Case]


def packed(form: str, family_case: CaseOf, folder: Path) -> tuple[Checkpoint, Checkpoint]:
    """The checkpoint of a form, and another with the floats that it stands for."""
    write_packed(FORMS[form], family_case(FORMS[form].family).folder, folder / "packed", folder / "plain")
    return Checkpoint.open(folder / "packed"), Checkpoint.open(folder / "plain")


@pytest.mark.parametrize(
    ("form", "due"),
    [("gptq-4", kernels.FORM_I4_GROUPS), ("gptq-8", kernels.FORM_I8_GROUPS), ("awq", kernels.FORM_I8_GROUPS)],
)
def test_integers_stand_for_the_same_floats(form: str, due: int, family_case: CaseOf, tmp_path: Path) -> None:
    """Zero points make 4 bits of AWQ five; groups longer than the kernels' share their scale."""
    source, plain = packed(form, family_case, tmp_path)
    name = "layers.0.o_proj"
    found = read_integers(source, [name])
    assert found is not None
    assert found.form == due
    (values,), (scales,) = found.values, found.scales
    widened = np.repeat(scales.astype(np.float32), 32, axis=1)[:, : values.shape[1]]
    assert np.array_equal(values * widened, np.asarray(plain.tensor(name), np.float32))


def test_what_the_kernels_have_no_form_for_is_unpacked(family_case: CaseOf, tmp_path: Path) -> None:
    source, _ = packed("gptq-4-reordered", family_case, tmp_path)
    assert read_integers(source, ["layers.0.o_proj"]) is None
    assert read_integers(source, ["norm"]) is None


def test_they_take_their_own_memory(family_case: CaseOf, tmp_path: Path) -> None:
    source, plain = packed("gptq-4", family_case, tmp_path)
    sizes = []
    for checkpoint in (source, plain):
        runner = load_on_twins(checkpoint, dtype="float32", max_model_len=64)
        kept = sum(checkpoint.tensor(name).nbytes for name in ("embed_tokens", "lm_head"))
        sizes.append(runner.info.weight_bytes - kept)
        runner.close()
    assert sizes[0] < 0.25 * sizes[1]
