"""Real servers for tests: PostgreSQL and Redis on free ports, in a folder of their own, gone with the test run."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TIMEOUT = 60.0  # seconds for a server to come up; a loaded machine takes its time
INSTALL = "`make services` installs it (Debian packages)"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def find_program(*names: str) -> str | None:
    """Return the first program that is installed; PostgreSQL's are not on Debian's path."""
    folders = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    path = os.pathsep.join([*folders, os.environ.get("PATH", "")])
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


class ServiceProcess:
    """A server's process, which says on its output when it is ready. It can be stopped and started again."""

    def __init__(self, command: list[str], ready: str, *, folder: Path, unprivileged: bool = False) -> None:
        self.command = command
        self.folder = folder
        self.who = _nobody() if unprivileged and os.geteuid() == 0 else {}
        self.output: list[str] = []
        self._ready = ready
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not stopped since."""
        return self._process is not None

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self._process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.folder, **self.who
        )
        is_ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self._process, is_ready), daemon=True)
        self._reader.start()
        if not is_ready.wait(TIMEOUT) or self._process.poll() is not None:
            self.stop(signal.SIGKILL)
            pytest.fail(f"{self.command[0]} did not start:\n{''.join(self.output[-20:])}")

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it and wait for that: SIGINT in order, closing connections; SIGKILL as a power cut would."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(TIMEOUT)
            self._reader.join(TIMEOUT)
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None

    def pause(self) -> None:
        """Let it hang."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _read(self, process: subprocess.Popen[str], is_ready: threading.Event) -> None:
        for line in process.stdout or ():
            self.output.append(line)
            if self._ready in line:
                is_ready.set()
        is_ready.set()  # its end too is worth knowing at once


class Postgres:
    """A PostgreSQL server. `server` stops and starts it."""

    def __init__(self, folder: Path) -> None:
        program = find_program("postgres")
        assert program is not None
        self._bin = Path(program).resolve().parent
        self.port = free_port()
        options = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "max_connections=40"]
        command = [program, "-D", str(folder / "data"), "-p", str(self.port)]
        for option in options:
            command += ["-c", option]
        self.server = ServiceProcess(command, "ready to accept connections", folder=folder, unprivileged=True)
        if self.server.who:
            os.chown(folder, pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid)
        made = ["-D", str(folder / "data"), "-U", "isotoken", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C"]
        self._run("initdb", *made, **self.server.who)
        self.server.start()
        self._num_databases = 0

    def new_database(self) -> str:
        """Return the URL of a database with nothing in it."""
        self._num_databases += 1
        name = f"test{self._num_databases}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "isotoken", name)
        return f"postgresql://isotoken@127.0.0.1:{self.port}/{name}"

    def _run(self, name: str, *arguments: str, **more: object) -> None:
        subprocess.run(
            [self._bin / name, *arguments],
            check=True,
            capture_output=True,
            cwd=self.server.folder,
            timeout=TIMEOUT,
            **more,
        )


@pytest.fixture(scope="session")
def service_folder() -> Iterator[Callable[[], Path]]:
    """Make folders that unprivileged servers can reach: pytest's own are closed to others."""
    made: list[Path] = []

    def make() -> Path:
        made.append(Path(tempfile.mkdtemp(prefix="isotoken-service-")))
        return made[-1]

    yield make
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(service_folder: Callable[[], Path]) -> Iterator[Postgres]:
    """A PostgreSQL server for the whole run. A test that stops it starts it again."""
    if find_program("postgres") is None:
        pytest.skip(f"PostgreSQL is not installed: {INSTALL}")
    running = Postgres(service_folder())
    yield running
    running.server.stop()


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """The URL of a PostgreSQL database with nothing in it."""
    return postgres.new_database()


@pytest.fixture(scope="session")
def redis_server(service_folder: Callable[[], Path]) -> Iterator[tuple[ServiceProcess, int]]:
    """A Redis (or Valkey) server for the whole run, and its port."""
    program = find_program("redis-server", "valkey-server")
    if program is None:
        pytest.skip(f"Redis is not installed: {INSTALL}")
    port = free_port()
    options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    command = [program, "--port", str(port), *options]
    server = ServiceProcess(command, "eady to accept connections", folder=service_folder())
    server.start()
    yield server, port
    server.stop()


@pytest.fixture
def redis_url(redis_server: tuple[ServiceProcess, int]) -> str:
    """The URL of a Redis server with nothing in it."""
    _, port = redis_server
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as connection:
        connection.sendall(b"FLUSHALL\r\n")
        assert connection.recv(16).startswith(b"+OK")
    return f"redis://127.0.0.1:{port}/0"


def _nobody() -> dict[str, object]:
    """Whom to be for a server that refuses to be root."""
    entry = pwd.getpwnam("nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
