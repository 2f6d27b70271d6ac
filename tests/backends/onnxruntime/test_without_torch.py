"""With onnxruntime and no torch, the built-in model is served as if torch had never been written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REFUSE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "tensorrt", "triton"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
"""

PROGRAM = """
import json, sys
from isotoken import LLM, SamplingParams
llm = LLM("isotoken-small", max_model_len=128, num_threads=1, backend="onnxruntime")
(result,) = llm.generate(["Once upon a time"], SamplingParams(max_tokens=12, temperature=0))
print(json.dumps({"info": [llm.info.backend, llm.info.device, llm.info.dtype], "why": llm.info.why,
                  "kv_cache": llm.info.settings["kv_cache"], "text": result.outputs[0].text,
                  "torch": "torch" in sys.modules}))
"""


def run(folder: Path, *arguments: str) -> str:
    """Run Python here without torch: for this process and any that it starts."""
    (folder / "sitecustomize.py").write_text(REFUSE)
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_hook_refuses_torch(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="No module named 'torch'"):
        run(tmp_path, "-c", "import torch")


def test_the_built_in_model_is_served(tmp_path: Path) -> None:
    found = json.loads(run(tmp_path, "-c", PROGRAM))
    assert found["info"] == ["onnxruntime", "cpu", "float32"]
    assert found["kv_cache"] == "contiguous"
    assert not found["torch"]
    assert len(found["text"].split()) > 5


def test_the_command_line_generates(tmp_path: Path) -> None:
    program = "import sys; from isotoken.api.cli import main; sys.exit(main())"
    arguments = (
        "-c",
        program,
        "generate",
        "isotoken-small",
        "Once upon a time",
        "--backend",
        "onnxruntime",
        "--max-tokens",
        "12",
        "--temperature",
        "0",
    )
    text = run(tmp_path, *arguments)
    assert json.loads(run(tmp_path, "-c", PROGRAM))["text"].strip() in text
