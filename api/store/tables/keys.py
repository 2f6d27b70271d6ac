"""API keys: what is kept of them, and a number by which servers see that something has changed."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Float, Integer, String, Table

from ..metadata import Timestamp, metadata

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),  # its public name, key_...
    Column("digest", String(64), nullable=False, unique=True),  # SHA-256 of the key, hexadecimal
    Column("hint", String(16), nullable=False),  # its first characters
    Column("tenant", String(128), nullable=False, index=True),
    Column("name", String(128), nullable=False),
    Column("models", JSON),  # names that it may ask for; null: every one
    Column("routes", JSON),  # paths, likewise
    Column("is_admin", Boolean, nullable=False),
    Column("limits", JSON, nullable=False),  # fields of KeyLimits that are set
    Column("priority", Integer, nullable=False),
    Column("weight", Float, nullable=False),
    Column("created", Timestamp, nullable=False),
    Column("expires", Timestamp),
    Column("revoked", Timestamp),
    Column("revision", BigInteger, nullable=False, index=True),  # of all keys, when this one was last changed
)

key_revisions = Table(
    "key_revisions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # always 1
    Column("revision", BigInteger, nullable=False),
)
"""One row, which every change counts up in its transaction: so changes are committed in the order of their numbers."""
