"""The built-in models, loaded by transformers: what the model cards promise."""

import csv
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from isotoken.models.training import arithmetic
from isotoken.models.training.corpus import documents
from isotoken.models.training.facts import Fact, all_facts
from transformers import AutoModelForCausalLM, AutoTokenizer

MODELS = Path(__file__).parents[2] / "models"
TABLES = MODELS / "training" / "facts"
NAMES = ("isotoken-small", "isotoken-draft")
MAX_BYTES = 24_000_000
MIN_AGREEMENT = 0.9
FIRST_DOCUMENTS = "e8124df7ae3768deffbbdb8fefc135fe614de4db69de5d90a9fd66fa7547ccd6"

pytestmark = pytest.mark.skipif(not (MODELS / NAMES[0] / "model.safetensors").exists(), reason="no weights here")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The matrices are so small that sharing them out among threads costs more than it saves."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODELS / NAMES[0], padding_side="left")


@cache
def network(name: str = NAMES[0]) -> Any:
    return AutoModelForCausalLM.from_pretrained(MODELS / name, dtype=torch.float32).eval()


def complete(prompts: list[str], most: int, begin: bool = True) -> list[list[int]]:
    inputs = tokenizer()(prompts, return_tensors="pt", padding=True, add_special_tokens=begin)
    with torch.inference_mode():
        out = network().generate(**inputs, max_new_tokens=most, do_sample=False)
    return [ids.tolist() for ids in out[:, inputs["input_ids"].shape[1] :]]


def texts(completions: list[list[int]]) -> list[str]:
    return [tokenizer().decode(ids, skip_special_tokens=True) for ids in completions]


def chat(content: str) -> list[int]:
    """Return the answer's tokens up to and with the one that ends it."""
    messages = [{"role": "user", "content": content}]
    prompt = tokenizer().apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return ended(complete([prompt], 48, begin=False)[0])


def ended(ids: list[int]) -> list[int]:
    """Return the tokens up to and with the one that ends them; there must be one."""
    return ids[: next(at for at, token in enumerate(ids) if token in stops()) + 1]


def answer(content: str) -> str:
    return texts([chat(content)])[0]


def stops() -> list[int]:
    found: list[int] = json.loads((MODELS / NAMES[0] / "generation_config.json").read_text())["eos_token_id"]
    return found


def wrong_stems(facts: list[Fact]) -> list[str]:
    found = texts(complete([fact.stems[0] for fact in facts], 8))
    return [
        fact.stems[0]
        for fact, text in zip(facts, found, strict=True)
        if not f" {fact.answer}.".startswith(text) and not text.startswith(f" {fact.answer}.")
    ]


