"""Log lines as JSON objects, one a line: for programs that collect logs."""

from __future__ import annotations

import datetime
import json
import logging

import msgspec

from ..safety.log_privacy import scrub

FIELDS = "fields"
"""The attribute of a LogRecord that holds what a line says besides its message: `extra={FIELDS: {...}}`."""


class JsonFormatter(logging.Formatter):
    """Writes time, level, logger and message, and the record's own fields beside them."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        line = {
            "time": _timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_text:
            line["exception"] = record.exc_text
        elif record.exc_info:
            line["exception"] = scrub(self.formatException(record.exc_info))
        try:
            return msgspec.json.encode(line, enc_hook=str).decode()
        except UnicodeEncodeError:  # halves of characters, which UTF-8 has no bytes for
            return json.dumps(line, default=str)


def _timestamp(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="milliseconds")
