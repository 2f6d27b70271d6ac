"""Rows are committed as they are written, given back when a shorter owner comes, and kept whatever happens."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import psutil
import pytest
from isotoken.backends.onnxruntime import sizes
from isotoken.backends.onnxruntime.memory import HostRows, RowShape
from isotoken.backends.onnxruntime.placement import Placement
from isotoken.conformance.rig import Rig
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.interfaces import RunnerConfig, RunnerInfo

from .helpers import MAX_MODEL_LEN, load, stories

Models = Callable[[str], Checkpoint]
SHAPE = RowShape(num_layers=4, num_kv_heads=2, num_positions=4096, head_dim=64, itemsize=4)


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


def make_rows(num_rows: int, shape: RowShape = SHAPE) -> HostRows:
    return HostRows(shape, num_rows, np.dtype(np.float32))


def test_addresses_are_those_of_the_array() -> None:
    rows = make_rows(5)
    for index, row in ((0, 0), (3, 4), (7, 2)):
        assert rows.address(index, row) == rows.array[index, row].ctypes.data
    assert rows.array.nbytes == 5 * SHAPE.row_bytes
    rows.close()
    rows.close()


def test_memory_is_committed_as_it_is_written() -> None:
    before = resident()
    rows = make_rows(1000)
    assert rows.array.nbytes > 15 << 30
    rows.array[:, 7, :, :512] = 1.0
    written = 512 * SHAPE.token_bytes
    assert written <= resident() - before < 2 * written
    rows.close()
    assert resident() - before < written // 2


def test_a_shorter_owner_gives_back_what_it_does_not_need() -> None:
    rows = make_rows(3)
    rows.renew(1, 4096)
    rows.array[:, 1] = 1.0
    full = resident()
    rows.renew(1, 256)
    assert full - resident() > 0.9 * (4096 - 256) * SHAPE.token_bytes
    assert (rows.array[:, 1, :, :256] == 1.0).all(), "what the new owner fills is not touched"
    assert (rows.array[:, 1, :, 272:] == 0.0).all()
    rows.close()


def test_a_block_that_is_no_longer_needed_gives_its_memory_back() -> None:
    rows = make_rows(3)
    placement = Placement(rows, 3, 1)
    placement.write(2, 0, 4000)
    rows.array[:, 2, :, :4000] = 1.0
    full = resident()
    placement.copy(2, 2, 100)
    assert full - resident() > 0.9 * 3900 * SHAPE.token_bytes
    assert (rows.array[:, 2, :, :100] == 1.0).all()
    rows.close()


def test_there_may_be_rows_for_more_tokens_than_memory(models: Models) -> None:
    """Then the runner says how many fit, and the caches obey; rows that were asked for by number are the user's."""
    source = models("llama")
    config = RunnerConfig(max_model_len=MAX_MODEL_LEN, max_num_seqs=8)
    shape = sizes.row_shape(source, MAX_MODEL_LEN, "float32")

    def plan(free: int, **changes: int) -> RunnerInfo:
        wanted = replace(config, **changes)
        return sizes.plan(source, wanted, dtype="float32", device="cpu", shape=shape, free=free)

    roomy, tight = plan(1 << 30), plan(2 * source.num_bytes + 3 * shape.row_bytes)
    assert (roomy.num_blocks, roomy.max_cached_tokens) == (24, 24 * MAX_MODEL_LEN)
    assert tight.num_blocks == 24
    assert MAX_MODEL_LEN <= tight.max_cached_tokens < 24 * MAX_MODEL_LEN
    assert tight.kv_cache_bytes == tight.max_cached_tokens * shape.token_bytes < roomy.kv_cache_bytes
    chosen = plan(2 * source.num_bytes + 3 * shape.row_bytes, num_blocks=24, block_size=MAX_MODEL_LEN)
    assert (chosen.num_blocks, chosen.max_cached_tokens) == (24, 24 * MAX_MODEL_LEN)
    on_gpu = sizes.plan(source, config, dtype="float32", device="cuda:0", shape=shape, free=1_000_000)
    assert on_gpu.num_blocks < 24 and on_gpu.max_cached_tokens == on_gpu.num_blocks * MAX_MODEL_LEN


def test_too_much_address_space_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="lower num_blocks, or max_model_len and max_num_seqs"):
        make_rows(1 << 44)


