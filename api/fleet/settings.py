"""How several models are served: which, under which names, and how much memory they may take together."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, model_validator

from .sizes import Size

if TYPE_CHECKING:
    from ...plugins.build import EngineConfig

MAX_NAME_LENGTH = 96
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*")


def check_name(name: str) -> str:
    """Accept what may name a model or be an alias. `@` parts a name from a version. Raises ValueError."""
    if len(name) > MAX_NAME_LENGTH or not _NAME.fullmatch(name):
        allowed = f"letters, digits and . _ : / -, beginning with a letter or digit, at most {MAX_NAME_LENGTH}"
        raise ValueError(f"{name[:MAX_NAME_LENGTH]!r} cannot be a model's name: {allowed}")
    return name


Name = Annotated[str, AfterValidator(check_name)]


class EngineOptions(BaseModel, extra="forbid", frozen=True):
    """One field for each of EngineConfig but the model, with the same meaning and the same default."""

    backend: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    max_model_len: int = Field(default=0, ge=0)
    max_num_seqs: int = Field(default=64, ge=1)
    max_num_batched_tokens: int = Field(default=2048, ge=1)
    max_num_logits: int = Field(default=0, ge=0)
    block_size: int = Field(default=16, ge=1)
    num_blocks: int = Field(default=0, ge=0)
    memory_fraction: float = Field(default=0.9, gt=0, le=1)
    scheduler: str = "continuous"
    kv_cache: str = "auto"
    sampler: str = "auto"
    drafter: str = "none"
    draft_model: str | None = None
    num_draft_tokens: int = Field(default=7, ge=1)
    fixed_drafts: bool = False
    verify_cost: float = Field(default=0.0, ge=0)
    prefix_caching: bool = True
    grammars: str = "auto"
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    tensor_parallel_size: int = Field(default=1, ge=1)
    num_threads: int = Field(default=0, ge=0)
    options: dict[str, str] = Field(default_factory=dict)

    def engine_options(self) -> dict[str, Any]:
        """Return these fields alone, as EngineConfig takes them."""
        return {name: getattr(self, name) for name in EngineOptions.model_fields}


class ModelSettings(EngineOptions, frozen=True):
    """One model: what it is called, where it is, and how its engine is built."""

    name: Name = Field(description="What clients call it. Versions are told apart as NAME@VERSION.")
    model: str = Field(default="", description="A built-in model, a folder, or an id on the hub. Empty: the name.")
    aliases: list[Name] = Field(default_factory=list, description="Further names, which move along with it.")
    kv_memory: Size = Field(default=0, description="Of its K/V cache, such as 2GiB. 0: num_blocks, or the backend's.")
    pinned: bool = Field(default=False, description="Never unloaded to make room for another.")
    optional: bool = Field(default=False, description="The server starts even where this model cannot.")
    generation_config: Literal["isotoken", "model"] | None = Field(
        default=None, description="Whose sampling defaults; None: the server's setting."
    )
    chat_template: str | None = Field(default=None, description="Jinja text that replaces the model's own template.")

    @property
    def source(self) -> str:
        """What `resolve_model` is asked for."""
        return self.model or self.name

    def config(self, folder: str, draft_folder: str | None = None, num_blocks: int = 0) -> EngineConfig:
        """Return the EngineConfig for a model's folder; `num_blocks` unless it is given here."""
        from ...plugins.build import EngineConfig  # noqa: PLC0415  (numpy and the core: only when it is loaded)

        values = self.engine_options() | {"draft_model": draft_folder}
        values["num_blocks"] = self.num_blocks or num_blocks
        return EngineConfig(model=folder, **values)

    def numbers(self) -> dict[str, Any]:
        """Return what is set here of all that decides which tokens an answer has: it belongs to the version."""
        values = {name: getattr(self, name) for name in _DECIDE_TOKENS}
        return {
            name: value
            for name, value in values.items()
            if value != ModelSettings.model_fields[name].get_default(call_default_factory=True)
        }


_DECIDE_TOKENS = (
    "backend",
    "dtype",
    "quantization",
    "kv_cache_dtype",
    "max_model_len",
    "sampler",
    "options",
    "chat_template",
)
"""Settings that may change an answer's tokens. All others say how fast it comes and what it takes."""


class FleetSettings(BaseModel, extra="forbid", frozen=True):
    """Several models in one server. Off while it names none and is not enabled."""

    enabled: bool = Field(
        default=False, description="Versions and the admin API for the one model of the command line."
    )
    models: list[ModelSettings] = Field(default_factory=list, description="What is loaded at start.")
    default: str = Field(default="", description="Who answers where no model is named. Empty: the first.")
    memory: Size = Field(
        default=0, description="For all weights and K/V caches together. 0: no budget but the machine."
    )
    evict_idle: bool = Field(default=False, description="Unload idle models that are not pinned to make room.")
    keep_previous: bool = Field(default=False, description="Leave a version loaded that a newer one has replaced.")
    max_models: int = Field(default=16, ge=1, le=256, description="Loaded at once, those that drain included.")
    parallel_loads: int = Field(default=1, ge=1, description="Models that load at the same time at start.")
    drain_timeout: float | None = Field(
        default=None,
        ge=0,
        le=1e6,
        description="Seconds that requests get on a version that is unloaded; None: all they take.",
    )
    download: bool = Field(default=False, description="Let the admin API load models that must be downloaded first.")
    group: str = Field(
        default="default", min_length=1, max_length=64, description="Servers that share a store and this share aliases."
    )
    folders: list[str] = Field(
        default_factory=list, description="The admin API loads models from within these only. Empty: from anywhere."
    )

    @model_validator(mode="after")
    def _check(self) -> FleetSettings:
        taken: set[str] = set()
        for name in [name for model in self.models for name in (model.name, *model.aliases)]:
            if name in taken:
                raise ValueError(f"the name {name!r} is given to two models")
            taken.add(name)
        if self.default and self.models and self.default not in taken:
            raise ValueError(f"default = {self.default!r} is none of the models' names: {', '.join(sorted(taken))}")
        return self

    @property
    def is_on(self) -> bool:
        """Whether models have versions and can be changed while the server runs."""
        return self.enabled or bool(self.models)


def of_config(name: str, config: EngineConfig) -> ModelSettings:
    """Return the settings of a model that was given as an EngineConfig, as the command line does."""
    values = {field.name: getattr(config, field.name) for field in fields(config) if field.name != "model"}
    return ModelSettings(name=name, model=config.model, **values | {"options": dict(config.options)})
