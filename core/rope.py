"""Rotary position embeddings: the scalings in use, read from a config and turned into frequencies in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .config_fields import Fields

Float64 = NDArray[np.float64]
Scaling = Literal["default", "linear", "dynamic", "yarn", "llama3", "longrope"]
SCALINGS: dict[str, Scaling] = {
    "default": "default",
    "linear": "linear",
    "dynamic": "dynamic",
    "yarn": "yarn",
    "llama3": "llama3",
    "longrope": "longrope",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeSpec:
    """Rotary position embedding of one kind of layer.

    Rotate-half layout: dimension i of the rotary part turns against dimension i + rotary_dim / 2.
    `parameters` by scaling, all validated, defaults filled in (backends need only `inverse_frequencies`):
    linear: factor. llama3: factor, low_freq_factor, high_freq_factor. dynamic: factor.
    yarn: factor, attention_factor, beta_fast, beta_slow, truncate (0 or 1).
    longrope: attention_factor, and short_factor, long_factor (tuples of rotary_dim / 2).
    The last four also: original_max_position_embeddings.
    """

    theta: float
    rotary_dim: int  # leading dimensions of each head that rotate; the rest pass through
    scaling: Scaling = "default"
    parameters: Mapping[str, float | tuple[float, ...]] = field(default_factory=dict, hash=False)

    def max_context(self, max_position_embeddings: int) -> int:
        """Return the longest context that these frequencies make sense for, given the config's own."""
        if self.scaling in ("linear", "dynamic"):
            return int(max_position_embeddings * self.number("factor"))
        if self.scaling == "yarn":
            return int(self.number("original_max_position_embeddings") * self.number("factor"))
        return max_position_embeddings

    def number(self, name: str) -> float:
        """Return a parameter that is one number."""
        value = self.parameters[name]
        assert not isinstance(value, tuple)
        return value

    def numbers(self, name: str) -> tuple[float, ...]:
        """Return a parameter that is a list of rotary_dim / 2 numbers."""
        value = self.parameters[name]
        assert isinstance(value, tuple)
        return value


def inverse_frequencies(rope: RopeSpec, max_model_len: int) -> tuple[Float64, float]:
    """Return inv_freq [rotary_dim / 2], radians a position, and the factor that multiplies both cos and sin.

    Dynamic NTK and longrope depend on the running length in transformers, which would make cached keys depend on the
    future. Here they are fixed at load: dynamic as if max_model_len positions were in use (no effect up to the trained
    length), longrope with the long factors when max_model_len exceeds the trained length.
    """
    exponents = np.arange(0, rope.rotary_dim, 2, dtype=np.float64) / rope.rotary_dim
    inv_freq = rope.theta**-exponents
    match rope.scaling:
        case "default":
            return inv_freq, 1.0
        case "linear":
            return inv_freq / rope.number("factor"), 1.0
        case "dynamic":
            return _dynamic_theta(rope, max_model_len) ** -exponents, 1.0
        case "llama3":
            return _llama3(rope, inv_freq), 1.0
        case "yarn":
            return _yarn(rope, inv_freq), rope.number("attention_factor")
        case "longrope":
            is_long = max_model_len > rope.number("original_max_position_embeddings")
            factors = rope.numbers("long_factor" if is_long else "short_factor")
            return inv_freq / np.asarray(factors), rope.number("attention_factor")


def rope_tables(rope: RopeSpec, max_model_len: int, *, num_spare: int = 0) -> tuple[Float64, Float64]:
    """Return cos and sin [max_model_len + num_spare, rotary_dim / 2] of every position, the attention factor included.

    Spare positions are for padding: their frequencies are those of max_model_len.
    """
    inv_freq, attention_factor = inverse_frequencies(rope, max_model_len)
    angles = np.arange(max_model_len + num_spare, dtype=np.float64)[:, None] * inv_freq
    return np.cos(angles) * attention_factor, np.sin(angles) * attention_factor


