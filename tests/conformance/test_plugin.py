"""The pytest plugin: one command anywhere, nothing in other people's runs, absences and exclusions that cannot rot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from isotoken.conformance.matrix import Contents, main, matrix
from isotoken.conformance.targets import wanted_dtypes, wanted_quantizations

from .suite import run_suite

QUICK = ("-q", "--no-header", "--tb=line", "--backend", "fixture", "--dtype", "float64")


def pytest_elsewhere(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a project that has nothing to do with isotoken."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args]
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, timeout=120, check=False)


def test_other_runs_neither_clash_nor_pay(tmp_path: Path) -> None:
    """Another project may have --backend, --device and --dtype of its own; numpy is not even imported."""
    (tmp_path / "conftest.py").write_text(
        "def pytest_addoption(parser):\n    for name in ('--backend', '--device', '--dtype'): parser.addoption(name)\n"
    )
    (tmp_path / "test_theirs.py").write_text(
        "import sys\n"
        "def test_it(request):\n"
        "    assert request.config.getoption('--backend') == 'theirs'\n"
        "    heavy = ('numpy', 'torch', 'isotoken.core', 'isotoken.plugins')\n"
        "    assert not [m for m in sys.modules if m.startswith(heavy)]\n"
        "    assert 'isotoken.conformance.session' not in sys.modules\n"
    )
    result = pytest_elsewhere(tmp_path, "--backend", "theirs", "--strict-markers", "-W", "error")
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_strict_caller_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nfilterwarnings = error\nxfail_strict = true\n"
        "addopts = --strict-markers --strict-config --import-mode=importlib -p no:randomly\n"
    )
    result = run_suite(*QUICK, "-k", "test_contract", cwd=tmp_path)
    assert result.returncode == 0, result.stdout


def test_prepend_mode_and_long_options(tmp_path: Path) -> None:
    args = ("--conformance-backend", "fixture", "--conformance-dtype=float32", "--import-mode=prepend", "-q")
    result = run_suite(*args, "-k", "test_close_twice", cwd=tmp_path)
    assert result.returncode == 0, result.stdout
    assert "fixture-float32: 1 passed" in result.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "which backend"),
        (("--backend", "fixtur"), "did you mean 'fixture'"),
        (("--backend", "fixture", "--dtype", "int3"), "declares ['float32', 'float64']"),
        (("--backend", "fixture", "--quantization", "int8"), "declares the quantizations []"),
    ],
)
def test_usage_errors(tmp_path: Path, args: tuple[str, ...], said: str) -> None:
    result = run_suite(*args, cwd=tmp_path)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert said in result.stderr


def test_quantizations_asked_for() -> None:
    declared = frozenset({"int8", "int4", "secret"})
    assert wanted_quantizations("b", declared, []) == [None]
    assert wanted_quantizations("b", declared, ["int4"]) == ["int4"]
    assert wanted_quantizations("b", declared, ["none", "b:int8", "c:int4"]) == [None, "int8"]
    assert wanted_quantizations("b", declared, ["all"]) == [None, "int8", "int4"]
    assert wanted_quantizations("b", declared, ["secret"]) == wanted_quantizations("b", frozenset(), ["int8"]) == []


def test_dtypes_asked_for() -> None:
    declared = frozenset({"float32", "bfloat16"})
    assert wanted_dtypes("b", declared, []) == ["float32"]
    assert wanted_dtypes("b", declared, ["all"]) == ["float32", "bfloat16"]
    assert wanted_dtypes("b", declared, ["b:bfloat16", "c:float32"]) == ["bfloat16"]
    assert wanted_dtypes("b", declared, ["float64", "float32"]) == ["float32"]
    assert wanted_dtypes("b", frozenset({"float16"}), []) == ["float16"]


def report_of(folder: Path, *args: str, **environment: str) -> tuple[int, dict[str, dict[str, object]], str]:
    """Run with a report; exit status, behaviours of the only target, and what was printed."""
    path = folder / "out.json"
    result = run_suite(*QUICK, "--conformance-report", str(path), *args, cwd=folder, **environment)
    found = json.loads(path.read_text())["targets"][0]["behaviours"] if path.exists() else {}
    return result.returncode, found, result.stdout + result.stderr


def test_declared_absences_are_skipped_checked_and_shown(tmp_path: Path) -> None:
    tests = "test_speculation or test_scoring or test_contract or contiguous or cold_warm or INV-16 or threads"
    status, found, said = report_of(tmp_path, "-k", tests, ISOTOKEN_FIXTURE_BUG="absences")
    assert status == 0, said
    assert found["SPE-1"] == {
        "outcome": "absent", "tests": 3, "reasons": ["speculative unsupported: one logits row per request"],
    }  # fmt: skip
    assert found["SCO-1"]["outcome"] == found["CON-7"]["outcome"] == found["CON-11"]["outcome"] == "absent"
    assert found["CON-13"]["outcome"] == found["INV-12"]["outcome"] == "passed"
    assert found["INV-16"]["outcome"] == "passed", "within the bound, which is all that is claimed"
    assert found["GRE-1"]["outcome"] == "not run"
    assert "declared absent: block_copies (not_implemented: rows cannot be copied) https://example.org/1" in said
    table = matrix(Contents([json.loads((tmp_path / "out.json").read_text())]))
    assert "| SPE-1 A drafter that guesses garbage | – |" in table
    assert "`speculative` unsupported: one logits row per request" in table


def test_aspects_are_judged_as_declared_and_measured(tmp_path: Path) -> None:
    """Chunking changes the bits here, which is well: it is not among the aspects that are named."""
    status, found, said = report_of(tmp_path, "-k", "test_aspects", ISOTOKEN_FIXTURE_BUG="names the aspects that hold")
    assert status == 0, said
    assert found["INV-19"]["outcome"] == found["INV-20"]["outcome"] == "passed"
    invariance = json.loads((tmp_path / "out.json").read_text())["targets"][0]["invariance"]
    assert {name: entry["declared"] for name, entry in invariance.items()} == {
        "company": True, "placement": True, "chunking": False, "threads": True, "recomputation": False,
    }  # fmt: skip
    assert invariance["company"]["largest_difference"] == 0 < invariance["chunking"]["largest_difference"] < 1e-6


def test_quantised_targets_are_judged_by_their_own_weights(tmp_path: Path) -> None:
    """Exactly the weights that SPEC.md defines: 4 bits in place of 8 are found out, goldens or not."""
    asked = ("--quantization", "int8", "-k", "test_numbers or test_last_position or test_greedy")
    status, found, said = report_of(tmp_path, *asked, ISOTOKEN_FIXTURE_BUG="quantises")
    assert status == 0, said
    assert "fixture-float64-int8: " in said
    target = json.loads((tmp_path / "out.json").read_text())["targets"][0]
    assert (target["quantization"], target["bound"]) == ("int8", 0.1)
    assert 0 < target["numbers"]["max_logits_error"] < 1e-12
    status, found, said = report_of(tmp_path, *asked, ISOTOKEN_FIXTURE_BUG="int8 is int4")
    assert status == pytest.ExitCode.TESTS_FAILED
    assert found["NUM-1"]["outcome"] == found["LOG-1"]["outcome"] == found["GRE-1"]["outcome"] == "failed"


def test_a_runtime_with_one_row_for_each_sequence(tmp_path: Path) -> None:
    """Blocks of max_model_len, whatever was asked for: nothing in the suite takes the block size for granted."""
    tests = "test_contract or test_last_position or preempt or contiguous or replay or everything or block_sizes"
    status, found, said = report_of(tmp_path, "-k", tests, ISOTOKEN_FIXTURE_BUG="whole rows")
    assert status == 0, said
    assert found["INV-10"]["outcome"] == found["INV-12"]["outcome"] == "passed"
    assert found["CON-11"]["outcome"] == found["INV-4"]["outcome"] == "absent"
    table = matrix(Contents([json.loads((tmp_path / "out.json").read_text())]))
    assert "- fixture float64: INV-4 the runner has blocks of 256 only" in table


def test_an_exclusion_that_fails_is_known(tmp_path: Path) -> None:
    status, found, said = report_of(
        tmp_path, "-k", "test_contract", ISOTOKEN_FIXTURE_BUG="second close fails", ISOTOKEN_FIXTURE_EXCLUDES="CON-9"
    )
    assert status == 0, said
    assert found["CON-9"]["outcome"] == "excluded"
    assert "known to fail" in str(found["CON-9"]["reasons"])
    assert found["CON-8"]["outcome"] == "passed"


def test_an_exclusion_by_test_name(tmp_path: Path) -> None:
    status, found, said = report_of(
        tmp_path,
        *("-k", "test_contract"),
        ISOTOKEN_FIXTURE_BUG="second close fails",
        ISOTOKEN_FIXTURE_EXCLUDES="*::test_close_twice_and_load_again*",
    )
    assert status == 0, said
    assert found["CON-9"]["outcome"] == "excluded"


def test_an_exclusion_that_passes_fails_the_run(tmp_path: Path) -> None:
    status, found, said = report_of(tmp_path, "-k", "test_contract", ISOTOKEN_FIXTURE_EXCLUDES="CON-9")
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "XPASS(strict)" in said
    assert found["CON-9"]["outcome"] == "failed"


@pytest.mark.parametrize("excluded", ["CON-99", "*::test_that_is_gone*"])
def test_an_exclusion_that_matches_nothing_fails_the_run(tmp_path: Path, excluded: str) -> None:
    status, _, said = report_of(tmp_path, "-k", "test_close_twice", ISOTOKEN_FIXTURE_EXCLUDES=excluded)
    assert status == pytest.ExitCode.TESTS_FAILED
    assert f"exclusion {excluded!r} matches no test" in said


def test_an_exclusion_of_what_is_absent_fails_the_run(tmp_path: Path) -> None:
    status, _, said = report_of(
        tmp_path, "-k", "test_speculation", ISOTOKEN_FIXTURE_BUG="absences", ISOTOKEN_FIXTURE_EXCLUDES="SPE-1"
    )
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "SPE-1" in said and "never ran" in said


def test_failures_say_where_and_by_how_much(tmp_path: Path) -> None:
    status, found, said = report_of(
        tmp_path, "-k", "test_greedy and test_goldens", ISOTOKEN_FIXTURE_BUG="context off by one"
    )
    assert status == pytest.ExitCode.TESTS_FAILED
    assert found["GRE-1"]["outcome"] == "failed"
    for word in ("position", "margin", "missed by", "bound", "computed alone"):
        assert word in said, word


def test_the_report_under_xdist(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    status, found, said = report_of(tmp_path, "-n", "2", "-k", "(test_certificate and phi3) or test_close_twice")
    assert status == 0, said
    assert found["NUM-1"] == {"outcome": "passed", "tests": 1}
    target = json.loads((tmp_path / "out.json").read_text())["targets"][0]
    assert target["numbers"]["decided"] > 70
    assert 0 < target["numbers"]["max_logits_error"] < target["bound"]


def test_the_matrix_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report_of(tmp_path, "-k", "test_close_twice")
    path = str(tmp_path / "out.json")
    assert main([path, path]) == 0
    printed = capsys.readouterr().out
    assert "| Behaviour | fixture float64 | fixture float64 |" in printed
    assert main([path, path, "--output", str(tmp_path / "m.md")]) == 0
    assert (tmp_path / "m.md").read_text() == printed


def test_a_refused_model_is_an_absence(tmp_path: Path) -> None:
    report = tmp_path / "out.json"
    args = (*QUICK, "-k", "test_certificate or test_block_sizes", "--conformance-report", str(report))
    result = run_suite(*args, cwd=tmp_path, ISOTOKEN_FIXTURE_BUG="refuses gemma2")
    assert result.returncode == 0, result.stdout
    reason = "backend fixture does not run Gemma2ForCausalLM"
    assert f"declared absent: model gemma2 (refused: {reason})" in result.stdout
    (target,) = json.loads(report.read_text())["targets"]
    assert target["absences"]["model gemma2"]["reason"] == reason
    assert target["behaviours"]["NUM-1"] == {"outcome": "passed", "tests": 6, "reasons": [f"model gemma2: {reason}"]}


@pytest.mark.parametrize("bug", ["refuses llama", "refuses gemma2 in small blocks"])
def test_not_every_refusal_is_an_absence(tmp_path: Path, bug: str) -> None:
    """Llama must run, and a model that runs at all must run as it is asked to."""
    result = run_suite(*QUICK, "-k", "test_block_sizes", cwd=tmp_path, ISOTOKEN_FIXTURE_BUG=bug)
    assert result.returncode == 1
    assert "model gemma2 (refused" not in result.stdout
