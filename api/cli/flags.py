"""Flags that several commands share: dataclasses of Typer options, and the decorator that unfolds them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from ...plugins.build import EngineConfig
    from ..text import SamplingParams

DEFAULT_MODEL = "isotoken-small"  # models.DEFAULT_MODEL, which --help need not import

_MODEL_HELP = (
    "A built-in model (see `isotoken models`), a folder in Hugging Face layout, or a hub id such as owner/name."
)
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=_MODEL_HELP)]
ModelOption = Annotated[str, typer.Option("--model", "-m", metavar="MODEL", help=_MODEL_HELP)]


def flag(
    panel: str,
    text: str,
    *names: str,
    metavar: str = "",
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    **more: Any,
) -> Any:
    """Declare an option in a panel of the help, with the bounds of its value."""

    def check(value: Any) -> Any:
        if value is not None:
            _check_bounds(value, least=least, most=most, above=above)
        return value

    option = typer.Option(*names, help=text, rich_help_panel=panel, metavar=metavar, callback=check, **more)
    option.bounds = {"ge": least, "le": most, "gt": above}
    return option


def bounds_of(option: Any) -> dict[str, float]:
    """Return the bounds of a flag's value as pydantic names them."""
    return {name: bound for name, bound in option.bounds.items() if bound is not None}


def _check_bounds(value: float, *, least: float | None, most: float | None, above: float | None) -> None:
    if least is not None and value < least:
        raise typer.BadParameter(f"{value} is not allowed: at least {least}")
    if most is not None and value > most:
        raise typer.BadParameter(f"{value} is not allowed: at most {most}")
    if above is not None and value <= above:
        raise typer.BadParameter(f"{value} is not allowed: above {above}")


_ENGINE, _MEMORY, _SPECULATION, _SAMPLING = "Engine", "Batching and memory", "Speculation", "Sampling"


@dataclass(frozen=True, kw_only=True)
class EngineFlags:
    """One flag for each field of EngineConfig (but the model, which is an argument)."""

    backend: Annotated[str, flag(_ENGINE, "What runs the model: see `isotoken plugins`.", metavar="NAME")] = "auto"
    device: Annotated[str, flag(_ENGINE, "cpu, cuda, cuda:1, ...", metavar="NAME")] = "auto"
    dtype: Annotated[str, flag(_ENGINE, "float32, bfloat16, float16, ...", metavar="NAME")] = "auto"
    quantization: Annotated[
        str | None,
        flag(_ENGINE, "Of the weights, at load: `isotoken plugins` lists them. None: as they are.", metavar="NAME"),
    ] = None
    tensor_parallel_size: Annotated[
        int, flag(_ENGINE, "Devices that share one model. Refused where the backend cannot.", metavar="N", least=1)
    ] = 1
    sampler: Annotated[
        str, flag(_ENGINE, "Who draws tokens. auto: the backend's own, else the host's.", metavar="NAME")
    ] = "auto"
    grammars: Annotated[
        str, flag(_ENGINE, "Who reads grammars. auto: llguidance where it is installed; none.", metavar="NAME")
    ] = "auto"
    num_threads: Annotated[int, flag(_ENGINE, "CPU threads. 0: the runtime's choice.", metavar="N", least=0)] = 0
    option: Annotated[
        list[str], flag(_ENGINE, "A setting of the backend's own. May be repeated.", "--option", metavar="K=V")
    ] = field(default_factory=list)
    max_model_len: Annotated[
        int, flag(_MEMORY, "Prompt and output tokens together. 0: the model's limit.", metavar="N", least=0)
    ] = 0
    max_num_seqs: Annotated[int, flag(_MEMORY, "Requests that run at once.", metavar="N", least=1)] = 64
    max_num_batched_tokens: Annotated[
        int, flag(_MEMORY, "Tokens computed in one step at most.", metavar="N", least=1)
    ] = 2048
    max_num_logits: Annotated[
        int, flag(_MEMORY, "Logits rows in one step. 0: the backend's choice.", metavar="N", least=0)
    ] = 0
    scheduler: Annotated[str, flag(_MEMORY, "continuous, adaptive, static, naive, ...", metavar="NAME")] = "continuous"
    kv_cache: Annotated[str, flag(_MEMORY, "paged, contiguous, ... auto: what suits the backend.", metavar="NAME")] = (
        "auto"
    )
    kv_cache_dtype: Annotated[
        str, flag(_MEMORY, "What keys and values are stored in. auto: as computed.", metavar="NAME")
    ] = "auto"
    block_size: Annotated[int, flag(_MEMORY, "Tokens in a block of the cache.", metavar="N", least=1)] = 16
    num_blocks: Annotated[
        int, flag(_MEMORY, "Blocks of the cache. 0: what the memory fraction holds.", metavar="N", least=0)
    ] = 0
    memory_fraction: Annotated[
        float, flag(_MEMORY, "Share of the free device memory to use.", metavar="X", above=0, most=1)
    ] = 0.9
    no_prefix_caching: Annotated[bool, flag(_MEMORY, "Compute every prompt from its start.", "--no-prefix-caching")] = (
        False
    )
    drafter: Annotated[str, flag(_SPECULATION, "Who guesses ahead: none, ngram, model, ...", metavar="NAME")] = "none"
    draft_model: Annotated[
        str | None,
        flag(_SPECULATION, "A small model with the same tokenizer. Implies --drafter model.", metavar="MODEL"),
    ] = None
    num_draft_tokens: Annotated[
        int, flag(_SPECULATION, "Tokens guessed ahead in a step at most: as many as pay.", metavar="N", least=1)
    ] = 7
    fixed_drafts: Annotated[
        bool, flag(_SPECULATION, "Guess that many always, whether they pay or not.", "--fixed-drafts")
    ] = False
    verify_cost: Annotated[
        float,
        flag(_SPECULATION, "Cost of one more token in a step, in steps. 0: the backend's.", metavar="X", least=0),
    ] = 0.0

    def config(self, model: str) -> EngineConfig:
        """Resolve the model names and build the EngineConfig."""
        from ...plugins.build import EngineConfig  # noqa: PLC0415  (numpy and the core: only when an engine is wanted)
        from ..models import resolve_model  # noqa: PLC0415

        values = {name: getattr(self, name) for name in _names(type(self))}
        values["options"] = pairs(values.pop("option"))
        values["prefix_caching"] = not values.pop("no_prefix_caching")
        if self.draft_model is not None:
            values["draft_model"] = str(resolve_model(self.draft_model))
        return EngineConfig(model=str(resolve_model(model)), **values)


