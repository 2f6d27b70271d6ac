"""How requests for one name are shared out among models."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from ..fleet.settings import Name


class Arm(BaseModel, extra="forbid", frozen=True):
    """One way to answer."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="What headers, metrics and the report call it.")
    model: str = Field(description="A model's name, an alias or name@version.")
    weight: float = Field(default=1.0, gt=0, description="Its share, beside the other arms' weights.")


class Experiment(BaseModel, extra="forbid", frozen=True):
    """Requests for one name, shared out among arms."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    model: Name = Field(description="The name that clients ask for.")
    arms: list[Arm] = Field(min_length=2)
    sticky: Literal["user", "key", "request"] = Field(
        default="user", description="Who stays with one arm: the request's `user` (else its key), its key, or nobody."
    )

    @model_validator(mode="after")
    def _check(self) -> Experiment:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"experiment {self.name}: two arms have the same name")
        return self


class Route(BaseModel, extra="forbid", frozen=True):
    """Requests for one name, each sent to the model that a router thinks enough for it."""

    model: Name = Field(description="The name that clients ask for.")
    router: str = Field(default="complexity", description="Who decides: see `isotoken plugins`.")
    candidates: list[str] = Field(min_length=2, description="Models, the cheapest first.")
    options: dict[str, float] = Field(default_factory=dict, description="The router's own settings.")


class Escalation(BaseModel, extra="forbid", frozen=True):
    """Requests for one name, answered by a cheap model where it is sure of itself, else by a strong one."""

    model: Name = Field(description="The name that clients ask for.")
    cheap: str
    strong: str
    min_confidence: float = Field(
        default=0.8, gt=0, le=1, description="The geometric mean of the answer's token probabilities that is enough."
    )


class Shadow(BaseModel, extra="forbid", frozen=True):
    """A part of the requests for one name, also put to another model, whose answers are compared and thrown away."""

    model: Name = Field(description="The name that clients ask for.")
    target: str = Field(description="The model that is compared: another backend or version with the same tokenizer.")
    fraction: float = Field(default=0.01, gt=0, le=1, description="Of the requests.")
    max_in_flight: int = Field(default=4, ge=1, description="Comparisons at once; what comes on top is left out.")


class RoutingSettings(BaseModel, extra="forbid", frozen=True):
    """Which model answers to a name. Off while all lists are empty."""

    experiments: list[Experiment] = Field(default_factory=list)
    routes: list[Route] = Field(default_factory=list)
    escalations: list[Escalation] = Field(default_factory=list)
    shadows: list[Shadow] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check(self) -> RoutingSettings:
        asked = [each.model for each in self.experiments]
        asked += [each.model for each in self.routes] + [each.model for each in self.escalations]
        for name in asked:
            if asked.count(name) > 1:
                raise ValueError(f"the name {name!r} is shared out twice: by an experiment, a route or an escalation")
        names = [experiment.name for experiment in self.experiments]
        if len(set(names)) < len(names):
            raise ValueError("two experiments have the same name")
        return self

    @property
    def is_on(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.experiments or self.routes or self.escalations or self.shadows)
