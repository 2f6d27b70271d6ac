"""Builder progress: TensorRT's tree of phases, flattened into one share of the whole that never goes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import SupportsInt

import tensorrt as trt

OnProgress = Callable[[str, float], None]
"""(what is being done, share of the whole that is done: 0 to 1)."""


@dataclass(slots=True)
class _Phase:
    name: str
    parent: _Phase | None
    num_steps: int
    done: int = 0


class Progress(trt.IProgressMonitor):
    """Turns phases into calls of on_progress, and a request to stop into TensorRT's cancellation.

    Phases nest: a phase's share is its parent's current step. TensorRT calls this from a thread of its own. An error
    in on_progress cancels the build and is kept in `error`, as it cannot cross TensorRT.
    """

    def __init__(self, on_progress: OnProgress) -> None:
        trt.IProgressMonitor.__init__(self)
        self._on_progress = on_progress
        self._phases: dict[str, _Phase] = {}
        self._share = 0.0
        self.error: BaseException | None = None

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: SupportsInt) -> None:
        """Begin a phase inside another (None: at the top)."""
        parent = self._phases.get(parent_phase) if parent_phase else None
        self._phases[phase_name] = _Phase(phase_name, parent, max(int(num_steps), 1))
        self._tell(phase_name)

    def step_complete(self, phase_name: str, step: SupportsInt) -> bool:
        """Count a step; False asks TensorRT to stop."""
        if phase := self._phases.get(phase_name):
            phase.done = min(max(phase.done, int(step) + 1), phase.num_steps)
        self._tell(phase_name)
        return self.error is None

    def phase_finish(self, phase_name: str) -> None:
        """End a phase, finished or not."""
        phase = self._phases.pop(phase_name, None)
        if phase is not None and phase.parent is None:
            phase.done = phase.num_steps
            self._phases[phase_name] = phase
            self._tell(phase_name)
            del self._phases[phase_name]

    def _tell(self, name: str) -> None:
        phase = self._phases.get(name)
        if phase is None or self.error is not None:
            return
        self._share = max(self._share, _share(phase))
        try:
            self._on_progress(name, self._share)
        except BaseException as error:
            self.error = error


def _share(phase: _Phase) -> float:
    """Return how much of the top phase is done, as far as this phase tells."""
    share = phase.done / phase.num_steps
    while phase.parent is not None:
        phase = phase.parent
        share = (phase.done + min(share, 1.0)) / phase.num_steps
    return min(share, 1.0)
