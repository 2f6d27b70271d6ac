"""OnnxExporter: writes a model as an ONNX graph with its weights, a manifest, a description and an example."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ...core.checkpoint import Checkpoint
from . import readme
from .decoder import build_graph
from .graph import Graph
from .options import GraphOptions
from .save import write_whole

FORMAT = "isotoken-onnx/1"
KEPT = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
CHOICES = tuple(field.name for field in fields(GraphOptions))


class OnnxExporter:
    """Exports to ONNX. Options: those of GraphOptions, and link=yes, which links to the checkpoint's files."""

    def export(
        self, checkpoint: Checkpoint, folder: Path, options: Mapping[str, str], on_progress: Callable[[str], None]
    ) -> Sequence[Path]:
        """See Exporter. Writes model.onnx, weights.bin, manifest.json, README.md, example.py and the tokenizer.

        Into the model's own folder too, which keeps the README that it has: there the graph's is `model.onnx.md`.
        """
        choices, link = _read(options)
        on_progress("building the graph" + (f", weights to {choices.quantization}" if choices.quantization else ""))
        graph = build_graph(checkpoint, choices)
        on_progress("linking the weights" if link else "writing the weights")
        model = graph.save(folder, link=link)
        manifest = describe(checkpoint, graph)
        at_home = folder.samefile(checkpoint.path)
        about = "model.onnx.md" if at_home else "README.md"
        written = {"manifest.json": json.dumps(manifest, indent=2) + "\n", about: readme.render(manifest)}
        if choices.attention != "paged":  # which runs on CUDA only
            written["example.py"] = Path(__file__).with_name("example.py").read_text(encoding="utf-8")
        for name, text in written.items():
            write_whole(folder / name, text.encode())
        kept = [name for name in KEPT if (checkpoint.path / name).exists()]
        for name in () if at_home else kept:
            (folder / name).unlink(missing_ok=True)  # another model's, or a link that would be written through
            shutil.copyfile(checkpoint.path / name, folder / name)
        return [model, *(folder / name for name in (*written, *kept))]


def describe(checkpoint: Checkpoint, graph: Graph) -> dict[str, Any]:
    """Return the manifest: what a program must know to run the graph."""
    spec, options = checkpoint.spec, graph.options
    return {
        "format": FORMAT,
        "architecture": spec.architecture,
        "attention": options.attention,
        "dtype": options.dtype,
        "kv_dtype": options.kv_dtype,
        "quantization": options.quantization,
        "vocab_size": spec.vocab_size,
        "num_layers": spec.num_layers,
        "max_model_len": spec.resolve_max_model_len(options.max_model_len),
        "eos_token_ids": sorted(checkpoint.eos_token_ids),
        "inputs": [asdict(port) for port in graph.inputs],
        "outputs": [asdict(port) for port in graph.outputs],
    }


def _read(options: Mapping[str, str]) -> tuple[GraphOptions, bool]:
    unknown = sorted(set(options) - {*CHOICES, "link"})
    if unknown:
        raise ValueError(f"export to onnx: unknown option {unknown[0]!r}; there are {', '.join((*CHOICES, 'link'))}")
    if (link := options.get("link", "no")) not in ("yes", "no"):
        raise ValueError(f"export to onnx: link is {link!r}: expected 'yes' or 'no'")
    whole = {field.name for field in fields(GraphOptions) if field.type == "int"}
    chosen: dict[str, Any] = {name: value for name, value in options.items() if name != "link"}
    for name in whole & chosen.keys():
        if not chosen[name].isdecimal():
            raise ValueError(f"export to onnx: {name} is {chosen[name]!r}: expected a whole number")
        chosen[name] = int(chosen[name])
    return GraphOptions(**chosen), link == "yes"
