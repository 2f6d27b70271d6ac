"""The torch backend: what it can do here, and what a configuration comes to."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...core.capabilities import Capabilities, not_implemented
from ...core.checkpoint import Checkpoint
from ...core.interfaces import RunnerConfig
from ...core.quantization import refuse_absent
from ...core.types import Unsupported
from .runner import TorchRunner

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
OPTIONS = {"packed_weights": ("auto", "off")}  # auto: prepack bfloat16 weights for oneDNN on the CPU


class TorchBackend:
    """PyTorch on CUDA and on the CPU, from the same code. It has not yet been run on a GPU: none was at hand."""

    name = "torch"

    def __init__(self) -> None:
        self.capabilities = Capabilities(
            dtypes=frozenset(DTYPES),
            devices=frozenset({"cpu", "cuda"} if torch.cuda.is_available() else {"cpu"}),
            missing_devices={} if torch.cuda.is_available() else {"cuda": missing_cuda()},
            batch_invariant=not_implemented(
                "torch picks its matrix products by the number of rows, so a row's last bits depend on the batch"
            ),
        )

    def load(self, checkpoint: Checkpoint, config: RunnerConfig) -> TorchRunner:
        """Load the weights and set up K/V memory.

        Raises Unsupported for what the backend does not do, ValueError for a setting that cannot be met, and both
        before anything big is allocated.
        """
        refuse_absent(
            self.name, self.capabilities, quantization=config.quantization, kv_cache_dtype=config.kv_cache_dtype
        )
        if config.tensor_parallel_size != 1:
            raise Unsupported(
                f"backend torch: tensor_parallel_size {config.tensor_parallel_size} is not available; only 1"
            )
        options = _check_options(config.options)
        device = resolve_device(config.device)
        dtype = DTYPES[resolve_dtype(config.dtype, checkpoint.dtype)]
        if config.num_threads > 0:
            torch.set_num_threads(config.num_threads)
        return TorchRunner(checkpoint, config, device, dtype, packed=options["packed_weights"] == "auto")


def missing_cuda() -> str:
    """Return what keeps torch from CUDA, where it is not available."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA (see https://pytorch.org/get-started)"
    return "an NVIDIA GPU and its driver are needed, and torch finds none"


def resolve_device(wanted: str) -> torch.device:
    """Return the device for "auto", "cpu", "cuda" or "cuda:1". Raises Unsupported saying what is missing."""
    name, _, index = wanted.partition(":")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu" and not index:
        return torch.device("cpu")
    if name != "cuda" or (index and not index.isdecimal()):
        raise Unsupported(f"backend torch: device {wanted!r} is not one of auto, cpu, cuda, cuda:N")
    if not torch.cuda.is_available():
        raise Unsupported(f"backend torch: device {wanted!r} cannot be used here: {missing_cuda()}")
    if index and int(index) >= torch.cuda.device_count():
        raise Unsupported(f"backend torch: device {wanted!r} is not here: {torch.cuda.device_count()} GPU(s) found")
    return torch.device(wanted)


def resolve_dtype(wanted: str, stored: str) -> str:
    """Return the compute dtype: the stored one for "auto" where torch computes in it, else float32."""
    if wanted == "auto":
        return stored if stored in DTYPES else "float32"
    if wanted not in DTYPES:
        raise Unsupported(f"backend torch: dtype {wanted!r} is not one of auto, {', '.join(DTYPES)}")
    return wanted


def _check_options(options: Mapping[str, str]) -> dict[str, str]:
    for key, value in options.items():
        if key not in OPTIONS:
            raise ValueError(f"backend torch: unknown option {key!r}; the options are: {', '.join(OPTIONS)}")
        if value not in OPTIONS[key]:
            raise ValueError(f"backend torch: option {key} is {value!r}, expected one of {', '.join(OPTIONS[key])}")
    return {key: options.get(key, values[0]) for key, values in OPTIONS.items()}
