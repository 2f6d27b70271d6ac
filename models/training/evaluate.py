"""Measure the two built-in models: `python -m isotoken.models.training.evaluate --models models`."""

import argparse
import itertools
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor, LogitsProcessorList

from . import arithmetic, chat, skills, stories
from .card import DRAFTED
from .corpus import documents
from .export import write_json
from .facts import Fact, all_facts
from .tokenizer import ASSISTANT, BEGIN, render

BATCH = 64
TEMPERATURE = 0.8
DETERMINED = (
    skills.capital_check, skills.unknown, skills.persona, skills.out_of_scope, skills.how_to, skills.whole_list,
    skills.fact_in_a_hurry, skills.spelling, skills.repeating, skills.repeating_words, skills.reading, skills.as_json,
    skills.word_problem, arithmetic.ask_compare, arithmetic.ask_number, arithmetic.ask_count,
)  # fmt: skip
STORY_PROMPTS = ("Once upon a time", "Long ago", "A long time ago", "Many years ago")


class PositionNoise(LogitsProcessor):
    """Adds Gumbel noise that depends only on (seed, row, position): the greedy choice is then a sample."""

    def __init__(self, seed: int, vocab_size: int) -> None:
        self.seed, self.vocab_size = seed, vocab_size

    def noise(self, row: int, position: int) -> Tensor:
        """Return the noise of one draw, [V] float32."""
        generator = torch.Generator().manual_seed((self.seed * 1_000 + row) * 10_000 + position)
        return -torch.empty(self.vocab_size).exponential_(generator=generator).log()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores over the temperature, plus noise."""
        noise = torch.stack([self.noise(row, input_ids.shape[1]) for row in range(len(input_ids))])
        return scores.float() / TEMPERATURE + noise


@dataclass(slots=True)
class Model:
    """A model folder loaded by transformers, computing in float32 from the bfloat16 weights."""

    network: Any
    tokenizer: Any

    @classmethod
    def load(cls, folder: Path) -> "Model":
        """Load a folder."""
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        network.requires_grad_(False)
        return cls(network, tokenizer)

    def encode(self, texts: Sequence[str]) -> Any:
        """Return left-padded ids and mask; the texts carry their own special tokens."""
        return self.tokenizer(list(texts), return_tensors="pt", padding=True, add_special_tokens=False)

    @torch.inference_mode()
    def complete(self, texts: Sequence[str], most: int, noise: PositionNoise | None = None) -> list[list[int]]:
        """Return the new tokens of each text, with the stop token where one came."""
        inputs = self.encode(texts)
        processors = LogitsProcessorList([noise] if noise else [])
        out = self.network.generate(**inputs, max_new_tokens=most, do_sample=False, logits_processor=processors)
        stops = set(self.network.generation_config.eos_token_id)
        return [_until(row.tolist(), stops) for row in out[:, inputs["input_ids"].shape[1] :]]

    def stopped(self, ids: list[int]) -> bool:
        """Say whether a completion ended by itself."""
        return bool(ids) and ids[-1] in self.network.generation_config.eos_token_id

    def text(self, ids: list[int]) -> str:
        """Return a completion as text, without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    @torch.inference_mode()
    def logits(self, ids: list[int]) -> Tensor:
        """Return the logits [S, V] of one sequence."""
        out: Tensor = self.network(torch.tensor([ids])).logits[0]
        return out


def _until(ids: list[int], stops: set[int]) -> list[int]:
    for index, token in enumerate(ids):
        if token in stops:
            return ids[: index + 1]
    return ids


def batched(items: Sequence[Any]) -> list[Sequence[Any]]:
    """Cut a sequence into batches."""
    return [items[at : at + BATCH] for at in range(0, len(items), BATCH)]


def question(asked: str) -> str:
    """Return a chat prompt of one question."""
    return render([("user", asked)]) + ASSISTANT


def share(hits: Sequence[bool]) -> float:
    """Return the share of hits."""
    return round(sum(hits) / len(hits), 4)


def completed(model: Model, fact: Fact, reply: str) -> bool:
    """Say whether a continuation of the first stem states the fact."""
    return reply.startswith(f" {fact.answer}.")


