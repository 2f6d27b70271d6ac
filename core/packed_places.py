"""Find the parts of a packed matrix among a checkpoint's tensors, and check that they are of one matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .packed_format import PackedFormat
from .packed_weights import PackedWeight
from .safetensors_file import DTYPES, PACKED, SafetensorsFile, StoredTensor
from .types import CheckpointError
from .weight_names import Source

SUFFIX = ".weight"


def packed_name(source: Source) -> str | None:
    """Return the name of the tensor that holds a matrix's words in place of `source`, or None for what is no matrix."""
    if not source.name.endswith(SUFFIX) or len(source.shape) != 2:
        return None
    return source.name.removesuffix(SUFFIX) + ".qweight"


def locate_packed(source: Source, holders: Mapping[str, SafetensorsFile], form: PackedFormat) -> PackedWeight | None:
    """Find the packed matrix that stands for a weight, or None. Raises CheckpointError for parts that do not fit."""
    name = packed_name(source)
    if name not in holders or name is None:
        return None
    stem, parts = name.removesuffix("qweight"), {}
    for kind in ("qweight", "qzeros", "scales", "g_idx"):
        if (file := holders.get(stem + kind)) is not None:
            parts[kind] = StoredTensor(file, file.entries[stem + kind])
        elif kind != "g_idx" or form.reordered:
            raise CheckpointError(
                f"{holders[name].path}: tensor {name!r} is there but {stem + kind!r}, which unpacks it ({form}), is in "
                "no file; the checkpoint is incomplete"
            )
    form = _form_of(form, parts, source.shape[1])
    _check_shapes(source, parts, form)
    weight = PackedWeight(source, parts, form)
    _check_groups(weight)
    return weight


def _form_of(form: PackedFormat, parts: Mapping[str, StoredTensor], inputs: int) -> PackedFormat:
    """The form with this matrix's own bits and groups: where they are mixed, as its shapes say."""
    if not form.mixed:
        return replace(form, group_size=form.group_size or inputs)
    words, groups = (parts[kind].entry.shape[:1] or (0,) for kind in ("qweight", "scales"))
    bits = next((bits for bits in (4, 8) if words[0] * 32 == inputs * bits), form.bits)
    return replace(form, bits=bits, group_size=-(-inputs // max(1, groups[0])))


def _check_shapes(source: Source, parts: Mapping[str, StoredTensor], form: PackedFormat) -> None:
    outputs, inputs = source.shape
    a_word, groups = 32 // form.bits, -(-inputs // form.group_size)
    packed_inputs = form.method == "gptq"
    if outputs % a_word or (inputs % a_word and packed_inputs):
        raise _wrong(parts["qweight"], f"stands for {outputs} outputs and {inputs} inputs", f"multiples of {a_word}")
    expected = {
        "qweight": (inputs // a_word, outputs) if packed_inputs else (inputs, outputs // a_word),
        "qzeros": (groups, outputs // a_word),
        "scales": (groups, outputs),
        "g_idx": (inputs,),
    }
    for kind, part in parts.items():
        if part.entry.shape != expected[kind]:
            wanted = f"{list(expected[kind])} from config.json ({form}, {outputs} outputs, {inputs} inputs)"
            raise _wrong(part, f"has shape {list(part.entry.shape)}", f"{wanted}; one of the two is of another model")
        dtypes = tuple(DTYPES) if kind == "scales" else (PACKED,)
        if part.entry.dtype not in dtypes:
            raise _wrong(part, f"is stored as {part.entry.dtype}", " or ".join(dtypes))


def _check_groups(weight: PackedWeight) -> None:
    """Read which group each input is in, which is little, and refuse groups that have no scales."""
    if (part := weight.parts.get("g_idx")) is None:
        return
    groups, num_groups = part.array(), weight.parts["scales"].entry.shape[0]
    if (wrong := groups[(groups < 0) | (groups >= num_groups)]).size:
        raise _wrong(part, f"puts an input into group {wrong[0]}", f"0 to {num_groups - 1}; the file is damaged")


def _wrong(part: StoredTensor, what: str, expected: str) -> CheckpointError:
    return CheckpointError(f"{part.file.path}: tensor {part.entry.name!r} {what}: expected {expected}")
