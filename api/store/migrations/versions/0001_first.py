"""The first tables: keys, versions of models and their names, usage."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)
_TABLES = (
    "api_keys",
    "key_revisions",
    "fleet_versions",
    "fleet_moves",
    "usage_entries",
    "usage_days",
    "usage_journals",
)


def upgrade() -> None:
    """Make the tables."""
    _make_keys()
    _make_fleet()
    _make_usage()


def downgrade() -> None:
    """Remove them."""
    for name in _TABLES:
        op.drop_table(name)


def _make_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("hint", sa.String(16), nullable=False),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("models", sa.JSON()),
        sa.Column("routes", sa.JSON()),
        sa.Column("is_admin", sa.Boolean(), nullable=False),
        sa.Column("limits", sa.JSON(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.Column("created", _MOMENT, nullable=False),
        sa.Column("expires", _MOMENT),
        sa.Column("revoked", _MOMENT),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("digest", name="uq_api_keys_digest"),
    )
    op.create_index("ix_api_keys_revision", "api_keys", ["revision"])
    op.create_index("ix_api_keys_tenant", "api_keys", ["tenant"])
    op.create_table(
        "key_revisions",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_key_revisions"),
    )


def _make_fleet() -> None:
    op.create_table(
        "fleet_versions",
        sa.Column("fleet", sa.String(64), nullable=False),
        sa.Column("key", sa.String(128), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("contents", sa.String(64), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("first_loaded", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("fleet", "key", name="pk_fleet_versions"),
    )
    op.create_table(
        "fleet_moves",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("fleet", sa.String(64), nullable=False),
        sa.Column("moved", _MOMENT, nullable=False),
        sa.Column("name", sa.String(96), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("key", sa.String(128), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_fleet_moves"),
    )
    op.create_index("ix_fleet_moves_fleet_id", "fleet_moves", ["fleet", "id"])


def _make_usage() -> None:
    op.create_table(
        "usage_entries",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        *_owners(),
        sa.Column("route", sa.String(128), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("finish_reason", sa.String(64), nullable=False),
        *_amounts(),
        sa.Column("started", _MOMENT, nullable=False),
        sa.Column("ended", _MOMENT, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_usage_entries"),
    )
    op.create_index("ix_usage_entries_day", "usage_entries", ["day"])
    op.create_index("ix_usage_entries_tenant_day", "usage_entries", ["tenant", "day"])
    op.create_table(
        "usage_days",
        sa.Column("day", sa.Date(), nullable=False),
        *_owners(),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        *_amounts(),
        sa.PrimaryKeyConstraint("day", "tenant", "key_id", "model", "version", "arm", name="pk_usage_days"),
    )
    op.create_index("ix_usage_days_key_id_day", "usage_days", ["key_id", "day"])
    op.create_index("ix_usage_days_tenant_day", "usage_days", ["tenant", "day"])
    op.create_table(
        "usage_journals",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("updated", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_usage_journals"),
    )


def _owners() -> tuple[sa.Column[str], ...]:
    sizes = {"tenant": 128, "key_id": 128, "model": 256, "version": 128, "arm": 128}
    return tuple(sa.Column(name, sa.String(size), nullable=False) for name, size in sizes.items())


def _amounts() -> tuple[sa.Column[int], ...]:
    names = ("prompt_tokens", "cached_tokens", "generated_tokens", "drafted_tokens", "accepted_tokens", "cost")
    return tuple(sa.Column(name, sa.BigInteger(), nullable=False) for name in names)
