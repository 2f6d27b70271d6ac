"""Grammars through llguidance: what they let follow, token by token, and the limits that hostile ones meet."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import numpy as np
import pytest
from isotoken.core.constraints import Constraint, ConstraintError
from isotoken.core.types import Unsupported
from isotoken.plugins.grammars import GrammarContext, TokenTable, guidance
from isotoken.plugins.grammars.guidance import GuidanceCompiler

pytest.importorskip("llguidance", reason="grammars need the extra: pip install 'isotoken[structured]'")

EOS, OTHER_EOS, CALL = 256, 257, 258
WORDS = [b'{"', b'": ', b"true", b"name", b"ab", "🙂".encode(), "é".encode()[:1], b"}}", b"  ", b'"']
TOKENS = [*(bytes([byte]) for byte in range(256)), b"", b"", b"", *WORDS]


def encode(text: str) -> list[int]:
    """The longest word each time."""
    data, tokens = text.encode(), []
    while data:
        best = max((token for token in TOKENS if token and data.startswith(token)), key=len)
        tokens.append(TOKENS.index(best))
        data = data[len(best) :]
    return tokens


TABLE = TokenTable(TOKENS, {EOS: "<|end|>", OTHER_EOS: "<|eot|>", CALL: "<|call|>"}, encode)
VOCAB_SIZE = 300  # of the model: more than the tokenizer has


def context() -> GrammarContext:
    return GrammarContext(vocab_size=VOCAB_SIZE, eos_token_ids=frozenset({EOS, OTHER_EOS}), load_tokens=lambda: TABLE)


@pytest.fixture(scope="module")
def compiler() -> GuidanceCompiler:
    return GuidanceCompiler(context())


def start(compiler: GuidanceCompiler, grammar: dict[str, Any]) -> Constraint:
    return compiler.compile(json.dumps(grammar))()


def allowed(constraint: Constraint) -> set[int]:
    mask = np.zeros(-(-VOCAB_SIZE // 32), np.uint32)
    constraint.fill_mask(mask)
    return set(np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist())


def ids(text: str) -> list[int]:
    return list(text.encode())


def accepts(compiler: GuidanceCompiler, grammar: dict[str, Any], text: str) -> bool:
    constraint = start(compiler, grammar)
    return constraint.advance(ids(text)) == len(text.encode()) and constraint.may_end


def regex(pattern: str) -> dict[str, Any]:
    return {"type": "regex", "pattern": pattern}


def schema(**fields: Any) -> dict[str, Any]:
    return {"type": "json", "schema": fields}


TEXT, PAIR = {"type": "text", "text": 'say "\\\n'}, {"type": "choice", "choices": ["yes", "no", "ja/nein\\"]}


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        (regex(r"[a-c]+\d{2}"), ["a12", "abc99"], ["a1", "d12", "a123"]),
        (regex(r"^\d+/\d+$"), ["1/2"], ["1", "1/2/"]),
        (regex(r"(yes|no)\n?"), ["yes", "no\n"], ["maybe"]),
        (regex("a\n/\\\nb\\\\\n"), ["a\n/\nb\\\n"], ["a\n/\\\nb"]),
        (PAIR, ["yes", "ja/nein\\"], ["ye", "yesno"]),
        (
            schema(type="object", properties={"a": {"type": "integer"}}, required=["a"], additionalProperties=False),
            ['{"a": 1}', '{\n "a":-12 }'],
            ['{"a": "1"}', "{}", '{"a": 1, "b": 2}'],
        ),
        (schema(type="string", pattern="^[a-z]{3}$"), ['"abc"'], ['"abcd"', '"ABC"']),
        (schema(enum=["é", 1, None]), ['"é"', "1", "null"], ["2"]),
        ({**schema(type="array", items={"type": "boolean"}), "whitespace": False}, ["[true,false]"], ["[true, false]"]),
        ({"type": "json", "schema": True}, ["[1]", '"x"'], ["x"]),
        (
            {"type": "sequence", "parts": [TEXT, PAIR, {"type": "json", "schema": {"type": "integer"}}]},
            ['say "\\\nyes12'],
            ['say "\\\n12', "yes12"],
        ),
        ({"type": "any_of", "parts": [TEXT, regex("[0-9]+")]}, ['say "\\\n', "123"], ["yes"]),
        (
            {"type": "repeat", "part": PAIR, "separator": {"type": "text", "text": ", "}, "max": None},
            ["yes", "yes, no, yes"],
            ["", "yes,no"],
        ),
        ({"type": "repeat", "part": PAIR, "separator": None, "max": 2}, ["yes", "yesno"], ["yesnoyes"]),
        ({"type": "grammar", "text": 'start: "a" b*\nb: "x" | "(" start ")"'}, ["ax", "a(ax)"], ["x", "a("]),
        ({"type": "grammar", "text": 'root ::= "a" item+\nitem ::= [0-9] "," | "x"'}, ["a1,x"], ["a", "a1"]),
    ],
)
def test_grammars_of_every_type(
    compiler: GuidanceCompiler, grammar: dict[str, Any], good: list[str], bad: list[str]
) -> None:
    assert [text for text in good if not accepts(compiler, grammar, text)] == []
    assert [text for text in bad if accepts(compiler, grammar, text)] == []


def test_masks_allow_what_advance_takes(compiler: GuidanceCompiler) -> None:
    """Along random walks, every token of the vocabulary: bit and verdict agree, the end apart."""
    draw = random.Random(3)
    grammar = schema(type="object", properties={"name": {"type": "string"}, "x": {"type": ["number", "null"]}})
    constraint = start(compiler, grammar)
    for _ in range(60):
        may = allowed(constraint)
        assert (EOS in may) == (OTHER_EOS in may) == constraint.may_end
        taken = set()
        for token in range(VOCAB_SIZE):
            if constraint.advance([token]):
                constraint.rollback(1)
                taken.add(token)
        assert may - {EOS, OTHER_EOS} <= taken  # forced text comes in the tokens that the tokenizer makes of it
        assert len(may) == 1 or taken <= may
        if constraint.is_finished:
            break
        assert constraint.advance([draw.choice(sorted(taken))]) == 1


def test_tokens_are_taken_up_to_the_first_that_may_not_follow(compiler: GuidanceCompiler) -> None:
    constraint = start(compiler, regex("a+b"))
    assert constraint.advance(ids("aaxb")) == 2
    assert constraint.advance([*ids("a"), EOS]) == 1
    assert constraint.advance([EOS]) == 0
    assert not constraint.may_end
    assert constraint.advance(ids("b")) == 1
    assert constraint.may_end and constraint.is_finished
    assert constraint.advance(ids("b")) == constraint.advance([EOS]) == 0
    constraint.rollback(2)
    assert not constraint.may_end and not constraint.is_finished
    assert constraint.advance(ids("aab")) == 3 and constraint.is_finished
    assert constraint.error == ""


def test_a_finished_grammar_allows_nothing_but_the_end(compiler: GuidanceCompiler) -> None:
    constraint = start(compiler, PAIR)
    assert constraint.advance(ids("yes")) == 3
    assert constraint.is_finished and allowed(constraint) == {EOS, OTHER_EOS}
    assert constraint.advance(ids("y")) == 0 and constraint.error == ""


def test_special_tokens_come_only_where_the_grammar_names_them(compiler: GuidanceCompiler) -> None:
    assert allowed(start(compiler, regex(r"(.|\n)*"))).isdisjoint({CALL})
    assert not accepts(compiler, {"type": "sequence", "parts": [{"type": "token", "id": CALL}, PAIR]}, "<|call|>yes")
    constraint = start(compiler, {"type": "sequence", "parts": [{"type": "token", "id": CALL}, PAIR]})
    assert allowed(constraint) == {CALL}
    assert constraint.advance([CALL, *ids("yes")]) == 4 and constraint.is_finished


def test_characters_may_come_in_pieces(compiler: GuidanceCompiler) -> None:
    constraint = start(compiler, {"type": "choice", "choices": ["🙂é"]})
    first = "🙂".encode()[0]
    assert allowed(constraint) == {259 + WORDS.index("🙂".encode())}
    assert constraint.advance([first]) == 1  # it need not be the tokenizer's way
    constraint.rollback(1)
    assert constraint.advance([259 + WORDS.index("🙂".encode()), 259 + WORDS.index("é".encode()[:1])]) == 2
    assert constraint.advance(["é".encode()[1]]) == 1 and constraint.is_finished


def test_constraints_of_one_grammar_stand_apart(compiler: GuidanceCompiler) -> None:
    make = compiler.compile(json.dumps(regex("a+b")))
    one, other = make(), make()
    assert one.advance(ids("aab")) == 3
    assert other.advance(ids("b")) == 0 and other.advance(ids("a")) == 1


BAD: list[tuple[dict[str, Any], str]] = [
    (regex("("), "unclosed group"),
    (schema(type="nonsense"), "nonsense"),
    ({"type": "json", "schema": [1]}, "object"),
    (schema(**{"$ref": "https://example.com/schema.json"}), "not present"),
    (schema(**{"$ref": "#/definitions/none"}), "does not exist"),
    ({"type": "grammar", "text": "start: nowhere"}, "nowhere"),
    ({"type": "sequence", "parts": [{"type": "grammar", "text": 'start: "a"'}]}, "cannot be parts"),
    ({"type": "poem"}, "poem"),
    (schema(type="string", uniqueItems=True, unevaluatedProperties={"a": 1}), "unevaluatedProperties"),
    ({"type": "grammar", "text": "root = ("}, "neither Lark nor GBNF"),
]


@pytest.mark.parametrize(("grammar", "word"), BAD)
def test_what_cannot_be_compiled_is_refused_with_a_reason(
    compiler: GuidanceCompiler, grammar: dict[str, Any], word: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(word)) as refusal:
        compiler.compile(json.dumps(grammar))
    assert len(str(refusal.value)) > 8


def test_lenient_schemas_pass_over_what_cannot_be_enforced(compiler: GuidanceCompiler) -> None:
    grammar = schema(type="object", patternProperties={"^a": {"type": "integer"}}, propertyNames={"minLength": 3})
    with pytest.raises(ValueError, match="propertyNames"):
        compiler.compile(json.dumps(grammar))
    assert accepts(compiler, {**grammar, "lenient": True}, "{}")


def test_a_client_cannot_set_the_librarys_options(compiler: GuidanceCompiler) -> None:
    grammar = schema(
        type="array", items={"type": "integer"}, **{"x-guidance": {"lenient": True, "item_separator": ";"}}
    )
    assert accepts(compiler, grammar, "[1,2]") and not accepts(compiler, grammar, "[1;2]")


def test_a_limit_that_is_met_on_the_way_is_an_error_of_this_constraint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(guidance.LIMITS, "step_max_items", 30)
    compiler = GuidanceCompiler(context())
    text = 'start: e\ne: e e | e "+" e | /[a-z]/ | /[a-m]/ | /[a-g]/'
    make = compiler.compile(json.dumps({"type": "grammar", "text": text}))
    constraint = make()
    with pytest.raises(ConstraintError) as error:
        for _ in range(50):
            allowed(constraint)
            assert constraint.advance(ids("a")) == 1 or constraint.error
    assert str(error.value) == constraint.error != ""
    assert constraint.advance(ids("a")) == 0 and not constraint.may_end and not constraint.is_finished
    constraint.rollback(1)
    assert make().advance(ids("a")) == 1


def test_models_without_an_end_or_with_other_tokenizers_say_so() -> None:
    def no_table() -> TokenTable:
        raise ValueError("no table here")

    for more, word in (({"eos_token_ids": frozenset()}, "end-of-sequence"), ({"load_tokens": no_table}, "no table")):
        fields = {"vocab_size": VOCAB_SIZE, "eos_token_ids": frozenset({EOS}), "load_tokens": lambda: TABLE, **more}
        with pytest.raises(ValueError, match=word):
            GuidanceCompiler(GrammarContext(**fields)).compile(json.dumps(PAIR))  # type: ignore[arg-type]


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guidance, "find_spec", lambda name: None)
    with pytest.raises(Unsupported, match=r"isotoken\[structured\]"):
        GuidanceCompiler(context())


@pytest.mark.parametrize(
    ("whitespace", "good", "bad"),
    [
        (None, ["[1,2]", "[1, 2]", "[\n  1,\n\t2\n]"], ["[1,  2]", "[1,\n\n2]", " [1]", "[1] "]),
        (False, ["[1,2]"], ["[1, 2]"]),
        ("  ", ["[1,  2]", "[1,2]"], ["[1, 2]"]),
    ],
)
def test_white_space_in_json_is_bounded(
    compiler: GuidanceCompiler, whitespace: Any, good: list[str], bad: list[str]
) -> None:
    grammar = {**schema(type="array", items={"type": "integer"}), "whitespace": whitespace}
    assert [accepts(compiler, grammar, text) for text in good] == [True] * len(good)
    assert [accepts(compiler, grammar, text) for text in bad] == [False] * len(bad)
