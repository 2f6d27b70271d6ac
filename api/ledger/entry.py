"""UsageEntry: what one request used, in the form that the journal, the database and plugins get."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

if TYPE_CHECKING:
    from datetime import date


class UsageEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request in numbers. `journal` and `number` together are never given twice."""

    journal: str
    number: int  # from 1 on, in the order in which requests ended
    request_id: str  # as the client saw it
    tenant: str
    key_id: str = ""
    model: str = ""
    version: str = ""
    arm: str = ""
    route: str = ""
    status: int = 200
    finish_reason: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    cost: int = 0  # money.UNIT
    ended: float  # seconds since 1970, UTC
    seconds: float = 0.0  # from its arrival to its end

    @property
    def id(self) -> str:
        """Its name among all entries of all servers."""
        return f"{self.journal}-{self.number}"

    @property
    def tokens(self) -> int:
        """Prompt and output."""
        return self.prompt_tokens + self.generated_tokens

    @property
    def ended_at(self) -> datetime:
        """When it ended."""
        return datetime.fromtimestamp(self.ended, UTC)

    @property
    def started_at(self) -> datetime:
        """When it came."""
        return self.ended_at - timedelta(seconds=self.seconds)

    @property
    def day(self) -> date:
        """The day on which it counts, in UTC."""
        return self.ended_at.date()


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(UsageEntry).decode


def to_line(entry: UsageEntry) -> bytes:
    """Return the journal's line: a checksum in hexadecimal, and JSON."""
    body = _encode(entry)
    return b"%08x %b\n" % (crc32(body), body)


def from_line(line: bytes) -> UsageEntry:
    """Read a journal's line, with or without its end. Raises ValueError for one that is damaged."""
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if len(checksum) != 8 or int(checksum, 16) != crc32(body):
        raise ValueError("the checksum does not fit")
    try:
        return _decode(body)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error


def plain(text: str, limit: int = 128) -> str:
    """Return a name as every database takes it: of printable characters, not too long."""
    return text[:limit] if text.isprintable() else "".join(filter(str.isprintable, text))[:limit]
