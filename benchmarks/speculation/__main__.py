"""Measure what speculation gains: python -m benchmarks.speculation [--size 500m] [--backend NAME] [--json FILE]

One stream of W1 without drafts, then with a drafter that knows what was said and guesses each token right with the
probability given; then an answer of few words, which repeats itself, without drafts and with prompt look-up. Tokens are
compared before a speed is printed. Rounds run everything in turn; a gain is the median of the rounds' own.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from isotoken.api.bench.machine import Others, machine_facts, versions
from isotoken.api.bench.measure import turned
from isotoken.api.bench.models import SIZES, ensure_model
from isotoken.api.bench.workloads import VOCAB_SIZE, make_workload, shorter
from isotoken.core.types import DecodeParams
from isotoken.plugins.manager import Plugins

from .controlled import LOOK_UP, Agreement, Dial
from .figures import HEADER, Row, step_costs, verify_cost
from .stream import Answer, Stream, difference

NUM_WORDS = 64
"""Tokens that the repetitive answer is made of. A random model that may say no other soon goes round in circles."""


class Case(NamedTuple):
    """One request, and what it brought without drafts."""

    prompt: list[int]
    params: DecodeParams
    base: Answer


class Bench:
    """Two engines of one model, without a drafter and with the controlled one."""

    def __init__(self, folder: Path, settings: dict[str, Any], drafts: dict[str, Any]) -> None:
        self._dial = Dial()
        self.plain = Stream(folder, Plugins.load(), **settings)
        plugins = Plugins.load([("controlled", self._dial)])
        self.drafted = Stream(folder, plugins, **settings, **drafts, drafter="controlled")

    def compare(self, agreements: Sequence[Agreement], share: int) -> None:
        """Warm up, and raise AssertionError where guesses of any kind change tokens."""
        for agreement, case in self._cases(agreements, 0, share).items():
            answer = self._with_drafts(agreement, case, 0)
            self._hold(agreement, case, answer)

    def measure(self, rows: Sequence[Row], index: int, share: int) -> None:
        """Run everything once, each in its turn, and add it to the rows."""
        cases = self._cases([row.agreement for row in rows], index, share)
        for row in turned(rows, index):
            case = cases[row.agreement]
            answer = self._with_drafts(row.agreement, case, index)
            if answer.tokens != case.base.tokens:
                self._hold(row.agreement, case, answer)
            row.add(case.base, answer, self._dial.tally)

    def _cases(self, agreements: Sequence[Agreement], index: int, share: int) -> dict[Agreement, Case]:
        task = shorter(make_workload("W1", index), share).tasks[0]
        params = DecodeParams(max_tokens=task.num_tokens, temperature=0.0, ignore_eos=True)
        words = tuple(sorted(random.Random(index).sample(range(3, VOCAB_SIZE), NUM_WORDS)))
        few = replace(params, allowed_token_ids=words)
        free = Case(task.prompt, params, self.plain.run(task.prompt, params))
        repetitive = Case(task.prompt, few, self.plain.run(task.prompt, few))
        return {agreement: repetitive if agreement == LOOK_UP else free for agreement in agreements}

    def _with_drafts(self, agreement: Agreement, case: Case, seed: int) -> Answer:
        self._dial.turn(agreement, case.base.tokens, seed)
        return self.drafted.run(case.prompt, case.params)

    def _hold(self, agreement: Agreement, case: Case, answer: Answer) -> None:
        told = difference(self.plain, self.drafted, case.prompt, case.base.tokens, answer.tokens)
        print(f"guesses right {agreement}: {told or 'the same tokens as without'}", file=sys.stderr)

    def close(self) -> None:
        """Give the memory back."""
        self.plain.close()
        self.drafted.close()


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speculation", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--size", default="500m", choices=SIZES)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--quantization")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--agreements", type=float, nargs="*", default=[0.75, 0.5, 0.25, 0.0])
    parser.add_argument("--num-draft-tokens", type=int, default=7)
    parser.add_argument("--fixed-drafts", action="store_true", help="guess that many, whether they pay or not")
    parser.add_argument("--verify-cost", type=float, default=0.0, help="0: the backend's")
    parser.add_argument("--share", type=int, default=1, help="run only a part of each prompt and answer")
    parser.add_argument("--json", type=Path, help="write everything there")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write."""
    args = arguments(argv)
    settings = {name: getattr(args, name) for name in ("backend", "dtype", "quantization")}
    settings |= {"num_threads": args.threads, "max_model_len": 512, "max_num_seqs": 8, "memory_fraction": 0.4}
    drafts = {name: getattr(args, name) for name in ("num_draft_tokens", "fixed_drafts", "verify_cost")}
    rows = [Row(agreement) for agreement in (*args.agreements, LOOK_UP)]
    bench = Bench(ensure_model(args.size), settings, drafts)
    try:
        bench.compare([row.agreement for row in rows], args.share)
        with Others() as others:
            for index in range(1, args.rounds + 1):
                bench.measure(rows, index, args.share)
        built = bench.drafted.built
    finally:
        bench.close()
    costs = step_costs(rows)
    found = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": f"random-{args.size}",
        "engine": {"backend": built.backend, "dtype": built.dtype, "reasons": built.reasons},
        "settings": settings | drafts | {"rounds": args.rounds, "share": args.share},
        "rows": [row.figures() for row in rows],
        "step_seconds": costs,
        "verify_cost": verify_cost(costs),
        "machine": machine_facts(),
        "versions": versions(),
        "others": others.cpus,
    }
    show(found, rows)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def show(found: dict[str, Any], rows: Sequence[Row]) -> None:
    """Print the table and what it rests on."""
    engine, settings = found["engine"], found["settings"]
    subject = " ".join(filter(None, (engine["backend"], engine["dtype"], settings["quantization"])))
    print(f"W1 on {found['model']}, {subject}, {settings['num_threads']} threads, {settings['rounds']} rounds")
    print(*(reason for reason in engine["reasons"] if reason.startswith("drafts")), sep="\n")
    print(HEADER, *(row.line() for row in rows), sep="\n")
    print("a step by its tokens:", ", ".join(f"{n}: {s * 1e3:.2f} ms" for n, s in found["step_seconds"].items()))
    if found["verify_cost"] is not None:
        print(f"so verifying a guess costs {found['verify_cost']:.3f} of a step of one token")
    print(f"other processes kept {found['others']:.1f} CPUs busy")


if __name__ == "__main__":
    raise SystemExit(main())
