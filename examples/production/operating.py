"""What an operator does: configuration, versions, failures, monitoring, costs, privacy, backup."""

from __future__ import annotations

import json
import shlex
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from client import QUESTION, Answer, Load, load, until

if TYPE_CHECKING:
    from run import Stand

STORY = {"model": "small", "prompt": "Once upon a time", "max_tokens": 160, "temperature": 0, "ignore_eos": True}


def configuration(stand: Stand, _: float) -> tuple[bool, list[str]]:
    """The configuration is checked, and says where its values come from."""
    folder = f"{Path(__file__).parent.resolve()}/"
    checked = stand.isotoken("config", "check", f"{folder}isotoken.yaml").replace(folder, "")
    shown = stand.isotoken("config", "show", "--changed").replace(folder, "").splitlines()
    wanted = ("port:", "url:", "authenticator:")
    return True, [
        "$ isotoken config check isotoken.yaml",
        _short(checked.strip()),
        "$ isotoken config show --changed",
        *(_short(line) for line in shown if line.strip().startswith(wanted)),
    ]


def versions(stand: Stand, seconds: float) -> tuple[bool, list[str]]:
    """A new version takes over under load and is rolled back: no request fails, and answers say who gave them."""
    acme = stand.clients["acme"]
    found: list[Load] = []
    ask = threading.Thread(
        target=lambda: found.append(load(lambda _: acme.chat(QUESTION, model="small"), clients=4, seconds=seconds))
    )
    ask.start()
    admin = ("--url", stand.url)
    lines = [
        f"$ isotoken {shlex.join(each)}"
        for each in (("models", "load", "small", "isotoken-draft"), ("models", "rollback", "small"))
    ]
    time.sleep(seconds / 4)
    stand.isotoken("models", "load", "small", "isotoken-draft", *admin)
    time.sleep(seconds / 4)
    stand.isotoken("models", "rollback", "small", *admin)
    ask.join()
    given = Counter(answer.headers.get("x-isotoken-model", "?") for answer in found[0].answers)
    statuses = Counter(answer.status for answer in found[0].answers)
    status = stand.isotoken("models", "status", *admin).splitlines()
    lines += [f"answers by status, while that happened: {dict(statuses)}", f"answered by: {dict(given)}"]
    return set(statuses) == {200} and len(given) == 2, [*lines, "$ isotoken models status", *status]


def failure(stand: Stand, _: float) -> tuple[bool, list[str]]:
    """The engine is killed in the middle of a stream, which goes on with the same tokens."""
    acme = stand.clients["acme"]
    undisturbed = "".join(chunk["choices"][0]["text"] for chunk in acme.stream(STORY) if chunk["choices"])
    assert stand.process is not None
    text, killed = "", []
    for chunk in acme.stream(STORY):
        text += chunk["choices"][0]["text"] if chunk["choices"] else ""
        if not killed and len(text) > 40:
            for child in psutil.Process(stand.process.pid).children(recursive=True):
                killed.append(child.pid)
                child.kill()
    lines = [f"killed with SIGKILL: {len(killed)} processes, every engine among them", f"the stream: {text[:70]!r}..."]
    return text == undisturbed and bool(killed), [*lines, f"the same text as undisturbed: {text == undisturbed}"]


