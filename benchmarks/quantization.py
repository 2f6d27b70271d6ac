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
from pathlib import Path

import msgspec
import numpy as np
from isotoken.api.bench.results import load_report
from isotoken.api.text import TextModel
from isotoken.core.types import DecodeParams, Request, RequestOutput
from isotoken.models import BUILTIN
from isotoken.models.training.corpus import documents
from isotoken.plugins.build import EngineConfig, build_engine
from isotoken.plugins.manager import Plugins
from numpy.typing import NDArray

from .quantization_page import COMPARED, MODEL, READ, Figures, Row, Way, fineness, load, section, with_speeds
from .schedulers import write_page

SEED = "0 held out"  # of models/training/evaluate.py: never trained on
BEGIN, END = (f"<!-- quantization: {word} -->" for word in ("begin (made by benchmarks/quantization.py)", "end"))
DOCS = Path(__file__).parents[1] / "docs"
LEFT_OUT = ("reference", "null")  # float32 in numpy; no model at all


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
        yield from (Way(name, computed, quantization) for quantization in sorted(known, key=fineness))
        narrower = [k for k in sorted(can.kv_cache_dtypes) if k not in dtypes]
        yield from (Way(name, computed, None, kv_dtype) for kv_dtype in narrower)


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


def held_out() -> list[list[int]]:
    """Return the token ids of the documents."""
    text = TextModel.load(BUILTIN[MODEL])
    return [text.encode(document, add_special_tokens=False) for document in itertools.islice(documents(SEED), READ)]


if __name__ == "__main__":
    raise SystemExit(main())
