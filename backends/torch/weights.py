"""Move a checkpoint's tensors to the device one at a time, so that memory never holds a second copy of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core.checkpoint import Checkpoint
from ..host_memory import release_pages
from .linear import Linear, PackedLinear, can_pack

_TORCH = {"float32": torch.float32, "float16": torch.float16, "float64": torch.float64}


Arrange = Callable[[str, Tensor], Tensor]
"""Given a tensor's name and the tensor, returns its rows in the order that is wanted."""


def unchanged(_: str, rows: Tensor) -> Tensor:
    """Leave the rows as they are stored."""
    return rows


def pair_up(rows: Tensor, head_dim: int, rotary_dim: int) -> Tensor:
    """Reorder the rows [heads * D, ...] so that the pairs that rope_ turns, i and i + rotary_dim / 2, are neighbours.

    Done to queries and keys alike it leaves their products as they were.
    """
    order = torch.arange(head_dim, device=rows.device)
    order[:rotary_dim] = order[:rotary_dim].view(2, -1).t().reshape(-1)
    return rows.unflatten(0, (-1, head_dim))[:, order].flatten(0, 1) if rotary_dim else rows


class WeightLoader:
    """Hands out a checkpoint's tensors on one device in one dtype."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, *, packed: bool) -> None:
        self.checkpoint = checkpoint
        self.device = device
        self.dtype = dtype
        self.packed = packed and can_pack(device, dtype)
        self.num_bytes = 0  # of all that was handed out

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """Return one tensor on the device; on the CPU a view of the file where the dtype is the stored one."""
        array = self.checkpoint.tensor(name)
        source = view_of(array)
        target = source.to(self.device, dtype or self.dtype)
        if target.data_ptr() != source.data_ptr():
            release_pages(array)
        self.num_bytes += target.numel() * target.element_size()
        return target

    def embedding(self, name: str) -> Tensor:
        """Return an embedding table; on the CPU in its stored dtype, so that it stays a view of the file."""
        return self.tensor(name, view_of(self.checkpoint.tensor(name)).dtype if self.device.type == "cpu" else None)

    def linear(self, *names: str, bias: bool = False, arrange: Arrange = unchanged) -> Linear:
        """Return one layer made of several projections, their rows one after the other, each arranged."""
        biases = None
        if bias:
            biases = torch.cat([arrange(name, self.tensor(f"{name}.bias")) for name in names])
        if len(names) == 1:
            return self._layer(*names, weight=None, bias=biases)
        shapes = [self.checkpoint.shape(name) for name in names]
        sizes = [shape[0] for shape in shapes]
        fused = torch.empty(sum(sizes), shapes[0][1], dtype=self.dtype, device=self.device)
        for name, part in zip(names, fused.split(sizes), strict=True):
            array = self.checkpoint.tensor(name)
            part.copy_(arrange(name, view_of(array)))
            release_pages(array)
        self.num_bytes += fused.numel() * fused.element_size()
        return self._layer(*names, weight=fused, bias=biases)

    def _layer(self, *names: str, weight: Tensor | None, bias: Tensor | None) -> Linear:
        if not self.packed:
            return Linear(self.tensor(names[0]) if weight is None else weight, bias)
        if weight is not None:
            return PackedLinear(weight, bias)
        layer = PackedLinear(self.tensor(names[0]), bias)
        if not self.checkpoint.is_packed(names[0]):
            release_pages(self.checkpoint.tensor(names[0]))
        return layer


def view_of(array: NDArray[Any]) -> Tensor:
    """Return a torch view of a numpy array, read-only or bfloat16 ones included. Nobody may write to it."""
    dtype = _TORCH.get(array.dtype.name)
    if dtype is None:
        if array.dtype.name != "bfloat16":
            raise ValueError(f"torch backend: cannot compute with tensors stored as {array.dtype.name}")
        return view_of(array.view(np.float16)).view(torch.bfloat16)
    if array.flags.writeable:
        return torch.from_numpy(array)
    strides = [stride // array.itemsize for stride in array.strides]
    return torch.from_numpy(_writeable_alias(array)).as_strided(array.shape, strides)


def _writeable_alias(array: NDArray[Any]) -> NDArray[Any]:
    """Return the same memory marked writeable: torch has no read-only tensors and warns about such arrays."""
    interface = dict(array.__array_interface__)
    interface["data"] = (interface["data"][0], False)
    return np.asarray(_Interface(interface, array))


class _Interface:
    """Carries an array interface, and keeps its memory alive."""

    def __init__(self, interface: dict[str, Any], owner: NDArray[Any]) -> None:
        self.__array_interface__ = interface
        self.owner = owner
