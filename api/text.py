"""TextModel: the tokenizer, chat template and generation config of one model folder; text to token ids, and back."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.types import CheckpointError
from .chat_template import ChatTemplate
from .choice import Choice, TextDelta
from .detokenizer import ByteDetokenizer, Detokenizer, Vocabulary, WindowDetokenizer
from .errors import NoChatTemplate
from .sampling_params import SamplingParams

__all__ = ["Choice", "SamplingParams", "TextDelta", "TextModel"]

# Of generation_config.json, and what SamplingParams calls them.
DEFAULTS = {name: name for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")} | {
    "max_new_tokens": "max_tokens"
}


class TextModel:
    """Everything about a model that concerns text."""

    def __init__(self, path: Path, tokenizer: Any) -> None:
        """Read the configs beside a tokenizer. Raises CheckpointError naming the file that is damaged."""
        self.path = path
        self.tokenizer = tokenizer  # tokenizers.Tokenizer, or its like from a plugin
        self.vocabulary = Vocabulary(tokenizer)
        config = _read_json(path / "tokenizer_config.json")
        self.generation_config: Mapping[str, Any] = _read_json(path / "generation_config.json")
        self.special_tokens = _special_tokens(_read_json(path / "special_tokens_map.json") | config)
        self.bos_token_id = self._id_of("bos_token")
        self.eos_token_ids = frozenset(self._eos_token_ids())
        self._sources = _template_sources(path, config)
        self._templates: dict[str, ChatTemplate] = {}

    @classmethod
    def load(cls, model_dir: Path | str) -> TextModel:
        """Read the folder. Raises CheckpointError naming the file that is missing or damaged."""
        path = Path(model_dir)
        return cls(path, _load_tokenizer(path))

    @property
    def chat_template(self) -> str | None:
        """The model's own chat template."""
        return self._sources.get("default")

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of a text. Leaves other threads free to run: give it a thread when texts are long."""
        # encode() would hold the interpreter's lock for the whole text.
        (encoding,) = self.tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        ids: list[int] = encoding.ids
        return ids

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """Return the text of token ids, from the start of a text. Ids without a token have none."""
        detokenizer = self.detokenizer(skip_special_tokens=skip_special_tokens, at_start=True)
        return "".join([detokenizer.push(token_id) for token_id in ids]) + detokenizer.flush()

    def detokenizer(
        self, *, skip_special_tokens: bool = True, at_start: bool = False, shown: Collection[int] = ()
    ) -> Detokenizer:
        """Return a detokenizer for one sequence, which starts a text or goes on from a prompt.

        Special tokens that are `shown` are not skipped, where tokens stand for bytes.
        """
        if self.vocabulary.is_bytes:
            return ByteDetokenizer(
                self.vocabulary, skip_special_tokens=skip_special_tokens, at_start=at_start, shown=shown
            )
        return WindowDetokenizer(self.tokenizer, skip_special_tokens=skip_special_tokens)

    def token_text(self, token_id: int) -> str:
        """Return one token's text, for logprobs; bytes that are no text of their own show as U+FFFD."""
        return self.token_bytes(token_id).decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Return one token's bytes; those of a text's tokens in a row are the text in UTF-8."""
        if self.vocabulary.is_bytes:
            return self.vocabulary.token_bytes(token_id)
        return str(self.tokenizer.decode([token_id], skip_special_tokens=False)).encode()

    def default_params(self) -> dict[str, Any]:
        """Return the fields of SamplingParams that generation_config.json sets."""
        given = self.generation_config
        return {ours: given[theirs] for theirs, ours in DEFAULTS.items() if given.get(theirs) is not None}

    def use_chat_template(self, source: str) -> None:
        """Let a template stand in for the model's own. Raises ParameterError when it is no valid one."""
        self._templates = {"default": ChatTemplate(source, self.special_tokens)}
        self._sources["default"] = source
        self._sources.pop("tool_use", None)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        template_kwargs: Mapping[str, Any] | None = None,
        chat_template: str | None = None,
    ) -> str:
        """Return the prompt that the chat template makes of a conversation. Raises ParameterError.

        `chat_template` is a template or the name of one of the model's. Templates run in a sandbox which keeps them
        from data and code but not from looping for long: do not take them from strangers.
        """
        return self._template(chat_template, template_kwargs).render(
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            template_kwargs=template_kwargs,
        )

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        template_kwargs: Mapping[str, Any] | None = None,
        chat_template: str | None = None,
    ) -> list[int]:
        """Return that prompt's token ids; the template writes the special tokens itself. Raises ParameterError."""
        prompt = self.render_chat(
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            template_kwargs=template_kwargs,
            chat_template=chat_template,
        )
        return self.encode(prompt, add_special_tokens=False)

    def _template(self, name: str | None, template_kwargs: Mapping[str, Any] | None) -> ChatTemplate:
        if name is None:  # some models have a second template for conversations with tools
            name = "tool_use" if (template_kwargs or {}).get("tools") and "tool_use" in self._sources else "default"
            if name not in self._sources:
                raise NoChatTemplate(self.path.name)
        if name not in self._sources:
            return ChatTemplate(name, self.special_tokens)  # the caller's own: not kept
        if name not in self._templates:
            self._templates[name] = ChatTemplate(self._sources[name], self.special_tokens)
        return self._templates[name]

    def _id_of(self, special: str) -> int | None:
        token = self.special_tokens.get(special)
        token_id: int | None = None if token is None else self.tokenizer.token_to_id(token)
        return token_id

    def _eos_token_ids(self) -> list[int]:
        for config in (self.generation_config, _read_json(self.path / "config.json")):
            ids = config.get("eos_token_id")
            if ids is not None:
                return list(ids) if isinstance(ids, list) else [ids]
        eos = self._id_of("eos_token")
        return [] if eos is None else [eos]


def _load_tokenizer(path: Path) -> Any:
    file = path / "tokenizer.json"
    if not file.is_file():
        from ..plugins.manager import Plugins  # noqa: PLC0415  (most models need no plugin for this)

        tokenizer = Plugins.load().hook.load_tokenizer(model_dir=path)
        if tokenizer is None:
            raise CheckpointError(f"{file} is missing, and no installed plugin can load a tokenizer for {path}")
        return tokenizer
    from tokenizers import Tokenizer  # noqa: PLC0415  (SamplingParams alone should import fast)

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"{file} is no tokenizer that this version of tokenizers can read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _read_json(file: Path) -> dict[str, Any]:
    """Return an optional file's object."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds no JSON object")
    return content


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Return bos_token, eos_token, ... as strings; they may be written as objects."""
    tokens: dict[str, str] = {}
    for name, value in config.items():
        content = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(content, str):
            tokens[name] = content
    return tokens


def _template_sources(path: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Return the templates by name. Later places win: tokenizer_config.json, chat_template.json, the .jinja files."""
    sources: dict[str, str] = {}
    for given in (config.get("chat_template"), _read_json(path / "chat_template.json").get("chat_template")):
        if isinstance(given, str):
            sources["default"] = given
        elif isinstance(given, list):
            sources |= {str(entry["name"]): str(entry["template"]) for entry in given}
    for file in sorted((path / "additional_chat_templates").glob("*.jinja")):
        sources[file.stem] = file.read_text("utf-8")
    if (path / "chat_template.jinja").is_file():
        sources["default"] = (path / "chat_template.jinja").read_text("utf-8")
    return sources
