"""Settings: off by default, by tenant, and wrong ones are told with their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from isotoken.api.config.check import check
from isotoken.api.config.problems import ConfigError
from isotoken.api.safety.safety import FilterError, open_safety
from isotoken.api.safety.settings import SafetySettings
from isotoken.plugins.manager import Plugins
from pydantic import ValidationError


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins.load()


def test_off_is_nothing(plugins: Plugins) -> None:
    assert open_safety(SafetySettings(), plugins) is None
    assert open_safety(SafetySettings(log_prompts=True), plugins) is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"default": {"outputs": [{"filter": "pi"}]}}, r"safety.default.outputs.0: unknown filter 'pi'.*'pii'"),
        ({"tenants": {"a": {"prompts": [{"filter": "pii", "acton": "flag"}]}}}, r"tenants.a.prompts.0: acton: Extra"),
        ({"default": {"outputs": [{"filter": "block_list", "patterns": ["("]}]}}, "RE2 refuses"),
        ({"default": {"outputs": [{"filter": "moderation", "classifier": "oracle"}]}}, "unknown classifier 'oracle'"),
        ({"moderations": "oracle"}, "safety.moderations: unknown classifier 'oracle'"),
    ],
)
def test_wrong_filters(plugins: Plugins, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(FilterError, match=message):
        open_safety(SafetySettings(**settings), plugins)


@pytest.mark.parametrize("settings", [{"defaults": {}}, {"default": {"prompt": []}}, {"default": {"outputs": [{}]}}])
def test_wrong_fields(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SafetySettings(**settings)


def test_the_configuration_is_checked_with_its_filters(tmp_path: Path) -> None:
    file = tmp_path / "isotoken.yaml"
    file.write_text("safety: {default: {outputs: [{filter: pii, acton: redact}]}}\n")
    with pytest.raises(ConfigError, match=r"isotoken.yaml.*safety.default.outputs\[0\]: acton"):
        check(file)
    file.write_text("safety: {default: {outputs: [{filter: pii, action: redact}]}}\n")
    assert "a good configuration" in check(file)
