"""TextModel: tokenizer, chat template and configs of a model folder."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from isotoken.api.errors import ParameterError
from isotoken.api.text import TextModel
from isotoken.core.types import CheckpointError
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

CHAT = [{"role": "user", "content": "The quick"}, {"role": "assistant", "content": "fox "}]
TRICKY = (
    "{%- for message in messages %}\n    {{- '<|' ~ message.role ~ '|>' }}{% generation %}{{ message.content | trim }}"
    "{% endgeneration %}{% if loop.last %}{% break %}{% endif %}\n{%- endfor %}"
    "{{ tools | tojson if tools else '' }}{{ bos_token }}"
)


def transformers_tokenizer(text: TextModel, template: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=text.tokenizer, bos_token="<|bos|>", eos_token="<|end|>", chat_template=template
    )


@pytest.mark.parametrize("template", [None, TRICKY])
@pytest.mark.parametrize("options", [{}, {"add_generation_prompt": False}, {"tools": [{"type": "function", "ü": "<"}]}])
def test_chat_templates_render_as_in_transformers(text_model: TextModel, template: str | None, options: Any) -> None:
    theirs = transformers_tokenizer(text_model, template or str(text_model.chat_template))
    settings = {"add_generation_prompt": True, **options}
    expected = theirs.apply_chat_template(CHAT, tokenize=False, **settings)
    tools = {"tools": options["tools"]} if "tools" in options else None
    ours = text_model.render_chat(
        CHAT,
        add_generation_prompt=settings["add_generation_prompt"],
        template_kwargs=tools,
        chat_template=template,
    )
    assert ours == expected


@pytest.mark.parametrize("template", [None, TRICKY])
def test_a_final_message_is_continued_as_in_transformers(text_model: TextModel, template: str | None) -> None:
    theirs = transformers_tokenizer(text_model, template or str(text_model.chat_template))
    expected = theirs.apply_chat_template(CHAT, tokenize=False, continue_final_message=True)
    ours = text_model.render_chat(
        CHAT, add_generation_prompt=False, continue_final_message=True, chat_template=template
    )
    assert ours == expected


def test_the_prompt_of_a_chat_has_its_special_tokens_once(text_model: TextModel) -> None:
    ids = text_model.apply_chat_template(CHAT[:1])
    assert ids[:2] == [0, 2]
    assert ids[-2:] == [1, 3]
    assert text_model.decode(ids) == "The quick"


def test_half_a_character_in_a_calls_arguments_is_refused(text_model: TextModel) -> None:
    """No tokenizer takes one: it has no bytes in UTF-8."""
    call = {"type": "function", "function": {"name": "f", "arguments": r'{"x": "\ud83d"}'}}
    messages = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    with pytest.raises(ParameterError, match="tool_calls"):
        text_model.apply_chat_template(messages, chat_template="{{ messages[0].tool_calls[0].function.arguments.x }}")


def test_text_parts_and_tool_calls_reach_the_template_in_plain_form(text_model: TextModel) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    template = "{{ messages[0].content }}|{{ messages[1].tool_calls[0].function.arguments.x }}"
    assert text_model.render_chat(messages, chat_template=template) == "a\nb|1"


@pytest.mark.parametrize(
    ("messages", "template", "field"),
    [
        ([], None, "messages"),
        ([{"content": "x"}], None, "messages[0]"),
        ([{"role": "user", "content": 5}], None, "messages[0].content"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], None, "messages[0].content"),
        (CHAT, "{{ raise_exception('no such role') }}", "messages"),
        (CHAT, "{{ messages.append(1) }}", "messages"),  # the sandbox keeps values as they are
        (CHAT, "{{ ''.__class__.__mro__[1].__subclasses__() }}", "messages"),  # and Python out of reach
        (CHAT, "{% for %}", "chat_template"),
    ],
)
def test_what_a_template_refuses_is_the_callers_error(
    text_model: TextModel, messages: Any, template: str | None, field: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        text_model.render_chat(messages, chat_template=template)
    assert caught.value.field == field


def copy_model(model_dir: Path, to: Path, *without: str) -> Path:
    shutil.copytree(model_dir, to, ignore=shutil.ignore_patterns("*.safetensors", *without))
    return to


def test_a_template_file_wins_over_the_config(model_dir: Path, tmp_path: Path) -> None:
    folder = copy_model(model_dir, tmp_path / "m")
    (folder / "chat_template.jinja").write_text("file: {{ eos_token }}")
    assert TextModel.load(folder).render_chat(CHAT) == "file: <|end|>"


def test_a_template_may_be_chosen_by_name(model_dir: Path, tmp_path: Path) -> None:
    folder = copy_model(model_dir, tmp_path / "m")
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "with tools"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    text = TextModel.load(folder)
    assert text.render_chat(CHAT) == "plain"
    assert text.render_chat(CHAT, template_kwargs={"tools": [{}]}) == "with tools"
    assert text.render_chat(CHAT, chat_template="tool_use") == "with tools"


def test_a_template_may_stand_in_for_the_models_own(model_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model_dir, tmp_path / "model")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("the model's, for tools")
    text = TextModel.load(folder)
    with pytest.raises(ParameterError, match="valid Jinja"):
        text.use_chat_template("{% if %}")
    text.use_chat_template("{{ messages[0].content }}!")
    for tools in ([], [{"name": "f"}]):
        assert text.render_chat([{"role": "user", "content": "hi"}], template_kwargs={"tools": tools}) == "hi!"


def test_a_model_without_a_template_says_so(model_dir: Path, tmp_path: Path) -> None:
    text = TextModel.load(copy_model(model_dir, tmp_path / "m", "tokenizer_config.json"))
    with pytest.raises(ParameterError, match="the model 'm' has no chat template"):
        text.render_chat(CHAT)


def test_a_missing_or_damaged_file_is_named(model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        TextModel.load(copy_model(model_dir, tmp_path / "a", "tokenizer.json"))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        folder = copy_model(model_dir, tmp_path / name)
        (folder / name).write_text('{"cut')
        with pytest.raises(CheckpointError, match=name):
            TextModel.load(folder)


def test_configs_give_defaults_and_special_ids(text_model: TextModel) -> None:
    assert text_model.default_params() == {"temperature": 0.7, "max_tokens": 20}
    assert text_model.eos_token_ids == {1}
    assert text_model.bos_token_id == 0


def test_truncation_and_padding_of_the_file_are_off(model_dir: Path, tmp_path: Path) -> None:
    folder = copy_model(model_dir, tmp_path / "m")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=50)
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = TextModel.load(folder).encode("The quick brown fox")
    assert 2 < len(ids) < 50


def test_encoding_lets_other_threads_run(text_model: TextModel) -> None:
    """A thread that only counts gets on while a long text is encoded; encode() of the library would stop it."""
    done = threading.Event()
    encoded: list[list[int]] = []

    def encode() -> None:
        encoded.append(text_model.encode("The quick brown fox " * 100_000))
        done.set()

    thread = threading.Thread(target=encode)
    thread.start()
    turns = 0
    while not done.wait(0.001):
        turns += 1
    thread.join()
    assert len(encoded[0]) > 100_000
    assert turns > 3  # each of them took the interpreter's lock in between
