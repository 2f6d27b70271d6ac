"""Where each weight of a model lies in its files: found, and checked for shape and dtype, before any is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .decoder_spec import DecoderSpec
from .packed_format import PackedFormat
from .packed_places import locate_packed, packed_name
from .packed_weights import PackedWeight
from .safetensors_file import DTYPES, SafetensorsFile
from .types import CheckpointError
from .weight_names import PREFIXES, Source, Weight, weights

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class TensorLocation:
    """The bytes of one tensor: a contiguous piece of a file, in C order, little-endian."""

    path: Path
    offset: int  # bytes from the beginning of the file; safetensors aligns tensors to 8 or not at all
    num_bytes: int
    dtype: str  # as numpy (with ml_dtypes) calls it, such as "bfloat16"
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PlainWeight:
    """Where a weight lies as numbers of a float dtype: a tensor, or a part of one."""

    source: Source
    file: SafetensorsFile

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the part."""
        return self.view().shape

    @property
    def num_bytes(self) -> int:
        """Of the part."""
        return self.view().nbytes

    @property
    def dtype(self) -> str:
        """As numpy (with ml_dtypes) calls it."""
        return self.view().dtype.name

    @property
    def tensor_names(self) -> list[str]:
        """In the files."""
        return [self.source.name]

    def arrays(self) -> list[tuple[str, Array]]:
        """What is stored, under an empty name, for there is one alone."""
        return [("", self.view())]

    def view(self) -> Array:
        """Return a read-only view."""
        array = self.file.array(self.file.entries[self.source.name])
        if self.source.expert is not None:
            array = array[self.source.expert]
        return array if self.source.rows is None else array[slice(*self.source.rows)]

    def location(self) -> TensorLocation:
        """Return where the view's bytes lie, which are contiguous."""
        entry, view = self.file.entries[self.source.name], self.view()
        rows_before = self.source.rows[0] if self.source.rows else 0
        row_bytes = view.nbytes // max(1, len(view)) if view.ndim else view.nbytes
        offset = entry.start + rows_before * row_bytes
        if self.source.expert is not None:
            offset += self.source.expert * (entry.num_bytes // entry.shape[0])
        return TensorLocation(self.file.path, offset, view.nbytes, view.dtype.name, view.shape)


Place = PlainWeight | PackedWeight


def locate(
    spec: DecoderSpec, path: Path, holders: Mapping[str, SafetensorsFile], form: PackedFormat | None
) -> dict[str, Place]:
    """Find every weight that the spec calls for, by canonical name. Raises CheckpointError for one that is wrong."""
    prefix = next((prefix for prefix in PREFIXES if f"{prefix}embed_tokens.weight" in holders), PREFIXES[0])
    places: dict[str, Place] = {}
    for weight in weights(spec, prefix):
        place = _plain(weight, holders) or _packed(weight, holders, form)
        if place is None:
            raise CheckpointError(_missing(spec, weight, path, holders, form))
        places[weight.name] = place
    return places


def _plain(weight: Weight, holders: Mapping[str, SafetensorsFile]) -> PlainWeight | None:
    source = next((source for source in weight.sources if source.name in holders), None)
    if source is None:
        return None
    file = holders[source.name]
    entry = file.entries[source.name]
    if entry.shape != source.shape:
        raise CheckpointError(
            f"{file.path}: tensor {source.name!r} has shape {list(entry.shape)}: expected {list(source.shape)} "
            "from config.json; one of the two belongs to another model"
        )
    if entry.dtype not in DTYPES:
        raise CheckpointError(
            f"{file.path}: tensor {source.name!r} is stored as {entry.dtype}: expected BF16, F16 or F32; of quantised "
            "checkpoints GPTQ and AWQ are read, for others use the original one"
        )
    return PlainWeight(source, file)


def _packed(weight: Weight, holders: Mapping[str, SafetensorsFile], form: PackedFormat | None) -> PackedWeight | None:
    if form is None or weight.name == "embed_tokens":
        return None
    return next((place for source in weight.sources if (place := locate_packed(source, holders, form))), None)


def _missing(
    spec: DecoderSpec, weight: Weight, path: Path, holders: Mapping[str, SafetensorsFile], form: PackedFormat | None
) -> str:
    wanted = f"tensor {weight.sources[0].name!r} ({weight.name} of {spec.architecture})"
    files = ", ".join(dict.fromkeys(file.path.name for file in holders.values())) or "the files, which hold no tensors"
    hint = "the checkpoint is incomplete, or config.json belongs to another model"
    packed = next((name for source in weight.sources if (name := packed_name(source)) in holders), None)
    if packed is not None and form is None:
        hint = f"{packed!r} is, which is quantised: config.json must say how, in its field 'quantization_config'"
    elif weight.name == "lm_head":
        hint = "config.json says that tie_word_embeddings is false, so the model needs one of its own"
    return f"{path}: {wanted} is not in {files}; {hint}"
