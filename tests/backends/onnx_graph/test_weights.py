"""Initializers are the checkpoint's own bytes: every one points into a file, nothing is copied, none is missing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from isotoken.backends.onnx_graph import GraphOptions, build_graph, forget_pages
from isotoken.backends.onnx_graph.writer import INLINE_BYTES
from isotoken.core.checkpoint import Checkpoint, TensorLocation

from ..families import FAMILIES, Case

CaseOf = Callable[[str], Case]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_is_where_its_location_says(family: str, family_case: CaseOf) -> None:
    checkpoint = Checkpoint.open(family_case(family).folder)
    for name in checkpoint.names():
        place, view = checkpoint.location(name), checkpoint.tensor(name)
        assert (place.dtype, place.shape, place.num_bytes) == (view.dtype.name, view.shape, view.nbytes)
        with place.path.open("rb") as file:
            file.seek(place.offset)
            assert file.read(place.num_bytes) == np.ascontiguousarray(view).tobytes(), name


def test_a_tied_head_lies_where_the_embeddings_do(family_case: CaseOf) -> None:
    checkpoint = Checkpoint.open(family_case("qwen2").folder)
    assert checkpoint.location("lm_head") == checkpoint.location("embed_tokens")
    with pytest.raises(KeyError, match="no tensor 'lm_tail'"):
        checkpoint.location("lm_tail")


@pytest.mark.parametrize("family", FAMILIES)
def test_matrices_are_never_copied(family: str, family_case: CaseOf) -> None:
    """Each weight with two dimensions is one initializer that points into the file; what is inline is small."""
    checkpoint = Checkpoint.open(family_case(family).folder)
    graph = build_graph(checkpoint, GraphOptions())
    matrices = {name for name in checkpoint.names() if len(checkpoint.location(name).shape) == 2}
    assert matrices <= graph.weights.keys()
    for name, source in graph.weights.items():
        assert isinstance(source, TensorLocation), name
        assert source == checkpoint.location(name)
    initializers = graph.model.graph.initializers
    inline = {name: value.const_value for name, value in initializers.items() if name not in graph.weights}
    assert all(tensor is not None and tensor.nbytes <= INLINE_BYTES for tensor in inline.values())
    if checkpoint.dtype == "float32" and not checkpoint.spec.norm_offset:
        assert set(checkpoint.names()) <= graph.weights.keys()  # vectors too


def test_the_graph_names_the_bytes_that_files_gives(family_case: CaseOf) -> None:
    checkpoint = Checkpoint.open(family_case("phi3").folder)  # rows of fused tensors
    graph = build_graph(checkpoint, GraphOptions())
    files = graph.files()
    proto = ir.to_proto(graph.model)
    external = {each.name: {e.key: e.value for e in each.external_data} for each in proto.graph.initializer}
    for name in checkpoint.names():
        entry = external[name]
        begin, length = int(entry["offset"]), int(entry["length"])
        data = files[entry["location"]][begin : begin + length]
        assert data.tobytes() == np.ascontiguousarray(checkpoint.tensor(name)).tobytes()
        assert graph.bytes_of(files, name).ctypes.data == data.ctypes.data
    forget_pages(files)
    assert files["model.safetensors"][:8].any()  # read again when needed


def test_gemmas_norms_have_their_offset_added_once(family_case: CaseOf) -> None:
    checkpoint = Checkpoint.open(family_case("gemma3").folder)
    initializers = build_graph(checkpoint, GraphOptions()).model.graph.initializers
    stored = checkpoint.tensor("layers.1.input_norm")
    assert (initializers["layers.1.input_norm"].const_value.numpy() == stored + 1).all()


def test_layers_with_the_same_rope_share_its_tables(family_case: CaseOf) -> None:
    initializers = build_graph(Checkpoint.open(family_case("gemma3").folder), GraphOptions()).model.graph.initializers
    assert sorted(name for name in initializers if name.startswith("rope")) == [
        "rope.0.cos", "rope.0.sin", "rope.1.cos", "rope.1.sin",
    ]  # fmt: skip


def test_long_rope_tables_lie_outside_of_the_graph(family_case: CaseOf) -> None:
    checkpoint = Checkpoint.open(family_case("llama-linear").folder)
    graph = build_graph(checkpoint, GraphOptions(max_model_len=256))
    small = build_graph(checkpoint, GraphOptions(max_model_len=16))
    assert "rope.0.cos" not in small.weights
    table = graph.weights.get("rope.0.cos", graph.model.graph.initializers["rope.0.cos"].const_value.numpy())
    assert table.shape == (256 + 1, 8)  # one for padding


def test_building_reads_no_matrix(family_case: CaseOf) -> None:
    read: list[str] = []
    checkpoint = Checkpoint.open(family_case("llama").folder, on_read=lambda name, _: read.append(name))
    build_graph(checkpoint, GraphOptions(attention="standard"))
    assert [name for name in read if "proj" in name or name == "lm_head"] == []


def test_saving_packs_each_weight_once(family_case: CaseOf, tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(family_case("llama-tied-sharded-bf16").folder)
    build_graph(checkpoint, GraphOptions()).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "weights.bin"]
    matrices = sum(
        checkpoint.location(name).num_bytes for name in checkpoint.names() if len(checkpoint.location(name).shape) == 2
    )
    assert matrices <= (tmp_path / "weights.bin").stat().st_size < matrices + 64 * 60


def outputs_of(model: Path) -> list[np.ndarray]:
    """What the saved graph makes of three tokens."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    feeds: dict[str, np.ndarray] = {
        "input_ids": np.array([[1, 2, 3]]),
        "logits_indices": np.array([0, 1, 2]),
        "seqlens_k": np.array([2], np.int32),
        "total_sequence_length": np.array(3, np.int32),
    }
    for value in session.get_inputs():
        if value.name.startswith("past_"):
            feeds[value.name] = np.zeros((1, value.shape[1], 16, value.shape[3]), np.float32)
    return session.run(["logits"], feeds)


