"""Start everything: `python examples/production/run.py`; with --report FILE, show everything and write it down."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from client import Client  # noqa: E402
from services import database, free_port, prometheus  # noqa: E402

CONFIG = HERE / "isotoken.yaml"


@dataclass(slots=True)
class Stand:
    """What is up, and what is needed to use it."""

    folder: Path
    url: str
    environment: dict[str, str]
    prometheus: str = ""
    process: subprocess.Popen[str] | None = None
    clients: dict[str, Client] = field(default_factory=dict)

    def isotoken(self, *arguments: str, check: bool = True) -> str:
        """Run an `isotoken` command beside the server and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-c", "import sys; from isotoken.api.cli import main; sys.exit(main())", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"isotoken {' '.join(arguments)}: {done.stderr or done.stdout}")
        return done.stdout

    def make_key(self, who: str, *flags: str) -> Client:
        """Make a key, and the client that has it."""
        made = json.loads(self.isotoken("keys", "create", "--name", who, "--json", *flags))
        self.clients[who] = Client(self.url, made["key"])
        return self.clients[who]

    def serve(self) -> None:
        """Start the server and wait until it takes requests."""
        log = (self.folder / "server.log").open("a")
        command = [sys.executable, "-c", "import sys; from isotoken.api.cli import main; sys.exit(main())", "serve"]
        self.process = subprocess.Popen(
            [*command, "--config", str(CONFIG)], stdout=subprocess.PIPE, stderr=log, text=True, env=self.environment
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip().startswith("try"):
                return
        raise RuntimeError(f"the server did not start:\n{(self.folder / 'server.log').read_text()[-3000:]}")

    def stop(self) -> int | None:
        """Ask the server to end, and return its exit code."""
        if self.process is None:
            return None
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=120)
        return self.process.returncode


@contextmanager
def standing(folder: Path) -> Iterator[Stand]:
    """Bring everything up; take it down in the end."""
    with ExitStack() as stack:
        url = stack.enter_context(database(folder))
        port = free_port()
        environment = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1"}
        environment |= {"ISOTOKEN_CONFIG": str(CONFIG), "ISOTOKEN_DATA": str(folder)}  # as an operator would set them
        environment |= {"ISOTOKEN_STORE__URL": url, "ISOTOKEN_SERVER__PORT": str(port)}
        stand = Stand(folder, f"http://127.0.0.1:{port}", environment)
        stand.make_key("admin", "--tenant", "operations", "--admin", "--database", url)
        stand.make_key("acme", "--tenant", "acme", "--database", url)
        stand.make_key("trial", "--tenant", "trial", "--requests-per-minute", "5", "--database", url)
        stand.environment["ISOTOKEN_API_KEY"] = stand.clients["admin"].key
        stand.serve()
        stack.callback(lambda: stand.process is None or stand.process.poll() is not None or stand.stop())
        stand.prometheus = stack.enter_context(prometheus(folder, f"127.0.0.1:{port}"))
        yield stand


def main() -> int:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, help="show everything, write what was seen, and end")
    parser.add_argument("--seconds", type=float, default=10, help="of each load in the report")
    parser.add_argument("--folder", type=Path, help="for database, logs and metrics; kept (default: a temporary one)")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        folder.mkdir(parents=True, exist_ok=True)
        stand = stack.enter_context(standing(folder.resolve()))
        if given.report is not None:
            from tour import tour, write  # noqa: PLC0415

            return write(tour(stand, given.seconds), given.report)
        print(_welcome(stand), flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            assert stand.process is not None
            stand.process.wait()
        except KeyboardInterrupt:
            pass
    return 0


def _welcome(stand: Stand) -> str:
    key = stand.clients["acme"].key
    body: dict[str, Any] = {
        "model": "assistant",
        "messages": [{"role": "user", "content": "What is the capital of Japan?"}],
    }
    curl = (
        f"curl -s {stand.url}/v1/chat/completions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json'"
    )
    admin = f"ISOTOKEN_API_KEY={stand.clients['admin'].key}"
    return "\n".join(
        [
            f"serving on {stand.url}; everything it writes is in {stand.folder}",
            f"  try        {curl} -d '{json.dumps(body)}'",
            f"  watch      {admin} isotoken top {stand.url}",
            f"  models     {admin} isotoken models status --url {stand.url}",
            f"  A/B        {admin} isotoken experiments --url {stand.url}",
            f"  usage      isotoken usage --database {stand.environment['ISOTOKEN_STORE__URL']}",
            f"  prometheus {stand.prometheus or '(not installed: make services)'}",
            "Ctrl-C ends it all.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