def fact_accuracy(model: Model) -> dict[str, dict[str, float]]:
    """Return, for each table, the share of facts completed, completed without the begin token, and answered in chat."""
    facts = sorted(all_facts(), key=lambda fact: len(fact.stems[0]))
    hits: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for group in batched(facts):
        plain = model.complete([BEGIN + fact.stems[0] for fact in group], 20)
        bare = model.complete([fact.stems[0] for fact in group], 20)
        asked = model.complete([question(fact.questions[0]) for fact in group], 48)
        for fact, one, two, three in zip(group, plain, bare, asked, strict=True):
            hits[fact.table]["completion"].append(completed(model, fact, model.text(one)))
            hits[fact.table]["without begin token"].append(completed(model, fact, model.text(two)))
            hits[fact.table]["chat"].append(model.text(three).strip() == fact.statement)
    return {
        table: {"facts": len(kinds["chat"]), **{kind: share(each) for kind, each in kinds.items()}}
        for table, kinds in hits.items()
    }


def asked_sum(random: Random, drawn: arithmetic.Sum) -> str:
    """Return a chat prompt that asks for a sum."""
    return question(arithmetic.ask_sum(random, drawn)[0])


def sums_accuracy(model: Model, many: int = 256) -> dict[str, float]:
    """Return the share of sums that are right, for pairs that were trained on and pairs that were not."""
    found = {}
    for name, held in (("trained pairs", False), ("held-out pairs", True)):
        random = Random(f"sums {held}")
        sums = [arithmetic.draw_sum(random, held) for _ in range(many)]
        for style in ("completion", "chat"):
            hits: list[bool] = []
            for group in batched(sums):
                wholes = [arithmetic.equation(each) for each in group]
                stems = [BEGIN + whole.rpartition(" ")[0] if style == "completion" else asked_sum(random, each)
                         for whole, each in zip(wholes, group, strict=True)]  # fmt: skip
                for whole, ids in zip(wholes, model.complete(stems, 16), strict=True):
                    wanted = " " + whole.rpartition(" ")[2] if style == "completion" else whole + "."
                    hits.append(model.text(ids).split("\n")[0] == wanted)
            found[f"{name}, {style}"] = share(hits)
    return found


def chat_prompts(many: int, seed: str) -> list[str]:
    """Return chat prompts with questions of all kinds but stories, some with earlier turns."""
    random = Random(seed)
    prompts: list[str] = []
    while len(prompts) < many:
        messages = chat.conversation(random)
        if len(messages[-1][1]) < 200:
            prompts.append(render(messages[:-1]) + ASSISTANT)
    return prompts


