"""The table of docs/quantization.md: it comes out of its figures, and they out of the engine."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from isotoken.plugins.manager import Plugins

from .made import report

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # benchmarks/ is no part of the package

from benchmarks import quantization
from benchmarks.quantization import BEGIN, DOCS, END, main, ways
from benchmarks.quantization_page import LARGE, Figures, Row, Way, load, section, sizes, table, with_speeds


def row(way: Way, **values: float) -> Row:
    made = {"weight_bytes": 34_211_840, "kv_bytes_per_token": 10240.0, "perplexity": 1.80672, "positions": 9317}
    return Row(way, **{**made, "divergence": 0.0, "differing": 0.0, **values})  # type: ignore[arg-type]


def test_the_page_is_fresh() -> None:
    figures = load(DOCS / "benchmarks" / "quantization.json")
    page = (DOCS / "quantization.md").read_text()
    assert section(figures) in page.split(BEGIN)[1], "run: python -m benchmarks.quantization --no-quality"


def test_a_table_has_speeds_only_where_they_were_measured() -> None:
    plain, rounded = Way("onnxruntime", "float32"), Way("onnxruntime", "float32", "int4")
    figures = Figures(plain, [row(plain), row(rounded, divergence=0.003525, differing=0.0402)])
    assert "tokens/s" not in table(figures)
    assert "left out until they have been measured on a quiet machine" in section(figures)
    assert (
        "| `onnxruntime` | float32 | `int4` | as computed | 34.21 | 0% | 10240 | 1.8067 | 0.003525 | 4.02% |"
        in table(figures)
    )
    figures.rows[1].rates = {"W1": 300.4}
    assert "| W1, tokens/s | W2, tokens/s |" in table(figures)
    assert "| 10240 | 300 |  | 1.8067 |" in table(figures)


def test_the_sizes_of_a_large_model_are_those_of_its_matrices() -> None:
    lines = sizes(LARGE).splitlines()
    assert "| 16 bits | 16.06 | 100% |" in lines  # 8,030,261,248 parameters
    tables, layers = 128256 * 4096, 32 * (2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    int4 = (tables + layers) * 18 / 32 + 2 * tables + 2 * 4096 * 65
    assert f"| `int4` | {int4 / 1e9:.2f} | {int4 / 16.0605e9:.0%} |" in lines


def test_speeds_come_from_a_run_that_may_be_published() -> None:
    run = report()
    way = Way(run.results[0].variant.backend, run.results[0].variant.dtype, run.results[0].variant.quantization)
    figures = Figures(way, [row(way), row(replace(way, kv_cache_dtype="int8"))])
    with pytest.raises(ValueError, match="three rounds"):
        with_speeds(figures, replace(run, rounds=1))
    with_speeds(figures, replace(run, rounds=3, share=1))
    rates = {r.workload: r.rate for r in run.results if r.variant == run.results[0].variant}
    assert figures.rows[0].rates == {name: rate for name, rate in rates.items() if name in ("W1", "W2")}
    assert figures.rows[1].rates == {}
    assert figures.speed == run.command


def test_every_way_that_a_backend_declares_is_measured() -> None:
    found = list(ways(Plugins.load(), ["onnxruntime"]))
    assert found == [
        Way("onnxruntime", "float32"),
        Way("onnxruntime", "float32", "int8"),
        Way("onnxruntime", "float32", "int4"),
        Way("onnxruntime", "float32", None, "float16"),
    ]


def test_quality_is_measured_through_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "READ", 24)
    monkeypatch.setattr(quantization, "COMPARED", 6)
    other = row(Way("native", "bfloat16", "w8a8"))
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "quantization.md").write_text(f"# Quantisation\n\nsaid before\n\n{BEGIN}\n{END}\n\nand after\n")
    figures = Figures(Way("onnxruntime", "float32"), [other])
    saved = tmp_path / "benchmarks" / "quantization.json"
    saved.write_bytes(msgspec.json.encode(figures))
    assert main(["--only", "onnxruntime", "--docs", str(tmp_path)]) == 0
    kept, *rows = load(saved).rows
    assert kept == other
    exact, int8, int4, half = rows
    assert exact.divergence < 1e-9
    assert exact.differing == 0.0
    assert 1e-7 < int8.divergence < int4.divergence < 0.05
    assert half.kv_bytes_per_token == exact.kv_bytes_per_token / 2
    assert int4.weight_bytes < int8.weight_bytes < exact.weight_bytes
    assert 1.0 < exact.perplexity < 4.0
    assert abs(np.log(int8.perplexity / exact.perplexity)) < 0.02
    page = (tmp_path / "quantization.md").read_text()
    assert "said before" in page
    assert "and after" in page
    assert section(load(saved)) in page
