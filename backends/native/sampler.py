"""NativeSampler: HostSampler's tokens from the kernels' own sampler, on the threads that computed the logits."""

from __future__ import annotations

from ...core.batch import Sampled, SamplingRows
from ...core.interfaces import Logits
from ...kernels.cpu.sampler import TeamSampler
from ...kernels.cpu.team import Team


class NativeSampler:
    """The sampling of ARCHITECTURE section 4 in C++. For one caller at a time, as the team is."""

    def __init__(self, team: Team) -> None:
        self._sampler = TeamSampler(team)

    def sample(self, logits: Logits, rows: SamplingRows) -> Sampled:
        """Draw (or score) one token for each of the L rows of logits [L, V], which are never written to."""
        return Sampled(*self._sampler.sample(logits, rows))
