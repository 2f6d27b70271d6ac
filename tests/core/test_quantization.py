"""The list of quantisations says how large matrices become: as large as they are made."""

from __future__ import annotations

import numpy as np
import pytest
from isotoken.core.capabilities import Capabilities
from isotoken.core.quantization import (
    FP8,
    INT4,
    INT8,
    INT8_ROWS,
    SCHEMES,
    W4A8,
    W8A8,
    QuantizationScheme,
    auto_dtype,
    refuse_absent,
)
from isotoken.core.types import Unsupported
from isotoken.kernels.cpu.quantize import quantize, quantize_fp8, quantize_rows

SHAPES = [(8, 64), (5, 100), (33, 31)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
def test_a_matrix_takes_as_much_as_it_is_said_to(scheme: QuantizationScheme, shape: tuple[int, int]) -> None:
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    if scheme.scale_for == "group":
        values, scales = quantize(weight, scheme.weight_bits, scheme.group_size, np.float16)
    else:
        values, scales = (quantize_fp8 if scheme.weight_type == "float" else quantize_rows)(weight, np.float16)
    assert scheme.num_bytes(*shape, scale_bytes=2) == values.nbytes + scales.nbytes


def test_the_names_are_their_schemes() -> None:
    assert all(scheme.name == name for name, scheme in SCHEMES.items())
    assert [scheme.activations for scheme in (INT8, INT4, INT8_ROWS, FP8)] == ["compute"] * 4
    assert [scheme.activations for scheme in (W8A8, W4A8)] == ["int8"] * 2
    assert (INT8.bytes_per_weight(), INT4.bytes_per_weight(2), W8A8.bytes_per_weight()) == (1.125, 0.5625, 1.0)


def test_what_is_not_declared_is_refused_with_what_is() -> None:
    can = Capabilities(
        dtypes=frozenset({"float32"}),
        devices=frozenset({"cpu"}),
        quantizations=frozenset({"w8a8", "int8"}),
        kv_cache_dtypes=frozenset({"int8"}),
    )
    refuse_absent("mine", can, quantization=None, kv_cache_dtype="auto")
    refuse_absent("mine", can, quantization="int8", kv_cache_dtype="int8")
    with pytest.raises(Unsupported, match=r"^backend mine does not offer quantization='int4'; it offers: int8, w8a8$"):
        refuse_absent("mine", can, quantization="int4", kv_cache_dtype="auto")
    with pytest.raises(
        Unsupported, match=r"^backend mine does not offer kv_cache_dtype='bfloat16'; it offers: auto, int8$"
    ):
        refuse_absent("mine", can, quantization=None, kv_cache_dtype="bfloat16")


@pytest.mark.parametrize(
    ("stored", "weight_only", "due", "why"),
    [
        ("float16", True, "bfloat16", "weights of fewer bits fastest so; the checkpoint's float16 has 16 bits too"),
        ("bfloat16", True, "bfloat16", "the checkpoint's own"),
        ("float32", True, "float32", "the checkpoint's own"),
        ("float16", False, "float32", "mine does not compute in the checkpoint's float16"),
    ],
)
def test_auto_prefers_the_dtype_that_meets_narrow_weights_fastest(
    stored: str, weight_only: bool, due: str, why: str
) -> None:
    dtypes = frozenset({"float32", "bfloat16"})
    can = Capabilities(dtypes=dtypes, devices=frozenset({"cpu"}), weight_only_dtype="bfloat16")
    dtype, reason = auto_dtype("mine", can, dtypes, stored, weight_only=weight_only)
    assert (dtype, why in reason) == (due, True)