def read_rope(
    fields: Fields,
    *,
    rotary_dim: int,
    theta: float,
    max_position_embeddings: int,
    aliases: Mapping[str, Scaling] | None = None,
    trained_length: int | None = None,
) -> RopeSpec:
    """Read one rope description, `fields` being rope_parameters or rope_scaling, in either dialect of config.json.

    `aliases` renames scalings that a family calls otherwise; `trained_length` stands in for
    original_max_position_embeddings where the family keeps it outside of the rope description.
    """
    type_key = "rope_type" if "rope_type" in fields else "type"
    scaling = fields.choice(type_key, {**SCALINGS, **(aliases or {})}, "default")
    trained = trained_length or fields.integer("original_max_position_embeddings", max_position_embeddings, minimum=2)
    parameters: dict[str, float | tuple[float, ...]] = {}
    match scaling:
        case "linear":
            parameters = {"factor": fields.number("factor", minimum=1)}
        case "dynamic":
            parameters = {
                "factor": fields.number("factor", minimum=1),
                "original_max_position_embeddings": max_position_embeddings,
            }
        case "llama3":
            parameters = _read_llama3(fields, trained)
        case "yarn":
            parameters = _read_yarn(fields, trained, max_position_embeddings / trained)
        case "longrope":
            parameters = _read_longrope(fields, trained, max_position_embeddings / trained, rotary_dim // 2)
        case "default":
            pass
    theta = fields.number("rope_theta", theta, minimum=2)
    return RopeSpec(theta=theta, rotary_dim=rotary_dim, scaling=scaling, parameters=parameters)


def _read_llama3(fields: Fields, trained: int) -> dict[str, float | tuple[float, ...]]:
    low = fields.number("low_freq_factor")
    high = fields.number("high_freq_factor")
    if high <= low:
        raise fields.error("high_freq_factor", f"more than low_freq_factor ({low})")
    return {
        "factor": fields.number("factor", minimum=1),
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": trained,
    }


def _read_yarn(fields: Fields, trained: int, ratio: float) -> dict[str, float | tuple[float, ...]]:
    factor = fields.number("factor", ratio, minimum=1)

    def mscale(weight: float) -> float:
        return 1.0 + 0.1 * weight * math.log(factor)

    mscale_all_dim = fields.number("mscale_all_dim", 0.0, minimum=0)
    attention_factor = mscale(1.0)
    if mscale_all_dim and fields.number("mscale", 0.0, minimum=0):
        attention_factor = mscale(fields.number("mscale")) / mscale(mscale_all_dim)
    beta_fast = fields.number("beta_fast", 32.0)
    beta_slow = fields.number("beta_slow", 1.0)
    if beta_fast < beta_slow:
        raise fields.error("beta_fast", f"at least beta_slow ({beta_slow})")
    return {
        "factor": factor,
        "attention_factor": fields.number("attention_factor", attention_factor),
        "beta_fast": beta_fast,
        "beta_slow": beta_slow,
        "truncate": float(fields.flag("truncate", True)),
        "original_max_position_embeddings": trained,
    }


def _read_longrope(fields: Fields, trained: int, ratio: float, length: int) -> dict[str, float | tuple[float, ...]]:
    factor = fields.number("factor", max(ratio, 1.0), minimum=1)
    attention_factor = math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 else 1.0
    return {
        "attention_factor": fields.number("attention_factor", attention_factor),
        "short_factor": fields.numbers("short_factor", length),
        "long_factor": fields.numbers("long_factor", length),
        "original_max_position_embeddings": trained,
    }


def _dynamic_theta(rope: RopeSpec, max_model_len: int) -> float:
    """Raise the base so that the slowest frequency still fits max_model_len positions (NTK-aware scaling)."""
    factor, trained = rope.number("factor"), rope.number("original_max_position_embeddings")
    stretch = factor * max(max_model_len, trained) / trained - (factor - 1)
    return float(rope.theta * stretch ** (rope.rotary_dim / (rope.rotary_dim - 2)))


def _llama3(rope: RopeSpec, inv_freq: Float64) -> Float64:
    """Divide slow frequencies by the factor, keep fast ones, and blend in between (Llama 3.1)."""
    turns = rope.number("original_max_position_embeddings") * inv_freq / (2 * math.pi)  # within the trained length
    low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
    keep = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return keep * inv_freq + (1 - keep) * inv_freq / rope.number("factor")


def _yarn(rope: RopeSpec, inv_freq: Float64) -> Float64:
    """Divide slow frequencies by the factor, keep fast ones, with a linear ramp over the dimensions between (YaRN)."""

    def dimension(turns: float) -> float:  # where a frequency turns that often within the trained length
        length = rope.number("original_max_position_embeddings")
        return rope.rotary_dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = dimension(rope.number("beta_fast")), dimension(rope.number("beta_slow"))
    if rope.number("truncate"):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.rotary_dim - 1)
    high += 0.001 if low == high else 0
    slow: Float64 = np.clip((np.arange(len(inv_freq)) - low) / (high - low), 0.0, 1.0)
    return slow * inv_freq / rope.number("factor") + (1 - slow) * inv_freq
