"""The peer's process, its ways and the comparison, with a stand-in for the library; and the real one where it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from isotoken.api.bench.machine import Others
from isotoken.api.bench.workloads import Task, Workload

ROOT = Path(__file__).parents[2]
FAKE = Path(__file__).with_name("fake_genai")
REAL = os.environ.get("ISOTOKEN_GENAI_PYTHON", "")

sys.path.append(str(ROOT))
from benchmarks.peers.compare import Comparison, Round  # noqa: E402
from benchmarks.peers.genai_peer import BATCHES, Genai, convert  # noqa: E402
from benchmarks.peers.process import Way  # noqa: E402
from benchmarks.peers.report import checks, table, write_json  # noqa: E402

RAGGED = Workload("W3", [Task([9, 8, 7, 6], 5), Task([30], 2), Task([4, 5], 7)], 3)
SHARED = Workload("W4", [Task([11, 12, 13, tail], 4) for tail in (20, 21, 22)], 3)


def expected(workload: Workload) -> list[list[int]]:
    found = []
    for task in workload.tasks:
        tokens = list(task.prompt)
        for _ in range(task.num_tokens):
            tokens.append(3 + (7 * sum(tokens) + len(tokens)) % 900)
        found.append(tokens[len(task.prompt) :])
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "genai_config.json").write_text(json.dumps({"log": str(tmp_path / "log.json")}))
    return tmp_path


@pytest.fixture
def peer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Genai]:
    monkeypatch.setenv("PYTHONPATH", str(FAKE))
    found = Genai(Path(sys.executable), folder, folder, threads=3)
    yield found
    found.close()


@pytest.mark.parametrize("workload", [RAGGED, SHARED], ids=["ragged", "shared"])
def test_every_way_gives_each_task_its_own_tokens_and_times(peer: Genai, workload: Workload) -> None:
    for way in [*peer.ways(workload), peer.make_way("generator", 2), peer.make_way("engine", 1)]:
        peer.way = way
        run = peer.run(workload)
        assert run.tokens == expected(workload), way
        assert [len(times) for times in run.token_times] == [task.num_tokens for task in workload.tasks]
        assert all(0 < one <= other <= run.seconds for times in run.token_times for one, other in pairwise(times))


def apis(found: list[Way]) -> set[str]:
    return {way.label.split()[0] for way in found}


def test_the_shared_way_is_tried_only_where_something_is_shared(peer: Genai) -> None:
    assert apis(peer.ways(RAGGED)) == {"generator", "engine"}
    assert apis(peer.ways(SHARED)) == {"generator", "engine", "shared"}


def test_pruned_logits_are_left_alone_where_prompts_are_ragged(peer: Genai) -> None:
    assert not any("pruned" in way.label for way in peer.ways(RAGGED))
    assert apis([way for way in peer.ways(SHARED) if "pruned" in way.label]) == {"generator", "shared"}


def test_variations_spin_in_every_way_and_change_nothing_else(peer: Genai) -> None:
    way = peer.make_way("generator", 16)
    found = peer.variations(way, ("off", "on"))
    assert [other.run for other in found] == [way.run] * 2
    assert [dict(other.load)["spinning"] for other in found] == ["off", "on"]


def test_threads_spinning_pruning_and_batches_reach_the_library(peer: Genai, folder: Path) -> None:
    def options() -> dict[str, object]:
        values = json.loads((folder / "log.json").read_text())
        assert values["engine"]["static_batching"]["max_batch_size"] == max(BATCHES)
        found: dict[str, object] = values["model"]["decoder"]["session_options"]
        return found

    peer.load(peer.make_way("generator", 2))
    assert options()["session.intra_op.allow_spinning"] == "0"
    assert options()["intra_op_num_threads"] == 3
    peer.way = peer.make_way("generator", 2, spinning="on")
    assert peer.run(RAGGED).tokens == expected(RAGGED)
    assert options()["session.intra_op.allow_spinning"] == "1"


def test_what_goes_wrong_over_there_is_said_here(peer: Genai, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peer.way = peer.make_way("by magic", 2)
    with pytest.raises(RuntimeError, match="onnxruntime-genai: KeyError: 'by magic'"):
        peer.run(RAGGED)
    peer.way = peer.make_way("engine", 2)
    assert peer.run(RAGGED).tokens == expected(RAGGED)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    with pytest.raises(RuntimeError, match="No module named 'onnxruntime_genai'"):
        other = Genai(Path(sys.executable), folder, folder, threads=1)
        try:
            other.load(other.make_way("engine", 2))
        finally:
            other.close()
    with pytest.raises(RuntimeError, match="No module named"):
        convert(Path(sys.executable), folder / "model", "int8", folder)


def test_others_are_others() -> None:
    """A process that computes is one of the others, unless its id is given."""
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        used = psutil.Process(child.pid).cpu_times
        with Others() as all_others, Others(child.pid) as fewer:
            start, deadline = used().user, time.monotonic() + 60
            while used().user < start + 0.3 and time.monotonic() < deadline:
                sum(range(100_000))
    finally:
        child.kill()
        child.wait()
    assert all_others.cpus > fewer.cpus


def test_the_table_shows_the_median_of_ratios(tmp_path: Path) -> None:
    rounds = [Round(100, 50, (1, 2), 0.1), Round(90, 90, (1, 1), 1.2), Round(300, 100, (2, 3), 0.0)]
    found = Comparison(
        "W2", "int8", "onnxruntime, float32, int8", "genai", "engine of 32", rounds, (0.02, 0.05), ("fine", "2.0% off")
    )
    row = table([found]).splitlines()[-1]
    assert (
        "| W2 | int8 | 100 | 90 | **2.00** | 2.00 1.00 3.00 | onnxruntime, float32, int8 | genai: engine of 32" in row
    )
    assert "| 20 / 50 | 1.00 / 2.00 |" in row
    assert checks([found]) == "W2 int8: onnxruntime, float32, int8: fine; genai: 2.0% off"
    write_json(tmp_path / "r.json", [found], {"model": "m"})
    assert json.loads((tmp_path / "r.json").read_text())["comparisons"][0]["ratio"] == 2.0


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="ISOTOKEN_GENAI_PYTHON names no Python that has onnxruntime-genai")
@pytest.mark.timeout(600)
def test_compared_with_the_real_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.peers", "compare", "genai", "--peer-python", REAL, "--model"]
    command += [
        "random-tiny",
        "--backend",
        "onnxruntime",
        "--share",
        "8",
        "--rounds",
        "1",
        "--threads",
        "1",
        "--json",
        str(tmp_path / "r.json"),
    ]
    environment = os.environ | {"ISOTOKEN_BENCH_CACHE": str(tmp_path)}
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads((tmp_path / "r.json").read_text())["comparisons"]
    assert {(each["workload"], each["precision"]) for each in found} == {
        (workload, precision) for workload in ("W1", "W2", "W3", "W4") for precision in ("float32", "int8", "int4")
    }
    assert all(each["ratio"] > 0 for each in found)


def test_the_page_shows_the_best_peer_of_each_width(tmp_path: Path) -> None:
    from benchmarks.peers import document

    def run(peer: str, theirs: float) -> dict[str, object]:
        rounds = [Round(100, theirs, (1, 2), 0.1), Round(120, theirs, (1, 1), 0.0), Round(110, theirs, (2, 3), 0.0)]
        found = Comparison("W1", "int8", "native, bfloat16, w8a8", peer, "its way", rounds, (0.02, 0.05), ("a", "b"))
        path = tmp_path / f"{peer}.json"
        facts = {"model": "m", "threads": 2, "machine": {"processor": "P", "CPUs": "2", "memory": "1 GiB"}}
        write_json(path, [found], facts | {"versions": {peer: "1.0"}, "command": ["compare", peer]})
        loaded: dict[str, object] = json.loads(path.read_text())
        return loaded

    results = document.read([run("slow", 40), run("fast", 50)])
    row = document.tables(results).splitlines()[-1]
    assert row == "| W1 one stream | **110** | 40 | 50 | **2.20 x** (2.00 to 2.40) | 20 / 50 |"
    (tmp_path / "images").mkdir()
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{document.BEGIN}\nold\n{document.END}\nafter\n")
    files = [str(tmp_path / f"{peer}.json") for peer in ("slow", "fast")]
    command = [sys.executable, "-m", "benchmarks.peers.document", *files, "--docs", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT)
    text = page.read_text()
    assert row in text
    assert text.startswith("before") and text.endswith("after\n") and "old" not in text
    assert "<svg" in (tmp_path / "images" / "peers.svg").read_text()
    assert (tmp_path / "benchmarks" / "peers-fast.json").exists()
