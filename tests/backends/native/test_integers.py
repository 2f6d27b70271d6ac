"""GPTQ and AWQ checkpoints are computed with the integers that they hold, and take no more memory than these."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from isotoken.backends.native.integers import foresee, read_integers
from isotoken.backends.native.precision import Precision
from isotoken.backends.native.weights_plan import Plan, part_sizes
from isotoken.core.checkpoint import Checkpoint
from isotoken.kernels.cpu import program as kernels
from safetensors.numpy import load_file, save_file

from ..families import Case
from ..test_packed import FORMS, Form, write_packed
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


def loose_scales(folder: Path, number: float) -> None:
    """Store scales in bfloat16, one of them as given."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for name in tensors:
        if name.endswith(".scales"):
            tensors[name] = tensors[name].astype(ml_dtypes.bfloat16)
            tensors[name][0, 0] = number
    save_file(tensors, file, metadata={"format": "pt"})


ODD_GROUPS = Form("llama", {"quant_method": "gptq", "bits": 4, "group_size": 16})
LOOSE_8_BITS = Form("llama", {"quant_method": "gptq", "bits": 8, "group_size": 32}, symmetric=False)


@pytest.mark.parametrize(
    ("form", "scale", "why"),
    [
        (FORMS["gptq-4"], None, ""),
        (FORMS["gptq-8"], None, ""),
        (FORMS["awq"], None, ""),
        (FORMS["awq-fused"], None, ""),
        (LOOSE_8_BITS, None, ""),
        (FORMS["gptq-4"], 0.25, ""),
        (FORMS["gptq-4"], 1e30, "bfloat16 scales are beyond float16"),
        (FORMS["gptq-4-reordered"], None, "inputs are reordered"),
        (ODD_GROUPS, None, "groups of 16 inputs are not a multiple of 32"),
    ],
    ids=[
        "gptq-4",
        "gptq-8",
        "awq",
        "awq-fused",
        "8-bits-and-zeros",
        "bfloat16-scales",
        "huge-scales",
        "act-order",
        "odd",
    ],
)
def test_memory_is_planned_for_the_forms_that_come(
    form: Form,
    scale: float | None,
    why: str,
    family_case: CaseOf,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And no number of a matrix is read for that; what has to run as floats is told."""
    write_packed(form, family_case(form.family).folder, tmp_path / "packed", tmp_path / "plain")
    if scale is not None:
        loose_scales(tmp_path / "packed", scale)
    source = Checkpoint.open(tmp_path / "packed")
    precision = Precision(dtype="float32", quantization=None, kv_dtype="float32")
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "isotoken.native"):
        patch.setattr("isotoken.core.packed_weights.PackedWeight._integers", None)
        plan = Plan(source, precision)
    assert (why in caplog.text) if why else not caplog.text
    used = 0
    for matrix in plan.matrices.values():
        found = read_integers(source, matrix.sources)
        due = matrix.form if found is None else found.form
        used += sum(part_sizes(matrix, due))
        if found is not None:
            assert due in foresee(source, matrix.sources).forms
    assert plan.num_bytes >= used
    if form is not LOOSE_8_BITS:
        assert plan.num_bytes == used, "and no more than comes"


@pytest.mark.parametrize("form", ["gptq-4-reordered", "gptq-4"])
def test_the_plan_is_what_the_runner_takes(form: str, family_case: CaseOf, tmp_path: Path) -> None:
    source, _ = packed(form, family_case, tmp_path)
    planned = Plan(source, Precision(dtype="float32", quantization=None, kv_dtype="float32")).num_bytes
    runner = load_on_twins(source, dtype="float32", max_model_len=64)
    vectors_and_table = runner.info.weight_bytes - planned
    table = source.tensor("embed_tokens").nbytes
    assert table <= vectors_and_table < table + 16384
    runner.close()
