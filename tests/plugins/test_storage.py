"""Weights and K/V that a backend does not declare are refused with what it does, and who else would do it."""

from __future__ import annotations

from typing import Any

import pytest
from isotoken.conformance.models import LLAMA, write_checkpoint
from isotoken.core.quantization import QuantizationScheme
from isotoken.core.types import Unsupported
from isotoken.plugins.hookspecs import API_VERSION, hookimpl
from isotoken.plugins.manager import Plugins

from .test_build import Stub, build, only

TERNARY = QuantizationScheme(
    name="ternary", description="weights of two bits", weight_bits=2, scale_for="group", group_size=64
)


class Brings:
    """A plugin with a quantisation of its own."""

    ISOTOKEN_API = API_VERSION

    @hookimpl
    def register_quantizations(self, register: Any) -> None:
        register("ternary", lambda: TERNARY, description=TERNARY.description)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_checkpoint(LLAMA, tmp_path_factory.mktemp("models") / "llama"))


PLAIN = {"quantizations": frozenset({"int8"}), "kv_cache_dtypes": frozenset({"float16"})}
OTHERS = {
    "able": Stub(quantizations=frozenset({"int4", "w8a8"}), kv_cache_dtypes=frozenset({"int8"})),
    "broken": ImportError("no engine"),
    "wide": Stub(quantizations=frozenset({"int4"})),
}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"quantization": "int4"}, "quantization='int4'; it offers: int8; backend able or wide does"),
        ({"quantization": "w8a8"}, "quantization='w8a8'; it offers: int8; backend able does"),
        ({"quantization": "fp8"}, "quantization='fp8'; it offers: int8; no backend that can be used here does"),
        ({"quantization": "int3"}, "quantization='int3'; .*'int3' is not known, there are: fp8, int4, int8, int8-rows"),
        ({"quantization": "gptq"}, "quantization='gptq'; .*quantised as gptq is recognised by itself: leave"),
        ({"kv_cache_dtype": "int8"}, "kv_cache_dtype='int8'; it offers: auto, float16; backend able does"),
        ({"kv_cache_dtype": "bfloat16"}, "kv_cache_dtype='bfloat16'; .*; no backend that can be used here does"),
        ({"kv_cache_dtype": "int2"}, "'int2' is not known, there are: auto, bfloat16, float16, float32, int8"),
        ({"quantization": "int8", "kv_cache_dtype": "int8"}, "kv_cache_dtype='int8'; it offers: auto, float16; back"),
    ],
)
def test_a_refusal_says_who_would(llama: str, settings: dict[str, str], expected: str) -> None:
    plugins = only(plain=Stub(**PLAIN), **OTHERS)
    with pytest.raises(Unsupported, match=f"^backend plain does not offer .*{expected}"):
        build(plugins, llama, backend="plain", **settings)


def test_the_backends_here_do_it() -> None:
    """What the documents say of the built-in ones is what they declare."""
    declared = {}
    for name, provider in Plugins.load().backends.items():
        try:
            declared[name] = provider.factory().capabilities.quantizations
        except Exception:
            continue
    assert declared["onnxruntime"] == {"int8", "int4"}
    assert declared["reference"] == declared["torch"] == frozenset()
    known = set(Plugins.load().quantizations)
    assert set().union(*declared.values()) <= known


def test_a_plugin_may_bring_a_quantisation(llama: str) -> None:
    plugins = only(plain=Stub(**PLAIN))
    plugins._add("brings", "a test", "", Brings)
    assert plugins.quantizations["ternary"].factory() is TERNARY
    assert plugins.infos[-1].provides == ["quantization ternary"]
    assert TERNARY.num_bytes(3, 100) == 3 * 128 // 4 + 3 * 2 * 4
    with pytest.raises(Unsupported, match=r"quantization='ternary'; .*no backend that can be used here does"):
        build(plugins, llama, backend="plain", quantization="ternary")
