"""The oracle against transformers, and the rules of drawing against known answers and the host sampler."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from isotoken.conformance.draw import draw, processed
from isotoken.conformance.models import DRAFT, MODELS, TinyModel, weights, weights_digest, write_checkpoint
from isotoken.conformance.oracle import Oracle, noise, philox
from isotoken.conformance.quantized import quantized, rounded_as
from isotoken.conformance.targets import QUANTIZATIONS, SCALE_FOR_OUTPUT
from isotoken.core.types import DecodeParams
from isotoken.kernels.cpu import quantize as kernel


@pytest.mark.parametrize("model", [*MODELS.values(), DRAFT], ids=lambda m: m.name)
def test_the_oracle_is_transformers(model: TinyModel, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.set_num_threads(1)
    folder = write_checkpoint(model, tmp_path)
    experts = {"experts_implementation": "eager"} if model.experts else {}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", **experts
    )
    theirs = theirs.double().eval()
    dice = random.Random(1)
    tokens = [dice.randrange(model.vocab_size) for _ in range(130)]
    with torch.no_grad():
        expected = theirs(torch.tensor([tokens])).logits[0].numpy()
    off = abs(Oracle(model).trace(tokens).logits - expected).max() / abs(expected).max()
    assert off < 5e-6  # their rotary tables are in float32


def test_weights_are_exact_in_bfloat16_and_known() -> None:
    import ml_dtypes

    for value in weights(MODELS["llama"]).values():
        assert np.array_equal(value, value.astype(ml_dtypes.bfloat16).astype(np.float64))
    assert weights_digest(MODELS["llama"]) == "d16a6abc24a20c63", "the goldens were made with other weights"


@pytest.mark.parametrize(("name", "bits"), QUANTIZATIONS.items())
@pytest.mark.parametrize("model", ["llama", "moe", "qwen3"])
def test_quantised_weights_are_the_kernels(model: str, name: str, bits: int) -> None:
    """Bit by bit; the mixture's inputs of 48 leave a block half full, and a tied lm_head comes apart."""
    made = weights(MODELS[model])
    changed = quantized(made, name)
    assert {n for n in changed if n not in made} == ({"lm_head"} if MODELS[model].tied else set())
    for weight_name, weight in changed.items():
        before = made.get(weight_name, made["embed_tokens"])
        if weight.ndim == 1 or weight_name.endswith(("embed_tokens", "router")):
            assert weight is before
        else:
            theirs = dequantized(before, name)
            assert np.array_equal(weight.astype(np.float32), theirs), weight_name
            assert 0 < abs(weight - before).max() <= abs(before).max() / (2**bits - 2) * 1.01


def dequantized(weight: np.ndarray, name: str) -> np.ndarray:
    """What the kernels' quantised weights stand for."""
    if name in SCALE_FOR_OUTPUT:
        q, scales = kernel.quantize_rows(weight)
        return q.astype(np.float32) * scales[:, None]
    bits = QUANTIZATIONS[name]
    return kernel.dequantize(*kernel.quantize(weight, bits), bits, weight.shape[1])


@pytest.mark.parametrize("name", QUANTIZATIONS)
def test_zeros_and_faint_weights_quantise_to_zeros(name: str) -> None:
    weight = np.zeros((3, 64))
    weight[1, 5], weight[2] = 1e-40, 0.5
    theirs = dequantized(weight, name)
    assert np.array_equal(rounded_as(weight, name).astype(np.float32), theirs)
    assert not theirs[:2].any()


def test_expert_choices_are_clear_cut() -> None:
    tokens = [random.Random(2).randrange(128) for _ in range(200)]
    assert Oracle(MODELS["moe"]).trace(tokens).routing[-1] > 0.5


def test_philox_known_answers() -> None:
    """From Random123's kat_vectors."""
    assert philox((0, 0, 0, 0), (0, 0))[0] == 0x6627E8D5
    ones = 0xFFFFFFFF
    assert philox((ones,) * 4, (ones,) * 2) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert philox(pi, (0xA4093822, 0x299F31D0)) == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)


def test_noise_is_gumbel() -> None:
    values = np.concatenate([noise(seed, 5, 131) for seed in range(100)])
    assert -2.9 < values.min() < values.max() < 16.7
    assert abs(values.mean() - 0.5772) < 0.05
    assert abs(values.var() - np.pi**2 / 6) < 0.1


def test_near_ties_are_undecided() -> None:
    x = np.array([3.0, 2.9999, 1.0])
    greedy = DecodeParams(temperature=0.0)
    assert not draw(x, greedy, 1, 1e-3).decided
    assert draw(x, greedy, 1, 1e-5).decided
    assert draw(x, greedy, 1, 1e-5, token=1).deficit == pytest.approx(1e-4)
    assert draw(x, greedy, 1, 1e-5, token=2).deficit > draw(x, greedy, 1, 1e-5).tolerance


def test_a_filtered_token_is_never_excused() -> None:
    x = np.array([3.0, 2.0, 1.0, 0.0])
    for changes in ({"top_k": 2}, {"top_p": 0.6}, {"min_p": 0.3}):
        judged = draw(x, replace(DecodeParams(temperature=1.0), **changes), 1, 1e-3, token=3)
        assert judged.deficit == np.inf


@pytest.mark.parametrize("seed", range(4))
def test_verdicts_hold_for_any_logits_within_the_bound(seed: int) -> None:
    """Whatever token logits within the bound give is excused, and is the expected one where that is decided."""
    dice = np.random.default_rng(seed)
    params = [
        DecodeParams(temperature=0.0),
        DecodeParams(temperature=1.0),
        DecodeParams(temperature=0.6, top_k=5),
        DecodeParams(temperature=1.4, top_p=0.8),
        DecodeParams(temperature=1.1, min_p=0.1),
        DecodeParams(temperature=1.0, top_k=9, top_p=0.9, min_p=0.05),
    ]
    decided = 0
    for turn in range(300):
        p = replace(params[turn % len(params)], seed=turn)
        x = 3 * dice.standard_normal(24)
        bound = float(dice.choice([1e-3, 0.05, 0.3]))
        shaken = x + dice.uniform(-bound, bound, len(x))
        token = draw(shaken, p, 7, 0.0).token
        judged = draw(x, p, 7, bound, token)
        assert judged.deficit <= judged.tolerance, (turn, p, bound, judged)
        if judged.decided:
            decided += 1
            assert token == judged.token
    assert decided > 60


def test_processing_order() -> None:
    x = np.array([2.0, -2.0, 1.0, 0.5])
    params = DecodeParams(
        repetition_penalty=2.0,
        presence_penalty=0.5,
        frequency_penalty=0.25,
        logit_bias={3: 1.0},
        bad_words_ids=((0, 2),),
    )
    got = processed(x, params, [1, 0], [0, 0], frozenset())
    assert got.tolist() == [2.0 / 2 - 0.5 - 0.5, -4.0, -np.inf, 1.5]
