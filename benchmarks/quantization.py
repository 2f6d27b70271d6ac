"""What quantisation saves and what it costs: python -m benchmarks.quantization [--speed RUN.json] [--only native]

Measures every way to store weights and K/V that the backends here declare, through the real engine, on text that the
built-in model was not trained on, against float32: perplexity, divergence, how often another token is the best one.
Writes docs/benchmarks/quantization.json and, between its marks, the table of docs/quantization.md. A row that is not
measured this time stays as it was. Speeds come out of a saved run of `isotoken bench random-125m --json RUN.json` on a
quiet machine; without one there are none.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from isotoken.api.bench.results import Report, load_report
from isotoken.api.text import TextModel
from isotoken.core.types import DecodeParams, Request, RequestOutput
from isotoken.models import BUILTIN
from isotoken.models.training.corpus import documents
from isotoken.plugins.build import EngineConfig, build_engine
from isotoken.plugins.manager import Plugins
from numpy.typing import NDArray

from .schedulers import write_page

MODEL = "isotoken-small"
SEED = "0 held out"  # of models/training/evaluate.py: never trained on
READ, COMPARED = 600, 200  # documents: for perplexity, as evaluation.json has it; for whole distributions
BEGIN, END = (f"<!-- quantization: {word} -->" for word in ("begin (made by benchmarks/quantization.py)", "end"))
DOCS = Path(__file__).parents[1] / "docs"
LEFT_OUT = ("reference", "null")  # float32 in numpy; no model at all
WORKLOADS = ("W1", "W2")


@dataclass(frozen=True, slots=True)
class Way:
    """One way to hold weights and K/V on one backend."""

    backend: str
    dtype: str
    quantization: str | None = None
    kv_cache_dtype: str = "auto"


@dataclass(slots=True)
class Row:
    """What came of it. Of divergence and others, the mean over all positions of the compared documents."""

    way: Way
    weight_bytes: int
    kv_bytes_per_token: float
    perplexity: float
    divergence: float  # KL(float32 || this), nats a token
    differing: float  # share of positions where another token is the most likely
    positions: int
    rates: dict[str, float] = field(default_factory=dict)  # tokens a second by workload, of a quiet machine


@dataclass(slots=True)
class Figures:
    """What docs/benchmarks/quantization.json holds."""

    base: Way
    rows: list[Row] = field(default_factory=list)
    speed: str = ""  # the command that measured the rates


class Engine:
    """An engine that scores documents."""

    def __init__(self, way: Way, plugins: Plugins) -> None:
        settings = {name: getattr(way, name) for name in Way.__dataclass_fields__}
        settings |= {"max_num_seqs": 8, "prefix_caching": False, "num_threads": 1}
        config = EngineConfig(model=str(BUILTIN[MODEL]), **settings)
        self._said: dict[str, list[NDArray[np.float32]]] = {}
        self._built = build_engine(config, plugins, self._publish)
        self.info = self._built.engine.info

    def score(self, prompts: Sequence[list[int]], *, whole: bool) -> Iterator[NDArray[np.float32]]:
        """Yield the log-probabilities of each document: [S - 1] of its own tokens, or [S - 1, V] of every token."""
        params = DecodeParams(max_tokens=0, num_prompt_logprobs=-1 if whole else 0)
        for start in range(0, len(prompts), 8):
            part = prompts[start : start + 8]
            self._said = {str(i): [] for i in range(len(part))}
            for i, ids in enumerate(part):
                self._built.engine.add(Request(id=str(i), token_ids=ids, num_prompt_tokens=len(ids), params=params))
            self._built.engine.run()
            yield from (np.array(rows, np.float32) for rows in self._said.values())

    def close(self) -> None:
        """Give back the memory."""
        self._built.engine.close()

    def _publish(self, outputs: list[RequestOutput]) -> None:
        for output in outputs:
            if output.error is not None:
                raise RuntimeError(output.error)
            for position in output.prompt_logprobs or ():
                if len(position.top) < self.info.vocab_size:
                    self._said[output.request_id].append(np.float32(position.logprob))  # type: ignore[arg-type]
                    continue
                row = np.empty(self.info.vocab_size, np.float32)
                ids, values = zip(*position.top, strict=True)
                row[list(ids)] = values
                self._said[output.request_id].append(row)


def measure(way: Way, plugins: Plugins, texts: list[list[int]], exact: list[NDArray[np.float32]]) -> Row:
    """Score all documents, and compare whole distributions with float32's on the first ones. Fills an empty `exact`."""
    engine = Engine(way, plugins)
    info = engine.info
    own = np.concatenate(list(engine.score(texts, whole=False)))
    divergence, differing, positions = 0.0, 0, 0
    is_base = not exact
    for i, found in enumerate(engine.score(texts[:COMPARED], whole=True)):
        if is_base:
            exact.append(found)
        truth = exact[i]
        divergence += float((np.exp(truth, dtype=np.float64) * (truth.astype(np.float64) - found)).sum())
        differing += int((truth.argmax(axis=1) != found.argmax(axis=1)).sum())
        positions += len(truth)
    engine.close()
    return Row(
        way=way,
        weight_bytes=info.weight_bytes,
        kv_bytes_per_token=info.kv_cache_bytes / (info.max_cached_tokens or info.num_blocks * info.block_size),
        perplexity=math.exp(-float(own.mean(dtype=np.float64))),
        divergence=max(0.0, divergence / positions),
        differing=differing / positions,
        positions=positions,
    )


