"""python -m benchmarks.peers setup | compare."""

from __future__ import annotations

import argparse
import sys
from itertools import product
from pathlib import Path

from isotoken.api.bench.machine import load_average, machine_facts, num_cpus, versions
from isotoken.api.bench.models import cache_folder
from isotoken.api.bench.run import model_folder
from isotoken.api.bench.workloads import WORKLOADS

from .compare import Comparison, close_pair, load_pair
from .environment import PRECISIONS, convert, set_up
from .report import checks, table, write_json

SPINNING = ("off", "brief", "on")


def main() -> int:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    commands = parser.add_subparsers(dest="command", required=True)
    setup = commands.add_parser("setup", help="make an environment for a peer (some 1.5 GB with its converter)")
    setup.add_argument("peer", choices=["genai"])
    setup.add_argument("--venv", type=Path, required=True, metavar="DIR")
    compare = commands.add_parser("compare", help="measure isotoken and a peer in turns")
    compare.add_argument("peer", choices=["genai"])
    compare.add_argument("--peer-python", type=Path, required=True, metavar="PATH", help="the environment's Python")
    compare.add_argument("--model", default="random-125m", help="random-125m, random-500m, random-tiny or a folder")
    compare.add_argument("--precision", action="append", choices=list(PRECISIONS), help="any number; all by default")
    compare.add_argument("--workload", action="append", choices=WORKLOADS, help="any number; all by default")
    compare.add_argument("--backend", default="onnxruntime", help="isotoken's")
    compare.add_argument("--rounds", type=int, default=5)
    compare.add_argument("--threads", type=int, default=num_cpus(), help="of each")
    compare.add_argument("--spinning", action="append", choices=SPINNING, help="isotoken's threads; once for each")
    compare.add_argument("--peer-spinning", action="append", choices=SPINNING, help="to be tried; all by default")
    compare.add_argument("--share", type=int, default=1, help="above 1: a part of each workload, for a quick look")
    compare.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    given = parser.parse_args()
    if given.command == "setup":
        print(set_up(given.venv))
        return 0
    return _compare(given)


def _compare(given: argparse.Namespace) -> int:
    load_before = load_average()
    model = model_folder(given.model)
    found: list[Comparison] = []
    peer: dict[str, str] = {}
    for precision, spinning in product(given.precision or PRECISIONS, given.spinning or ["off"]):
        whole, pruned = (
            convert(given.peer_python, model, precision, cache_folder(), pruned=each) for each in (False, True)
        )
        settings: dict[str, object] = {} if spinning == "off" else {"options": {"allow_spinning": spinning}}
        pair = load_pair(
            model,
            (whole, pruned),
            given.peer_python,
            precision,
            backend=given.backend,
            threads=given.threads,
            share=given.share,
            settings=settings,
            tell=lambda text: print(text, file=sys.stderr),
        )
        try:
            peer = pair.theirs.versions
            found += [
                pair.compare(name, given.rounds, given.peer_spinning or SPINNING)
                for name in given.workload or WORKLOADS
            ]
        finally:
            close_pair(pair)
    facts = {
        "model": given.model,
        "backend": given.backend,
        "threads": given.threads,
        "share": given.share,
        "machine": machine_facts(),
        "versions": versions() | {f"peer's {name}": version for name, version in peer.items()},
        "load_average": [load_before, load_average()],
    }
    print(table(found))
    print()
    print(checks(found))
    if given.json:
        write_json(given.json, found, facts)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
