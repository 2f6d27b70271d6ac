"""`isotoken export` writes a folder that needs numpy and onnxruntime and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from isotoken.backends.onnx_graph.exporter import OnnxExporter
from isotoken.core.checkpoint import Checkpoint
from isotoken.plugins.manager import Plugins

from ..families import Case

CaseOf = Callable[[str], Case]
COMMAND = [sys.executable, "-P", "-c", "import sys; from isotoken.api.cli import main; sys.exit(main())"]
ALONE = """
import runpy, sys
sys.modules.update(dict.fromkeys(("isotoken", "torch", "transformers", "onnx", "onnx_ir", "ml_dtypes", "safetensors")))
sys.argv[:] = sys.argv[1:]  # None in sys.modules: an import of it fails
runpy.run_path(sys.argv[0], run_name="__main__")
"""
FILES = {"model.onnx", "weights.bin", "manifest.json", "README.md", "example.py", "config.json"}


def isotoken(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("family", "form"), [("qwen3", "gqa"), ("gemma2", "standard"), ("mixtral", "standard-mask"), ("phi3", "gqa")]
)
def test_the_example_in_the_folder_runs_alone_and_gives_transformers_tokens(
    family: str, form: str, family_case: CaseOf, tmp_path: Path
) -> None:
    case = family_case(family)
    done = isotoken("export", case.folder, "--to", "onnx", "--out", tmp_path / "out", "--attention", form)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, str(tmp_path / "out" / "model.onnx")), done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} - {"generation_config.json"} == FILES
    prompt, sequence = case.prompts[3], case.sequences[3]
    command = [sys.executable, "-P", "-c", ALONE, str(tmp_path / "out" / "example.py"), *map(str, prompt)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    generated = [int(token) for token in run.stdout.split()]
    assert generated[: len(sequence) - len(prompt)] == sequence[len(prompt) :]


def test_the_manifest_and_the_readme_say_what_the_graph_takes(family_case: CaseOf, tmp_path: Path) -> None:
    import onnxruntime

    case = family_case("gemma3")
    OnnxExporter().export(
        Checkpoint.open(case.folder),
        tmp_path,
        {"attention": "standard", "kv_dtype": "float16", "max_model_len": "32"},
        lambda _: None,
    )
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["max_model_len"], manifest["vocab_size"], manifest["eos_token_ids"]) == (32, 128, [2])
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    names = {"int64": "int64", "float16": "float16", "float32": "float"}
    for ports, actual in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
        stated = [(port["name"], f"tensor({names[port['dtype']]})", port["shape"]) for port in manifest[ports]]
        assert stated == [(value.name, value.type, value.shape) for value in actual]
    readme = (tmp_path / "README.md").read_text()
    rows = set(re.findall(r"^\| `(\w+)", readme, re.MULTILINE))
    assert rows == {port["name"].partition(".")[0] for port in (*manifest["inputs"], *manifest["outputs"])}


def test_quantised_weights_take_less_room(family_case: CaseOf, tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(family_case("llama").folder)
    sizes = {}
    for quantization in ("int8", "int4"):
        OnnxExporter().export(checkpoint, tmp_path / quantization, {"quantization": quantization}, lambda _: None)
        sizes[quantization] = (tmp_path / quantization / "weights.bin").stat().st_size
    embeddings = checkpoint.location("embed_tokens").num_bytes
    assert sizes["int4"] - embeddings < 0.65 * (sizes["int8"] - embeddings) < 0.2 * checkpoint.num_bytes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "onx"], "unknown exporter 'onx'; installed: onnx; did you mean 'onnx'?"),
        (["--to", "onnx", "--attention", "flash"], "attention is 'flash': expected 'gqa' or"),
        (["--to", "onnx", "--option", "colour=red"], "export to onnx: unknown option 'colour'; there are attention,"),
        (["--to", "onnx", "--option", "block_size=many"], "block_size is 'many': expected a whole number"),
        (["--to", "onnx", "--option", "link=perhaps"], "link is 'perhaps': expected 'yes' or 'no'"),
        (["--to", "onnx", "--max-model-len", "100000"], "max_model_len is 100000: expected 1 to 64"),
    ],
)
def test_errors_are_one_line_that_says_what_to_do(
    arguments: list[str], message: str, family_case: CaseOf, tmp_path: Path
) -> None:
    done = isotoken("export", family_case("llama").folder, "--out", tmp_path / "out", *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "model.onnx").exists()


def test_a_folder_that_cannot_be_made_is_named(family_case: CaseOf, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    done = isotoken("export", family_case("llama").folder, "--to", "onnx", "--out", tmp_path / "taken")
    assert (done.returncode, "taken: File exists" in done.stderr) == (1, True), done.stderr


def test_listing_exporters_imports_no_onnx() -> None:
    code = "import sys; from isotoken.plugins.manager import Plugins; Plugins.load(); print('onnx_ir' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
    assert Plugins.load().exporters["onnx"].plugin == "onnx-export"


def test_without_onnx_ir_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from isotoken.core.types import Unsupported

    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    with pytest.raises(Unsupported, match="pip install onnx-ir"):
        Plugins.load().exporters.get_factory("onnx")()


def test_a_linked_export_takes_no_room(family_case: CaseOf, tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(family_case("llama").folder)
    OnnxExporter().export(checkpoint, tmp_path / "out", {"link": "yes"}, lambda _: None)
    assert (tmp_path / "out" / "model.safetensors").samefile(checkpoint.path / "model.safetensors")
    assert not (tmp_path / "out" / "weights.bin").exists()
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].name == "input_ids"
    assert np.dtype(np.int64).name == json.loads((tmp_path / "out" / "manifest.json").read_text())["inputs"][0]["dtype"]


def test_a_second_export_leaves_nothing_of_the_first(family_case: CaseOf, tmp_path: Path) -> None:
    for family in ("llama", "qwen3"):
        checkpoint = Checkpoint.open(family_case(family).folder)
        OnnxExporter().export(checkpoint, tmp_path, {}, lambda _: None)
        assert (tmp_path / "config.json").read_bytes() == (checkpoint.path / "config.json").read_bytes()
        assert json.loads((tmp_path / "manifest.json").read_text())["architecture"] == checkpoint.spec.architecture


@pytest.mark.parametrize("arguments", [[], ["one"], ["-1"], ["1", "100000"]], ids=str)
def test_the_example_says_how_it_is_used(arguments: list[str], family_case: CaseOf, tmp_path: Path) -> None:
    OnnxExporter().export(Checkpoint.open(family_case("llama").folder), tmp_path, {}, lambda _: None)
    command = [sys.executable, "-P", tmp_path / "example.py", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 1
    assert "python example.py 1 15 27 104" in run.stderr and "a number from 0 to 127" in run.stderr
    assert "Traceback" not in run.stderr


def test_an_export_into_the_models_own_folder_keeps_what_is_there(family_case: CaseOf, tmp_path: Path) -> None:
    for path in family_case("llama").folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "README.md").write_text("the model's card")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    written = OnnxExporter().export(Checkpoint.open(tmp_path), tmp_path, {}, lambda _: None)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name in before} == before
    assert {"model.onnx", "manifest.json", "model.onnx.md", "example.py"} <= {path.name for path in written}
    assert "logits_indices" in (tmp_path / "model.onnx.md").read_text()
