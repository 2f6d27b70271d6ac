"""python -m benchmarks.peers setup | compare."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from isotoken.api.bench.machine import load_average, machine_facts, num_cpus, versions
from isotoken.api.bench.models import cache_folder
from isotoken.api.bench.run import model_folder
from isotoken.api.bench.workloads import WORKLOADS

from . import genai_peer, llamacpp_peer, openvino_peer, vllm_peer
from .compare import Comparison, close_pair, load_pair
from .environment import is_real_time, set_up
from .genai_peer import Genai
from .llamacpp_peer import LlamaCpp
from .openvino_peer import OpenVino
from .process import Peer
from .report import checks, table, write_json
from .vllm_peer import Vllm

PEERS: dict[str, tuple[Any, type[Peer]]] = {
    "genai": (genai_peer, Genai),
    "openvino": (openvino_peer, OpenVino),
    "vllm": (vllm_peer, Vllm),
    "llamacpp": (llamacpp_peer, LlamaCpp),
}
SPINNING = ("off", "brief", "on")


def main() -> int:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    commands = parser.add_subparsers(dest="command", required=True)
    setup = commands.add_parser("setup", help="make an environment for a peer (some 1.5 GB with its converter)")
    setup.add_argument("peer", choices=list(PEERS))
    setup.add_argument("--venv", type=Path, required=True, metavar="DIR")
    compare = commands.add_parser("compare", help="measure isotoken and a peer in turns")
    compare.add_argument("peer", choices=list(PEERS))
    compare.add_argument("--peer-python", type=Path, required=True, metavar="PATH", help="the environment's Python")
    compare.add_argument("--model", default="random-125m", help="random-125m, random-500m, random-tiny or a folder")
    compare.add_argument("--precision", action="append", help="float32, bfloat16, int8, int4; any number, or all")
    compare.add_argument("--workload", action="append", choices=WORKLOADS, help="any number; all by default")
    compare.add_argument("--backend", default="native", help="isotoken's")
    compare.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="of isotoken's backend")
    compare.add_argument("--rounds", type=int, default=5)
    compare.add_argument("--threads", type=int, default=num_cpus(), help="of each")
    compare.add_argument("--way", default="", metavar="TEXT", help="try only the peer's ways whose name holds this")
    compare.add_argument("--peer-spinning", action="append", choices=SPINNING, help="to be tried; all by default")
    compare.add_argument("--share", type=int, default=1, help="above 1: a part of each workload, for a quick look")
    compare.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    given = parser.parse_args()
    module, peer = PEERS[given.peer]
    if given.command == "setup":
        print(set_up(given.venv, module.REQUIREMENTS))
        return 0
    given.precision = given.precision or list(module.PRECISIONS)
    if unknown := set(given.precision).difference(module.PRECISIONS):
        parser.error(f"--precision {', '.join(unknown)}: {given.peer} has {', '.join(module.PRECISIONS)}")
    if wrong := [option for option in given.option if "=" not in option]:
        parser.error(f"--option {wrong[0]}: expected KEY=VALUE")
    return _compare(given, peer)


def _compare(given: argparse.Namespace, peer: type[Peer]) -> int:
    load_before = load_average()
    model = model_folder(given.model)
    found: list[Comparison] = []
    versions_there: dict[str, str] = {}
    for precision in given.precision:
        pair = load_pair(
            model,
            peer.open(given.peer_python, model, precision, cache_folder(), threads=given.threads),
            precision,
            backend=given.backend,
            threads=given.threads,
            share=given.share,
            options=dict(option.split("=", 1) for option in given.option),
            tell=lambda text: print(text, file=sys.stderr),
        )
        try:
            found += [
                pair.compare(name, given.rounds, given.peer_spinning or SPINNING, given.way)
                for name in given.workload or WORKLOADS
            ]
            versions_there = pair.theirs.versions
        finally:
            close_pair(pair)
    facts = {
        "command": _command(),
        "model": given.model,
        "backend": given.backend,
        "threads": given.threads,
        "share": given.share,
        "real_time": is_real_time(),
        "machine": machine_facts(),
        "versions": versions() | {f"peer's {name}": version for name, version in versions_there.items()},
        "load_average": [load_before, load_average()],
    }
    print(table(found))
    print()
    print(checks(found))
    if given.json:
        write_json(given.json, found, facts)
    return 0


def _command() -> list[str]:
    """What was asked for, but for where things lie on this machine."""
    private, words = {"--peer-python": "PYTHON", "--json": "FILE"}, sys.argv[1:]
    return [private.get(before, word) for before, word in zip(["", *words], words, strict=False)]


if __name__ == "__main__":
    raise SystemExit(main())
