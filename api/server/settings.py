"""How the HTTP server is asked to behave: one frozen value, made by the command line or by an embedding program."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..engine.limits import Limits
from .features import Features


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Everything about HTTP. What the engine is made of is in EngineConfig."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0: any free one
    served_model_names: tuple[
        str, ...
    ] = ()  # the first is the model's id, the others are aliases; empty: the folder's name
    limits: Limits = field(default_factory=Limits)
    generation_config: Literal["isotoken", "model"] = "isotoken"  # whose sampling defaults apply
    chat_template: str | None = None  # Jinja text that replaces the model's own template
    trust_request_chat_template: bool = (
        False  # a template can loop for long: only take them from clients that you trust
    )
    route_plugins: tuple[str, ...] = ()  # plugins whose api_routes() are served
    slow_reader_timeout: float = 30.0  # seconds that the client of a stream may take nothing
    drain_timeout: float = 30.0  # seconds that running requests get after SIGTERM
    keep_alive_timeout: int = 75  # seconds that an idle connection stays open
    features: Features = field(default_factory=Features)  # what is off by default

    def __post_init__(self) -> None:
        """Refuse values that no server could honour."""
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port = {self.port} is not allowed: it must be 0 to 65535")
        if self.slow_reader_timeout <= 0:
            raise ValueError(
                f"slow_reader_timeout = {self.slow_reader_timeout} is not allowed: it must be above 0 seconds"
            )
        if self.drain_timeout < 0:
            raise ValueError(f"drain_timeout = {self.drain_timeout} is not allowed: it must be at least 0 seconds")
