"""A server with everything on, which is fuzzed: keys, ledger, filters, grammars, two models, telemetry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CONFIG = """
server: {port: 0, log_level: warning, keep_alive_timeout: 2}
limits: {head_timeout: 1, body_timeout: 2, request_timeout: 20}
engine: {max_model_len: 256, max_num_seqs: 8, num_blocks: 512}
models:
  - {name: small, model: isotoken-small, aliases: [chat]}
  - {name: draft, model: isotoken-draft}
store: {url: "sqlite:///FOLDER/isotoken.db"}
gateway:
  authenticator: keys
  queue: {enabled: true}
ledger: {enabled: true, folder: FOLDER/ledger}
safety:
  moderations: lexicon
  default:
    prompts: [{filter: pii}]
    outputs: [{filter: pii}]
telemetry: {server_timing: true}
"""
ISOTOKEN = [sys.executable, "-c", "import sys; from isotoken.api.cli import main; sys.exit(main())"]


@dataclass(frozen=True, slots=True)
class Target:
    """What is fuzzed."""

    url: str
    key: str  # of an administrator
    process: subprocess.Popen[str]


@contextmanager
def serving(folder: Path, config: str = CONFIG) -> Iterator[Target]:
    """Start the server; end it afterwards, and see that it ends well."""
    file = folder / "isotoken.yaml"
    file.write_text(config.replace("FOLDER", str(folder)))
    environment = {**os.environ, "ISOTOKEN_DATA": str(folder), "OMP_NUM_THREADS": "1"}
    database = ["--database", f"sqlite:///{folder}/isotoken.db"]
    made = subprocess.run(
        [*ISOTOKEN, "keys", "create", "--admin", "--json", *database],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [*ISOTOKEN, "serve", "--config", str(file)], stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server did not start:\n{(folder / 'server.log').read_text()}")
        try:
            yield Target(line.split()[-1], json.loads(made.stdout)["key"], process)
        finally:
            process.terminate()
            process.communicate(timeout=60)
