"""Whole engines on rows: auto, warm prefixes, drafts of both kinds, tight rows, and memory that comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from isotoken.backends.onnxruntime.backend import OnnxRuntimeBackend
from isotoken.conformance.models import DRAFT, LLAMA, write_checkpoint
from isotoken.core.types import DecodeParams, Request, RequestOutput, Unsupported
from isotoken.models import BUILTIN
from isotoken.plugins.build import Built, EngineConfig, build_engine
from isotoken.plugins.manager import Plugins

PROMPTS = {name: [3 + (7 * i + j) % 100 for j in range(20 + 9 * i)] for i, name in enumerate("abcde")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    write_checkpoint(LLAMA, root / "llama")
    write_checkpoint(DRAFT, root / "draft")
    return root


class Service:
    """An engine with what it said."""

    def __init__(self, model: Path, **settings: Any) -> None:
        defaults: dict[str, Any] = {"backend": "onnxruntime", "max_model_len": 128, "max_num_seqs": 4, "num_threads": 1}
        self.tokens: dict[str, list[int]] = {}
        self.requests: dict[str, Request] = {}
        self.num_steps = 0
        config = EngineConfig(model=str(model), **(defaults | settings))
        self.built: Built = build_engine(config, Plugins.load(), self._publish)

    def _publish(self, outputs: list[RequestOutput]) -> None:
        for output in outputs:
            assert output.error is None
            self.tokens.setdefault(output.request_id, []).extend(output.token_ids)

    def run(self, prompts: dict[str, list[int]], max_tokens: int = 20) -> dict[str, list[int]]:
        for name, prompt in prompts.items():
            params = DecodeParams(max_tokens=max_tokens, temperature=float(name == "c"), seed=7, ignore_eos=True)
            request = Request(id=name, token_ids=list(prompt), num_prompt_tokens=len(prompt), params=params)
            self.requests[name] = request
            self.built.engine.add(request)
        while self.built.engine.has_work:
            self.built.engine.step()
            self.num_steps += 1
        return self.tokens


@pytest.fixture(scope="module")
def plain(folder: Path) -> Service:
    service = Service(folder / "llama", prefix_caching=False)
    service.run(PROMPTS)
    return service


def test_a_row_runner_gets_the_contiguous_cache_and_says_so(plain: Service) -> None:
    assert plain.built.kv_cache == "contiguous"
    assert any(reason.startswith("kv_cache contiguous: backend onnxruntime") for reason in plain.built.reasons)


def test_an_engine_for_cuda_says_what_is_missing(folder: Path) -> None:
    if "cuda" in OnnxRuntimeBackend().capabilities.devices:
        pytest.skip("nothing is missing here")
    with pytest.raises(Unsupported, match=r"cannot run on device 'cuda' here; it can on: cpu \(.*pip install"):
        Service(folder / "llama", device="cuda")


def test_a_warm_prefix_is_copied(folder: Path, plain: Service) -> None:
    service = Service(folder / "llama")
    service.run(PROMPTS)
    assert service.tokens == plain.tokens
    again = {f"{name} again": [*prompt, 5, 9] for name, prompt in PROMPTS.items()}
    service.run(again)
    for name, prompt in again.items():
        assert service.requests[name].num_cached_tokens == len(prompt) - 2
    cold = Service(folder / "llama", prefix_caching=False)
    assert cold.run(again) == {name: service.tokens[name] for name in again}
    assert not any(request.num_cached_tokens for request in cold.requests.values())


def test_what_was_answered_before_changes_no_bit(folder: Path) -> None:
    """A prompt whose last token alone is new goes on in a warm row as it would in a cold one: it is no decode."""
    prompt, warm = PROMPTS["e"], Service(folder / "llama")
    warm.run({"before": prompt[:-1]}, max_tokens=1)
    found = []
    for service in (warm, Service(folder / "llama", prefix_caching=False)):
        forward, logits = service.built.engine._runner.forward, []
        service.built.engine._runner.forward = lambda b, f=forward, to=logits: to.append(f(b).copy()) or f(b)  # type: ignore[method-assign]
        service.run({"again": prompt}, max_tokens=1)
        found.append(logits[-1])
    assert warm.requests["again"].num_cached_tokens == len(prompt) - 1
    assert np.array_equal(*found)


def test_requests_take_turns_on_a_single_row(folder: Path, plain: Service) -> None:
    assert Service(folder / "llama", block_size=128, num_blocks=1).run(PROMPTS) == plain.tokens


def test_the_paged_cache_serves_too(folder: Path, plain: Service) -> None:
    assert Service(folder / "llama", kv_cache="paged").run(PROMPTS) == plain.tokens


@pytest.mark.parametrize(
    "settings", [{"drafter": "ngram"}, {"draft_model": "draft"}, {"draft_model": "llama"}], ids=str
)
def test_drafts_change_steps_and_no_token(folder: Path, plain: Service, settings: dict[str, str]) -> None:
    if "draft_model" in settings:
        settings = {"draft_model": str(folder / settings["draft_model"])}
    service = Service(folder / "llama", **settings, fixed_drafts=True)
    assert service.run(PROMPTS) == plain.tokens
    if settings.get("draft_model", "").endswith("llama"):
        assert service.num_steps < plain.num_steps / 2, "a draft model that is the model is always right"


def test_a_draft_runner_copies_prefixes_too(folder: Path) -> None:
    service = Service(folder / "llama", draft_model=str(folder / "llama"), fixed_drafts=True)
    kv = service.built.engine._drafting._drafter._kv  # type: ignore[union-attr]
    found: list[int] = []
    match = kv.match_prefix

    def watch(request: Request) -> int:
        found.append(match(request))
        return found[-1]

    kv.match_prefix = watch
    first = service.run({"a": PROMPTS["e"]})["a"]
    assert service.run({"b": PROMPTS["e"]})["b"] == first
    assert found[0] == 0 and found[1] >= len(PROMPTS["e"]) - 1


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
def test_a_loaded_model_takes_what_it_says(quantization: str | None) -> None:
    """Weights once, in the form that they are computed from; nothing of the file, the graph or the loading stays."""
    Service(
        BUILTIN["isotoken-small"], quantization=quantization, max_num_seqs=1
    ).built.engine.close()  # what the runtime keeps for good is there now
    before = resident()
    service = Service(BUILTIN["isotoken-small"], quantization=quantization, max_num_seqs=1)
    used = resident() - before
    assert used < 1.5 * service.built.engine.info.weight_bytes + (4 << 20)
    service.built.engine.close()
    assert resident() - before < 4 << 20


def test_close_gives_the_memory_back(folder: Path) -> None:
    Service(BUILTIN["isotoken-small"]).built.engine.close()  # what the runtime keeps for good
    before = resident()
    service = Service(BUILTIN["isotoken-small"], max_model_len=1024, max_num_seqs=8)
    prompts = {f"r{i}": [(11 * i + j) % 4000 for j in range(900)] for i in range(8)}
    service.run(prompts, max_tokens=2)
    used = resident() - before
    assert used > 8 * 900 * 10 * 2 * 2 * 64 * 4
    service.built.engine.close()
    assert resident() - before < used / 4