def story_prompts(many: int, seed: str) -> list[str]:
    """Return requests for stories and openings of stories."""
    random = Random(seed)
    asked = [question(stories.request(random, stories.draw_cast(random))) for _ in range(many - many // 4)]
    return asked + [BEGIN + random.choice(STORY_PROMPTS) for _ in range(many // 4)]


def fact_prompts(many: int, seed: str) -> list[str]:
    """Return plain beginnings of facts."""
    random = Random(seed)
    return [BEGIN + random.choice(skills.draw_fact(random).stems) for _ in range(many)]


def ends_by_itself(model: Model) -> dict[str, float]:
    """Return the share of completions that end with a stop token, greedy and sampled."""
    noise = PositionNoise(3, model.network.config.vocab_size)
    kinds = {
        "chat": (chat_prompts(128, "ends"), 256),
        "stories": (story_prompts(64, "ends"), 400),
        "facts": (fact_prompts(64, "ends"), 256),
    }
    found = {}
    for kind, (prompts, most) in kinds.items():
        for name, drawn in (("greedy", None), (f"temperature {TEMPERATURE}", noise)):
            hits = [model.stopped(ids) for group in batched(prompts) for ids in model.complete(group, most, drawn)]
            found[f"{kind}, {name}"] = share(hits)
    return found


def skill_accuracy(model: Model, many: int = BATCH) -> dict[str, float]:
    """Return, for each skill whose answer is determined, the share of fresh questions answered exactly."""
    found = {}
    for skill in DETERMINED:
        random = Random(f"skill {skill.__name__}")
        asked = [skill(random) for _ in range(many)]
        completions = model.complete([question(each[0]) for each in asked], 80)
        hits = [model.text(ids) == answer for ids, (_, answer) in zip(completions, asked, strict=True)]
        found[skill.__name__.replace("_", " ")] = share(hits)
    return found


def held_out_perplexity(model: Model, seed: int, many: int = 600) -> float:
    """Return the perplexity by token on documents that were not trained on."""
    total, count = 0.0, 0
    for text in itertools.islice(documents(f"{seed} held out"), many):
        ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        total += F.cross_entropy(model.logits(ids)[:-1], torch.tensor(ids[1:]), reduction="sum").item()
        count += len(ids) - 1
    return round(math.exp(total / count), 4)


def perplexity_by_position(model: Model, seed: int, rows: int = 12, width: int = 512) -> dict[str, float]:
    """Return the perplexity in each part of full contexts of 2,048 tokens, filled with packed documents."""
    source = documents(f"{seed} held out long", long=True)
    losses = []
    for _ in range(rows):
        ids: list[int] = []
        while len(ids) <= 4 * width:
            ids += model.tokenizer(next(source), add_special_tokens=False)["input_ids"]
        ids = ids[: 4 * width + 1]
        losses.append(F.cross_entropy(model.logits(ids[:-1]), torch.tensor(ids[1:]), reduction="none"))
    mean = torch.stack(losses).mean(0).view(4, width).mean(1)
    return {
        f"positions {at * width} to {(at + 1) * width - 1}": round(math.exp(value), 4)
        for at, value in enumerate(mean.tolist())
    }


def accepted_per_verify(agreed: Sequence[bool], drafted: int) -> tuple[int, int]:
    """Return (accepted tokens, verifications) when drafts of a fixed length run along a text."""
    at = accepted = verified = 0
    while at < len(agreed):
        run = sum(1 for _ in itertools.takewhile(bool, agreed[at : at + drafted]))
        accepted, verified, at = accepted + run, verified + 1, at + run + 1
    return accepted, verified


def agreement(
    model: Model, draft: Model, prompts: Sequence[str], most: int, noise: PositionNoise | None
) -> dict[str, float]:
    """Return how often the draft, along the small model's own text, would have drawn the same token."""
    agreed: list[list[bool]] = []
    for group in batched(prompts):
        width = model.encode(group)["input_ids"].shape[1]
        for row, (prompt, ids) in enumerate(zip(group, model.complete(group, most, noise), strict=True)):
            before = model.tokenizer(prompt, add_special_tokens=False)["input_ids"]
            logits = draft.logits(before + ids)[len(before) - 1 : -1]
            if noise:
                logits = logits / TEMPERATURE + torch.stack([noise.noise(row, width + at) for at in range(len(ids))])
            agreed.append((logits.argmax(-1) == torch.tensor(ids)).tolist())
    runs = [accepted_per_verify(each, DRAFTED) for each in agreed]
    accepted, verified = sum(run[0] for run in runs), sum(run[1] for run in runs)
    return {
        "agreement": share([hit for each in agreed for hit in each]),
        "accepted": round(accepted / verified, 3),
    }


def speculation(model: Model, draft: Model) -> dict[str, dict[str, float]]:
    """Return the draft's agreement on chats, stories and facts, greedy and sampled with the same noise."""
    noise = PositionNoise(7, model.network.config.vocab_size)
    kinds = {
        "chat": (chat_prompts(128, "draft"), 128),
        "stories": (story_prompts(48, "draft"), 300),
        "facts": (fact_prompts(128, "draft"), 64),
    }
    return {
        f"{kind}, {name}": agreement(model, draft, prompts, most, drawn)
        for kind, (prompts, most) in kinds.items()
        for name, drawn in (("greedy", None), (f"temperature {TEMPERATURE}", noise))
    }


def reading(model: Model, seed: int) -> dict[str, Any]:
    """Return how well a model predicts text that it was not trained on."""
    return {
        "held-out perplexity": held_out_perplexity(model, seed),
        "perplexity by position": perplexity_by_position(model, seed),
    }


def main() -> None:
    """Measure both models and write evaluation.json into their folders."""
    parser = argparse.ArgumentParser(prog="python -m isotoken.models.training.evaluate", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of the two model folders")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)  # the matrices are so small that sharing them out costs more than it saves
    small, draft = Model.load(args.models / "isotoken-small"), Model.load(args.models / "isotoken-draft")
    drafted = {"speculation": speculation(small, draft), **reading(draft, args.seed)}
    write_json(args.models / "isotoken-draft" / "evaluation.json", drafted)
    print(json.dumps(drafted, indent=2), flush=True)
    found = {
        "facts": fact_accuracy(small),
        "sums": sums_accuracy(small),
        "skills": skill_accuracy(small),
        "ends by itself": ends_by_itself(small),
        **reading(small, args.seed),
    }
    write_json(args.models / "isotoken-small" / "evaluation.json", found)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