class World:
    """A placement over small rows, with the tokens that every block should hold."""

    def __init__(self, num_rows: int, num_parameters: int) -> None:
        shape = RowShape(num_layers=1, num_kv_heads=2, num_positions=32, head_dim=1, itemsize=4)
        self.rows = make_rows(num_rows, shape)
        self.placement = Placement(self.rows, num_rows, num_parameters)
        self.due: dict[int, list[float]] = {block: [] for block in range(num_rows)}
        self.next = 1.0

    def store(self, row: int, position: int, block: int) -> None:
        self.next += 1.0
        self.rows.array[:, row, :, position] = self.next
        self.due[block] = [*self.due[block][:position], self.next]

    def check(self) -> None:
        for block, tokens in self.due.items():
            found = self.rows.array[:, self.placement.row(block), :, : len(tokens)]
            assert (found == np.array(tokens, np.float32)[:, None]).all(), f"block {block} lost its tokens"


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("num_parameters", [12, 12 * 16 * 8, 10**6], ids=["dear moves", "even", "cheap moves"])
def test_every_block_keeps_its_tokens_wherever_it_is_moved(seed: int, num_parameters: int) -> None:
    print(f"seed {seed}")
    dice = random.Random(seed)
    world = World(dice.randint(1, 12), num_parameters)
    for _ in range(60):
        block = dice.randrange(len(world.due))
        match dice.choice(["prompt", "copy", "decode", "decode"]):
            case "prompt":
                start = dice.choice([0, dice.randint(0, len(world.due[block]))])
                end = dice.randint(start + 1, start + 5)
                if end <= 20:
                    row = world.placement.write(block, start, end)
                    for position in range(start, end):
                        world.store(row, position, block)
            case "copy":
                source = dice.randrange(len(world.due))
                count = dice.randint(0, len(world.due[source]))
                world.placement.copy(source, block, count)
                world.due[block] = world.due[source][:count]  # of itself too: the rest need not be kept
            case "decode":
                chosen = dice.sample(list(world.due), dice.randint(1, len(world.due)))
                blocks = np.array([b for b in chosen if len(world.due[b]) < 30])
                if not len(blocks):
                    continue
                ends = np.array([len(world.due[b]) + 1 for b in blocks])
                first, count, places = world.placement.window(blocks, ends)
                assert len(set(places.tolist())) == len(blocks)
                assert first >= 0 and first + count <= len(world.due) and places.max() < count
                for b, place in zip(blocks.tolist(), places.tolist(), strict=True):
                    assert world.placement.row(b) == first + place
                    world.store(first + place, len(world.due[b]), b)
        world.check()


def test_holes_are_borne_until_they_have_cost_a_move() -> None:
    world = World(10, num_parameters=12 * 100)  # a hole costs 100 bytes, a token 16
    for block in (0, 9):
        row = world.placement.write(block, 0, 20)
        for position in range(20):
            world.store(row, position, block)
    widths = []
    for end in (21, 22):
        widths.append(world.placement.window(np.array([0, 9]), np.array([end, end]))[1])
        assert world.placement.num_moves == int(widths[-1] == 2)
    assert widths == [2, 2], "eight holes cost more than twenty tokens"
    world = World(10, num_parameters=12 * 20)
    for block in (0, 9):
        world.placement.write(block, 0, 20)
    widths = [world.placement.window(np.array([0, 9]), np.array([21, 21]))[1] for _ in range(4)]
    assert widths == [10, 10, 2, 2] and world.placement.num_moves == 1


def test_a_hole_leaves_what_it_stands_on_as_it_was(models: Models) -> None:
    runner = load(models("llama"))
    rig = Rig(runner)
    dice = random.Random(3)
    told = [story for story in stories(dice, 30, runner.info.vocab_size) if len(story.prompt) > 4][:5]
    strands = [rig.strand(story.prompt, row_id=i) for i, story in enumerate(told)]
    rig.step([(strand, len(strand.tokens) - 2, 1) for strand in strands])
    rows = runner._rows.array  # type: ignore[attr-defined]
    before = rows[:, 1:4].copy()
    rig.step([(strands[0], 1, 1), (strands[4], 1, 1)])  # three holes between them
    assert np.array_equal(rows[:, 1:4], before)
    assert runner._placement.num_moves == 0  # type: ignore[attr-defined]
    runner.close()


def test_rows_full_of_nan_do_no_harm(models: Models) -> None:
    runner, clean = load(models("gemma2")), load(models("gemma2"))
    runner._rows.array[:] = np.nan  # type: ignore[attr-defined]
    tokens = [dice % 120 for dice in range(7, 7 + MAX_MODEL_LEN)]
    found = []
    for loaded in (runner, clean):
        rig = Rig(loaded)
        one, other = rig.strand(tokens), rig.strand(tokens[::-1], blocks=[9], row_id=1)
        parts = rig.step([(one, 20, 20), (other, 1, 0)]) + rig.step([(one, 1, 1), (other, 30, 1)])
        parts += rig.step([(one, 1, 1), (other, 1, 1)])
        found.append(np.concatenate([part for part in parts if len(part)]))
    assert np.isfinite(found[0]).all()
    assert np.array_equal(*found)
    runner.close()
    clean.close()
