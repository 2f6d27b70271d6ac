"""Train both built-in models: `python -m isotoken.models.training --out models --work-dir SCRATCH --seed 0`."""

import argparse
import json
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from .batches import TOKENS_PER_STEP, Batches
from .corpus import documents
from .export import export
from .network import Network, NetworkConfig
from .tokenizer import train_tokenizer
from .train import Plan, Trainer, distillation_loss, next_token_loss

SMALL, DRAFT = "isotoken-small", "isotoken-draft"
SMALL_STEPS, DRAFT_STEPS, DRAFT_ALONE = 1000, 800, 500
TOKENIZER_DOCUMENTS, HELD_OUT_DOCUMENTS = 60_000, 2_000


def small_config(vocab_size: int) -> NetworkConfig:
    """Return the shape of isotoken-small."""
    return NetworkConfig(vocab_size, hidden_size=256, intermediate_size=704, num_layers=10, num_heads=4, num_kv_heads=2)


def draft_config(vocab_size: int) -> NetworkConfig:
    """Return the shape of isotoken-draft."""
    return NetworkConfig(vocab_size, hidden_size=128, intermediate_size=352, num_layers=3, num_heads=2, num_kv_heads=1)


def build_tokenizer(work: Path, seed: int) -> Tokenizer:
    """Train the tokenizer, or read it where an earlier run left it."""
    path = work / "tokenizer.json"
    if not path.exists():
        train_tokenizer(islice(documents(f"{seed} tokenizer"), TOKENIZER_DOCUMENTS)).save(str(path))
    return Tokenizer.from_file(str(path))


def write_held_out(work: Path, seed: int) -> None:
    """Write the held-out documents, one JSON string a line."""
    held = islice(documents(f"{seed} held out"), HELD_OUT_DOCUMENTS)
    (work / "held_out.jsonl").write_text("".join(json.dumps(text) + "\n" for text in held), encoding="utf-8")


def report(trainer: Trainer, seed: int, objective: str) -> dict[str, Any]:
    """Describe a finished run."""
    return {
        "seed": seed,
        "parameters": trainer.network.num_parameters,
        "steps": trainer.step,
        "step_tokens": TOKENS_PER_STEP,
        "minutes": round(trainer.seconds / 60, 1),
        "objective": objective,
    }


def train_small(args: argparse.Namespace, tokenizer: Tokenizer) -> Network:
    """Train isotoken-small on the corpus and write it."""
    torch.manual_seed(args.seed)
    network = Network(small_config(tokenizer.get_vocab_size()))
    trainer = Trainer(network, Plan(args.steps, compiled=args.compile), args.work_dir / f"{SMALL}.pt")
    trainer.run(Batches(tokenizer, args.seed), next_token_loss(network))
    export(network, tokenizer, args.out / SMALL, report(trainer, args.seed, "next token"))
    return network


def draft_trainer(args: argparse.Namespace, tokenizer: Tokenizer) -> tuple[Trainer, Batches]:
    """Return the trainer of isotoken-draft and its batches."""
    torch.manual_seed(args.seed + 1)
    network = Network(draft_config(tokenizer.get_vocab_size()))
    trainer = Trainer(network, Plan(args.draft_steps, compiled=args.compile), args.work_dir / f"{DRAFT}.pt")
    return trainer, Batches(tokenizer, f"{args.seed} draft", late_from=0)


def start_draft(args: argparse.Namespace, tokenizer: Tokenizer) -> None:
    """Train isotoken-draft on the corpus alone; this needs no teacher, so it may run beside the small model."""
    trainer, batches = draft_trainer(args, tokenizer)
    trainer.run(batches, next_token_loss(trainer.network), until=args.draft_alone)


def finish_draft(args: argparse.Namespace, tokenizer: Tokenizer, teacher: Network) -> None:
    """Train isotoken-draft to imitate isotoken-small and write it."""
    trainer, batches = draft_trainer(args, tokenizer)
    teacher.requires_grad_(False)
    trainer.run(batches, distillation_loss(trainer.network, teacher))
    objective = f"next token for {args.draft_alone} steps, then isotoken-small's distribution over it"
    export(trainer.network, tokenizer, args.out / DRAFT, report(trainer, args.seed, objective))


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m isotoken.models.training", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("models"), help="folder that receives the two model folders")
    parser.add_argument("--work-dir", type=Path, required=True, help="scratch folder; a second run resumes from it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=SMALL_STEPS, help="steps of the small model")
    parser.add_argument("--draft-steps", type=int, default=DRAFT_STEPS, help="steps of the draft model")
    parser.add_argument("--draft-alone", type=int, default=DRAFT_ALONE, help="of these, before it imitates")
    parser.add_argument("--phase", choices=["all", "small", "draft-start"], default="all", help="do only a part")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="use torch.compile",
    )
    return parser.parse_args(arguments)


def main() -> None:
    """Train and write both models."""
    args = parse()
    torch.use_deterministic_algorithms(True)  # else an embedding's gradient is summed in the order that threads finish
    args.work_dir.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(args.work_dir, args.seed)
    write_held_out(args.work_dir, args.seed)
    if args.phase != "small":
        start_draft(args, tokenizer)
    if args.phase == "draft-start":
        return
    small = train_small(args, tokenizer)
    if args.phase == "all":
        finish_draft(args, tokenizer, small)


if __name__ == "__main__":
    main()
