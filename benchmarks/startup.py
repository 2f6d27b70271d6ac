"""Print how long the first things take: import, listing plugins, and from `isotoken serve` to the first answer.

    python benchmarks/startup.py [--runs 5] [-- FLAGS OF isotoken serve]

Each run is a process of its own. The answer is checked before the time counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable

COMMAND = [sys.executable, "-c", "import sys; from isotoken.api.cli import main; sys.exit(main())"]
PROMPT, ANSWER = "The capital of France is", " Paris"


def time_process(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def time_first_answer(flags: list[str]) -> float:
    """Return seconds from starting `isotoken serve` to the end of its first answer."""
    start = time.perf_counter()
    with subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", *flags], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1]
            body = json.dumps({"prompt": PROMPT, "max_tokens": 8, "temperature": 0}).encode()
            request = urllib.request.Request(f"{url}/v1/completions", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as response:
                text = json.load(response)["choices"][0]["text"]
            seconds = time.perf_counter() - start
        finally:
            server.terminate()
    assert text.startswith(ANSWER), f"a wrong answer is not a time: {text!r}"
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("flags", nargs="*", help="flags of isotoken serve, after --")
    args = parser.parse_args()
    measures: dict[str, Callable[[], float]] = {
        "python -c pass": lambda: time_process([sys.executable, "-c", "pass"]),
        "python -c 'import isotoken'": lambda: time_process([sys.executable, "-c", "import isotoken"]),
        "isotoken --version": lambda: time_process([*COMMAND, "--version"]),
        "isotoken plugins": lambda: time_process([*COMMAND, "plugins"]),
        "isotoken serve, to the first answer": lambda: time_first_answer(args.flags),
    }
    for name, measure in measures.items():
        measure()  # files into the page cache, bytecode to disk
        seconds = [measure() for _ in range(args.runs)]
        print(f"{name:<36} {statistics.median(seconds):7.3f} s  (best {min(seconds):.3f}, worst {max(seconds):.3f})")


if __name__ == "__main__":
    main()
