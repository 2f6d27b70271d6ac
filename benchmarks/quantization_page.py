"""The page of what quantisation saves and costs: figures as values, a table of them, and the sizes of a large model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from isotoken.api.bench.results import Report
from isotoken.core.decoder_spec import DecoderSpec
from isotoken.core.quantization import SCHEMES
from isotoken.core.weight_names import PREFIXES, weights

MODEL = "isotoken-small"
READ, COMPARED = 600, 200  # documents: for perplexity, as evaluation.json has it; for whole distributions
WORKLOADS = ("W1", "W2")
LARGE = {  # the shape of Llama 3.1 8B
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
SCALE_BYTES = 2  # as native stores the scales of groups


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


def load(path: Path) -> Figures:
    """Read saved figures."""
    return msgspec.json.decode(path.read_bytes(), type=Figures)


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
    heads = ["Backend", "Computed in", "Weights", "K/V", "weights, MB", "saved", "K/V, bytes a token"]
    heads += [f"{workload}, tokens/s" for workload in WORKLOADS] if has_speed else []
    heads += ["perplexity", "divergence, nats", "another best token"]
    floats = {row.way.backend: row.weight_bytes for row in reversed(figures.rows) if row.way.dtype == "float32"}
    lines = ["| " + " | ".join(heads) + " |", "|---|---|---|---" + "|--:" * (len(heads) - 4) + "|"]
    for row in figures.rows:
        way = row.way
        cells = [f"`{way.backend}`", way.dtype, _code(way.quantization or "as they are")]
        cells += [_code("as computed" if way.kv_cache_dtype == "auto" else way.kv_cache_dtype)]
        saved = 1 - row.weight_bytes / floats.get(way.backend, row.weight_bytes)
        cells += [f"{row.weight_bytes / 1e6:.2f}", f"{saved:.0%}", f"{row.kv_bytes_per_token:.0f}"]
        if has_speed:
            cells += [f"{row.rates[w]:.0f}" if w in row.rates else "" for w in WORKLOADS]
        cells += [f"{row.perplexity:.4f}", f"{row.divergence:.6f}", f"{row.differing:.2%}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def sizes(config: Mapping[str, Any]) -> str:
    """Return what the weights of a model of that shape take in each scheme, as Markdown."""
    listed = list(weights(DecoderSpec.from_config(config), PREFIXES[0]))
    plain = sum(2 * math.prod(weight.shape) for weight in listed)
    lines = ["| Weights | GB | of 16 bits |", "|---|--:|--:|", f"| 16 bits | {plain / 1e9:.2f} | 100% |"]
    for scheme in sorted(SCHEMES.values(), key=lambda scheme: fineness(scheme.name)):
        total = sum(
            scheme.num_bytes(*weight.shape, SCALE_BYTES)
            if len(weight.shape) == 2 and weight.name != "embed_tokens"
            else 2 * math.prod(weight.shape)
            for weight in listed
        )
        lines.append(f"| `{scheme.name}` | {total / 1e9:.2f} | {total / plain:.0%} |")
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

What the weights of a model of the shape of Llama 3.1 8B take, embeddings in 16 bits:

{sizes(LARGE)}
"""


def fineness(quantization: str) -> tuple[bool, str]:
    return "4" in quantization[:4], quantization
