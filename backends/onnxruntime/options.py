"""The options of the onnxruntime backend, read from RunnerConfig.options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Switch = Literal["on", "off"]

CHOICES: Mapping[str, tuple[str, ...]] = {  # the first is the default
    "allow_spinning": ("brief", "off", "on"),
    "flash_attention": ("off", "on"),
    "graph_optimization": ("all", "extended", "basic", "off"),
    "attention": ("auto", "standard", "paged"),
    "cuda_graphs": ("off", "on"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may be set besides the configuration that every backend has.

    allow_spinning: threads wait in a loop between two operators: brief, for some microseconds before they sleep; on,
    for much longer, which is several times slower on a busy machine. Before ONNX Runtime 1.26 brief is off.
    flash_attention: ONNX Runtime's tiled attention on the CPU. It saves memory in long prompts, but rounds by how many
    threads there are and where a prompt is cut, so that Capabilities.invariant_to no longer holds.
    graph_optimization: how much ONNX Runtime rewrites the graph.
    attention: standard takes ONNX's own Attention instead of GroupQueryAttention; auto does so where the latter has no
    kernel, which is in float32 on CUDA. paged takes PagedAttention, on CUDA in 16 bits: blocks instead of rows.
    cuda_graphs: on CUDA, decode steps are recorded once for each window of rows and bucket of lengths, and replayed.
    Off until it has been tried on a GPU.
    """

    allow_spinning: str
    flash_attention: bool
    graph_optimization: str
    attention: str
    cuda_graphs: bool

    @classmethod
    def read(cls, options: Mapping[str, str]) -> Options:
        """Check keys and values. Raises ValueError that lists what there is."""
        for key, value in options.items():
            if key not in CHOICES:
                raise ValueError(f"backend onnxruntime: unknown option {key!r}; the options are: {', '.join(CHOICES)}")
            if value not in CHOICES[key]:
                raise ValueError(
                    f"backend onnxruntime: option {key} is {value!r}, expected one of {', '.join(CHOICES[key])}"
                )
        chosen = {key: options.get(key, values[0]) for key, values in CHOICES.items()}
        return cls(
            allow_spinning=chosen["allow_spinning"],
            flash_attention=chosen["flash_attention"] == "on",
            graph_optimization=chosen["graph_optimization"],
            attention=chosen["attention"],
            cuda_graphs=chosen["cuda_graphs"] == "on",
        )
