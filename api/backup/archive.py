"""The backup's file: a gzipped tar of members and a manifest with their checksums, whole or not there at all."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from ...core.types import IsotokenError

FORMAT = 1
MANIFEST = "manifest.json"

_CHUNK = 1 << 20


class BackupError(IsotokenError):
    """A backup cannot be made, read or restored. The message says why."""


class Member(msgspec.Struct, frozen=True):
    """One file in it."""

    sha256: str
    bytes: int
    rows: int = 0
    kinds: dict[str, str] = {}  # of a table's columns


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup says of itself."""

    format: int = FORMAT
    isotoken: str  # the version that made it
    created: str  # ISO, UTC
    database: str  # "sqlite" or "postgresql"
    tables: str  # the version of the tables
    members: dict[str, Member] = {}


class ArchiveWriter:
    """Collects members in a folder beside the file; `finish` makes the file of them, at once."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._path = path
        self._folder = folder
        self.members: dict[str, Member] = {}

    def add(self, name: str, lines: Iterable[bytes], *, kinds: dict[str, str] | None = None) -> Member:
        """Add a member, line by line."""
        digest, size, rows = hashlib.sha256(), 0, 0
        with self._file(name).open("wb") as file:
            for line in lines:
                file.write(line)
                digest.update(line)
                size += len(line)
                rows += 1
        self.members[name] = Member(digest.hexdigest(), size, rows, kinds or {})
        return self.members[name]

    def finish(self, manifest: Manifest) -> None:
        """Write the file: readable by its owner alone, for it has keys' hashes and maybe passwords in it."""
        draft = self._path.with_name(self._path.name + ".partial")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                with tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as tar:
                    self._add_bytes(tar, MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2))
                    for name in manifest.members:
                        tar.add(self._file(name), name, filter=_anonymous)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        finally:
            draft.unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self._folder / name.replace("/", "-")

    def _add_bytes(self, tar: tarfile.TarFile, name: str, body: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(body), 0o600
        tar.addfile(member, io.BytesIO(body))


class ArchiveReader:
    """A backup that was checked from end to end."""

    def __init__(self, tar: tarfile.TarFile, path: Path) -> None:
        """Read and check everything. Raises BackupError."""
        self._tar = tar
        self.manifest = _read_manifest(tar, path)
        for name, member in self.manifest.members.items():
            if _digest(self._open(name)) != member.sha256:
                raise BackupError(f"{path} is damaged: the checksum of {name} does not fit")

    def lines(self, name: str) -> Iterator[bytes]:
        """Yield a member's lines."""
        yield from self._open(name)

    def content(self, name: str) -> bytes:
        """Return a member."""
        return self._open(name).read()

    def _open(self, name: str) -> IO[bytes]:
        try:
            file = self._tar.extractfile(name)
        except KeyError:
            file = None
        if file is None:
            raise BackupError(f"the backup lacks {name}, which its manifest names")
        return file


@contextmanager
def opened(path: Path) -> Iterator[ArchiveReader]:
    """Open a backup and check it. Raises BackupError for one that is damaged, cut off, or from a newer isotoken."""
    try:
        with tarfile.open(path, "r:gz") as tar:
            yield ArchiveReader(tar, path)
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise BackupError(f"{path} is no whole backup: {error}") from error


def _read_manifest(tar: tarfile.TarFile, path: Path) -> Manifest:
    try:
        file = tar.extractfile(MANIFEST)
        body = b"" if file is None else file.read()
        stated = msgspec.json.decode(body).get("format")
    except (KeyError, AttributeError, msgspec.MsgspecError) as error:
        raise BackupError(f"{path} is no backup of isotoken: it has no manifest that can be read") from error
    if stated != FORMAT:
        raise BackupError(f"{path} has format {stated}, this isotoken reads format {FORMAT}: update isotoken")
    try:
        return msgspec.json.decode(body, type=Manifest)
    except msgspec.MsgspecError as error:
        raise BackupError(f"{path} has a damaged manifest: {error}") from error


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member
