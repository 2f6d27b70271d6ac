"""Replay, without processes: whatever kills, whenever, the guilty are condemned, nobody else, and it ends."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from isotoken.api.engine.messages import Submit
from isotoken.api.engine.replay import MAX_STRIKES_TOGETHER, Entry, Replay
from isotoken.core.types import DecodeParams, RequestOutput, TokenLogprobs


def entry(name: str, max_tokens: int = 10, **params: int) -> Entry:
    return Entry(submit=Submit(name, [1, 2, 3], DecodeParams(max_tokens=max_tokens, **params)))


@dataclass
class Engine:
    """Gives every request in it a token a step; dies where a deadly request comes to its deadly token."""

    deadly: dict[Entry, int]  # at which number of output tokens
    allies: set[Entry]  # kill it when they are in it together
    replay: Replay
    num_crashes: int = 0
    in_engine: list[Entry] | None = None

    def send(self, entries: list[Entry]) -> None:
        assert self.in_engine is not None
        for each in entries:
            each.engine_id = "x"
            self.in_engine.append(each)

    def start(self) -> None:
        self.in_engine = []
        self.send(self.replay.engine_is_up())

    def dies(self) -> bool:
        assert self.in_engine is not None
        together = bool(self.allies) and self.allies <= set(self.in_engine)
        return together or any(self.deadly.get(each) == len(each.output_ids) for each in self.in_engine)

    def crash(self) -> list[Entry]:
        self.num_crashes += 1
        condemned = self.replay.crashed()
        assert all(each.engine_id is None for each in self.replay.entries)
        self.start()
        return condemned

    def step(self) -> None:
        assert self.in_engine is not None
        assert len(self.in_engine) == 1 or not self.replay.num_suspects  # a trial is held alone
        for each in list(self.in_engine):
            if each.engine_id is None:
                continue
            each.output_ids.append(7)
            if len(each.output_ids) == each.submit.params.max_tokens:
                self.in_engine.remove(each)
                self.send(self.replay.remove(each))
                continue
            paused, more = self.replay.progressed(each)
            for other in paused:
                other.engine_id = None
                self.in_engine.remove(other)
            self.send(more)


def run(engine: Engine, *, arrivals: list[Entry], rng: random.Random, stray_kills: int = 0) -> list[Entry]:
    """Run until all have ended; returns the condemned."""
    engine.start()
    condemned: list[Entry] = []
    for _ in range(20_000):
        while arrivals and rng.random() < 0.5:
            engine.send(engine.replay.add(arrivals.pop()))
        if engine.dies() or (stray_kills and rng.random() < 0.1):
            stray_kills -= not engine.dies()
            condemned += engine.crash()
        else:
            engine.step()
        if not arrivals and not engine.replay.entries:
            return condemned
    raise AssertionError("it never ends")


def test_the_guilty_and_nobody_else() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(200):
        entries = [entry(str(i), rng.randrange(1, 80)) for i in range(rng.randrange(1, 20))]
        guilty = rng.sample(entries, min(len(entries), rng.randrange(4)))
        deadly = {each: rng.randrange(each.submit.params.max_tokens) for each in guilty}
        engine = Engine(deadly, set(), Replay())
        condemned = run(engine, arrivals=list(entries), rng=rng)
        assert sorted(each.submit.id for each in condemned) == sorted(each.submit.id for each in guilty)
        assert all(len(each.output_ids) == each.submit.params.max_tokens for each in entries if each not in guilty)
        # Each is met up to twice with the others, and twice alone, so every further crash would be one too many.
        assert engine.num_crashes <= len(guilty) * (MAX_STRIKES_TOGETHER + 2)


def test_stray_kills_condemn_nobody() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(100):
        entries = [entry(str(i), rng.randrange(1, 60)) for i in range(12)]
        assert run(Engine({}, set(), Replay()), arrivals=list(entries), rng=rng, stray_kills=3) == []


def test_requests_that_kill_only_together_all_end() -> None:
    rng = random.Random(3)
    entries = [entry(str(i), 40) for i in range(8)]
    engine = Engine({}, {entries[2], entries[5]}, Replay())
    assert run(engine, arrivals=list(entries), rng=rng) == []
    assert engine.num_crashes < 8


def test_a_suspect_that_leaves_makes_way_for_the_next() -> None:
    replay = Replay()
    replay.engine_is_up()
    entries = [entry(str(i)) for i in range(3)]
    for each in entries:
        assert replay.add(each) == [each]
    for _ in range(MAX_STRIKES_TOGETHER):
        for each in entries:
            each.engine_id = "x"
        assert replay.crashed() == []
        trial = replay.engine_is_up()
    assert trial == entries[:1]
    late = entry("late")
    assert replay.add(late) == []
    assert replay.remove(entries[0]) == entries[1:2]
    assert replay.remove(entries[2]) == []
    assert replay.remove(entries[1]) == [late]


@pytest.mark.parametrize("scored", [0, 1, 2])
def test_prompt_scores_are_asked_for_again_unless_they_are_complete(scored: int) -> None:
    each = entry("a", num_prompt_logprobs=0)
    scores = [TokenLogprobs(2, -1.0, 1, []), TokenLogprobs(3, -1.0, 1, [])][:scored]
    tokens = [9] if scored == 2 else []
    each.take(RequestOutput(request_id="a", token_ids=tokens, prompt_logprobs=scores))
    again = each.submission("b", now=0.0)
    assert again.output_ids == tokens
    assert again.params.num_prompt_logprobs == (None if scored == 2 else 0)
    assert len(each.prompt_logprobs) == (2 if scored == 2 else 0)


def test_a_deadline_is_told_as_what_is_left_of_it() -> None:
    each = entry("a")
    each.deadline = 30.0
    submission = each.submission("b", now=25.5)
    assert submission.timeout_s == 4.5
    assert submission.to_request(100.0).deadline == 104.5
