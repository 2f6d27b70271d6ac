"""Freeze the goldens: `python -m isotoken.conformance.freeze [MODEL ...]`; only ample margins get in."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import replace

from ..core.types import DecodeParams
from . import SUITE_VERSION
from .cases import GOLDENS, Case, finish_of, freeze_case
from .draw import draw, processed
from .models import MODELS, TinyModel, weights_digest
from .oracle import Oracle

AMPLE = 0.02
"""The least margin of a frozen token in logit units: dozens of times what float32 can get wrong."""
AMPLE_ROUTING = 0.03
"""The least gap between a chosen and a rejected expert, in router logits."""


def generate(oracle: Oracle, case: Case) -> Case | None:
    """Fill in a case's tokens and margins by the oracle; None where any margin is less than ample."""
    model, prompt = oracle.model, list(case.prompt)
    output: list[int] = []
    margins: list[float] = []
    eos = frozenset({model.eos})
    while finish_of(case, output, eos, model.max_len) is None:
        trace = oracle.trace(prompt + output)
        x = processed(trace.logits[-1], case.params, prompt, output, eos)
        drawn = draw(x, case.params, len(prompt) + len(output), AMPLE / 2)
        if not drawn.decided or trace.routing[-1] < AMPLE_ROUTING:
            return None
        output.append(drawn.token)
        margins.append(drawn.margin)
    return replace(case, tokens=tuple(output), margins=tuple(margins))


def _lively(case: Case) -> bool:
    """Whether a mistake would show: a sequence that repeats itself hides many."""
    tokens = case.tokens or ()
    return len(set(tokens)) > 0.6 * len(tokens)


def plan(model: TinyModel) -> list[tuple[str, int, int, DecodeParams, str]]:
    """The cases wanted of a model: name, shared prefix length, tail length, parameters, and how it must end."""
    greedy = DecodeParams(temperature=0.0)
    seeded = [
        DecodeParams(temperature=0.7, seed=11),
        DecodeParams(temperature=1.0, top_k=20, seed=12),
        DecodeParams(temperature=1.3, top_p=0.9, seed=2**64 - 13),
        DecodeParams(temperature=1.0, min_p=0.05, seed=14),
        DecodeParams(temperature=0.8, top_k=30, top_p=0.95, min_p=0.01, seed=(7 << 32) + 15),
    ]
    few = [
        ("greedy-short", 0, 5, replace(greedy, max_tokens=24), "length"),
        ("greedy-block", 16, 16, replace(greedy, max_tokens=18), "length"),
        ("greedy-long", 40, 60, replace(greedy, max_tokens=16), "length"),
        ("seeded", 17, 6, replace(seeded[0], max_tokens=20), "length"),
        ("seeded-filtered", 40, 3, replace(seeded[4], max_tokens=20), "length"),
    ]
    if model.name != "llama":
        return few
    return [
        ("greedy-prefix", 32, 0, replace(greedy, max_tokens=12), "length"),
        *few,
        ("greedy-stop", 33, 9, replace(greedy, max_tokens=40), "stop"),
        ("greedy-one", 0, 1, replace(greedy, max_tokens=20), "length"),
        ("seeded-stop", 40, 14, replace(seeded[0], max_tokens=40, seed=21), "stop"),
        ("seeded-top-k", 17, 21, replace(seeded[1], max_tokens=26), "length"),
        ("seeded-top-p", 33, 2, replace(seeded[2], max_tokens=14), "length"),
        ("seeded-min-p", 0, 27, replace(seeded[3], max_tokens=22), "length"),
    ]


def freeze(model: TinyModel) -> list[Case]:
    """Search, from a fixed seed, tails that give ample margins for every planned case."""
    dice, oracle, frozen = random.Random(model.seed), Oracle(model), []
    shared = [dice.randrange(3, model.vocab_size) for _ in range(40)]
    for name, prefix, tail, params, end in plan(model):
        for _ in range(5000):
            prompt = (*shared[:prefix], *(dice.randrange(3, model.vocab_size) for _ in range(tail)))
            case = generate(oracle, Case(name=name, prompt=prompt, params=params))
            if case is not None and _lively(case) and ((case.tokens or ())[-1:] == (model.eos,)) == (end == "stop"):
                break
            if not tail:  # nothing else to vary; such a case stands first in the plan
                shared = [dice.randrange(3, model.vocab_size) for _ in range(40)]
        else:
            raise SystemExit(f"{model.name}: no prompt found for {name}")
        frozen.append(case)
    return frozen


def write(model: TinyModel) -> None:
    """Write a model's golden file."""
    cases = ",\n".join("  " + json.dumps(freeze_case(case)) for case in freeze(model))
    head = {"suite_version": SUITE_VERSION, "model": model.name, "weights": weights_digest(model)}
    lines = ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in head.items())
    GOLDENS.mkdir(exist_ok=True)
    (GOLDENS / f"{model.name}.json").write_text(f'{{\n{lines},\n "cases": [\n{cases}\n ]\n}}\n')


def main(names: list[str]) -> int:
    """Freeze the models named, or all."""
    for name in names or MODELS:
        write(MODELS[name])
        print(f"froze goldens/{name}.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
