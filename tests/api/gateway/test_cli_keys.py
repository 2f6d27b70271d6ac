"""`isotoken keys`: what a person types, and what comes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from isotoken.api.cli import main
from isotoken.api.gateway.api_key import is_well_formed


@pytest.fixture
def isotoken(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):  # noqa: ANN201
    monkeypatch.setenv("ISOTOKEN_DATA", str(tmp_path / "data"))

    def run(*arguments: str, code: int = 0) -> str:
        assert main(["keys", *arguments]) == code
        out, err = capsys.readouterr()
        return err if code else out

    return run


def test_a_key_from_its_making_to_its_end(isotoken) -> None:  # noqa: ANN001
    assert isotoken("list").split() == ["ID", "KEY", "STATE", "TENANT", "NAME", "EXPIRES"]
    secret = isotoken(
        "create", "--tenant", "acme", "--name", "web site", "--model", "small", "--expires", "90d"
    ).strip()
    assert is_well_formed(secret)
    (made,) = json.loads(isotoken("list", "--json"))
    assert (made["tenant"], made["models"], made["state"]) == ("acme", ["small"], "active")
    assert secret.startswith(made["hint"].removesuffix("..."))
    shown = isotoken("show", made["id"])
    assert "web site" in shown
    assert secret not in shown
    assert "revoked" in isotoken("revoke", made["id"])
    assert "revoked" in isotoken("list")
    assert made["id"] not in isotoken("list", "--active")
    assert "there is no key 'key_x'" in isotoken("revoke", "key_x", code=1)


def test_limits_and_rights_are_kept(isotoken) -> None:  # noqa: ANN001
    limits = ["--requests-per-minute", "60", "--tokens-per-minute", "9000", "--max-concurrency", "4"]
    limits += ["--max-context", "4096", "--max-output", "512"]
    made = json.loads(
        isotoken("create", "--admin", "--route", "/v1/*", "--priority", "-1", "--weight", "2.5", *limits, "--json")
    )
    assert is_well_formed(made.pop("key"))
    assert made["limits"] == {
        "requests_per_minute": 60,
        "tokens_per_minute": 9000,
        "max_concurrency": 4,
        "max_context": 4096,
        "max_output": 512,
    }
    assert (made["admin"], made["routes"], made["priority"], made["weight"]) == (True, ["/v1/*"], -1, 2.5)


def test_times_are_read_as_people_write_them(isotoken) -> None:  # noqa: ANN001
    day = json.loads(isotoken("create", "--expires", "2031-01-31", "--json"))
    assert day["expires"] == "2031-01-31T00:00:00+00:00"
    for wrong in ("soon", "999999w"):
        assert "90d" in isotoken("create", "--expires", wrong, code=2)
    assert "is over" in isotoken("create", "--expires", "2001-01-31", code=2)
    assert "weight" in isotoken("create", "--weight", "0", code=1)
