"""The process that measures the machine: reads memory and multiplies matrices as fast as it can, when asked to.

    python -m isotoken.api.bench.probe '{"bytes": 1000000, "dtypes": ["float32"], "device": "cpu", "threads": 2}'

A line in on standard input, a line of JSON out. A process of its own, so that no library here shares threads, memory or
settings with the engines.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

MATRIX = 2048
WIDER: dict[str, tuple[str, ...]] = {
    "float32": (),
    "bfloat16": ("float32",),
    "float16": ("float32",),
    "int8": ("bfloat16", "float32"),
}
SECONDS = 0.06  # that each figure is measured for, twice; the better half counts


def main() -> int:
    """Measure once for each line of standard input."""
    asked = json.loads(sys.argv[1])
    on_gpu = asked["device"] != "cpu"
    torch = _torch(asked["threads"])
    read = _reader_torch(torch, asked["device"]) if on_gpu else _reader_numpy(asked["bytes"], asked["threads"])
    products = {dtype: _products(torch, dtype, asked["device"]) for dtype in asked["dtypes"]}
    for _ in sys.stdin:
        found = {
            "bytes_per_second": read(),
            "flops_per_second": {dtype: max(work() for work in works) for dtype, works in products.items() if works},
        }
        print(json.dumps(found), flush=True)
    return 0


def _torch(threads: int) -> Any:
    if importlib.util.find_spec("torch") is None:
        return None
    import torch  # noqa: PLC0415

    torch.set_num_threads(threads)
    return torch


def _reader_numpy(num_bytes: int, threads: int) -> Callable[[], float]:
    """Return what reads num_bytes over and over, every thread its own part, as a matrix times a vector does."""
    words = max(num_bytes // 8 // threads, 1024)
    parts = [np.ones(words, np.int64) for _ in range(threads)]

    def read() -> float:
        once = _timed(lambda: [part.max() for part in parts])
        repetitions = max(int(SECONDS / max(once, 1e-9) * threads), 1)

        def work(part: Any) -> None:
            for _ in range(repetitions):
                part.max()

        def together() -> None:
            readers = [threading.Thread(target=work, args=(part,)) for part in parts]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join()

        return repetitions * words * 8 * threads / min(_timed(together), _timed(together))

    return read


def _reader_torch(torch: Any, device: str) -> Callable[[], float]:
    data = torch.ones(2**27, dtype=torch.int64, device=device)  # a GiB: beyond any cache
    return lambda: data.nbytes / _best(data.max, torch)


def _products(torch: Any, dtype: str, device: str) -> list[Callable[[], float]]:
    """Return every way to multiply matrices in this dtype or a wider one here, each giving operations a second.

    Narrow numbers can be widened, so a library that is slow at narrow ones does not lower their roof.
    """
    ways: list[Callable[[], object]] = []
    if device == "cpu" and dtype in WIDER:
        a = np.ones((MATRIX, MATRIX), np.float32)
        ways.append(lambda: a @ a)
    for name in (dtype, *WIDER.get(dtype, ())) if torch is not None else ():
        x = torch.ones(MATRIX, MATRIX, dtype=getattr(torch, name), device=device)
        ways.append(lambda x=x: torch._int_mm(x, x) if x.dtype == torch.int8 else x @ x)  # type: ignore[misc]
    on_gpu = torch if device != "cpu" else None
    return [lambda way=way: 2 * MATRIX**3 / _best(way, on_gpu) for way in ways if _runs(way)]  # type: ignore[misc]


def _runs(way: Callable[[], object]) -> bool:
    try:
        way()
    except (RuntimeError, NotImplementedError):
        return False
    return True


def _best(work: Callable[[], object], torch: Any = None) -> float:
    """Return the seconds of the best call in about 2 * SECONDS."""
    best, end = float("inf"), time.perf_counter() + 2 * SECONDS
    while time.perf_counter() < end or best == float("inf"):
        best = min(best, _timed(work, torch))
    return best


def _timed(work: Callable[[], object], torch: Any = None) -> float:
    if torch is not None:
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if torch is not None:
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    raise SystemExit(main())
