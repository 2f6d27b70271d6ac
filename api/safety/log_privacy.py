"""Keys never reach the log: a logging filter that takes them out of what is about to be written."""

from __future__ import annotations

import logging
import re

_SCRUBBED = "[SECRET]"

_SECRETS = re.compile(
    r"(?i:(?<=bearer )|(?<=basic ))[A-Za-z0-9._~+/=\-]{8,}"
    r"|\b(?:itk_[A-Za-z0-9]{8,}|sk-[A-Za-z0-9_\-]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|hf_[A-Za-z0-9]{16,}"
    r"|eyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-.]{8,})"
    r"|(?<=://)[^\s:/@]{0,64}:[^\s/@]{1,256}(?=@)"  # user:password@host in a database's URL
)

_NUMBERS = frozenset({"isotoken.requests", "isotoken.access"})
_plain = logging.Formatter()


def scrub(text: str) -> str:
    """Return a text without keys, bearer tokens, and passwords in URLs."""
    return _SECRETS.sub(_SCRUBBED, text)


def is_secret(text: str) -> bool:
    """Whether there is a key in a text."""
    return _SECRETS.search(text) is not None


class SecretScrubber(logging.Filter):
    """Put it on a handler. What it takes out of a record stays out for every handler after it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Take secrets out of the message and of the traceback."""
        if record.name in _NUMBERS and record.levelno < logging.WARNING:
            return True  # a line of numbers for each request, and an id that is no key
        try:
            message = record.getMessage()
        except Exception:
            return True  # it cannot be written out: the handler says so
        clean = scrub(message)
        if clean != message:
            record.msg, record.args = clean, None
        if record.exc_info and not record.exc_text:
            record.exc_text = _plain.formatException(record.exc_info)  # formatters take this one
        if record.exc_text:
            record.exc_text = scrub(record.exc_text)
        return True
