"""What runs beside the server: a database and a Prometheus, where Debian's packages are installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MONITORING = Path(__file__).parent / "monitoring" / "prometheus"
PATIENCE = 60.0  # seconds for a service to start


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until somebody listens."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"nothing listens on port {port}")


@contextmanager
def database(folder: Path) -> Iterator[str]:
    """Run PostgreSQL in the folder and yield its URL; that of an SQLite file where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found or os.geteuid() != 0:  # it refuses to run as root, and is started as its own user
        yield f"sqlite:///{folder / 'isotoken.db'}"
        return
    binaries, data, port = found[-1].parent, folder / "postgres", free_port()
    data.mkdir()
    shutil.chown(data, "postgres")
    folder.chmod(0o755)
    as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    initialise = [
        str(binaries / "initdb"),
        "-D",
        str(data),
        "-U",
        "isotoken",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C",
    ]
    subprocess.run([*as_postgres, *initialise], check=True, capture_output=True)
    server = [str(binaries / "postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(data)]
    process = subprocess.Popen([*as_postgres, *server], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port, process)
        yield f"postgresql://isotoken@127.0.0.1:{port}/postgres"
    finally:
        process.terminate()
        process.wait(PATIENCE)


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """Run a Prometheus that scrapes the target with the rules of this directory; yield its URL, or nothing."""
    binary = shutil.which("prometheus")
    if binary is None:
        yield ""
        return
    shutil.copytree(MONITORING, folder / "prometheus")
    file = folder / "prometheus" / "prometheus.yml"
    text = file.read_text().replace("127.0.0.1:8000", target)
    file.write_text(text.replace("scrape_interval: 5s", "scrape_interval: 1s").replace("interval: 15s", "interval: 2s"))
    port = free_port()
    command = [binary, f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    process = subprocess.Popen(
        [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for_port(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE)
