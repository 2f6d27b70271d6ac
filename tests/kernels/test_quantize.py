"""What quantised weights are: a round trip, the error that is stated, and what ONNX Runtime takes them for."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isotoken.kernels.cpu.quantize import dequantize, quantize, quantize_fp8, quantize_rows
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def normal(outputs: int, inputs: int, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).standard_normal((outputs, inputs)).astype(np.float32)


def blocks_of(weight: Float32, block_size: int) -> Float32:
    padded = np.pad(weight, ((0, 0), (0, -weight.shape[1] % block_size)))
    return padded.reshape(len(weight), -1, block_size)


@settings(deadline=None, print_blob=True)
@given(
    outputs=st.integers(1, 40),
    inputs=st.integers(1, 100),
    bits=st.sampled_from([4, 8]),
    block_size=st.sampled_from([16, 32, 64]),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_an_error_is_at_most_half_a_scale(
    outputs: int, inputs: int, bits: int, block_size: int, dtype: str, seed: int
) -> None:
    weight = normal(outputs, inputs, seed).astype(dtype)
    packed, scales = quantize(weight, bits, block_size)
    assert packed.shape == (outputs, -(-inputs // block_size), block_size * bits // 8)
    assert scales.shape == packed.shape[:2]
    assert (scales > 0).all()
    error = dequantize(packed, scales, bits, inputs) - weight.astype(np.float32)
    assert (np.abs(blocks_of(error, block_size)) <= 0.5001 * scales[..., None]).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_quantising_what_was_restored_changes_nothing(bits: int) -> None:
    packed, scales = quantize(normal(30, 96), bits)
    again, same_scales = quantize(dequantize(packed, scales, bits, 96), bits)
    assert (again == packed).all()
    assert np.allclose(same_scales, scales, rtol=1e-6)


def test_integers_in_range_are_kept_exactly() -> None:
    weight = np.tile(np.arange(-8, 8, dtype=np.float32), (2, 2))
    weight[:, ::16] = -8  # each block reaches its end, so that the scale is 1
    packed, scales = quantize(weight, 4)
    assert (scales == 1).all()
    assert (dequantize(packed, scales, 4, 32) == weight).all()
    assert packed[0, 0, 0] == 0 | 1 << 4  # -8 and -7, the first in the low half


def test_the_stated_error() -> None:
    weight = normal(512, 1024)
    for bits, stated in ((4, 0.092), (8, 0.0053)):
        error = dequantize(*quantize(weight, bits), bits, 1024) - weight
        assert np.sqrt(np.mean(error**2)) == pytest.approx(stated, rel=0.02)


def test_zeros_stay_zeros() -> None:
    for bits in (4, 8):
        packed, scales = quantize(np.zeros((3, 40), np.float32), bits)
        assert not dequantize(packed, scales, bits, 40).any()
    for faint in (1e-37, 1e-39, 1e-45):  # their scales have no reciprocal in float32, or nearly none
        for bits in (4, 8):
            assert np.abs(dequantize(*quantize(np.full((3, 40), faint, np.float32), bits), bits, 40)).max() < 2e-37
        for values, scale in (
            quantize_rows(np.full((3, 40), faint, np.float32)),
            quantize_fp8(np.full((3, 40), faint)),
        ):
            assert np.abs(values.astype(np.float32) * scale[..., None]).max() < 2e-37
    assert not quantize_rows(np.zeros((3, 40), np.float32))[0].any()
    assert not quantize_fp8(np.zeros((3, 40), np.float32))[0].astype(np.float32).any()


def test_scales_are_rounded_before_weights_are() -> None:
    """A float16 scale is the one that weights are divided by: what is restored is as near as that scale allows."""
    weight = normal(20, 64)
    packed, scales = quantize(weight, 8, dtype=np.float16)
    assert scales.dtype == np.float16
    error = np.abs(blocks_of(dequantize(packed, scales, 8, 64) - weight, 32))
    inside = error <= 0.5001 * scales[..., None].astype(np.float32)
    assert inside.mean() > 0.98  # but for the largest of a block, where a scale was rounded down
    assert (error <= 0.6 * scales[..., None].astype(np.float32)).all()


def test_rows_and_fp8() -> None:
    weight = normal(50, 200) * np.geomspace(1e-3, 1e3, 50, dtype=np.float32)[:, None]
    values, scales = quantize_rows(weight)
    assert values.dtype == np.int8
    assert (np.abs(values * scales[:, None] - weight) <= 0.5001 * scales[:, None]).all()
    assert np.abs(values.astype(np.int32)).max(axis=1).tolist() == [127] * 50
    flat = normal(50, 200)
    eights, scale = quantize_fp8(flat)
    assert eights.dtype == ml_dtypes.float8_e4m3fn
    restored = eights.astype(np.float32) * scale
    assert (np.abs(restored - flat) <= np.maximum(np.abs(flat) / 16, 2.0**-10 * scale) * 1.0001).all()


@pytest.mark.parametrize("wrong", [(3, 32), (4, 8), (4, 48), (16, 32)])
def test_other_numbers_are_refused(wrong: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="expected 4 or 8 bits"):
        quantize(normal(2, 64), *wrong)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("inputs", [64, 40])  # 40: the last block is not full
def test_onnxruntime_takes_the_packed_weights_for_the_same_numbers(bits: int, inputs: int) -> None:
    weight, x = normal(24, inputs), normal(5, inputs, seed=1)
    packed, scales = quantize(weight, bits)
    node = onnx.helper.make_node(
        "MatMulNBits", ["x", "q", "s"], ["y"], domain="com.microsoft", K=inputs, N=24, bits=bits, block_size=32
    )
    graph = onnx.helper.make_graph(
        [node],
        "product",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, inputs])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 24])],
        [onnx.numpy_helper.from_array(packed, "q"), onnx.numpy_helper.from_array(scales, "s")],
    )
    opsets = [onnx.helper.make_opsetid("", 24), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=11)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (product,) = session.run(None, {"x": x})
    assert np.allclose(product, x @ dequantize(packed, scales, bits, inputs).T, atol=1e-4)