@dataclass(frozen=True, kw_only=True)
class SamplingFlags:
    """How tokens are drawn. Greedy unless asked otherwise, so that a command run twice says the same."""

    max_tokens: Annotated[int, flag(_SAMPLING, "Tokens to generate at most.", metavar="N")] = 128
    temperature: Annotated[float, flag(_SAMPLING, "0: the most likely token each time.", metavar="X")] = 0.0
    top_k: Annotated[int, flag(_SAMPLING, "Draw from the N most likely tokens. 0: all.", metavar="N")] = 0
    top_p: Annotated[float, flag(_SAMPLING, "Draw from the likeliest that make up this share.", metavar="X")] = 1.0
    min_p: Annotated[float, flag(_SAMPLING, "Leave out those below this share of the best.", metavar="X")] = 0.0
    seed: Annotated[
        int | None, flag(_SAMPLING, "The same seed draws the same tokens, on any backend.", metavar="N")
    ] = None
    repetition_penalty: Annotated[
        float, flag(_SAMPLING, "Above 1: avoid tokens of prompt and output.", metavar="X")
    ] = 1.0
    presence_penalty: Annotated[float, flag(_SAMPLING, "Above 0: avoid tokens of the output.", metavar="X")] = 0.0
    frequency_penalty: Annotated[float, flag(_SAMPLING, "Likewise, by how often they came.", metavar="X")] = 0.0
    stop: Annotated[list[str], flag(_SAMPLING, "End before this text. May be repeated.", metavar="TEXT")] = field(
        default_factory=list
    )
    ignore_eos: Annotated[bool, flag(_SAMPLING, "Go on after the model has ended.", "--ignore-eos")] = False

    def params(self, **more: Any) -> SamplingParams:
        """Build the SamplingParams. Raises ParameterError for a value out of range."""
        from ..text import SamplingParams  # noqa: PLC0415

        return SamplingParams(**{name: getattr(self, name) for name in _names(type(self))}, **more)


_DEBUG = inspect.Parameter(  # accepted after the command too, where people look for it last
    "debug",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--debug", hidden=True)],
)


def unfold(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function Typer's kind of signature: parameters that are dataclasses become their fields, and --debug."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name in groups:
            parameters += _parameters(groups[parameter.name])
        else:
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(parameter.replace(annotation=hints[parameter.name], kind=kind))

    parameters.append(_DEBUG)

    @wraps(command)
    def run(**values: Any) -> Any:
        if values.pop("debug"):
            os.environ["ISOTOKEN_DEBUG"] = "1"
        for name, group in groups.items():
            values[name] = group(**{key: values.pop(key) for key in _names(group)})
        return command(**values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameters(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=each.default if each.default_factory is MISSING else each.default_factory(),
            annotation=hints[each.name],
        )
        for each in fields(group)
    ]


def _names(group: Any) -> list[str]:
    return [each.name for each in fields(group)]


def pairs(options: list[str]) -> dict[str, str]:
    """Read what --option was given, such as ["block_size=64"]."""
    values = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{option!r} is not of the form KEY=VALUE", param_hint="--option")
        values[key] = value
    return values
