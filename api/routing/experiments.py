"""Experiments: which arm a request gets, and what came of each arm."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .assignment import assign
from .intervals import Interval, Mean, Rate, difference, difference_of_rates
from .settings import Arm, Experiment

if TYPE_CHECKING:
    from ..server.exchange import Exchange

Cost = Callable[["Exchange"], float | None]

MEANS = {
    "latency_seconds": "from request to last byte",
    "first_token_seconds": "from submission to the first token",
    "output_tokens": "of an answer",
    "cost": "of a request, by the price table",
}


@dataclass(slots=True)
class Outcome:
    """What came of one arm since the server started."""

    arm: Arm
    errors: Rate = field(default_factory=Rate)
    means: dict[str, Mean] = field(default_factory=lambda: {name: Mean() for name in MEANS})

    def note(self, exchange: Exchange, cost: float | None) -> None:
        """Count a request that has ended. Where the client left early, its length and latency say nothing."""
        reasons = [reason for stats in exchange.stats for reason in stats.finish_reasons]
        failed = exchange.status >= 500 or "error" in reasons or "timeout" in reasons
        if not exchange.stats or "abort" in reasons:
            if failed:
                self.errors.add(True)
            return
        self.errors.add(failed)
        if failed:
            return
        stats = exchange.stats[-1]  # of the model whose answer it was
        self.means["latency_seconds"].add(time.monotonic() - exchange.started)
        self.means["output_tokens"].add(stats.num_output_tokens)
        if stats.time_to_first_token is not None:
            self.means["first_token_seconds"].add(stats.time_to_first_token)
        if cost is not None:
            self.means["cost"].add(cost)


class Experiments:
    """All that are under way."""

    def __init__(self, experiments: Sequence[Experiment], cost: Cost = lambda _: None) -> None:
        self._by_model = {experiment.model: experiment for experiment in experiments}
        self._cost = cost
        self.outcomes = {
            experiment.name: {arm.name: Outcome(arm) for arm in experiment.arms} for experiment in experiments
        }

    def choose(self, name: str, exchange: Exchange, user: str) -> str | None:
        """Return the model of the arm that a request for `name` gets; None where there is no experiment."""
        experiment = self._by_model.get(name)
        if experiment is None:
            return None
        arm = assign(experiment, _unit(experiment, exchange, user))
        exchange.arm = f"{experiment.name}/{arm.name}"
        exchange.headers["x-isotoken-arm"] = exchange.arm
        outcome = self.outcomes[experiment.name][arm.name]
        exchange.on_end.append(lambda ended: outcome.note(ended, self._cost(ended)))
        return arm.model

    def report(self) -> list[dict[str, Any]]:
        """Return every experiment's arms with means, rates and how they differ from the first, as JSON."""
        return [self._report(experiment) for experiment in self._by_model.values()]

    def _report(self, experiment: Experiment) -> dict[str, Any]:
        outcomes = list(self.outcomes[experiment.name].values())
        return {
            "experiment": experiment.name,
            "model": experiment.model,
            "sticky": experiment.sticky,
            "confidence": 0.95,
            "arms": [_told(outcome, outcomes[0]) for outcome in outcomes],
        }


def _unit(experiment: Experiment, exchange: Exchange, user: str) -> str:
    """Return who keeps an arm, as a text that tells tenants apart."""
    if experiment.sticky == "request":
        return exchange.id
    who = exchange.principal
    key = who.key_id or exchange.address
    return f"{who.tenant}\0{key}\0{user}" if experiment.sticky == "user" else f"{who.tenant}\0{key}"


def _told(outcome: Outcome, first: Outcome) -> dict[str, Any]:
    told: dict[str, Any] = {
        "arm": outcome.arm.name,
        "model": outcome.arm.model,
        "weight": outcome.arm.weight,
        "requests": outcome.errors.count,
        "error_rate": {"value": outcome.errors.rate, "interval": _pair(outcome.errors.interval())},
    }
    for name, mean in outcome.means.items():
        told[name] = {"mean": mean.mean if mean.count else None, "interval": _pair(mean.interval())}
    if outcome is not first:
        against = {name: _pair(difference(first.means[name], mean)) for name, mean in outcome.means.items()}
        against["error_rate"] = _pair(difference_of_rates(first.errors, outcome.errors))
        told["difference_from"] = {"arm": first.arm.name, "intervals": against}
    return told


def _pair(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)
