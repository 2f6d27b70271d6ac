"""The engine cache: built engines and kernel timings on disk, each written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("isotoken.tensorrt")

FORMAT = 1  # of what a key is made of


@dataclass(frozen=True, slots=True)
class Key:
    """What an engine depends on. Two equal keys can use one engine; any difference makes another."""

    parts: Mapping[str, object]  # values that JSON can hold

    @property
    def digest(self) -> str:
        """sha256 over the parts."""
        text = json.dumps({"format": FORMAT, **self.parts}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class Store:
    """A folder of engines (`<digest>.plan`), what each is for (`<digest>.json`), and timings.

    An engine is code for a GPU and its host: the folder is made readable for its owner alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: Key) -> Path:
        """Where the engine of a key is, or would be."""
        return self.folder / f"{key.digest}.plan"

    def load(self, key: Key) -> bytes | None:
        """Return an engine, or None where there is none or where it is damaged."""
        path = self.path(key)
        try:
            plan = path.read_bytes()
            note = json.loads(path.with_suffix(".json").read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            note = {}
        if not isinstance(note, dict) or note.get("sha256") != hashlib.sha256(plan).hexdigest():
            log.warning("backend tensorrt: the engine %s is damaged and will be built anew", path)
            return None
        return plan

    def save(self, key: Key, plan: bytes) -> Path:
        """Keep an engine. Processes that build the same one at once do not disturb each other."""
        path = self.path(key)
        note = {"sha256": hashlib.sha256(plan).hexdigest(), "num_bytes": len(plan), "built_for": dict(key.parts)}
        self._write(path, plan)
        self._write(path.with_suffix(".json"), (json.dumps(note, indent=2) + "\n").encode())
        return path

    def load_timings(self, target: str) -> bytes:
        """Return the timings of kernels on a target (a GPU and a version of TensorRT), or nothing."""
        try:
            return self._timings(target).read_bytes()
        except FileNotFoundError:
            return b""

    def save_timings(self, target: str, timings: bytes) -> None:
        """Keep timings."""
        self._write(self._timings(target), timings)

    def _timings(self, target: str) -> Path:
        return self.folder / f"timings-{hashlib.sha256(target.encode()).hexdigest()[:16]}.cache"

    def _write(self, path: Path, data: bytes) -> None:
        """Write beside the file, then rename: a reader sees the old file or the new one."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
