"""API keys as people hold them: made at random, told from typing errors without a look-up, kept only as a hash.

A key has 256 random bits, so nobody finds one by trying, whatever the hash costs: what bcrypt and its like add is time
for each guess at a secret that people chose. SHA-256 is enough, and takes a microsecond where they take a tenth of a
second for each request. A pepper would add nothing either: there is no guess that it could make harder.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib

PREFIX = "itk_"
_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SECRET_DIGITS = 43  # of base 62: 256 bits
_CHECK_DIGITS = 6  # 32 bits
_SHAPE = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_SECRET_DIGITS + _CHECK_DIGITS}}}")


def new_secret() -> str:
    """Return a new key: itk_, 256 random bits and a checksum, by which scanners tell a leaked key from random text."""
    body = _base62(secrets.randbits(256), _SECRET_DIGITS)
    return PREFIX + body + _checksum(body)


def is_well_formed(secret: str) -> bool:
    """Whether this may be a key: of the right shape, the checksum right."""
    if _SHAPE.fullmatch(secret) is None:
        return False
    body = secret[len(PREFIX) : -_CHECK_DIGITS]
    return _checksum(body) == secret[-_CHECK_DIGITS:]


def digest_of(secret: str) -> str:
    """Return what is kept of a key, in hexadecimal digits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def hint_of(secret: str) -> str:
    """Return so much of a key as helps its holder to know it again, and nobody else to use it."""
    return secret[: len(PREFIX) + 4] + "..."


def new_key_id() -> str:
    """Return the public name of a new key."""
    return f"key_{secrets.token_hex(8)}"


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECK_DIGITS)


def _base62(number: int, num_digits: int) -> str:
    digits = []
    for _ in range(num_digits):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
