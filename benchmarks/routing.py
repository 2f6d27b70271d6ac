"""What routing saves and loses on the built-in pair: small questions to isotoken-draft, others to isotoken-small.

    python -m benchmarks.routing --docs docs

Questions with one right answer (facts, sums, counting, spelling, reading, ...) are put to both models once. From these
answers every strategy is worked out: its accuracy, and its compute in parts of the strong model's, counted as 2 FLOPs
for each parameter and token, prompts and the cheap model's rejected answers included.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from isotoken import LLM, SamplingParams
from isotoken.api.routing.features import measure
from isotoken.api.routing.intervals import Rate
from isotoken.api.routing.router import ComplexityRouter
from isotoken.core.checkpoint import Checkpoint
from isotoken.models import BUILTIN
from isotoken.models.training import arithmetic, skills

from .schedulers import write_page

CHEAP, STRONG = "isotoken-draft", "isotoken-small"
SKILLS = (
    *(skills.fact, skills.capital_check, skills.spelling, skills.repeating, skills.reading, skills.as_json),
    *(skills.word_problem, arithmetic.ask_compare, arithmetic.ask_number, arithmetic.ask_count, arithmetic.ask_sum),
)
THRESHOLDS = (0.2, 0.3, 0.4, 0.5)
CONFIDENCES = (0.9, 0.95, 0.98, 0.99, 0.995)
MAX_TOKENS = 80
BEGIN, END = "<!-- routing: begin (made by benchmarks/routing.py) -->", "<!-- routing: end -->"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model made of a question."""

    right: bool
    confidence: float
    flops: float


@dataclass(frozen=True, slots=True)
class Row:
    """A strategy."""

    strategy: str
    accuracy: float
    least: float  # of its 95% confidence interval
    most: float
    compute: float  # in parts of the strong model's
    strong_share: float  # of the questions that the strong model answered


def questions(many: int) -> list[tuple[str, str, str]]:
    """Draw (skill, question, answer), as many of each skill."""
    drawn = []
    for skill in SKILLS:
        random = Random(f"routing {skill.__name__}")
        for _ in range(many):
            if skill is arithmetic.ask_sum:
                question, answer = skill(random, arithmetic.draw_sum(random, held=True))
            else:
                question, answer = skill(random)
            drawn.append((skill.__name__, question, answer))
    return drawn


def ask(model: str, asked: Sequence[tuple[str, str, str]], backend: str) -> list[Answer]:
    """Put every question to a model, greedily."""
    params = SamplingParams(temperature=0.0, max_tokens=MAX_TOKENS, logprobs=0)
    size = num_parameters(BUILTIN[model])
    with LLM(model, backend=backend, num_threads=2) as llm:
        results = llm.chat([[{"role": "user", "content": question}] for _, question, _ in asked], params)
    answers = []
    for (_, _, expected), result in zip(asked, results, strict=True):
        output = result.outputs[0]
        num_tokens = len(result.prompt_token_ids) + len(output.token_ids)
        mean = (output.cumulative_logprob or 0.0) / max(1, len(output.token_ids))
        answers.append(Answer(output.text.strip() == expected, math.exp(mean), 2.0 * size * num_tokens))
    return answers


def num_parameters(folder: Path) -> int:
    """Count a model's weights."""
    checkpoint = Checkpoint.open(folder)
    return checkpoint.num_bytes // 2  # both are in bfloat16


def rows(asked: Sequence[tuple[str, str, str]], cheap: Sequence[Answer], strong: Sequence[Answer]) -> list[Row]:
    """Work out every strategy."""
    whole = sum(answer.flops for answer in strong)
    pairs = list(zip(cheap, strong, strict=True))

    def row(strategy: str, picks: Sequence[tuple[bool, float, bool]]) -> Row:
        """`picks` are (right, FLOPs, whether the strong model answered)."""
        rate = Rate(sum(right for right, _, _ in picks), len(picks))
        low, high = rate.interval() or (0.0, 1.0)
        share = sum(is_strong for _, _, is_strong in picks) / len(picks)
        return Row(strategy, rate.rate, low, high, sum(flops for _, flops, _ in picks) / whole, share)

    found = [
        row(f"always {STRONG}", [(b.right, b.flops, True) for _, b in pairs]),
        row(f"always {CHEAP}", [(a.right, a.flops, False) for a, _ in pairs]),
    ]
    for threshold in THRESHOLDS:
        router = ComplexityRouter({"threshold": threshold})
        hard = [router.choose(measure([question]), (CHEAP, STRONG)).model == STRONG for _, question, _ in asked]
        picks = [
            (b.right, b.flops, True) if h else (a.right, a.flops, False) for h, (a, b) in zip(hard, pairs, strict=True)
        ]
        found.append(row(f"complexity, threshold {threshold:g}", picks))
    for least in CONFIDENCES:
        picks = [
            (a.right, a.flops, False) if a.confidence >= least else (b.right, a.flops + b.flops, True) for a, b in pairs
        ]
        found.append(row(f"cheap first, confidence {least:g}", picks))
    return found


def table(found: Sequence[Row]) -> str:
    """Return them in Markdown."""
    lines = [
        "| strategy | right answers | lost | compute | saved | answered by the strong model |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    best = found[0].accuracy
    lines += [
        f"| {row.strategy} | {row.accuracy:.1%} ({row.least:.1%} to {row.most:.1%}) "
        f"| {100 * (best - row.accuracy):.1f} points "
        f"| {row.compute:.2f} | {1 - row.compute:.0%} | {row.strong_share:.0%} |"
        for row in found
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Ask, work out, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.routing", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--many", type=int, default=64, help="questions of each skill")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--json", type=Path, help="write everything there")
    parser.add_argument("--docs", type=Path, help="folder of routing.md, to write the table")
    args = parser.parse_args(argv)
    asked = questions(args.many)
    cheap, strong = (ask(model, asked, args.backend) for model in (CHEAP, STRONG))
    found = rows(asked, cheap, strong)
    sizes = {model: num_parameters(BUILTIN[model]) for model in (CHEAP, STRONG)}
    caption = (
        f"{len(asked):,} questions of {len(SKILLS)} kinds with one right answer each, greedy; `{CHEAP}` has "
        f"{sizes[CHEAP] / 1e6:.1f} million weights, `{STRONG}` {sizes[STRONG] / 1e6:.1f}. "
        "Compute counts 2 FLOPs for each weight and token; the cheap model's answers that were not taken are in it. "
        "In brackets: 95% confidence intervals."
    )
    print(f"{table(found)}\n\n{caption}")
    if args.json:
        args.json.write_text(json.dumps({"of": caption, "rows": [asdict(row) for row in found]}, indent=1) + "\n")
    if args.docs:
        write_page(args.docs / "routing.md", f"{table(found)}\n\n{caption}", BEGIN, END)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
