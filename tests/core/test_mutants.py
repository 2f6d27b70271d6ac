"""The test of the identity test: small mistakes, sown one at a time, each make it fail."""

from __future__ import annotations

import random
from pathlib import Path
from types import FunctionType, ModuleType

import pytest
from isotoken.core import batch_builder, constraining, constraints, fold, kv_cache, logits_edits, scheduler
from isotoken.plugins.kv_caches import contiguous
from isotoken.plugins.kv_caches.contiguous import ContiguousKVCache

from .chance import WORKLOAD, draw_setup, run_seed
from .world import Gold, make_gold

MAX_SETUPS = 104  # those of test_identity.py

MUTANTS: dict[str, tuple[ModuleType, str, str]] = {
    "rejected drafts count as computed": (
        scheduler,
        "computed = min(start + num_tokens, len(request.token_ids) - 1)",
        "computed = start + num_tokens",
    ),
    "one draft too many is accepted": (
        fold,
        "token != drafts[index]:",
        "index and known[-2] != drafts[index - 1]:",
    ),
    "drafts reach past max_tokens": (scheduler, "spare, request.max_num_tokens - known - 1)", "spare)"),
    "an accepted run goes on after a stop": (
        fold,
        "FinishReason.STOP, token\n                break",
        "FinishReason.STOP, token",
    ),
    "a prompt takes the tokens of those behind it": (scheduler, "max(budget - num_behind, 1)", "budget"),
    "scoring takes prefix hits": (scheduler, "looks_up = not is_scoring(request)", "looks_up = True"),
    "scored positions are scored again": (scheduler, "first = max(start, request.num_scored_tokens)", "first = start"),
    "uncomputed blocks are published": (
        kv_cache,
        "request.num_computed_tokens // size)",
        "len(request.token_ids) // size)",
    ),
    "eviction keeps the stale hash": (kv_cache, "del self._published[digest]\n", "pass\n"),
    "a block's hash ignores what is before it": (kv_cache, "blake2b(parent, ", "blake2b(b'', "),
    "a fully cached prompt leaves nothing to compute": (
        kv_cache,
        "(len(request.token_ids) - 1) // self._block_size",
        "len(request.token_ids) // self._block_size",
    ),
    "a preempted request keeps its computed length": (kv_cache, "        request.num_computed_tokens = 0\n", ""),
    "noise follows the row, not the position": (
        batch_builder,
        "positions=query_positions + np.int64(1)",
        "positions=np.arange(len(rows))",
    ),
    "context lengths of decodes are off by one": (
        batch_builder,
        "seq_lens=starts + layout.lens,",
        "seq_lens=starts + layout.lens - (layout.lens == 1),",
    ),
    "slots use the first block": (
        batch_builder,
        "[layout.token_rows, blocks]",
        "[layout.token_rows, 0 * blocks]",
    ),
    "a row outlives its request": (
        batch_builder,
        "self._sources[row] is not block_ids:",
        "self._sources[row] is None:",
    ),
    "a layout outlives the requests of its rows": (
        batch_builder,
        "self._sources[row] = self._layout = None",
        "self._sources[row] = None",
    ),
    "a layout is kept whoever decodes": (batch_builder, "self._layout_key != key", "len(self._layout_key) != len(key)"),
    "block tables stay as they were": (batch_builder, "= len(blocks)\n        self._table = None", "= len(blocks)"),
    "new blocks are not noticed": (batch_builder, "elif self._num_blocks[row] != len(block_ids):", "elif False:"),
    "drafts before a verify row are not penalised": (
        logits_edits,
        "            if index:\n                self._count",
        "            if False:\n                self._count",
    ),
    "penalties remember rejected drafts": (logits_edits, "for token in reversed(drafts):", "for token in ():"),
    "draws behind drafts have no masks": (constraints, "if row >= 0:", "if row == 0:"),
    "grammars keep the drafts that they were tried on": (constraints, "constraint.rollback(taken)", "pass"),
    "a grammar begins anew when its request comes back": (
        constraining,
        "if constraint.advance(output) < len(output):",
        "if False:",
    ),
    "a grammar's end is passed over": (fold, "if constraint is not None and constraint.is_finished:", "if False:"),
    "masks go to the first rows": (constraining, "masks[row:end]", "masks[: share.num_logits]"),
    "a copied prefix lacks its last token": (
        contiguous,
        "[(source, target, num_tokens)",
        "[(source, target, num_tokens - 1)",
    ),
    "a copied prefix is not computed yet": (
        contiguous,
        "if owner is None else owner.num_computed_tokens",
        "if owner is None else len(held)",
    ),
}

MODULES = list(dict.fromkeys(module for module, _, _ in MUTANTS.values()))


@pytest.fixture(scope="module")
def gold() -> Gold:
    return make_gold(WORKLOAD)


def sow(monkeypatch: pytest.MonkeyPatch, module: ModuleType, old: str, new: str) -> None:
    """Replace the methods of the module's classes, and its functions wherever they were imported, by mistaken ones."""
    source = Path(str(module.__file__)).read_text()
    assert source.count(old) == 1, f"{old!r} occurs {source.count(old)} times"
    mutant = ModuleType(module.__name__)
    mutant.__dict__.update(__package__=module.__package__, __file__=module.__file__)
    exec(compile(source.replace(old, new), str(module.__file__), "exec"), mutant.__dict__)
    for name, original in list(vars(module).items()):
        if getattr(original, "__module__", None) != module.__name__ or hasattr(original, "__dataclass_fields__"):
            continue
        if isinstance(original, type):
            for attribute, value in vars(getattr(mutant, name)).items():
                if callable(value) or isinstance(value, (property, staticmethod)):
                    monkeypatch.setattr(original, attribute, value)
        elif isinstance(original, FunctionType):
            for user in (module, scheduler, constraining):
                if vars(user).get(name) is original:
                    monkeypatch.setattr(user, name, getattr(mutant, name))


def telling_seeds(module: ModuleType, gold: Gold) -> list[int]:
    """Seeds whose setups use the module at all."""
    setups = {seed: draw_setup(random.Random(seed), gold) for seed in range(MAX_SETUPS)}
    return [seed for seed, setup in setups.items() if (setup.kv_cache is ContiguousKVCache) == (module is contiguous)]


@pytest.mark.parametrize("mistake", MUTANTS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_mistake_is_caught(mistake: str, gold: Gold, monkeypatch: pytest.MonkeyPatch) -> None:
    module, old, new = MUTANTS[mistake]
    sow(monkeypatch, module, old, new)
    for seed in telling_seeds(module, gold):
        try:
            run_seed(seed, gold)
        except Exception:  # an assertion, or a part that stumbles over what the mistake left behind
            return
    pytest.fail(f"{MAX_SETUPS} setups did not notice that {mistake}")


@pytest.mark.parametrize(
    "module", dict.fromkeys(module for module, _, _ in MUTANTS.values()), ids=lambda module: module.__name__
)
def test_sowing_nothing_breaks_nothing(module: ModuleType, gold: Gold, monkeypatch: pytest.MonkeyPatch) -> None:
    sow(monkeypatch, module, "from __future__ import annotations\n", "from __future__ import annotations\n\n")
    for seed in telling_seeds(module, gold)[:2]:
        run_seed(seed, gold)
