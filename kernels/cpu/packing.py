"""Sizes of packed weights, which program.h lays out: one arithmetic for the library, the twins and the backend."""

from __future__ import annotations

from .program import FORM_BF16, FORM_F32, FORM_I4_A8, FORM_I4_GROUPS, FORM_I8, FORM_I8_GROUPS, PANEL

INPUTS_A_STEP = {FORM_F32: 1, FORM_BF16: 2, FORM_I8: 4, FORM_I8_GROUPS: 4, FORM_I4_A8: 8, FORM_I4_GROUPS: 8}
BITS_OF_GROUPS = {FORM_I8_GROUPS: 8, FORM_I4_A8: 4, FORM_I4_GROUPS: 4}
STEP_BYTES = 4  # of each output
INPUTS = 32  # are filled up to a multiple of it


def num_panels(outputs: int) -> int:
    """Return how many panels hold this many outputs."""
    return -(-outputs // PANEL)


def padded_inputs(inputs: int) -> int:
    """Return how many inputs lie in memory."""
    return -(-inputs // INPUTS) * INPUTS


def num_groups(inputs: int, group: int) -> int:
    """Return how many scales a row of weights, or sums a row of activations, has."""
    return -(-padded_inputs(inputs) // group)


def packed_sizes(form: int, outputs: int, inputs: int, group: int = 0) -> tuple[int, int, int]:
    """Return the bytes of values, scales and sums of a weight matrix [outputs, inputs].

    ValueError where the form is none of weights, or the group none that kernels take.
    """
    check(form, group)
    panels = num_panels(outputs)
    values = panels * PANEL * padded_inputs(inputs) // INPUTS_A_STEP[form] * STEP_BYTES
    if form == FORM_I8:
        return values, panels * PANEL * 4, panels * PANEL * 4
    if form in BITS_OF_GROUPS:
        return values, panels * PANEL * num_groups(inputs, group) * 2, 0
    return values, 0, 0


def check(form: int, group: int) -> None:
    """Raise ValueError for a form that weights do not have, or a group that is not a multiple of 32."""
    if form not in INPUTS_A_STEP:
        raise ValueError(f"form {form} is none of weights: {sorted(INPUTS_A_STEP)}")
    if form in BITS_OF_GROUPS and (group <= 0 or group % INPUTS):
        raise ValueError(f"a group of {group} inputs: expected a multiple of {INPUTS}")
