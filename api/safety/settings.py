"""What an operator may say about safety: nothing, and it is off."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class FilterSettings(BaseModel, extra="allow"):
    """One filter: its name, and beside it the options that it knows."""

    filter: str = Field(description="pii, block_list, length, repetition, moderation, or a plugin's.")

    @property
    def options(self) -> dict[str, Any]:
        """What stands beside the name."""
        return dict(self.model_extra or {})


class Policy(BaseModel, extra="forbid"):
    """The filters of a tenant, in the order in which texts pass them."""

    prompts: tuple[FilterSettings, ...] = ()
    outputs: tuple[FilterSettings, ...] = ()


class SafetySettings(BaseModel, extra="forbid"):
    """Filters and moderation. All off by default."""

    default: Policy = Policy()
    tenants: dict[str, Policy] = Field(default_factory=dict, description="Instead of the default, by tenant's name.")
    moderations: str = Field(default="", description="The classifier behind /v1/moderations, such as lexicon.")
    log_prompts: bool = Field(default=False, description="Write prompts to the log, as the filters left them.")

    @property
    def is_off(self) -> bool:
        """Whether nothing is asked for."""
        policies = (self.default, *self.tenants.values())
        return not self.log_prompts and not any(policy.prompts or policy.outputs for policy in policies)
