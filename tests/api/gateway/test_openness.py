"""No server is open to other machines by chance."""

from __future__ import annotations

import logging

import pytest
from isotoken.api.cli import main
from isotoken.api.gateway.openness import TooOpen, check_openness
from isotoken.api.gateway.settings import GatewaySettings


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_without_keys_this_machine_may_ask(host: str, caplog: pytest.LogCaptureFixture) -> None:
    check_openness(host, GatewaySettings())
    assert not caplog.records


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_without_keys_others_may_not_unless_that_is_said(host: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(TooOpen, match="isotoken keys create"):
        check_openness(host, GatewaySettings())
    with pytest.raises(TooOpen):
        check_openness(host, None)
    check_openness(host, GatewaySettings(authenticator="keys"))
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        check_openness(host, GatewaySettings(open=True))
    assert "OPEN" in caplog.text


def test_a_server_that_would_be_open_does_not_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--host", "0.0.0.0", "--port", "0"]) == 1
    assert "isotoken keys create" in capsys.readouterr().err