def ways(plugins: Plugins, only: Sequence[str] = ()) -> Iterator[Way]:
    """Every way that the backends declare on the CPU: each dtype, each quantisation in the first, K/V in the others."""
    for name, provider in plugins.backends.items():
        if name in LEFT_OUT or (only and name not in only):
            continue
        try:
            can = provider.factory().capabilities
        except Exception as error:  # an engine that is not here
            print(f"{name} is left out: {error}")
            continue
        dtypes = [d for d in ("float32", "bfloat16") if d in can.device_dtypes.get("cpu", can.dtypes)]
        if "cpu" not in can.devices or not dtypes:
            continue
        yield from (Way(name, dtype) for dtype in dtypes)
        computed = dtypes[-1]
        known = [q for q in plugins.quantizations if q in can.quantizations]
        yield from (Way(name, computed, quantization) for quantization in sorted(known, key=_fineness))
        narrower = [k for k in sorted(can.kv_cache_dtypes) if k not in dtypes]
        yield from (Way(name, computed, None, kv_dtype) for kv_dtype in narrower)


def _fineness(quantization: str) -> tuple[bool, str]:
    return "4" in quantization[:4], quantization


def with_speeds(figures: Figures, report: Report) -> None:
    """Take the rates of a saved comparison into the rows that they are of. Raises ValueError for one that is no use."""
    if not report.ok or report.share != 1 or report.rounds < 3:
        raise ValueError("such a run is not published: it needs right tokens, whole workloads and three rounds")
    for row in figures.rows:
        way = row.way
        row.rates = {
            result.workload: result.rate
            for result in report.results
            if result.workload in WORKLOADS
            and (result.variant.backend, result.variant.dtype, result.variant.quantization)
            == (way.backend, way.dtype, way.quantization)
            and way.kv_cache_dtype == "auto"
        }
    figures.speed = report.command


def table(figures: Figures) -> str:
    """Return the figures as Markdown."""
    has_speed = any(row.rates for row in figures.rows)
    heads = ["Backend", "Computed in", "Weights", "K/V", "weights, MB", "K/V, bytes a token"]
    heads += [f"{workload}, tokens/s" for workload in WORKLOADS] if has_speed else []
    heads += ["perplexity", "divergence, nats", "another best token"]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|---|---" + "|--:" * (len(heads) - 4) + "|"]
    for row in figures.rows:
        way = row.way
        cells = [f"`{way.backend}`", way.dtype, _code(way.quantization or "as they are")]
        cells += [_code("as computed" if way.kv_cache_dtype == "auto" else way.kv_cache_dtype)]
        cells += [f"{row.weight_bytes / 1e6:.2f}", f"{row.kv_bytes_per_token:.0f}"]
        if has_speed:
            cells += [f"{row.rates[w]:.0f}" if w in row.rates else "" for w in WORKLOADS]
        cells += [f"{row.perplexity:.4f}", f"{row.divergence:.6f}", f"{row.differing:.2%}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _code(text: str) -> str:
    return text if " " in text else f"`{text}`"


def section(figures: Figures) -> str:
    """Return what goes between the marks."""
    positions = figures.rows[0].positions if figures.rows else 0
    speeds = (
        f"Speeds: `{figures.speed}`, medians of rounds in turn."
        if figures.speed
        else "Speeds are left out until they have been measured on a quiet machine: `isotoken bench random-125m "
        "--quantization ...`, see [benchmarks](../benchmarks/README.md)."
    )
    return f"""{table(figures)}

`{MODEL}`, {READ} documents that it was not trained on (perplexity) and the {positions:,} positions of the first
{COMPARED} of them (divergence: the mean of KL(float32 || this) over the whole vocabulary; how often another token than
float32's is the most likely). The float32 is `{figures.base.backend}`'s. {speeds}
"""


def main(argv: list[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", default=[], metavar="BACKEND", help="repeatable; others stay")
    parser.add_argument("--speed", type=Path, help="a report of `isotoken bench random-125m --json`")
    parser.add_argument("--base", default="onnxruntime", help="whose float32 is the truth")
    parser.add_argument("--no-quality", action="store_true", help="measure nothing: the speeds and the page alone")
    parser.add_argument("--docs", type=Path, default=DOCS)
    args = parser.parse_args(argv)
    saved, plugins = args.docs / "benchmarks" / "quantization.json", Plugins.load()
    figures = load(saved) if saved.exists() else Figures(Way(args.base, "float32"))
    if not args.no_quality:
        texts = held_out()
        exact: list[NDArray[np.float32]] = []
        base = measure(figures.base, plugins, texts, exact)
        asked = list(ways(plugins, args.only))
        found = {base.way: base}
        for way in (way for way in asked if way != base.way):
            print(way, flush=True)
            found[way] = measure(way, plugins, texts, exact)
        kept = {row.way: row for row in figures.rows if args.only and row.way.backend not in args.only}
        rates = {row.way: row.rates for row in figures.rows}
        figures.rows = sorted((kept | found).values(), key=lambda row: row.way.backend)
        for row in figures.rows:
            row.rates = rates.get(row.way, {})
    if args.speed is not None:
        with_speeds(figures, load_report(args.speed))
    saved.parent.mkdir(parents=True, exist_ok=True)
    saved.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=1) + b"\n")
    write_page(args.docs / "quantization.md", section(figures), BEGIN, END)
    print(section(figures))
    return 0


def load(path: Path) -> Figures:
    """Read saved figures."""
    return msgspec.json.decode(path.read_bytes(), type=Figures)


def held_out() -> list[list[int]]:
    """Return the token ids of the documents."""
    text = TextModel.load(BUILTIN[MODEL])
    return [text.encode(document, add_special_tokens=False) for document in itertools.islice(documents(SEED), READ)]


if __name__ == "__main__":
    raise SystemExit(main())
