"""Can a tenant tell by the clock what another one has asked? python -m benchmarks.isolation [--trials N]

A server with keys, and two tenants. One asks prompts; the other one times the same prompts and such as nobody has
asked, in random order. What is told is how often a clock is right about which of two is which: 50 % is a coin. As a
control the first tenant times its own prompts again, which the prefix cache does answer sooner.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import sqrt
from pathlib import Path

from isotoken.api.gateway.keys import KeyRequest, create_key
from isotoken.api.store import StoreSettings, connect

from .load.server import COMMAND

NUM_WORDS = 300  # of a prompt


@dataclass(frozen=True, slots=True)
class Guess:
    """How well a clock guesses."""

    name: str
    right: float  # share of the pairs in which the prompt that was asked before took less time
    error: float  # standard error of that, were there nothing to be told

    @property
    def tells(self) -> bool:
        """Whether it does so beyond chance: four standard errors."""
        return abs(self.right - 0.5) > 4 * self.error


def guess(name: str, asked: Sequence[float], fresh: Sequence[float]) -> Guess:
    """Compare every time of one kind with every time of the other (Mann and Whitney's U)."""
    pairs = len(asked) * len(fresh)
    wins = sum((a < b) + 0.5 * (a == b) for a in asked for b in fresh)
    return Guess(name, wins / pairs, sqrt((len(asked) + len(fresh) + 1) / (12 * pairs)))


@contextmanager
def serving(model: str, backend: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Run a server with keys; yield its URL and a key of each tenant."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'keys.db'}"
        store = connect(StoreSettings(url=url))
        store.prepare_now()
        requests = {tenant: KeyRequest(tenant=tenant) for tenant in ("victim", "thief")}
        keys = {tenant: store.call(partial(create_key, asked=request))[0] for tenant, request in requests.items()}
        store.close_now()
        command = [*COMMAND, "serve", model, "--backend", backend, "--port", "0", "--set", "gateway.authenticator=keys"]
        process = subprocess.Popen(
            [*command, "--set", f"store.url={url}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ,
        )
        try:
            assert process.stdout is not None
            banner = process.stdout.readline()
            if not banner:
                raise RuntimeError(f"the server did not start; see: {' '.join(command)}")
            yield banner.split()[-1], keys
        finally:
            process.terminate()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def took(url: str, key: str, prompt: str) -> float:
    """Ask for one token and return the seconds until it is there."""
    body = json.dumps({"prompt": prompt, "max_tokens": 1, "temperature": 0}).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/completions", body, headers)
    started = time.perf_counter()
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()
    return time.perf_counter() - started


def trial(url: str, keys: dict[str, str], asks: str, num_trials: int, seed: int) -> Guess:
    """The victim asks; `asks` times what it asked and what nobody did."""
    dice = random.Random(seed)

    def text() -> str:
        return " ".join(str(dice.randrange(10_000)) for _ in range(NUM_WORDS))

    asked, fresh = [text() for _ in range(num_trials)], [text() for _ in range(num_trials)]
    for prompt in asked:
        took(url, keys["victim"], prompt)
    order = [*((prompt, True) for prompt in asked), *((prompt, False) for prompt in fresh)]
    dice.shuffle(order)
    times: dict[bool, list[float]] = {True: [], False: []}
    for prompt, was_asked in order:
        times[was_asked].append(took(url, keys[asks], prompt))
    return guess(asks, times[True], times[False])


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print. Returns 1 where the clock can tell, or could not even tell the control."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.isolation", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--trials", type=int, default=100, help="prompts of each kind; more find smaller differences")
    parser.add_argument("--model", default="isotoken-small")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args(argv)
    with serving(args.model, args.backend) as (url, keys):
        took(url, keys["thief"], "warm up")
        thief = trial(url, keys, "thief", args.trials, args.seed)
        control = trial(url, keys, "victim", args.trials, args.seed + 1)
    print(f"seed {args.seed}, {args.trials} prompts of each kind", file=sys.stderr)
    for each, words in ((thief, "another tenant's prompts"), (control, "its own prompts (control)")):
        verdict = "tells" if each.tells else "cannot tell"
        print(f"{words}: right in {100 * each.right:.1f} % of pairs (chance: 50 +- {100 * each.error:.1f}): {verdict}")
    return int(thief.tells or not control.tells)


if __name__ == "__main__":
    raise SystemExit(main())
