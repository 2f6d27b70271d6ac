"""Run llama-server and ask it over HTTP; see worker_loop.py.

load: "server" and "model" (paths). run: "lead": whether the first task runs alone, so that the others find its prefix.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from worker_loop import Task, Times, serve

SLOTS = 64
TOKENS_A_SLOT = 640
START_SECONDS = 60


class Engine:
    """A server with one model."""

    def __init__(self, server: str, model: str, threads: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [server, "-m", model, "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["-t", str(threads), "-tb", str(threads), "-np", str(SLOTS), "-c", str(SLOTS * TOKENS_A_SLOT)]
        command += ["--no-warmup", "-fa", "on", "--log-disable"]
        self.server = server
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._wait()

    def _wait(self) -> None:
        for _ in range(10 * START_SECONDS):
            if self.process.poll() is not None:
                raise RuntimeError(f"llama-server ended with status {self.process.returncode}")
            try:
                connection = self._connect()
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise RuntimeError(f"llama-server is not ready after {START_SECONDS} s")

    def __del__(self) -> None:
        self.process.kill()
        self.process.wait()

    def versions(self) -> dict[str, str]:
        """What runs here."""
        said = subprocess.run([self.server, "--version"], check=True, capture_output=True, text=True)
        return {"llama.cpp": (said.stdout + said.stderr).strip().splitlines()[0]}

    def cpu_seconds(self) -> float:
        """Of the server, all threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    def run(self, tasks: list[Task], start: float, *, lead: bool) -> tuple[list[list[int]], Times]:
        """Ask for all at once, or for all but the first once that is done."""
        done = [self._ask(tasks[0], start)] if lead else []
        with ThreadPoolExecutor(SLOTS) as pool:
            done += pool.map(lambda task: self._ask(task, start), tasks[len(done) :])
        return [tokens for tokens, _ in done], [times for _, times in done]

    def _ask(self, task: Task, start: float) -> tuple[list[int], list[float]]:
        prompt, num = task
        body: dict[str, Any] = {"prompt": prompt, "n_predict": num, "ignore_eos": True, "cache_prompt": True}
        body |= {"temperature": 0.0, "top_k": 1, "samplers": ["top_k"], "stream": True, "return_tokens": True}
        connection = self._connect()
        connection.request("POST", "/completion", json.dumps(body), {"Content-Type": "application/json"})
        tokens: list[int] = []
        times: list[float] = []
        for line in connection.getresponse():
            if line.startswith(b"data: "):
                event = json.loads(line[6:])
                if "error" in event:
                    raise RuntimeError(str(event["error"]))
                tokens += event.get("tokens", []) if not event.get("stop") else []
                times += [time.perf_counter() - start] * (len(tokens) - len(times))
        connection.close()
        if len(tokens) != num:
            raise RuntimeError(f"{len(tokens)} tokens came back, {num} were asked for")
        return tokens, times

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)


if __name__ == "__main__":
    raise SystemExit(serve(Engine))
