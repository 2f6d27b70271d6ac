"""Checkpoints of the model families, made once a session."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from .families import Case, make_case


@pytest.fixture(scope="session")
def family_case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """Return a function that gives a family's checkpoint with transformers' answers."""
    root = tmp_path_factory.mktemp("families")
    torch.set_num_threads(1)  # tiny matrices: threads only get in each other's way
    return lambda name: make_case(name, root)
