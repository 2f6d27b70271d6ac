"""What the ledger is told: prices, budgets, how long things are kept."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from .money import per_token


class Price(BaseModel, extra="forbid", frozen=True):
    """What a million tokens of a model cost."""

    model: str = Field(description="a model's name, name@version, or a pattern such as llama-*")
    prompt: Decimal = Field(default=Decimal(0), ge=0, description="a million prompt tokens that were computed")
    cached: Decimal | None = Field(default=None, ge=0, description="those found in the prefix cache; unset: as prompt")
    generated: Decimal = Field(default=Decimal(0), ge=0, description="a million tokens of output")

    @field_validator("prompt", "cached", "generated")
    @classmethod
    def _is_exact(cls, value: Decimal | None) -> Decimal | None:
        if value is not None:
            per_token(value)
        return value


class Budget(BaseModel, extra="forbid", frozen=True):
    """How much a tenant or a key may use in a period. The next request is refused, one that runs is ended early."""

    tenant: str | None = Field(default=None, description="a tenant's name; *: each tenant")
    key: str | None = Field(default=None, description="a key's id; *: each key")
    period: Literal["day", "month", "total"] = Field(default="month", description="of the calendar, in UTC")
    cost: Decimal | None = Field(default=None, ge=0, description="in the currency")
    tokens: int | None = Field(default=None, ge=0, description="prompt and output tokens together")

    @model_validator(mode="after")
    def _is_whole(self) -> Budget:
        if (self.tenant is None) == (self.key is None):
            raise ValueError("a budget is of a tenant or of a key: set one of them")
        if self.cost is None and self.tokens is None:
            raise ValueError("a budget needs a cost, a number of tokens, or both")
        return self


class Retention(BaseModel, extra="forbid", frozen=True):
    """How long the ledger keeps what. No prompt and no answer is ever in it."""

    entries_days: int = Field(default=90, ge=0, description="each request's own entry; 0: for ever")
    totals_days: int = Field(default=0, ge=0, description="the sums by day, which bills are made of; 0: for ever")
    journal_days: int = Field(default=2, ge=1, description="the journal, after its entries are in the database")


class LedgerSettings(BaseModel, extra="forbid"):
    """The usage ledger. Off until `enabled`."""

    enabled: bool = Field(default=False, description="count what each tenant uses")
    folder: Path | None = Field(
        default=None, description="of the journal, one server's own; unset: `ledger` in the data folder"
    )
    currency: str = Field(default="USD", max_length=8, description="a name, for reports")
    prices: list[Price] = Field(default_factory=list, description="the first that fits a model counts")
    budgets: list[Budget] = Field(default_factory=list, description="all that fit a request count")
    retention: Retention = Field(default_factory=Retention)
    sinks: list[str] = Field(
        default=["database"], min_length=1, description="where entries go: the database, and ledgers of plugins"
    )
    sync_interval_s: float = Field(default=0.1, gt=0, description="between flushes of the journal to the disk")
    retry_interval_s: float = Field(default=2.0, gt=0, description="between tries to reach a database that is gone")
    refresh_interval_s: float = Field(default=2.0, gt=0, description="between looks at what other servers counted")
    max_unwritten: int = Field(
        default=100_000,
        ge=1,
        description="entries kept in memory while the journal's disk is full; more: see when_full",
    )
    when_full: Literal["refuse", "serve"] = Field(
        default="refuse", description="once that many wait: refuse requests with 503, or serve them uncounted"
    )

    @model_validator(mode="after")
    def _can_see_what_is_used(self) -> LedgerSettings:
        if self.budgets and "database" not in self.sinks:
            raise ValueError("budgets need the sink `database`, which knows what was used before")
        return self