@pytest.mark.parametrize("step", ["fsync", "replace", "unlink"])
def test_a_save_that_breaks_off_leaves_one_graph_with_its_own_weights(
    step: str, family_case: CaseOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off at each call of one kind in turn, and then saved again."""
    checkpoint = Checkpoint.open(family_case("llama").folder)
    old, new = (build_graph(checkpoint, GraphOptions(quantization=q)) for q in (None, "int4"))
    folder = tmp_path / "kept"
    old.save(folder)
    due = [outputs_of(folder / "model.onnx"), outputs_of(new.save(tmp_path / "new"))]
    assert not np.array_equal(*due)
    owner: object = os if step == "fsync" else Path
    original, seen = getattr(owner, step), []
    for broken_off in range(10):
        calls = iter(range(broken_off, -1, -1))

        def break_off(*args: object, calls: Iterator[int] = calls) -> object:
            if not next(calls, 1):
                raise KeyboardInterrupt
            return original(*args)

        with monkeypatch.context() as patch:
            patch.setattr(owner, step, break_off)
            try:
                new.save(folder)
            except KeyboardInterrupt:
                found = outputs_of(folder / "model.onnx")
                seen.append([np.array_equal(found, wanted) for wanted in due])
                assert any(seen[-1]), f"a mix, after {broken_off} calls of {step}"
                old.save(folder)
                assert np.array_equal(outputs_of(folder / "model.onnx"), due[0])
                continue
        break
    assert seen, "it was broken off"
    assert np.array_equal(outputs_of(folder / "model.onnx"), due[1])
    assert len(list(folder.iterdir())) == 2, "no weights of earlier graphs, no partial files"


def test_saving_links_where_it_is_told_to(family_case: CaseOf, tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(family_case("llama-tied-sharded-bf16").folder)
    graph = build_graph(checkpoint, GraphOptions())
    graph.save(tmp_path, link=True)
    links = [path for path in tmp_path.iterdir() if path.suffix == ".safetensors"]
    assert len(links) > 2
    assert all(path.samefile(checkpoint.path / path.name) for path in links)
    with pytest.raises(FileExistsError):
        graph.save(tmp_path, link=True)


def test_saving_beside_the_weights_copies_nothing(family_case: CaseOf, tmp_path: Path) -> None:
    source = family_case("llama").folder
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    before = {path.name for path in tmp_path.iterdir()}
    build_graph(Checkpoint.open(tmp_path), GraphOptions()).save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} - before == {"model.onnx"}


@pytest.mark.parametrize("link", [False, True])
def test_weights_behind_symbolic_links_are_found(link: bool, family_case: CaseOf, tmp_path: Path) -> None:
    """As in the hub's cache, where a snapshot is a folder of links to blobs."""
    import onnxruntime

    source, snapshot = family_case("llama").folder, tmp_path / "snapshot"
    snapshot.mkdir()
    for path in source.iterdir():
        (snapshot / path.name).symlink_to(path)
    graph = build_graph(Checkpoint.open(snapshot), GraphOptions())
    for folder in (tmp_path / "out", *([] if link else [snapshot])):  # a snapshot's own link would be in the way
        model = graph.save(folder, link=link)
        onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        assert not any(path.is_symlink() for path in folder.iterdir()) or folder == snapshot
