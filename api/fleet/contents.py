"""What a model folder holds, as one hash: of config, tokenizer, chat templates and weights, byte by byte.

The hash is that of a list as sha256sum writes it, so that anyone can check it: in the folder,
`LC_ALL=C sha256sum FILES | sha256sum` with the files of `counted_files` in the order of their names.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ...core.shards import INDEX, SINGLE, open_shards

log = logging.getLogger("isotoken.fleet")

OnProgress = Callable[[int, int], None]
"""Hears how many bytes of how many are done. Called from the thread that reads."""

TEXT_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.json",
    "chat_template.jinja",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)
TEMPLATES = "additional_chat_templates/*.jinja"

_CHUNK = 4 * 2**20  # bytes
_FRESH_S = 2.0  # a file that was written this short ago may be written again without its time changing
_MAX_REMEMBERED = 4096  # files


class Cancelled(Exception):
    """Nobody waits for the hash any more."""


def counted_files(folder: Path) -> list[Path]:
    """Return the files that make a model what it is, by name. Raises CheckpointError for weights that do not fit."""
    texts = [folder / name for name in TEXT_FILES if (folder / name).is_file()]
    templates = [path for path in folder.glob(TEMPLATES) if path.is_file()]
    weights = {file.path for file in open_shards(folder).values()}
    index = [] if (folder / SINGLE).exists() else [folder / INDEX]
    return sorted({*texts, *templates, *weights, *index}, key=lambda path: path.relative_to(folder).as_posix())


def stamp(folder: Path) -> str:
    """Return what changes when a file is replaced: sizes, times and inodes. Cheap, and of this machine alone."""
    facts = [(path.relative_to(folder).as_posix(), *_identity(path)) for path in counted_files(folder)]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


class Hasher:
    """Hashes folders, and remembers the hash of a file for as long as its size, time and inode stay what they are."""

    def __init__(self, memory: Path | None = None) -> None:
        """Remember in the file `memory` too; it may not exist, and need not be writable."""
        self._file = memory
        self._known: dict[str, str] = _read(memory)
        self._lock = threading.Lock()

    def hash(self, folder: Path, on_progress: OnProgress | None = None, stop: threading.Event | None = None) -> str:
        """Return the hash of a folder's contents, 64 hexadecimal digits: reads all that is not remembered.

        Raises CheckpointError, OSError, and Cancelled once `stop` is set.
        """
        files = counted_files(folder)
        total, done = sum(path.stat().st_size for path in files), 0
        lines = []
        for path in files:
            size = path.stat().st_size
            digest = self._recall(path) or self._digest(path, done, total, on_progress, stop)
            done += size
            if on_progress is not None:
                on_progress(done, total)
            lines.append(f"{digest}  {path.relative_to(folder).as_posix()}\n")
        self._write()
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def _digest(
        self, path: Path, done: int, total: int, on_progress: OnProgress | None, stop: threading.Event | None
    ) -> str:
        before = _key(path)
        digest, buffer = hashlib.sha256(), memoryview(bytearray(_CHUNK))
        with path.open("rb", buffering=0) as file:
            while num_bytes := file.readinto(buffer):
                if stop is not None and stop.is_set():
                    raise Cancelled
                digest.update(buffer[:num_bytes])  # lets other threads run
                done += num_bytes
                if on_progress is not None:
                    on_progress(done, total)
        found = digest.hexdigest()
        if time.time() - path.stat().st_mtime > _FRESH_S and _key(path) == before:
            with self._lock:
                self._known[before] = found
        return found

    def _recall(self, path: Path) -> str | None:
        with self._lock:
            return self._known.get(_key(path))

    def _write(self) -> None:
        """Keep what is known, for the next start. Where that cannot be, the next start hashes again."""
        if self._file is None:
            return
        with self._lock:
            known = dict(list(self._known.items())[-_MAX_REMEMBERED:])
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            beside = self._file.with_suffix(f".{os.getpid()}")
            beside.write_text(json.dumps(known))
            beside.replace(self._file)
        except OSError as error:
            log.debug("the hashes of model files cannot be kept in %s: %s", self._file, error)


def _identity(path: Path) -> tuple[int, ...]:
    facts = path.stat()
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def _key(path: Path) -> str:
    return ":".join(map(str, _identity(path)))


def _read(file: Path | None) -> dict[str, str]:
    try:
        known = json.loads(file.read_text()) if file is not None else {}
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
