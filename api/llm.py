"""LLM: generate from Python, offline, with the engine in a thread of this process."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..plugins.build import EngineConfig
from .engine.local import Job, JobDelta, LocalEngine
from .engine.types import EngineInfo, GenerationDelta
from .errors import EngineFailed, ParameterError
from .models import resolve_model
from .results import CompletionOutput, Logprob, RequestResult, fold
from .text import SamplingParams, TextModel

if TYPE_CHECKING:
    from ..plugins.manager import Plugins

__all__ = ["LLM", "CompletionOutput", "Logprob", "RequestResult"]

Prompt = str | Sequence[int] | Mapping[str, Any]
Message = Mapping[str, Any]


class _Encoded(NamedTuple):
    text: str | None  # None: it was given as token ids
    ids: list[int]


class LLM:
    """A model in this process. Use it as a context manager, or close it, to give its memory back."""

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        draft_model: str | Path | None = None,
        plugins: Plugins | None = None,
        progress: bool = False,
        **settings: Any,
    ) -> None:
        """Load a model: a built-in name (the default is "isotoken-small"), a folder, or an id on the hub.

        `settings` are the other fields of EngineConfig: backend, device, dtype ("auto"), max_num_seqs, max_model_len,
        scheduler, kv_cache, drafter, num_draft_tokens, quantization, tensor_parallel_size, options, ...
        Raises ModelNotFound, CheckpointError, PluginError, Unsupported or ValueError, each with the reason.
        """
        known = {f for f in EngineConfig.__dataclass_fields__ if f != "model"}
        for name, value in settings.items():
            if name not in known:
                raise ParameterError(name, value, f"one of the settings {', '.join(sorted(known))}")
        draft = None if draft_model is None else str(resolve_model(draft_model))
        config = EngineConfig(model=str(resolve_model(model)), draft_model=draft, **settings)
        self._engine = LocalEngine(config, plugins=plugins, progress=progress)

    @property
    def info(self) -> EngineInfo:
        """What the engine settled on."""
        return self._engine.info

    @property
    def text(self) -> TextModel:
        """The tokenizer and chat template."""
        return self._engine.text

    def close(self) -> None:
        """Give the model's memory back. Harmless when repeated."""
        self._engine.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        progress: bool = False,
    ) -> list[RequestResult]:
        """Continue each prompt: a text, token ids, {"prompt": text} or {"prompt_token_ids": ids}; one, or a list.

        `params` are for all, or one for each. Returns a result for each prompt, in order; one that fails has
        finish_reason "error". Raises ParameterError or ContextLengthError before anything runs.
        """
        given = _as_list(prompts)
        return self._run([self._encode(prompt) for prompt in given], _for_each(params, len(given)), progress)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        progress: bool = False,
        **template: Any,
    ) -> list[RequestResult]:
        """Answer a conversation, or each of several. `template` goes to TextModel.render_chat."""
        single = not messages or isinstance(messages[0], Mapping)
        conversations: Sequence[Any] = [messages] if single else messages
        texts = [self.text.render_chat(conversation, **template) for conversation in conversations]
        prompts = [_Encoded(text, self.text.encode(text, add_special_tokens=False)) for text in texts]
        return self._run(prompts, _for_each(params, len(prompts)), progress)

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> Iterator[GenerationDelta]:
        """Continue one prompt and yield what is new as it comes. Closing the iterator aborts the request.

        The iterator raises EngineFailed when the request fails.
        """
        jobs = [Job(self._encode(prompt).ids, params or SamplingParams())]
        return _deltas(self._engine.generate(jobs))

    def _encode(self, prompt: Prompt) -> _Encoded:
        given: Any = prompt.get("prompt_token_ids", prompt.get("prompt")) if isinstance(prompt, Mapping) else prompt
        if isinstance(given, str):
            return _Encoded(given, self.text.encode(given))
        if not isinstance(given, Sequence):
            raise ParameterError("prompt", prompt, 'a text, token ids, {"prompt": ...} or {"prompt_token_ids": ...}')
        return _Encoded(None, list(given))

    def _run(
        self, prompts: Sequence[_Encoded], params: Sequence[SamplingParams], progress: bool
    ) -> list[RequestResult]:
        jobs = [Job(prompt.ids, each) for prompt, each in zip(prompts, params, strict=True)]
        batch = uuid.uuid4().hex[:8]
        results = [
            RequestResult(
                request_id=f"{batch}-{i}",
                prompt=prompt.text,
                prompt_token_ids=prompt.ids,
                prompt_logprobs=None if each.prompt_logprobs is None else [None],
                outputs=[CompletionOutput(index=index) for index in range(each.n)],
            )
            for i, (prompt, each) in enumerate(zip(prompts, params, strict=True))
        ]
        with _progress_bar(len(jobs), shown=progress) as advance:
            for job, delta, error in self._engine.generate(jobs):
                fold(results[job], delta, error, self.text.token_text)
                if delta.finish_reason is not None and results[job].finished:
                    advance()
        for result, each in zip(results, params, strict=True):
            if each.echo:
                prompt = self.text.decode(result.prompt_token_ids) if result.prompt is None else result.prompt
                for output in result.outputs:
                    output.text = prompt + output.text
        return results


def _deltas(items: Iterator[JobDelta]) -> Iterator[GenerationDelta]:
    for _, delta, error in items:
        if error is not None:
            raise EngineFailed(error)
        yield delta


def _as_list(prompts: Prompt | Sequence[Prompt]) -> Sequence[Prompt]:
    """Tell one prompt (a text, an object, a list of ids) from a list of them."""
    if not isinstance(prompts, Mapping | Sequence):
        raise ParameterError("prompts", prompts, "a text, token ids, an object with either, or a list of these")
    if isinstance(prompts, str | Mapping) or (prompts and isinstance(prompts[0], int)):
        return [prompts]  # type: ignore[list-item]
    return prompts  # type: ignore[return-value]


def _for_each(params: SamplingParams | Sequence[SamplingParams] | None, count: int) -> Sequence[SamplingParams]:
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * count
    if len(params) != count:
        raise ParameterError("params", len(params), f"one for all prompts, or one for each of the {count}")
    return params


@contextmanager
def _progress_bar(total: int, *, shown: bool) -> Iterator[Callable[[], object]]:
    """Show how many prompts are done; gives the function to call for each."""
    if not shown:
        yield lambda: None
        return
    from rich.console import Console  # noqa: PLC0415  (only when asked for)
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("generating", total=total)
        yield lambda: bar.update(task, advance=1)
