"""ServedModel: one model behind the routes: its engine, its names and the way from text to its tokens."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import __version__
from ..engine import AsyncEngine
from ..text import TextModel
from .prompts import Prompter
from .settings import ServerSettings

if TYPE_CHECKING:
    from ..fleet.leases import Leases


class ServedModel:
    """A model whose engine is up."""

    def __init__(self, engine: AsyncEngine, settings: ServerSettings, *, family: str = "", version: str = "") -> None:
        """Serve this engine, maybe as a version of a family of models.

        Raises ParameterError for a chat template (a setting) that is no valid one.
        """
        if settings.chat_template:
            engine.text.use_chat_template(settings.chat_template)
        self.engine = engine
        self.names = settings.served_model_names or (default_name(Path(engine.info.model)),)  # the first is its id
        self.family = family or self.names[0]  # what its versions have in common
        self.version = version  # 64 hexadecimal digits; empty where the server knows of no versions
        self.leases: Leases | None = None  # counts the requests that hold it, where it may be made to go
        self.fingerprint = _fingerprint(engine)
        self.prompter = Prompter(engine.text, engine.info.max_model_len, settings)
        if settings.features.structured is not None:
            engine.vetting.settings = settings.features.structured
        model_defaults = settings.generation_config == "model"
        self.default_params: dict[str, Any] = engine.text.default_params() if model_defaults else {}

    @property
    def name(self) -> str:
        """The model's id, which answers carry when they were asked for no model by name: name@version in a fleet."""
        return self.names[0]

    def called(self, asked: str) -> str:
        """Return what an answer calls the model: as it was asked for, or exactly, where there are versions."""
        return self.names[0] if self.version else asked or self.names[0]

    @property
    def text(self) -> TextModel:
        """The model's tokenizer and chat template."""
        return self.engine.text


def default_name(folder: Path) -> str:
    """Return what a model is called by default: the hub's id for a folder of its cache, else the folder's name."""
    repository = folder.parent.parent.name
    if folder.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/")
    return folder.name


def _fingerprint(engine: AsyncEngine) -> str:
    """Name what decides the numbers: the model, the version, the backend and its arithmetic."""
    info = engine.info
    facts = (__version__, Path(info.model).name, info.weight_bytes, info.backend, info.device, info.dtype)
    return "fp_" + hashlib.sha256(repr(facts).encode()).hexdigest()[:10]
