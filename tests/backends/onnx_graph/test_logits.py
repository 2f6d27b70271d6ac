"""Every family in every form gives transformers' logits: in chunks, in decodes, and in both beside each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from isotoken.backends.onnx_graph import GraphOptions, build_graph
from isotoken.core.checkpoint import Checkpoint

from ..families import FAMILIES, Case
from .runtime import Rows, play, session_in_memory, session_of_file, worst_difference

CaseOf = Callable[[str], Case]
FORMS = ("gqa", "standard", "standard-mask")
TOLERANCE = 2e-5  # of the largest logit


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_graph_gives_the_logits_of_transformers(
    family: str, form: str, family_case: CaseOf, tmp_path: Path
) -> None:
    case = family_case(family)
    graph = build_graph(Checkpoint.open(case.folder), GraphOptions(attention=form, max_model_len=case.max_model_len))
    path = graph.save(tmp_path)
    onnx.checker.check_model(path, full_check=True)
    rows = Rows(graph, session_of_file(path), len(case.sequences), case.max_model_len)
    logits = play(rows, case.sequences, [len(prompt) for prompt in case.prompts])
    assert min(map(len, logits)) >= 9  # prompts and decodes were compared
    assert worst_difference(logits, case.logits) <= TOLERANCE


@pytest.mark.parametrize("form", FORMS)
def test_weights_read_in_place_give_the_same_bits_as_saved_ones(form: str, family_case: CaseOf, tmp_path: Path) -> None:
    case = family_case("llama-tied-sharded-bf16")
    graph = build_graph(Checkpoint.open(case.folder), GraphOptions(attention=form, max_model_len=case.max_model_len))
    session, files = session_in_memory(graph)
    assert len(files) > 2  # several shards
    answers = []
    for runner in (session, session_of_file(graph.save(tmp_path))):
        rows = Rows(graph, runner, 1, case.max_model_len)
        answers.append(rows.step({0: case.sequences[-1][:20]})[0])
    assert answers[0].tobytes() == answers[1].tobytes()


@pytest.mark.parametrize("form", ("standard", "standard-mask"))
def test_rows_of_any_length_share_a_run(form: str, family_case: CaseOf) -> None:
    case = family_case("gemma2")
    graph = build_graph(Checkpoint.open(case.folder), GraphOptions(attention=form, max_model_len=case.max_model_len))
    session, _files = session_in_memory(graph)
    rows = Rows(graph, session, 4, case.max_model_len)
    sequences, expected = case.sequences[-4:], case.logits[-4:]
    steps = [{1: 5, 2: 1}, {0: 17, 1: 1, 2: 8, 3: 2}, {0: 1, 1: 1}, {2: 1, 3: 20}]
    for lens in steps:
        starts = {row: rows.lens[row] for row in lens}
        logits = rows.step({row: sequences[row][starts[row] : starts[row] + n] for row, n in lens.items()})
        wanted = [expected[row][starts[row] : starts[row] + n] for row, n in lens.items()]
        assert worst_difference(logits, wanted) <= TOLERANCE


def test_no_logits_are_computed_where_none_are_asked_for(family_case: CaseOf) -> None:
    case = family_case("llama")
    graph = build_graph(Checkpoint.open(case.folder), GraphOptions())
    session, _files = session_in_memory(graph)
    rows = Rows(graph, session, 1, case.max_model_len)
    feeds = {"input_ids": [[5, 6, 7]], "seqlens_k": [2], "total_sequence_length": 3, "logits_indices": []}
    dtypes = {port.name: port.dtype for port in graph.inputs}
    import numpy as np

    logits = rows._run({name: np.array(value, dtypes[name]) for name, value in feeds.items()}, slice(0, 1))
    assert logits.shape == (0, 128)
