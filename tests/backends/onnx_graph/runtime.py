"""Runs a graph with onnxruntime on the CPU: rows of a cache, steps over some of them, logits of every new token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from isotoken.backends.onnx_graph import Graph, ragged_inputs
from numpy.typing import NDArray

Array = NDArray[Any]
MAX_CHUNK = 64  # new tokens of a row in one step


def session_options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return options


def session_in_memory(graph: Graph) -> tuple[onnxruntime.InferenceSession, Mapping[str, Array]]:
    """A session that reads the weights where `Graph.files()` mapped them; the files must outlive it."""
    options, files = session_options(), graph.files()
    options.add_external_initializers_from_files_in_memory(
        list(files), list(files.values()), [file.size for file in files.values()]
    )
    options.add_session_config_entry("session.use_external_initializer_file_buffers_directly", "1")
    return onnxruntime.InferenceSession(graph.to_bytes(), options, providers=["CPUExecutionProvider"]), files


def session_of_file(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), session_options(), providers=["CPUExecutionProvider"])


class Rows:
    """A session with a cache of some rows, filled with garbage at first: what is not written must not be seen."""

    def __init__(self, graph: Graph, session: Any, num_rows: int, max_model_len: int) -> None:
        self.form, self.session = graph.options.attention, session
        rng = np.random.default_rng(0)
        self.cache: dict[str, Array] = {}
        for port in graph.inputs:
            if port.name.startswith("past_"):
                length = max_model_len + (0 if self.form == "gqa" else MAX_CHUNK)
                shape = (num_rows, port.shape[1], port.shape[2] if isinstance(port.shape[2], int) else length)
                self.cache[port.name] = (50 * rng.standard_normal((*shape, port.shape[3]))).astype(port.dtype)
        self.lens = [0] * num_rows

    def step(self, chunks: Mapping[int, Sequence[int]]) -> list[Array]:
        """Feed each row its next tokens; return the logits of each of them, a list of [tokens, V] by row.

        The rows must be neighbours. `gqa` takes one token each, or several of one row.
        """
        rows = list(chunks)
        assert rows == list(range(rows[0], rows[0] + len(rows)))
        lens, past = [len(chunk) for chunk in chunks.values()], [self.lens[row] for row in rows]
        tokens = np.concatenate([np.asarray(chunk, np.int64) for chunk in chunks.values()])
        if self.form == "gqa":
            total = np.array([a + b for a, b in zip(lens, past, strict=True)], np.int32)
            feeds: dict[str, Array] = {"input_ids": tokens.reshape(len(rows), -1), "seqlens_k": total - 1}
            feeds["total_sequence_length"] = total.max()
        else:
            feeds = {"input_ids": tokens, **ragged_inputs(lens, past, masked=self.form == "standard-mask")}
        logits = self._run(feeds | {"logits_indices": np.arange(len(tokens))}, slice(rows[0], rows[-1] + 1))
        for row, length in zip(rows, lens, strict=True):
            self.lens[row] += length
        return np.split(logits, np.cumsum(lens)[:-1])

    def _run(self, feeds: Mapping[str, Array], rows: slice) -> Array:
        binding = self.session.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        binding.bind_output("logits", "cpu")
        for name, cache in self.cache.items():
            part = cache[rows]
            place = ("cpu", 0, part.dtype.type, part.shape, part.ctypes.data)
            binding.bind_input(name, *place)
            binding.bind_output(name.replace("past", "present"), *place)
        self.session.run_with_iobinding(binding)
        return binding.get_outputs()[0].numpy()  # type: ignore[no-any-return]


def play(rows: Rows, sequences: Sequence[Sequence[int]], num_prompts: Sequence[int]) -> list[Array]:
    """Feed whole sequences: prompts in two chunks, the second of all rows in one step where the form can, then decodes.

    Returns logits [length, V] for each sequence.
    """
    logits: list[list[Array]] = [[] for _ in sequences]

    def step(chunks: Mapping[int, Sequence[int]]) -> None:
        for row, part in zip(chunks, rows.step(chunks), strict=True):
            logits[row].append(part)

    for row, (sequence, length) in enumerate(zip(sequences, num_prompts, strict=True)):
        step({row: sequence[: min(7, length)]})
        if rows.form == "gqa" and length > 7:
            step({row: sequence[7:length]})
    if rows.form != "gqa":  # rows that have more of their prompt, beside rows that go on with one token
        step({
            row: sequence[rows.lens[row] : max(length, rows.lens[row] + 1)]
            for row, (sequence, length) in enumerate(zip(sequences, num_prompts, strict=True))
        })  # fmt: skip
    while all(length < len(sequence) for length, sequence in zip(rows.lens, sequences, strict=True)):
        step({row: sequence[rows.lens[row] : rows.lens[row] + 1] for row, sequence in enumerate(sequences)})
    return [np.concatenate(parts) for parts in logits]


def worst_difference(logits: Sequence[Array], expected: Sequence[Array]) -> float:
    """The largest difference as a fraction of the largest logit."""
    scale = max(float(np.abs(want).max()) for want in expected)
    return max(float(np.abs(got - want[: len(got)]).max()) / scale for got, want in zip(logits, expected, strict=True))
