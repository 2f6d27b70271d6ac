"""The ledger's tables: one row for each request, sums by day that outlive them, and how far each journal has come."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Date, Index, Integer, String, Table

from ..metadata import Timestamp, metadata

usage_entries = Table(
    "usage_entries",
    metadata,
    Column("id", String(64), primary_key=True),  # journal and number: never given twice
    Column("request_id", String(128), nullable=False),  # as the client saw it, who may have sent it twice
    Column("tenant", String(128), nullable=False),
    Column("key_id", String(128), nullable=False),
    Column("model", String(256), nullable=False),
    Column("version", String(128), nullable=False),
    Column("arm", String(128), nullable=False),  # of an experiment
    Column("route", String(128), nullable=False),
    Column("status", Integer, nullable=False),  # of the HTTP answer; 499: the client left
    Column("finish_reason", String(64), nullable=False),  # of the first choice, as the engine tells it
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),  # of the prompt's, those found in the prefix cache
    Column("generated_tokens", BigInteger, nullable=False),
    Column("drafted_tokens", BigInteger, nullable=False),
    Column("accepted_tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),  # in 10^-12 of the currency
    Column("started", Timestamp(), nullable=False),
    Column("ended", Timestamp(), nullable=False),
    Column("day", Date, nullable=False),  # of `ended`, in UTC
    Index("ix_usage_entries_tenant_day", "tenant", "day"),
    Index("ix_usage_entries_day", "day"),
)

usage_days = Table(
    "usage_days",
    metadata,
    Column("day", Date, primary_key=True),
    Column("tenant", String(128), primary_key=True),
    Column("key_id", String(128), primary_key=True),
    Column("model", String(256), primary_key=True),
    Column("version", String(128), primary_key=True),
    Column("arm", String(128), primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),  # of those, answered with a status from 400 on
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("generated_tokens", BigInteger, nullable=False),
    Column("drafted_tokens", BigInteger, nullable=False),
    Column("accepted_tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
    Index("ix_usage_days_tenant_day", "tenant", "day"),
    Index("ix_usage_days_key_id_day", "key_id", "day"),
)

usage_journals = Table(
    "usage_journals",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("position", BigInteger, nullable=False),  # number of the last entry that is in the tables above
    Column("updated", Timestamp(), nullable=False),
)
