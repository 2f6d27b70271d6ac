"""Every backend runs GPTQ and AWQ checkpoints: as transformers does with the floats that their numbers stand for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.interfaces import RunnerConfig
from isotoken.core.types import DecodeParams, Request, RequestOutput, Unsupported
from isotoken.plugins.build import EngineConfig, build_engine
from isotoken.plugins.manager import Plugins
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from ..core.packed import pack_awq, pack_gptq, quantize
from .driver import run_all
from .families import NUM_NEW_TOKENS, Case, Oracle

Array = NDArray[Any]
BACKENDS = ("reference", "torch", "onnxruntime", "native")
TOLERANCE = 2e-5  # of the largest logit
PARTS = ("_proj.weight", ".w1.weight", ".w2.weight", ".w3.weight")


@dataclass(frozen=True)
class Form:
    """A family, packed in one way."""

    family: str
    config: dict[str, Any]
    symmetric: bool = True
    reordered: bool = False
    more: dict[str, Any] = field(default_factory=dict)


FORMS = {
    "gptq-4": Form("llama", {"quant_method": "gptq", "bits": 4, "group_size": 32}),
    "gptq-4-reordered": Form(
        "qwen2",
        {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": True},
        symmetric=False,
        reordered=True,
    ),
    "gptq-8": Form("llama-biases", {"quant_method": "gptq", "bits": 8, "group_size": -1}),
    "awq": Form("mixtral", {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}, symmetric=False),
    "awq-fused": Form("phi3", {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}, symmetric=False),
}


def write_packed(form: Form, source: Path, packed: Path, plain: Path) -> None:
    """Write a checkpoint with its matrices packed, and another with the floats that they stand for."""
    rng = np.random.default_rng(1)
    tensors = {name: array for file in source.glob("*.safetensors") for name, array in load_file(file).items()}
    kept = {name: array for name, array in tensors.items() if not name.endswith(PARTS)}
    numbers, floats = dict(kept), dict(kept)
    for name in sorted(tensors.keys() - kept.keys()):
        weight, size = tensors[name], form.config["group_size"]
        made = quantize(
            weight,
            form.config["bits"],
            size if size > 0 else weight.shape[1],
            symmetric=form.symmetric,
            order=rng.permutation(weight.shape[1]) if form.reordered else None,
        )
        is_awq = form.config["quant_method"] == "awq"
        parts = pack_awq(made) if is_awq else pack_gptq(made, form.config["bits"])
        numbers |= {name.removesuffix("weight") + kind: part for kind, part in parts.items()}
        floats[name] = made.weight()
    config = json.loads((source / "config.json").read_text())
    for folder, contents, more in ((packed, numbers, {"quantization_config": form.config}), (plain, floats, {})):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({**config, **more}))
        save_file(contents, folder / "model.safetensors", metadata={"format": "pt"})
        if (source / "generation_config.json").exists():
            shutil.copy(source / "generation_config.json", folder)


@pytest.fixture(scope="module")
def packed_case(
    family_case: Callable[[str], Case], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Case, Case]]:
    """Return a function that gives a form's checkpoint, packed and as floats, with transformers' answers."""
    made: dict[str, tuple[Case, Case]] = {}

    def make(name: str) -> tuple[Case, Case]:
        if name not in made:
            case, root = family_case(FORMS[name].family), tmp_path_factory.mktemp(name)
            write_packed(FORMS[name], case.folder, root / "packed", root / "plain")
            oracle = Oracle(root / "plain", case.max_model_len)
            sequences = oracle.greedy(case.prompts, NUM_NEW_TOKENS)
            answers = case.max_model_len, case.prompts, sequences, oracle.logits(sequences)
            made[name] = Case(name, root / "packed", *answers), Case(name, root / "plain", *answers)
        return made[name]

    return make


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins.load()


@pytest.fixture(params=BACKENDS)
def load(request: pytest.FixtureRequest, plugins: Plugins) -> Iterator[Callable[..., Any]]:
    runners = []

    def load_case(case: Case, **settings: Any) -> Any:
        fixed = {"dtype": "float32", "device": "cpu", "max_model_len": case.max_model_len, "num_threads": 1}
        backend = plugins.backends.get_factory(request.param)()
        runners.append(backend.load(Checkpoint.open(case.folder), RunnerConfig(**{**fixed, **settings})))
        return runners[-1]

    yield load_case
    for runner in runners:
        runner.close()


@pytest.mark.parametrize("form", FORMS)
def test_logits_are_those_of_the_floats_in_transformers(
    load: Callable[..., Any], form: str, packed_case: Callable[[str], tuple[Case, Case]]
) -> None:
    case, _ = packed_case(form)
    assert Checkpoint.open(case.folder).packing is not None
    answers = run_all(
        load(case, max_num_seqs=8, max_num_batched_tokens=96, num_blocks=64), case.sequences, max_chunk=20
    )
    bound = TOLERANCE * max(abs(logits).max() for logits in case.logits)
    for answer, expected in zip(answers, case.logits, strict=True):
        assert abs(answer - expected).max() <= bound


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", ["gptq-4-reordered", "awq"])
def test_one_is_served_through_the_engine(
    form: str, backend: str, plugins: Plugins, packed_case: Callable[[str], tuple[Case, Case]]
) -> None:
    case, _ = packed_case(form)
    said: dict[str, list[int]] = {str(i): [] for i in range(len(case.prompts))}

    def publish(outputs: list[RequestOutput]) -> None:
        for output in outputs:
            said[output.request_id] += output.token_ids

    read: list[int] = []
    settings = {"dtype": "float32", "max_model_len": case.max_model_len, "num_threads": 1}
    config = EngineConfig(model=str(case.folder), backend=backend, **settings)
    built = build_engine(config, plugins, publish, on_read=lambda _, num_bytes: read.append(num_bytes))
    assert any("as the checkpoint has them" in reason and "4 bits" in reason for reason in built.reasons)
    assert sum(read) == built.checkpoint.num_bytes
    params = DecodeParams(max_tokens=NUM_NEW_TOKENS, temperature=0.0, ignore_eos=True)
    for i, prompt in enumerate(case.prompts):
        built.engine.add(Request(id=str(i), token_ids=list(prompt), num_prompt_tokens=len(prompt), params=params))
    built.engine.run()
    built.engine.close()
    assert list(said.values()) == [sequence[-NUM_NEW_TOKENS:] for sequence in case.sequences]


@pytest.mark.parametrize("backend", ["onnxruntime", "native"])
@pytest.mark.parametrize(("form", "share"), [("gptq-4", 0.3), ("gptq-8", 0.55), ("awq", 0.5)])
def test_weights_stay_packed_where_kernels_take_them(
    backend: str, form: str, share: float, plugins: Plugins, packed_case: Callable[[str], tuple[Case, Case]]
) -> None:
    """Layers take up to so much of what they do as floats; the embeddings and lm_head are left out of it."""
    sizes = []
    for case in packed_case(form):
        checkpoint = Checkpoint.open(case.folder)
        config = RunnerConfig(dtype="float32", max_model_len=case.max_model_len, num_threads=1, num_blocks=4)
        runner = plugins.backends.get_factory(backend)().load(checkpoint, config)
        tables = sum(4 * np.prod(checkpoint.shape(name)) for name in ("embed_tokens", "lm_head"))
        sizes.append(runner.info.weight_bytes - tables)
        runner.close()
    assert sizes[0] < share * sizes[1]


@pytest.mark.parametrize("attention", ["gqa", "standard"])
def test_a_packed_checkpoint_can_be_exported(
    attention: str, tmp_path: Path, plugins: Plugins, packed_case: Callable[[str], tuple[Case, Case]]
) -> None:
    sizes = []
    for place, case in zip(("packed", "plain"), packed_case("awq-fused"), strict=True):
        exporter = plugins.exporters.get_factory("onnx")()
        options = {"attention": attention, "max_model_len": str(case.max_model_len)}
        exporter.export(Checkpoint.open(case.folder), tmp_path / place, options, lambda _: None)
        sizes.append((tmp_path / place / "weights.bin").stat().st_size)
    assert (sizes[0] < 0.6 * sizes[1]) == (attention == "gqa"), "ONNX Runtime's own form keeps integers"


def test_what_is_quantised_is_not_quantised_again(
    plugins: Plugins, packed_case: Callable[[str], tuple[Case, Case]]
) -> None:
    case, plain = packed_case("gptq-4")
    with pytest.raises(Unsupported, match=r"quantised already \(gptq, 4 bits in groups of 32\).*'int8'.*leave it out"):
        build_engine(EngineConfig(model=str(case.folder), backend="onnxruntime", quantization="int8"), plugins, print)
    built = build_engine(
        EngineConfig(model=str(plain.folder), backend="onnxruntime", quantization="int8"), plugins, print
    )
    built.engine.close()


def test_auto_computes_packed_weights_in_16_bits_on_native_and_says_so(
    tmp_path: Path, plugins: Plugins, packed_case: Callable[[str], tuple[Case, Case]]
) -> None:
    """Kernels that multiply integers by bfloat16 are several times as fast as those by float32."""
    packed, plain = packed_case("gptq-4")
    narrow = shutil.copytree(packed.folder, tmp_path / "narrow")
    tensors = load_file(narrow / "model.safetensors")
    halves = {name: array.astype(np.float16) if array.dtype == "float32" else array for name, array in tensors.items()}
    save_file(halves, narrow / "model.safetensors", metadata={"format": "pt"})
    for folder, quantization, due in ((narrow, None, "bfloat16"), (plain.folder, "int4", "float32")):
        config = EngineConfig(
            model=str(folder), backend="native", quantization=quantization, max_model_len=packed.max_model_len
        )
        built = build_engine(config, plugins, print)
        assert built.dtype == due
        (reason,) = [reason for reason in built.reasons if reason.startswith("dtype ")]
        assert ("weights of fewer bits fastest so; the checkpoint's float16" in reason) == (folder is narrow)
        built.engine.close()
