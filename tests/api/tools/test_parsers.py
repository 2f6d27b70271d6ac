"""Tool calls are read from an answer's text, the same however it is cut into pieces, and no text is lost."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from isotoken.api.tools.events import Arguments, CallOpened, Content
from isotoken.api.tools.formats import DEEPSEEK, FORMATS, HERMES, LLAMA, MISTRAL, ToolFormat, format_of
from isotoken.api.tools.reader import MAX_REREAD

NAMES = {"get_weather", "add", "f"}
Calls = list[tuple[str, str]]


def read(form: ToolFormat, pieces: list[str]) -> tuple[str, Calls]:
    """Content and (name, arguments) of each call."""
    parser = form.parser(NAMES)
    content: list[str] = []
    calls: list[list[str]] = []
    events = [event for piece in pieces for event in parser.feed(piece)] + parser.finish()
    for event in events:
        match event:
            case Content(text):
                assert text
                content.append(text)
            case CallOpened(index, name):
                assert index == len(calls)
                calls.append([name, ""])
            case Arguments(index, text):
                assert index == len(calls) - 1 and text
                calls[index][1] += text
    assert parser.num_calls == len(calls)
    return "".join(content), [(name, arguments) for name, arguments in calls]


ARGUMENTS: list[Any] = [
    {},
    {"city": "Paris"},
    {"text": '</tool_call><tool_call>[TOOL_CALLS]<|python_tag|>{}[]"\\ ; <｜tool▁call▁end｜>```'},
    {"emoji": "🙂🙃", "nested": {"a": [1, 2.5e-3, True, None, {"b": "日本語"}]}, "escaped": "\u0000\n\t\\u0041"},
    {"{": "}", "]": "["},
]


def written(form: ToolFormat, *arguments: Any) -> str:
    return form.write([("add" if index % 2 else "get_weather", each) for index, each in enumerate(arguments)])


def assert_however_cut(form: ToolFormat, text: str, content: str, calls: Calls) -> None:
    assert read(form, [text]) == (content, calls)
    assert read(form, list(text)) == (content, calls)
    for cut in range(len(text)):
        assert read(form, [text[:cut], text[cut:]]) == (content, calls), cut
    draw = random.Random(len(text))
    cuts = sorted(draw.sample(range(len(text) + 1), min(6, len(text))))
    assert read(form, [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]) == (content, calls)


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("arguments", [[each] for each in ARGUMENTS] + [ARGUMENTS[:2], ARGUMENTS[1:]])
def test_what_a_model_writes_is_read(form: ToolFormat, arguments: list[Any]) -> None:
    text = written(form, *arguments)
    expected = [
        ("add" if index % 2 else "get_weather", json.dumps(each, ensure_ascii=False))
        for index, each in enumerate(arguments)
    ]
    assert_however_cut(form, text, "", expected)


@pytest.mark.parametrize("form", [HERMES, MISTRAL, DEEPSEEK], ids=lambda form: form.name)
def test_text_before_calls_is_content_without_the_space_between(form: ToolFormat) -> None:
    text = "Let me see.\n\n" + written(form, {"a": 1})
    assert_however_cut(form, text, "Let me see.", [("get_weather", '{"a": 1}')])


def test_text_between_and_after_calls_is_content() -> None:
    text = f"One {written(HERMES, {})} two {written(HERMES, {})}\nthree \n"
    assert_however_cut(HERMES, text, "One two three \n", [("get_weather", "{}")] * 2)


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(
    "text",
    [
        "plain text, no call",
        " \n spaces around \n ",
        '{"city": "Paris"}',
        '{"name": "Alice", "arguments": {}}',
        "<tool_call> is how it is done: <tool_call>{",
        '<tool_call>\n{"arguments": {"a": 1}}\n</tool_call>',
        '<tool_call>{"name": "unknown", "arguments": {}}</tool_call> and more',
        '<tool_call>{"name": 5}</tool_call>',
        "[TOOL_CALLS] of nothing, [TOOL_CALLS][1, 2]",
        "[TOOL_CALLS]unknown{}",
        "<|python_tag|>print(1)",
        "<｜tool▁calls▁begin｜>nothing<｜tool▁call▁begin｜>function<｜tool▁sep｜>unknown\n```json\n{}\n```",
        "half a marker at the end <tool_ca",
        "[TOOL",
        "<",
        "",
    ],
)
def test_what_is_no_call_of_an_offered_function_is_content(form: ToolFormat, text: str) -> None:
    assert_however_cut(form, text, text, [])


def test_a_malformed_call_becomes_content_and_the_next_is_read() -> None:
    good = written(HERMES, {"a": 1})
    bad = '<tool_call>\n{"nam e: "get_weather", oh\n</tool_call>'
    assert_however_cut(HERMES, f"{bad}{good}", bad, [("get_weather", '{"a": 1}')])


@pytest.mark.parametrize(
    ("text", "arguments", "content"),
    [
        ('<tool_call>{"name": "f", "arguments": {"a": [1, 2', '{"a": [1, 2', ""),
        ('<tool_call>{"name": "f", "arguments": {"a": "half', '{"a": "half', ""),
        ('<tool_call>{"name": "f", "arguments": {"a": 1]} tail', '{"a": 1', "]} tail"),
        ('<tool_call>{"name": "f", "arguments": {"a": 1}</tool_call> tail', '{"a": 1}', "tail"),
        ('<tool_call>{"name": "f", "arguments": {"a": 1}} tail', '{"a": 1}', "tail"),
        ('<tool_call>{"name": "f"', "", ""),
    ],
)
def test_a_call_that_breaks_off_keeps_what_came(text: str, arguments: str, content: str) -> None:
    assert_however_cut(HERMES, text, content, [("f", arguments)])


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ('{"arguments": {"a": 1}, "name": "f"}', '{"a": 1}'),
        ('{"id": 7, "name": "f", "parameters": {"a": 1}, "why": ["x", {"name": "add"}]}', '{"a": 1}'),
        ('{ "name" : "f" }', "{}"),
        ('{"name": "f", "arguments": null}', "null"),
        (r'{"name": "\u0066", "arguments": "{\"a\": \"\\n\"}"}', '{"a": "\\n"}'),
        (r'{"name": "f", "arguments": "{\"a\": \"\ud83d\"}"}', '{"a": "?"}'),  # half a character cannot be sent
        ('{"name": "f", "arguments":\n{\n"a":\t1\n}\n}', '{\n"a":\t1\n}'),
    ],
)
def test_members_come_in_any_order_and_form(call: str, arguments: str) -> None:
    assert_however_cut(HERMES, f"<tool_call>{call}</tool_call>", "", [("f", arguments)])


@pytest.mark.parametrize(
    ("form", "text", "calls"),
    [
        (LLAMA, '<|python_tag|>{"name": "f", "parameters": {"x": 1}}', [("f", '{"x": 1}')]),
        (LLAMA, ' {"name": "f", "parameters": {}}; {"name": "add", "parameters": {}}', [("f", "{}"), ("add", "{}")]),
        (LLAMA, '{"name": "f", "parameters": {}}\n{"name": "add", "parameters": {}}', [("f", "{}"), ("add", "{}")]),
        (LLAMA, '{"type": "function", "name": "f", "parameters": {}}', [("f", "{}")]),
        (MISTRAL, '[TOOL_CALLS]f[ARGS]{"a": 1}', [("f", '{"a": 1}')]),
        (MISTRAL, "[TOOL_CALLS]f{}[TOOL_CALLS]add[CALL_ID]abc[ARGS]{}", [("f", "{}"), ("add", "{}")]),
        (
            MISTRAL,
            '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}, {"name": "add", "arguments": {}}]',
            [("f", '{"a": 1}'), ("add", "{}")],
        ),
        (
            DEEPSEEK,
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            [("f", "{}")],
        ),
    ],
)
def test_the_dialects_of_each_family(form: ToolFormat, text: str, calls: Calls) -> None:
    assert_however_cut(form, text, "", calls)


def test_arguments_are_told_while_they_come() -> None:
    parser = HERMES.parser(NAMES)
    assert parser.feed('<tool_call>{"name": "f", "arguments": {"a"') == [CallOpened(0, "f"), Arguments(0, '{"a"')]
    assert parser.feed(': "</tool') == [Arguments(0, ': "</tool')]
    assert parser.feed('"}}') == [Arguments(0, '"}')]
    assert parser.feed("</tool_call>") == parser.finish() == []


def test_content_is_told_while_it_comes() -> None:
    parser = HERMES.parser(NAMES)
    assert parser.feed("Hello <tool") == [Content("Hello")]
    assert parser.feed("box") == [Content(" <toolbox")]


@pytest.mark.parametrize("seed", range(40))
def test_random_text_is_never_lost(seed: int) -> None:
    """Pieces of markup put together at random: what is not read as a call is content, character by character."""
    print(f"seed {seed}")
    draw = random.Random(seed)
    pieces = [
        "<tool_call>",
        "</tool_call>",
        '{"name": "f", "arguments": ',
        "{}",
        "}",
        '"',
        "\\",
        "[",
        "]",
        ",",
        "x",
        " ",
        "[TOOL_CALLS]",
        "f",
        "[ARGS]",
        "<|python_tag|>",
        ";",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁sep｜>",
        "🙂",
        "\n",
    ]
    for form in FORMATS.values():
        text = "".join(draw.choice(pieces) for _ in range(draw.randrange(1, 30)))
        content, calls = read(form, [text])
        assert read(form, list(text)) == (content, calls)
        if not calls:
            assert content == text


@pytest.mark.parametrize(
    ("form", "beginning"),
    [(HERMES, '<tool_call>{"a": ['), (MISTRAL, '[TOOL_CALLS][{"a": ['), (MISTRAL, "[TOOL_CALLS]f"), (LLAMA, '{"a": [')],
)
def test_beginnings_of_calls_cannot_keep_the_server_busy(form: ToolFormat, beginning: str) -> None:
    """Each may go on to the end of the answer: reading all of them takes a time that grows with its length alone."""
    text = beginning * 2000
    parser = form.parser(NAMES)
    looked = 0
    peek, until = parser.peek, parser.until

    def counted_peek() -> Any:
        nonlocal looked
        looked += 1
        return peek()

    def counted_until(*marks: str) -> Any:
        nonlocal looked
        looked += len(text) - parser.place
        return until(*marks)

    parser.peek, parser.until = counted_peek, counted_until  # type: ignore[method-assign]
    events = parser.feed(text) + parser.finish()
    assert "".join(event.text for event in events if isinstance(event, Content)) == text
    assert looked < 5 * (MAX_REREAD + len(text))


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ('{%- if tools %}<tool_call>\\n{"name": <function-name>}', "hermes"),
        ("{{ '[TOOL_CALLS] [' }}", "mistral"),
        ("{{- '<|python_tag|>' + tool_call.name }}", "llama"),
        ("{{'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>'}}", "deepseek"),
        ("{{ messages }}", "hermes"),
        (None, "hermes"),
    ],
)
def test_the_format_is_the_chat_templates(template: str | None, name: str) -> None:
    assert format_of(template).name == name
