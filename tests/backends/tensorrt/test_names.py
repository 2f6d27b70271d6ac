"""Every TensorRT name that the backend uses exists in 10.16 and in 11.4, and the fake has no other ones."""

from __future__ import annotations

import importlib.util
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
TYPINGS = ROOT / "tests" / "typings"
TABLE: dict[str, Any] = json.loads((TYPINGS / "names.json").read_text())
MEMBERS: dict[str, dict[str, str]] = TABLE["members"]


def make_stubs() -> Any:
    """The script that made the table."""
    spec = importlib.util.spec_from_file_location("make_stubs", TYPINGS / "make_stubs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_table_is_of_both_versions() -> None:
    assert [version.rsplit(".", 1)[0] for version in TABLE["versions"]] == ["10.16", "11.4"]
    assert all(set(signatures) == set(TABLE["versions"]) for signatures in MEMBERS.values())


def test_every_name_written_out_exists_in_both_versions() -> None:
    used = make_stubs().uses()
    assert len(used.dotted) > 25, "the extraction finds next to nothing"
    known = {*TABLE["classes"], *MEMBERS}
    unknown = sorted(name for name in used.dotted if name not in known)
    assert not unknown, f"not in TensorRT 10.16 or 11.4 (or make_stubs.py was not run): {unknown}"


def test_every_method_of_the_api_that_is_called_exists_in_both_versions() -> None:
    """mypy finds the class of each; here: no method of ours has a name that only one version knows."""
    for member, signatures in MEMBERS.items():
        assert "absent" not in signatures.values(), member
    called = {name.rpartition(".")[2] for name in MEMBERS}
    for needed in (
        "load_initializer", "load_model_proto", "parse_model_proto", "build_serialized_network", "infer_shapes",
        "get_aliased_input_tensor", "set_device_memory", "device_memory_size_v2", "set_optimization_profile_async",
        "execute_async_v3", "refit_model_proto", "refit_cuda_engine", "progress_monitor", "max_aux_streams",
        "error_recorder",
    ):  # fmt: skip
        assert needed in called


def test_parameters_are_the_same_in_both_versions() -> None:
    """Where signatures differ, it is in what is returned, or in an overload that is not used."""
    differing = {member: each for member, each in MEMBERS.items() if len(set(each.values())) > 1}
    for member, each in differing.items():
        first = {signature.split(" -> ")[0].split(" / ")[0] for signature in each.values()}
        assert len(first) == 1, f"{member}: {each}"


def test_the_fake_invents_nothing() -> None:
    """Each of its methods is one of the real class, with the same parameters; so is each flag that it knows."""
    import tensorrt

    seen = 0
    for name in tensorrt.__all__:
        for method, found in vars(getattr(tensorrt, name)).items():
            if method.startswith("_") or not (inspect.isfunction(found) or isinstance(found, property)):
                continue
            assert f"{name}.{method}" in MEMBERS, f"{name}.{method}"
            seen += 1
            if inspect.isfunction(found):
                signature = MEMBERS[f"{name}.{method}"][TABLE["versions"][-1]]
                theirs = [p.split(":")[0].split("=")[0].strip() for p in signature.split(")")[0].strip("(").split(",")]
                assert list(inspect.signature(found).parameters)[: len(theirs)] == theirs, f"{name}.{method}"
    assert seen > 40


@pytest.mark.slow
def test_the_type_checker_knows_what_is_wrong(tmp_path: Path) -> None:
    """Names that version 11 lost, arguments of the wrong type, and results that may be None are told."""
    pytest.importorskip("mypy")
    bad = tmp_path / "bad.py"
    bad.write_text(
        "import tensorrt as trt\n"
        "def f(config: trt.IBuilderConfig, context: trt.IExecutionContext, engine: trt.ICudaEngine) -> None:\n"
        "    config.set_flag(trt.BuilderFlag.FP16)\n"
        "    context.execute_async_v2([0], 0)\n"
        "    context.set_tensor_address(1, 'x')\n"
        "    engine.create_execution_context().infer_shapes()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--no-error-summary", str(bad)],
        env={"MYPYPATH": str(TYPINGS), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = {line.split(":")[1] for line in done.stdout.splitlines()}
    assert lines == {"3", "4", "5", "6"}, done.stdout + done.stderr
