"""The restore drill: a backup under load, the database lost, everything there again."""

from __future__ import annotations

import random
import threading
from pathlib import Path

from isotoken.api.backup.make import make_backup
from isotoken.api.backup.restore import restore_backup
from isotoken.api.store import StoreSettings, connect

from .serving import Client, serving
from .test_exactness import PRICES, check, read


def restore(file: Path, url: str, journal: Path | None) -> None:
    store = connect(StoreSettings(url=url))
    restore_backup(file, store, journal=journal)
    store.close_now()


def test_the_drill(tmp_path: Path, model_dir: Path) -> None:
    """With the journal nothing is missing; without it, all that had ended when the backup was made is there."""
    seed = random.randrange(2**32)
    print(f"SEED={seed}")
    rng = random.Random(seed)
    url, file, journal = f"sqlite:///{tmp_path / 'usage.db'}", tmp_path / "isotoken.backup", tmp_path / "ledger"
    config = {"max_model_len": 256, "block_size": 4}
    with serving(tmp_path, model_dir, store=url, config=config, prices=PRICES) as server:
        clients = [Client(server, random.Random(rng.random()), f"d{number}") for number in range(3)]
        clients[0].run(2)
        server.settle()
        threads = [threading.Thread(target=client.run, args=(4,)) for client in clients[1:]]
        for thread in threads:
            thread.start()
        store = connect(StoreSettings(url=url))
        make_backup(file, store, journal=journal)
        store.close_now()
        for thread in threads:
            thread.join()
        server.wait_for(lambda: server.metric("llm_requests_in_flight") == 0)
        server.process.kill()
        server.process.wait()
    counted = server.engine_counts()
    seen = [request for client in clients for request in client.seen]
    for path in tmp_path.glob("usage.db*"):
        path.unlink()

    alone = f"sqlite:///{tmp_path / 'alone.db'}"
    restore(file, alone, None)
    rows, sums = read(alone)
    assert sums["requests"] == len(rows) and sums["cost"] == sum(row["cost"] for row in rows.values())
    check([request for request in seen if request.id in rows or request.id.startswith("d0-")], rows, counted)

    fresh = f"sqlite:///{tmp_path / 'fresh.db'}"
    restore(file, fresh, journal)
    with serving(tmp_path, model_dir, store=fresh, config=config, prices=PRICES) as server:
        server.settle()
        assert server.client.get("/v1/usage").json()["total"]["requests"] > 0
        rows, sums = read(fresh)
    assert sums["requests"] == len(rows) and sums["cost"] == sum(row["cost"] for row in rows.values())
    check(seen, rows, counted)
