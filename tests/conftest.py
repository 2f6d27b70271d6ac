"""Fixtures for tests of the command line: run a command, or start a server and stop it again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import pytest

from .services import (  # noqa: F401  (fixtures for all tests)
    postgres,
    postgres_url,
    redis_server,
    redis_url,
    service_folder,
)

TIMEOUT = 120  # seconds; a limit for a hung command, not for a slow one
COMMAND = [sys.executable, "-P", "-c", "import sys; from isotoken.api.cli import main; sys.exit(main())"]


@dataclass
class Serving:
    """A server process that takes requests."""

    process: subprocess.Popen[str]
    reader: threading.Thread  # of the log
    url: str = ""
    banner: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)  # standard error; complete once the process has ended

    @property
    def curl(self) -> str:
        """The line that it says to try."""
        (line,) = [line for line in self.banner if line.strip().startswith("try")]
        return line.strip().removeprefix("try").strip()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(TIMEOUT)
        self.reader.join()
        return code


Run = Callable[..., subprocess.CompletedProcess[str]]
Serve = Callable[..., AbstractContextManager[Serving]]


@pytest.fixture
def command() -> Run:
    """Run `isotoken ARGUMENTS` in a process of its own."""

    def run(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*COMMAND, *arguments],
            input=stdin.encode(),
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
            env=_environment(environment),
        )  # in bytes: a random model says carriage returns, which text mode would rewrite
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture(scope="session")
def serve() -> Serve:
    """Start `isotoken serve ARGUMENTS` on a free port, as a context manager; it is stopped at the end."""

    @contextmanager
    def start(*arguments: str, port: int = 0, **environment: str) -> Iterator[Serving]:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--port", str(port), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(environment),
        )
        errors: list[str] = []
        reader = threading.Thread(target=lambda: errors.extend(process.stderr or ()))  # so that the pipe never fills
        reader.start()
        watchdog = threading.Timer(TIMEOUT, process.kill)
        watchdog.start()
        try:
            serving = Serving(process, reader, log=errors)
            for line in process.stdout or ():
                serving.banner.append(line.rstrip("\n"))
                if line.strip().startswith("try"):
                    break
            else:
                code = process.wait(TIMEOUT)
                reader.join()
                pytest.fail(f"isotoken serve ended with {code} before it was ready:\n{''.join(errors)}")
            watchdog.cancel()
            serving.url = serving.banner[0].split()[-1]
            yield serving
        finally:
            watchdog.cancel()
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
            process.communicate()
            reader.join()

    return start


def _environment(changes: dict[str, str]) -> dict[str, str]:
    """Two threads at most, 80 columns and no colours, whatever the machine running the tests is set to."""
    plain = {"OMP_NUM_THREADS": "2", "COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1"}
    inherited = {key: value for key, value in os.environ.items() if key not in ("ISOTOKEN_DEBUG", "FORCE_COLOR")}
    return {**inherited, **plain, **changes}