def monitoring(stand: Stand, _: float) -> tuple[bool, list[str]]:
    """Prometheus sees it: queries of the dashboard, the state of alerts, what an autoscaler would go by."""
    if not stand.prometheus:
        return True, ["Prometheus is not installed here: make services"]
    queries = {
        "requests a second": "sum(rate(llm_requests_total[1m]))",
        "p99 of the first token, s": (
            "histogram_quantile(0.99, sum by (le) (rate(llm_time_to_first_token_seconds_bucket[1m])))"
        ),
        "load, for autoscaling": "model:llm_load:ratio",
        "engine restarts": "sum(llm_engine_restarts_total)",
    }
    lines = []
    for title, query in queries.items():
        found = _ask_prometheus(stand.prometheus, query)
        lines.append(
            f"{title}: "
            + ", ".join(f"{each['metric'].get('model', '')} {float(each['value'][1]):.4g}".strip() for each in found)
        )
    with urllib.request.urlopen(f"{stand.prometheus}/api/v1/rules", timeout=30) as response:
        rules = [rule for group in json.load(response)["data"]["groups"] for rule in group["rules"]]
    unwell = [rule["name"] for rule in rules if rule["health"] == "err"]
    firing = [f"{rule['name']} ({rule['state']})" for rule in rules if rule.get("state", "inactive") != "inactive"]
    lines += [f"{len(rules)} rules, with errors: {unwell or 'none'}", f"alerts: {', '.join(firing) or 'none'}"]
    lines += ["$ isotoken top --once", *stand.isotoken("top", stand.url, "--once").splitlines()]
    return not unwell, lines


def costs(stand: Stand, _: float) -> tuple[bool, list[str]]:
    """What each tenant used is what its answers said, to the token, and has a price."""
    owner = stand.make_key("counted", "--tenant", "counted")
    answers = [owner.chat(f"{i}: {QUESTION}", model=("small", "draft")[i % 2]) for i in range(10)]
    said = sum(answer.body["usage"]["total_tokens"] for answer in answers)
    asked = ("usage", "--tenant", "counted", "--by", "tenant", "--json")

    def counted() -> int:
        rows = json.loads(stand.isotoken(*asked))
        return sum(
            row["prompt_tokens"] + row["generated_tokens"] for row in (rows if isinstance(rows, list) else rows["data"])
        )

    ledger = until(counted, said)
    table = stand.isotoken("usage", "--by", "tenant,model").splitlines()
    return ledger == said, [
        f"tokens in 10 answers: {said}; in the ledger: {ledger}",
        "$ isotoken usage --by tenant,model",
        *table,
    ]


def privacy(stand: Stand, _: float) -> tuple[bool, list[str]]:
    """The log knows requests, not what was said, and no keys."""
    log = (stand.folder / "server.log").read_text()
    held = [
        text
        for text in ("capital of Japan", "Once upon", "jane.doe", *(c.key for c in stand.clients.values()))
        if text in log
    ]
    lines = [line for line in log.splitlines() if '"/v1/chat/completions"' in line]
    return not held and bool(lines), [
        f"{len(log.splitlines())} lines; prompts, addresses or keys in them: {len(held)}",
        _short(lines[-1], 300),
    ]


def drill(stand: Stand, _: float) -> tuple[bool, list[str]]:
    """The server drains and ends well; from a backup everything comes back."""
    file = stand.folder / "isotoken.backup"
    said = stand.isotoken("backup", str(file)).strip()
    before = stand.isotoken("usage", "--by", "tenant,model", "--csv")
    code = stand.stop()
    started = time.monotonic()
    stand.isotoken("restore", str(file), "--force")
    seconds = time.monotonic() - started
    after = stand.isotoken("usage", "--by", "tenant,model", "--csv")
    stand.serve()
    answer: Answer = stand.clients["acme"].chat(QUESTION, model="small")
    lines = ["$ isotoken backup isotoken.backup", _short(said), f"SIGTERM: exit code {code}"]
    lines += [f"$ isotoken restore isotoken.backup --force: {seconds:.1f} s", f"usage as before: {before == after}"]
    return (code, before == after, answer.status) == (0, True, 200), [
        *lines,
        f"the same key, after a start: {answer.status}",
    ]


def _ask_prometheus(url: str, query: str) -> list[dict[str, object]]:
    with urllib.request.urlopen(f"{url}/api/v1/query?query={urllib.parse.quote(query)}", timeout=30) as response:
        found: list[dict[str, object]] = json.load(response)["data"]["result"]
    return found


def _short(text: str, length: int = 150) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
