"""PackedFormat: how a checkpoint that was quantised as GPTQ or AWQ packs its matrices, read from its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .config_fields import Fields

_ZERO_OFFSETS = {"gptq": 1, "gptq_v2": 0}
"""What is added to a stored zero point. GPTQ's first format stores them less one."""


@dataclass(frozen=True, slots=True)
class PackedFormat:
    """The form of all packed matrices of a checkpoint, or with `mixed` of most.

    weight = (q - zero) * scale, with a zero point and a scale for each output and group of inputs. Sources: for GPTQ
    QuantizeConfig and the QuantLinear modules of AutoGPTQ and GPTQModel; for AWQ WQLinear_GEMM of AutoAWQ.
    """

    method: Literal["gptq", "awq"]
    bits: int  # of q: 4 or 8
    group_size: int  # inputs of one output that share a scale and a zero point; 0: all of them
    zero_offset: int = 0  # is added to a stored zero point
    reordered: bool = False  # groups are not of neighbouring inputs: g_idx says which input is in which
    mixed: bool = False  # some matrices have other bits or groups, as their shapes say

    def __str__(self) -> str:
        groups = f"in groups of {self.group_size}" if self.group_size else "with a scale for each output"
        return f"{self.method}, {self.bits} bits {groups}"


def read_packed_format(config: Mapping[str, Any]) -> PackedFormat | None:
    """Read `quantization_config`; None where there is none. Raises CheckpointError for what cannot be unpacked here."""
    if config.get("quantization_config") is None:
        return None
    fields = Fields(config).object("quantization_config")
    match fields.values.get("quant_method"):
        case "gptq":
            return _read_gptq(fields)
        case "awq":
            return _read_awq(fields)
    raise fields.error("quant_method", "'gptq' or 'awq'; for other quantised checkpoints use the original one")


def _read_gptq(fields: Fields) -> PackedFormat:
    if (bits := fields.integer("bits")) not in (4, 8):
        raise fields.error("bits", "4 or 8; GPTQ of 2 and 3 bits is not read, use the original checkpoint")
    return PackedFormat(
        method="gptq",
        bits=bits,
        group_size=_group_size(fields, "group_size"),
        zero_offset=fields.choice(_named(fields, "format", "checkpoint_format"), _ZERO_OFFSETS, 1),
        reordered=fields.flag("desc_act", False),
        mixed=bool(fields.values.get("dynamic")),
    )


def _read_awq(fields: Fields) -> PackedFormat:
    name = _named(fields, "bits", "w_bit")
    if fields.integer(name) != 4:
        raise fields.error(name, "4, which is all that AWQ packs")
    fields.choice(_named(fields, "format", "version"), {"gemm": "gemm", "GEMM": "gemm"}, "gemm")
    return PackedFormat(
        method="awq", bits=4, group_size=_group_size(fields, _named(fields, "group_size", "q_group_size"))
    )


def _named(fields: Fields, name: str, other: str) -> str:
    """The name by which the file calls a field: tools and their versions differ."""
    return other if other in fields and name not in fields else name


def _group_size(fields: Fields, name: str) -> int:
    group_size = fields.integer(name, minimum=-1)
    if group_size == 0:
        raise fields.error(name, "a whole number above 0, or -1 for all inputs")
    return max(group_size, 0)
