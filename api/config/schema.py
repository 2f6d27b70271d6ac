"""Config: every section of the configuration, each by the part of isotoken that it is for."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ..fleet.settings import FleetSettings, ModelSettings
from ..gateway.settings import GatewaySettings
from ..ledger.settings import LedgerSettings
from ..routing.settings import RoutingSettings
from ..safety.settings import SafetySettings
from ..store.settings import StoreSettings
from ..structured.settings import StructuredSettings
from ..telemetry.settings import TelemetrySettings
from . import ENV_DELIMITER, ENV_PREFIX
from .sections import EngineSection, LimitsSection, ServerSection

if TYPE_CHECKING:
    from ..server.features import Features


class Config(BaseSettings):
    """The configuration of `isotoken serve`. Without any, everything is as its default says."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=ENV_DELIMITER,
        env_parse_none_str="null",
        extra="forbid",
        frozen=True,
    )

    server: ServerSection = Field(default_factory=ServerSection)  # type: ignore[valid-type]
    limits: LimitsSection = Field(default_factory=LimitsSection)  # type: ignore[valid-type]
    engine: EngineSection = Field(default_factory=EngineSection)
    models: list[ModelSettings] = Field(
        default_factory=list,
        description="What is served, each with fields of `engine` where it differs. None: the built-in model.",
    )
    fleet: FleetSettings = Field(default_factory=FleetSettings, description="How several models live together.")
    store: StoreSettings = Field(default_factory=StoreSettings, description="The database of keys and usage.")
    gateway: GatewaySettings = Field(default_factory=GatewaySettings, description="Keys, limits and the fair queue.")
    ledger: LedgerSettings = Field(default_factory=LedgerSettings, description="Usage, prices and budgets.")
    routing: RoutingSettings = Field(default_factory=RoutingSettings, description="A/B, routers, escalation, shadows.")
    safety: SafetySettings = Field(default_factory=SafetySettings, description="Filters and moderation.")
    structured: StructuredSettings = Field(default_factory=StructuredSettings, description="Grammars and tools.")
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings, description="Traces, logs and metrics.")

    @model_validator(mode="after")
    def _check(self) -> Config:
        """Check what concerns several sections."""
        if self.fleet.models:
            raise ValueError("fleet.models is not allowed here: the models are listed at the top, under `models`")
        self.fleet_settings()
        return self

    def fleet_settings(self) -> FleetSettings:
        """Return the fleet with its models, each with what `engine` says where it says nothing itself."""
        shared = {name: getattr(self.engine, name) for name in self.engine.model_fields_set}
        models = [{**shared, **model.model_dump(exclude_unset=True)} for model in self.models]
        return FleetSettings(**{**self.fleet.model_dump(exclude_unset=True), "models": models})

    def features(self) -> Features:
        """Return the features that are configured; one that is not stays off, and costs nothing."""
        from ..server.features import Features  # noqa: PLC0415  (the server: only when it is to start)

        given = {each.name for each in fields(Features)} & self.model_fields_set
        chosen: dict[str, Any] = {name: getattr(self, name) for name in given}
        if self.models or self.fleet.is_on:
            chosen["fleet"] = self.fleet_settings()
        return Features(**chosen)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what load.py has put together and nothing else: it remembers where each value came from."""
        return (init_settings,)
