"""A server around the null backend, in processes of its own, and what they take of the CPU."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

COMMAND = [sys.executable, "-P", "-c", "import sys; from isotoken.api.cli import main; sys.exit(main())"]


@dataclass(frozen=True, slots=True)
class CpuTime:
    """CPU seconds, user and system, that the two processes have taken."""

    api: float
    engine: float

    def __sub__(self, other: CpuTime) -> CpuTime:
        return CpuTime(self.api - other.api, self.engine - other.engine)


@dataclass(frozen=True, slots=True)
class Server:
    """A server that takes requests."""

    host: str
    port: int
    api: psutil.Process
    engine: psutil.Process

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{self.host}:{self.port}"

    @property
    def address(self) -> str:
        """Host and port, as the Host header has them."""
        return f"{self.host}:{self.port}"

    def cpu_time(self) -> CpuTime:
        """Return what its processes have taken so far."""
        api, engine = self.api.cpu_times(), self.engine.cpu_times()
        return CpuTime(api.user + api.system, engine.user + engine.system)


@contextlib.contextmanager
def serving(
    model: Path, *, backend: str = "null", step_ms: float = 0.0, log: Path | None = None, flags: tuple[str, ...] = ()
) -> Iterator[Server]:
    """Run `isotoken serve` on any free port, as a user would; its log goes to a file or nowhere."""
    command = [*COMMAND, "serve", str(model), "--backend", backend, "--port", "0", "--served-model-name", "load"]
    command += ["--option", f"step_ms={step_ms:g}"] if backend == "null" else []
    command += ["--max-num-seqs", "256", *flags]
    with contextlib.ExitStack() as stack:
        stderr = subprocess.DEVNULL if log is None else stack.enter_context(log.open("w"))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        assert process.stdout is not None
        stack.enter_context(process.stdout)
        banner = process.stdout.readline()
        if not banner:
            raise RuntimeError(f"the server did not start; see: {' '.join(command)}")
        address = urlsplit(banner.split()[-1])
        assert address.hostname is not None and address.port is not None
        api = psutil.Process(process.pid)
        (engine,) = (child for child in api.children() if "isotoken.api.engine.worker" in child.cmdline())
        yield Server(address.hostname, address.port, api, engine)


def long_context_model(model: Path, folder: Path, max_model_len: int) -> Path:
    """Make a model folder like another with a longer context, which costs nothing where nothing is computed."""
    folder.mkdir()
    for file in model.iterdir():
        if file.name != "config.json":
            (folder / file.name).symlink_to(file.resolve())
    config = json.loads((model / "config.json").read_text()) | {"max_position_embeddings": max_model_len}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
