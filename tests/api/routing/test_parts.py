"""Who gets which arm, what the figures' intervals are worth, and what a prompt's features say."""

from __future__ import annotations

import math
import random

import pytest
from isotoken.api.routing.assignment import assign, pick, share
from isotoken.api.routing.escalation import confidence
from isotoken.api.routing.features import measure
from isotoken.api.routing.intervals import Mean, Rate, difference, difference_of_rates, quantile_t
from isotoken.api.routing.router import ComplexityRouter
from isotoken.api.routing.settings import Arm, Experiment, RoutingSettings
from isotoken.api.server.generation import Choice
from isotoken.core.types import TokenLogprobs

UNITS = [f"user-{number}" for number in range(4000)]


def experiment(name: str = "e", *weights: float) -> Experiment:
    arms = [Arm(name=f"arm{i}", model=f"m{i}", weight=weight) for i, weight in enumerate(weights or (1.0, 1.0))]
    return Experiment(name=name, model="chat", arms=arms)


def test_arms_get_their_shares() -> None:
    counts = [0, 0, 0]
    for unit in UNITS:
        counts[int(assign(experiment("e", 5, 3, 2), unit).name[-1])] += 1
    for count, expected in zip(counts, (0.5, 0.3, 0.2), strict=True):  # within 5 standard deviations; a hash is fixed
        assert abs(count - expected * len(UNITS)) < 5 * math.sqrt(len(UNITS) * expected * (1 - expected))


def test_more_weight_moves_nobody_away_from_the_arm() -> None:
    small, large = experiment("e", 1, 9), experiment("e", 2, 8)
    for unit in UNITS:
        before, after = assign(small, unit).name, assign(large, unit).name
        assert after == before or (before, after) == ("arm1", "arm0")


def test_experiments_do_not_follow_each_other() -> None:
    both = sum(assign(experiment("a"), unit).name == assign(experiment("b"), unit).name for unit in UNITS)
    assert abs(both - len(UNITS) / 2) < 5 * math.sqrt(len(UNITS) / 4)


def test_the_last_point_falls_to_the_last_arm() -> None:
    arms = [Arm(name="a", model="a", weight=0.1), Arm(name="b", model="b", weight=0.2)]
    assert pick(arms, 1 - 2**-53).name == "b"
    assert 0 <= share("x") < 1


@pytest.mark.parametrize(
    ("freedom", "expected"),  # from printed tables
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (10, 2.228), (30, 2.042), (120, 1.980), (1e6, 1.960)],
)
def test_students_t(freedom: float, expected: float) -> None:
    assert quantile_t(freedom) == pytest.approx(expected, abs=6e-4)


def test_a_means_interval() -> None:
    mean = Mean()
    for value in (2.1, 2.5, 1.9, 2.8, 2.3):
        mean.add(value)
    assert mean.interval() == pytest.approx((1.88632, 2.75368), abs=1e-4)  # 2.32 +- 2.77645 * 0.34928 / sqrt(5)
    assert Mean().interval() is None


def test_intervals_hold_what_they_promise() -> None:
    """Of intervals for a mean, a rate and their differences about 95% hold the truth."""
    chance = random.Random(20261122)
    rounds, held = 2000, [0, 0, 0, 0]
    for _ in range(rounds):
        means, rates = [Mean(), Mean()], [Rate(), Rate()]
        for _ in range(25):
            means[0].add(chance.gauss(5, 2))
            means[1].add(chance.gauss(7, 4))
        for _ in range(60):
            rates[0].add(chance.random() < 0.2)
            rates[1].add(chance.random() < 0.35)
        found = means[0].interval(), rates[0].interval(), difference(*means), difference_of_rates(*rates)
        for place, (interval, truth) in enumerate(zip(found, (5, 0.2, 2, 0.15), strict=True)):
            assert interval is not None
            held[place] += interval[0] <= truth <= interval[1]
    for count in held:
        assert 0.93 < count / rounds < 0.975, held


def test_wilson_of_few() -> None:
    rate = Rate(hits=0, count=10)
    assert rate.interval() == pytest.approx((0.0, 0.2775), abs=1e-3)  # Wilson 1927, as printed tables have it
    assert Rate().interval() is None


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("How many people live in Rome?", "fact"),
        ("How does a steam engine work?", "reason"),
        ("Who wrote Faust?", "fact"),
        ("Explain what entropy is.", "reason"),
        ("Prove that there are infinitely many primes", "reason"),
        ("Once upon a time", "none"),
    ],
)
def test_questions(text: str, question: str) -> None:
    assert measure([text]).question == question


def test_features_are_what_is_there() -> None:
    found = measure(["hello", "def f(x):\n    return x\nплюс 12"])
    assert (found.num_turns, found.num_scripts) == (2, 2)
    assert found.num_words == 8
    assert found.code == 0.5
    assert found.digits == pytest.approx(2 / found.num_characters)
    empty = measure([])
    assert (empty.num_characters, empty.code, empty.digits, empty.question) == (0, 0, 0, "none")


def test_features_of_a_huge_text_take_a_bounded_look() -> None:
    found = measure(["word " * 1_000_000])
    assert found.num_characters == 5_000_000
    assert found.num_words <= 20_000


def test_long_lines_are_judged_by_their_beginning() -> None:
    """Of a line as long as a prompt the expression would take seconds, in the event loop: `f()` and many spaces."""
    assert measure(["if a:" + " " * 15_000 + "x"]).code == 1
    assert measure(["word " * 3_000 + "f();"]).code == 0


def test_harder_prompts_get_more_points_and_larger_models() -> None:
    router, models = ComplexityRouter({}), ("small", "middle", "large")
    easy = measure(["Who wrote Faust?"])
    hard = measure(["Explain this:\n```\ndef f(x):\n    return x == 1\n```\n" + "word " * 300])
    assert router.score(easy) < 0.3 < router.score(hard)
    assert router.choose(easy, models).model == "small"
    assert router.choose(hard, models).model == "large"
    assert router.choose(easy, models).why == f"complexity={router.score(easy):.2f}"
    assert ComplexityRouter({"threshold": 0}).choose(easy, models).model == "large"
    with pytest.raises(ValueError, match="unknown option 'magic'"):
        ComplexityRouter({"magic": 1.0})


def test_confidence_is_the_geometric_mean() -> None:
    logprobs = [TokenLogprobs(1, math.log(p), 1, []) for p in (0.5, 0.25, 1.0)]
    assert confidence([Choice(0, logprobs=logprobs)]) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="no token"):
        confidence([Choice(0)])


def test_a_name_is_shared_out_once() -> None:
    with pytest.raises(ValueError, match="'chat' is shared out twice"):
        RoutingSettings(experiments=[experiment()], routes=[{"model": "chat", "candidates": ["a", "b"]}])
    with pytest.raises(ValueError, match="two arms have the same name"):
        Experiment(name="e", model="m", arms=[Arm(name="a", model="x"), Arm(name="a", model="y")])
    assert not RoutingSettings().is_on
