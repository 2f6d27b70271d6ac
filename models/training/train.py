"""The training loop: Muon for matrices, AdamW for the rest, a trapezoid learning rate, resumable."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from .batches import TOKENS_PER_STEP, Batches
from .network import Network

Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast to train."""

    steps: int
    peak_rate: float = 4e-3
    warmup: int = 60
    flat_share: float = 0.5  # after this share of the steps the rate falls linearly to zero
    save_every: int = 100
    compiled: bool = True

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        rising = min(1.0, (step + 1) / self.warmup)
        falling = min(1.0, (self.steps - step) / (self.steps * (1 - self.flat_share)))
        return self.peak_rate * min(rising, falling)


def next_token_loss(network: Network) -> Loss:
    """Return the ordinary language modelling loss."""

    def loss(ids: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(ids[:, :-1])
        return F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())

    return loss


def distillation_loss(student: Network, teacher: Network) -> Loss:
    """Return the cross entropy of the student under the teacher's distribution."""

    def loss(ids: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                wanted = teacher(ids[:, :-1]).float().softmax(-1)
            logits = student(ids[:, :-1])
        return F.cross_entropy(logits.float().flatten(0, 1), wanted.flatten(0, 1))

    return loss


class Trainer:
    """Trains one network and keeps its progress in a file."""

    def __init__(self, network: Network, plan: Plan, state_file: Path) -> None:
        self.network, self.plan, self.state_file = network, plan, state_file
        named = dict(network.named_parameters())
        matrices = [weight for name, weight in named.items() if weight.ndim == 2 and "embed" not in name]
        others = [weight for name, weight in named.items() if weight.ndim != 2 or "embed" in name]
        self.optimizers: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(matrices, lr=plan.peak_rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=plan.peak_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
        )
        self.step, self.seconds = 0, 0.0

    def run(self, batches: Batches, loss: Loss, until: int | None = None) -> None:
        """Train to a step, or to the end of the plan."""
        last = self.plan.steps if until is None else until
        self._load()
        step_loss = torch.compile(loss, dynamic=False) if self.plan.compiled else loss
        smooth: float | None = None
        while self.step < last:
            begin = time.perf_counter()
            value = self._train_step(batches.batch(self.step), step_loss)
            self.seconds += time.perf_counter() - begin
            smooth = value if smooth is None else 0.95 * smooth + 0.05 * value
            self.step += 1
            if self.step % 10 == 0 or self.step == last:
                self._show(smooth)
            if self.step % self.plan.save_every == 0 or self.step == last:
                self._save()

    def _train_step(self, ids: Tensor, loss: Loss) -> float:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.plan.rate(self.step)
        value = loss(ids)
        torch.autograd.backward(value)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return value.item()

    def _show(self, loss: float) -> None:
        done = self.step / self.plan.steps
        bar = "#" * round(30 * done)
        speed = self.step * TOKENS_PER_STEP / self.seconds
        left = (self.plan.steps - self.step) * self.seconds / self.step / 60
        print(
            f"[{bar:<30}] {self.step}/{self.plan.steps} loss {loss:.4f} {speed:.0f} tokens/s, {left:.1f} min left",
            flush=True,
        )

    def _save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
        }
        fresh = self.state_file.with_suffix(".new")
        torch.save(state, fresh)
        fresh.replace(self.state_file)

    def _load(self) -> None:
        if not self.state_file.exists():
            return
        state = torch.load(self.state_file, weights_only=True)
        self.network.load_state_dict(state["network"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.seconds = state["step"], state["seconds"]
