"""`isotoken usage` and `isotoken store`, beyond the report: what is removed, what is brought again, what is said."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import pytest
from isotoken.api.cli import main
from isotoken.api.ledger.database import add_entries
from isotoken.api.ledger.journal import Journal
from isotoken.api.ledger.reports import Wanted, usage
from isotoken.api.store.database import Store

from .conftest import Make

DAY = 86400.0


def url_of(store: Store) -> str:
    return f"sqlite:///{store.engine.url.database}"


def requests_of(store: Store) -> dict[str, int]:
    rows = store.look(partial(usage, wanted=Wanted(by=("tenant",))))
    return {row["tenant"]: row["requests"] for row in rows}


def test_prune_delete_and_json(sqlite_store: Store, make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    url = url_of(sqlite_store)
    old = make(ended=time.time() - 100 * DAY)("j", 1)
    sqlite_store.call(partial(add_entries, entries=[old, make()("j", 2), make(tenant="other")("j", 3)]))
    assert main(["usage", "prune", "--database", url]) == 0
    assert "removed 1 entries and 0 sums" in capsys.readouterr().out
    assert main(["usage", "--json", "--by", "tenant", "--database", url]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["currency"] == "USD" and told["total"]["requests"] == 3
    assert told["data"][0] == {**told["total"], "tenant": "acme", "requests": 2, "prompt_tokens": 20,
                               "generated_tokens": 10, "cost": "0.000000000014"}  # fmt: skip
    assert main(["usage", "delete", "acme", "--yes", "--keep-totals", "--database", url]) == 0
    assert requests_of(sqlite_store) == {"deleted": 2, "other": 1}
    assert main(["usage", "delete", "deleted", "--yes", "--database", url]) == 0
    assert requests_of(sqlite_store) == {"other": 1}


def test_a_tenant_is_taken_out_of_everything(
    sqlite_store: Store, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    from isotoken.api.gateway.keys import KeyRequest, create_key, list_keys

    url = url_of(sqlite_store)
    for tenant in ("acme", "acme", "other"):
        request = KeyRequest(tenant=tenant, name=f"website of {tenant}")
        sqlite_store.call(partial(create_key, asked=request))
    sqlite_store.call(partial(add_entries, entries=[make()("j", 1), make(tenant="other")("j", 2)]))
    assert main(["tenants", "delete", "acme", "--yes", "--database", url]) == 0
    assert "revoked 2 keys, removed 1 entries and 1 sums" in capsys.readouterr().out
    keys = sqlite_store.look(list_keys)
    assert sorted((key.request.tenant, key.state) for key in keys) == [("deleted", "revoked")] * 2 + [
        ("other", "active")
    ]
    sqlite_store.engine.dispose()
    assert b"acme" not in Path(str(sqlite_store.engine.url.database)).read_bytes()
    assert requests_of(sqlite_store) == {"other": 1}


def test_a_journal_is_brought_again(
    sqlite_store: Store, make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, folder = url_of(sqlite_store), tmp_path / "ledger"
    journal = Journal(folder)
    made = [journal.append(make()) for _ in range(5)]
    sqlite_store.call(partial(add_entries, entries=made[:3]))
    assert main(["usage", "replay", str(folder), "--database", url]) == 1
    assert "another server writes its ledger" in capsys.readouterr().err
    journal.close()
    assert main(["usage", "replay", str(folder), "--database", url]) == 0
    assert "read 5 entries: 2 were missing" in capsys.readouterr().out
    assert requests_of(sqlite_store) == {"acme": 5}


def test_the_store_says_where_it_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    assert main(["store", "status", "--database", url]) == 0
    assert "nothing; this isotoken has" in capsys.readouterr().out
    assert main(["store", "upgrade", "--database", url]) == 0
    assert "they were those of nothing" in capsys.readouterr().out
    assert main(["store", "status", "--json", "--database", url]) == 0
    assert json.loads(capsys.readouterr().out)["rows"]["usage_entries"] == 0


def test_mistakes_are_told_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    cases = [
        (["usage", "--since", "yesterday"], 2, "no day such as"),
        (["usage", "--by", "colour"], 1, "is not counted by colour"),
        (["backup", str(tmp_path / "no" / "folder")], 1, "is no folder"),
        (["restore", __file__], 1, "no whole backup"),
    ]
    for arguments, code, words in cases:
        assert main([*arguments, "--database", url]) == code
        assert words in capsys.readouterr().err
    assert main(["usage", "--database", "postgresql://nobody:hunter2@127.0.0.1:1/none"]) == 1
    told = capsys.readouterr().err
    assert "does not answer" in told and "hunter2" not in told
