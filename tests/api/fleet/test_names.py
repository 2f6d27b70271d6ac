"""Names stand for versions, remember what they stood for, and a configuration has its say only when it changes."""

from __future__ import annotations

import random

import pytest
from isotoken.api.fleet.names import MAX_HISTORY, Move, Names, configured


def names_after(*moves: Move) -> Names:
    names = Names()
    names.apply(moves)
    return names


def test_a_rollback_goes_back_one_version_at_a_time() -> None:
    names = names_after(*(Move("chat", "set", f"a@{i}") for i in range(3)))
    assert names.get("chat") == "a@2"
    for expected in ("a@1", "a@0"):
        back = names.previous("chat")
        assert back == expected
        names.apply([Move("chat", "rollback", back)])
        assert names.get("chat") == expected
    assert names.previous("chat") is None


def test_setting_what_is_set_is_no_history() -> None:
    names = names_after(Move("a", "set", "a@1"), Move("a", "set", "a@1"), Move("a", "set", "a@2"))
    assert names.history("a") == ("a@1", "a@2")


def test_the_configuration_speaks_when_it_changes_and_operators_in_between() -> None:
    names = names_after(*configured(Names(), {"a": "a@1"}))
    names.apply([Move("a", "set", "a@2")])
    assert configured(names, {"a": "a@1"}) == []  # a restart with the same configuration
    assert names.get("a") == "a@2"
    names.apply(configured(names, {"a": "a@3"}))
    assert names.get("a") == "a@3"
    names.apply([Move("a", "remove")])
    assert configured(names, {"a": "a@3"}) == [] and "a" not in names
    names.apply(configured(names, {}))
    names.apply(configured(names, {"a": "a@3"}))
    assert names.get("a") == "a@3"


def test_what_the_configuration_no_longer_names_is_gone_and_what_operators_loaded_stays() -> None:
    names = names_after(Move("a", "declare", "a@1"), Move("b", "set", "b@1"))
    names.apply(configured(names, {}))
    assert names.current == {"b": "b@1"}


@pytest.mark.parametrize("seed", range(20))
def test_a_journal_read_again_gives_the_same_names(seed: int) -> None:
    """Also where the last writes are in it twice, as after a database that was away."""
    chance = random.Random(seed)
    names, journal = Names(), []
    for _ in range(60):
        name, key = chance.choice("abc"), f"m@{chance.randrange(6)}"
        moves = [Move(name, chance.choice(("set", "declare")), key)]
        if chance.random() < 0.4 and (back := names.previous(name)) is not None:
            moves = [Move(name, "rollback", back)]
        elif chance.random() < 0.1:
            moves = [Move(name, chance.choice(("remove", "undeclare")))]
        names.apply(moves)
        journal += moves
        if chance.random() < 0.2:
            journal += moves
    again = names_after(*journal)
    assert (again.current, again.declared) == (names.current, names.declared), f"seed {seed}"
    assert all(again.history(name) == names.history(name) for name in names.current), f"seed {seed}"


def test_history_is_bounded() -> None:
    names = names_after(*(Move("a", "set", f"a@{i}") for i in range(3 * MAX_HISTORY)))
    assert len(names.history("a")) == MAX_HISTORY
