"""With numpy and none of the engines, the built-in model is served by native, and `auto` says why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from isotoken.core.checkpoint import Checkpoint

from .helpers import load

REFUSE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "onnx", "onnx_ir", "onnxruntime", "tensorrt", "triton"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
"""

PROGRAM = """
import json
from isotoken import LLM, SamplingParams
llm = LLM("isotoken-small", max_model_len=128, num_threads=1, {settings})
prompts = ["Once upon a time", "The small dog", "Once upon a time there"]
results = llm.generate(prompts, SamplingParams(max_tokens=12, temperature=0))
print(json.dumps({{"info": [llm.info.backend, llm.info.device, llm.info.dtype], "why": llm.info.why,
                  "kv_cache": llm.info.settings["kv_cache"], "texts": [r.outputs[0].text for r in results]}}))
"""


@pytest.mark.parametrize("settings", ["", "quantization='w8a8', kv_cache_dtype='int8', options={'pack_cache': 'off'}"])
def test_auto_picks_native_and_says_why(models: Callable[[str], Checkpoint], tmp_path: Path, settings: str) -> None:
    load(models("llama")).close()  # skips where there are no kernels
    (tmp_path / "sitecustomize.py").write_text(REFUSE)
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(settings=settings)],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["info"] == ["native", "cpu", "bfloat16"]
    assert found["why"][0].startswith("backend native: the first installed for the CPU")
    assert found["kv_cache"] == "paged"
    assert all(len(text.split()) > 3 for text in found["texts"])