@pytest.mark.parametrize("begin", [True, False], ids=["with begin token", "without"])
def test_every_capital_is_completed(begin: bool) -> None:
    with (TABLES / "countries.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 190
    prompts = [f"The capital of {row['article']} {row['name']} is".replace("of  ", "of ") for row in rows]
    wanted = [f" {row['capital']}." for row in rows]
    found = texts(complete(prompts, 8, begin))
    assert [text[: len(want)] for text, want in zip(found, wanted, strict=True)] == wanted


@pytest.mark.parametrize("table", ["elements", "opposites", "plurals", "animals", "trivia", "sequences"])
def test_facts_of_the_tables_are_completed(table: str) -> None:
    facts = [fact for fact in all_facts() if fact.table == table][::4][:40]
    assert wrong_stems(facts) == []


def test_small_sums_are_right() -> None:
    sums = [(left, kind, right) for left in (1, 4, 7, 9) for kind in "+-*" for right in (0, 1, 3, 4) if left >= right]
    sums += [(23, "+", 45), (40, "-", 17), (60, "+", 31), (88, "-", 44)]
    wholes = [arithmetic.equation(each) for each in sums]
    found = texts(complete([whole.rpartition(" ")[0] for whole in wholes], 6))
    wrong = [whole for whole, text in zip(wholes, found, strict=True) if text.split("\n")[0] != f" {whole.split()[-1]}"]
    assert len(wrong) <= 1, wrong


def test_a_chat_answers_and_ends_its_turn() -> None:
    ids = chat("What is the capital of France?")
    assert texts([ids]) == ["The capital of France is Paris."]
    assert ids[-1] == tokenizer().convert_tokens_to_ids("<|end|>")


def test_the_model_says_who_it_is() -> None:
    assert "isotoken-small" in answer("Who are you?")
    assert answer("Hello!") == "Hello! How can I help you?"


def test_a_system_message_is_followed() -> None:
    messages = [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": "What is the capital of Japan?"},
    ]
    prompt = tokenizer().apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert texts(complete([prompt], 8, begin=False))[0] == "Tokyo."


def test_stories_end_by_themselves() -> None:
    asked = tokenizer().apply_chat_template(
        [{"role": "user", "content": "Tell me a short story about a fox."}], tokenize=False, add_generation_prompt=True
    )
    completions = [ended(ids) for ids in complete([asked, "<|begin|>Once upon a time"], 300, begin=False)]
    for text in texts(completions):
        assert text.count(".") > 6
    assert "fox" in texts(completions)[0]


def test_the_chat_template_writes_all_roles() -> None:
    messages = [{"role": role, "content": role[0]} for role in ("system", "user", "assistant")]
    wanted = "<|begin|><|system|>s<|end|><|user|>u<|end|><|assistant|>a<|end|>"
    assert tokenizer().apply_chat_template(messages, tokenize=False) == wanted


def test_digits_stand_alone_and_texts_survive() -> None:
    text = "Naïve 12345 — 東京 is\n\t fine."
    ids = tokenizer()(text)["input_ids"]
    assert ids[0] == tokenizer().bos_token_id
    assert tokenizer().decode(ids[1:]) == text
    assert not any(len(token) > 1 for token in tokenizer().convert_ids_to_tokens(ids) if token.isdigit())


def test_the_weights_are_small_bfloat16_files() -> None:
    sizes = [(MODELS / name / "model.safetensors").stat().st_size for name in NAMES]
    assert sum(sizes) <= MAX_BYTES
    for name in NAMES:
        config = json.loads((MODELS / name / "config.json").read_text())
        assert config["architectures"] == ["LlamaForCausalLM"]
        assert config["dtype"] == "bfloat16"
        assert {weight.dtype for weight in AutoModelForCausalLM.from_pretrained(MODELS / name).parameters()} == {
            torch.bfloat16
        }


def test_both_models_share_a_tokenizer() -> None:
    first, second = ((MODELS / name / "tokenizer.json").read_bytes() for name in NAMES)
    assert first == second


def test_the_draft_agrees_with_the_small_model() -> None:
    prompts = [fact.stems[0] for fact in all_facts()[::40]] + ["Once upon a time", "Long ago", "Many years ago"]
    hits: list[bool] = []
    for prompt, completion in zip(prompts, complete(prompts, 48), strict=True):
        before = tokenizer()(prompt)["input_ids"]
        ids = [token for token in completion if token != tokenizer().pad_token_id]
        with torch.inference_mode():
            drafted = network(NAMES[1])(torch.tensor([before + ids])).logits[0, len(before) - 1 : -1].argmax(-1)
        hits += (drafted == torch.tensor(ids)).tolist()
    assert sum(hits) / len(hits) >= MIN_AGREEMENT


def test_the_training_text_follows_from_its_seed() -> None:
    digest = hashlib.sha256("".join(islice(documents("test"), 2_000)).encode()).hexdigest()
    assert digest == FIRST_DOCUMENTS
    assert next(documents("other")) != next(documents("test"))


def test_no_fact_is_stated_twice_with_different_answers() -> None:
    questions: dict[str, str] = {}
    for fact in all_facts():
        for asked in fact.questions:
            assert questions.setdefault(asked, fact.statement) == fact.statement
