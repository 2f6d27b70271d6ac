"""The sections, the flags and the values that they end in list the same fields, with the same defaults."""

from __future__ import annotations

from dataclasses import fields

import pytest
from isotoken.api.cli.flags import EngineFlags
from isotoken.api.cli.serve import LimitFlags, ServerFlags
from isotoken.api.config.load import load
from isotoken.api.config.schema import Config
from isotoken.api.config.sections import EngineSection
from isotoken.api.config.serving import plan
from isotoken.api.engine import Limits
from isotoken.api.fleet.settings import EngineOptions
from isotoken.api.server.features import Features
from isotoken.api.server.settings import ServerSettings
from isotoken.plugins.build import EngineConfig
from pydantic import ValidationError


def test_an_empty_configuration_is_as_no_configuration() -> None:
    flags = (ServerFlags(), EngineFlags(), LimitFlags())
    config, settings, level = plan(None, ["server.port=8000"], [], *flags, "isotoken-small")
    assert settings == ServerFlags().settings(LimitFlags()) == ServerSettings()
    assert settings.limits == Limits()
    assert config == EngineFlags().config("isotoken-small") == EngineConfig(model=config.model)
    assert level == "info"


def test_every_limit_has_a_flag_and_a_field() -> None:
    names = {each.name.removesuffix("_s") for each in fields(Limits)}
    assert (
        names
        == {each.name for each in fields(LimitFlags)}
        == set(type(load(environment={}).config.limits).model_fields)
    )


def test_every_feature_has_a_section() -> None:
    assert {each.name for each in fields(Features)} < set(Config.model_fields)


def test_a_feature_that_is_not_configured_is_off() -> None:
    features = load(environment={}, assignments=["telemetry.log_format=json"]).config.features()
    on = {each.name for each in fields(Features) if getattr(features, each.name) is not None}
    assert on == {"telemetry"}


def test_the_engine_section_is_what_a_model_may_say_of_its_own() -> None:
    ours, theirs = EngineSection(), EngineOptions()
    assert set(EngineSection.model_fields) == set(EngineOptions.model_fields)
    assert dict(ours) == dict(theirs)
    assert set(EngineSection.model_fields) == {each.name for each in fields(EngineConfig)} - {"model"}


@pytest.mark.parametrize(("field", "value"), [("max_num_seqs", 0), ("memory_fraction", 1.5), ("memory_fraction", 0)])
def test_bounds_are_those_of_the_flags(field: str, value: float) -> None:
    with pytest.raises(ValidationError):
        EngineSection(**{field: value})
