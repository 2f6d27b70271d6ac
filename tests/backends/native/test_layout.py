"""What packed weights look like, byte by byte: whoever changes it has to raise LAYOUT_VERSION, for files are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from isotoken.backends.native.executor import Library
from isotoken.backends.native.matrices import Matrix
from isotoken.backends.native.options import Options
from isotoken.backends.native.plugin import load_backend
from isotoken.backends.native.precision import Precision, group_of
from isotoken.backends.native.weights_plan import LAYOUT_VERSION, PARTS, Plan, part_sizes
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.types import Unsupported
from isotoken.kernels.cpu import program as kernels
from numpy.typing import NDArray

from .twin_executor import Twins

ADVICE = "packed weights have changed: raise LAYOUT_VERSION in weights_plan.py, and put the new hashes here"
GOLDEN_VERSION = 2
GOLDEN: dict[str, str] = {
    "float32": "f5850ab0d458354f",
    "bfloat16": "885ddedbb2e7bafc",
    "w8a8": "0b1ca59d1c5617e1",
    "int8": "b5db29e44084924f",
    "int4": "5fc299111cce4626",
    "w4a8": "b447bf75447ab45e",
    "joined": "1dc6af65b551170b",
    "gated": "312071d3ceac601f",
    "gemma2": "07d6f79912fd1faf",
    "moe": "297b92a0d40be333",
}
FORMS = {
    "float32": kernels.FORM_F32,
    "bfloat16": kernels.FORM_BF16,
    "w8a8": kernels.FORM_I8,
    "int8": kernels.FORM_I8_GROUPS,
    "int4": kernels.FORM_I4_GROUPS,
    "w4a8": kernels.FORM_I4_A8,
}
OUTPUTS, INPUTS = 40, 70  # neither fills a panel, nor a group


def digest(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()[:16]


def matrix(name: str = "it", *, gated: bool = False, form: int = kernels.FORM_F32) -> Matrix:
    return Matrix(name=name, sources=("a", "b"), rows=(OUTPUTS, OUTPUTS), inputs=INPUTS, form=form, gated=gated)


def numbers(count: int, start: int) -> NDArray[np.float32]:
    """Rows of whole numbers over a power of two, so that no arithmetic can differ between machines."""
    return ((np.arange(start, start + count * INPUTS) * 37 % 251 - 125) / 64).astype(np.float32).reshape(count, INPUTS)


@pytest.fixture(params=["twins", "library"])
def executor(request: pytest.FixtureRequest) -> Twins | Library:
    if request.param == "twins":
        return Twins(Options.read({}), 1, None)
    try:
        load_backend()
    except Unsupported as error:
        pytest.skip(str(error))
    opened = Library(Options.read({}), 1, None)
    request.addfinalizer(opened.close)
    return opened


@pytest.mark.parametrize("name", FORMS)
def test_packed_bytes_are_those_of_this_version(name: str, executor: Twins | Library) -> None:
    form = FORMS[name]
    it = matrix(form=form)
    rows = it.arrange([numbers(OUTPUTS, 0), numbers(OUTPUTS, 9)], 0, it.packed_outputs)
    parts = [np.zeros(size, np.uint8) if size else None for size in part_sizes(it, form)]
    values, scales, sums = parts
    assert values is not None
    executor.pack(form, rows, group_of(form), values, scales, None if sums is None else sums.view(np.int32))
    packed = b"".join(part.tobytes() for part in parts if part is not None)
    assert (LAYOUT_VERSION, digest(packed)) == (GOLDEN_VERSION, GOLDEN[name]), ADVICE


@pytest.mark.parametrize("gated", [False, True])
def test_rows_are_in_the_order_of_this_version(gated: bool) -> None:
    it = matrix(gated=gated)
    rows = it.arrange([numbers(OUTPUTS, 0), numbers(OUTPUTS, 9)], 0, it.packed_outputs)
    assert digest(rows.tobytes()) == GOLDEN["gated" if gated else "joined"], ADVICE


@pytest.mark.parametrize("model", ["gemma2", "moe"])
def test_pieces_lie_where_this_version_has_them(models: Callable[[str], Checkpoint], model: str) -> None:
    plan = Plan(models(model), Precision(dtype="bfloat16", quantization="w8a8", kv_dtype="bfloat16"))
    names = [f"{name}/{part}" for name in plan.matrices for part in (*PARTS, "bias")] + list(plan.vectors)
    places = [(name, plan.layout.offset(name), plan.layout.size(name)) for name in names if name in plan.layout]
    assert digest(repr(places)) == GOLDEN[model], ADVICE
