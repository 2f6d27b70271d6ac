"""`isotoken generate` and `isotoken chat` say what the Python API says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from isotoken import SamplingParams
from isotoken.api.llm import LLM

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def expected(model_dir: Path) -> Callable[..., str]:
    """What the Python API says to the same request."""
    llm = LLM(model_dir, backend="reference")

    def text_of(prompt: str | list[dict[str, str]], **params: Any) -> str:
        sampling = SamplingParams(**{"temperature": 0, "max_tokens": 12, **params})
        results = llm.generate(prompt, sampling) if isinstance(prompt, str) else llm.chat(prompt, sampling)
        return results[0].outputs[0].text

    return text_of


@pytest.fixture
def generate(command: Run, model_dir: Path) -> Run:
    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return command(
            "generate", "-m", str(model_dir), "--backend", "reference", "--max-tokens", "12", *arguments, **more
        )

    return run


def test_generate_prints_what_follows_the_prompt(generate: Run, expected: Callable[..., str]) -> None:
    done = generate("The quick")
    assert (done.returncode, done.stdout) == (0, expected("The quick") + "\n")


def test_generate_answers_several_prompts_in_order(generate: Run, expected: Callable[..., str]) -> None:
    prompts = ["zero one", "The quick brown fox jumps over the lazy", "whisky"]
    done = generate("--echo", *prompts)
    assert done.stdout == "".join(f"{prompt}{expected(prompt)}\n" for prompt in prompts)


def test_generate_reads_a_prompt_from_standard_input(generate: Run, expected: Callable[..., str]) -> None:
    assert generate(stdin="two three\n").stdout == expected("two three") + "\n"


def test_generate_draws_the_same_tokens_from_the_same_seed(generate: Run, expected: Callable[..., str]) -> None:
    done = generate("--temperature", "1", "--seed", "11", "The quick")
    assert done.stdout == expected("The quick", temperature=1, seed=11) + "\n"


def test_generate_as_json(generate: Run, expected: Callable[..., str]) -> None:
    done = generate("--json", "zero one", "The quick")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["prompt"] for line in lines] == ["zero one", "The quick"]
    assert [line["text"] for line in lines] == [expected("zero one"), expected("The quick")]
    assert all(line["finish_reason"] in ("stop", "length") and len(line["token_ids"]) <= 12 for line in lines)


def test_generate_refuses_a_prompt_beyond_the_context(generate: Run) -> None:
    done = generate("--max-model-len", "64", "word " * 100)
    assert (done.returncode, done.stdout) == (2, "")
    assert "maximum context length is 64 tokens" in done.stderr


BOOM = """
from isotoken.core.scheduler import ContinuousScheduler
from isotoken.plugins.hookspecs import hookimpl

ISOTOKEN_API = "1.0"

class Boom(ContinuousScheduler):
    steps = 0

    def schedule(self):
        self.steps += 1
        if self.steps > 4:
            raise RuntimeError("boom")
        return super().schedule()

@hookimpl
def register_schedulers(register):
    register("boom", Boom)
"""


def test_generate_says_which_plugin_ended_the_engine(
    generate: Run, expected: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "boom.py").write_text(BOOM)
    info = tmp_path / "boom-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: boom\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[isotoken]\nboom = boom\n")
    done = generate("--scheduler", "boom", "--debug", "The quick", PYTHONPATH=str(tmp_path))
    streamed = done.stdout.removesuffix("\n")
    assert streamed
    assert done.stdout == streamed + "\n"  # the error does not stick to what came
    assert expected("The quick").startswith(streamed)
    assert done.stderr.splitlines()[-1] == "isotoken: the engine has ended: RuntimeError: boom"
    assert f"{tmp_path / 'boom.py'}" in done.stderr  # --debug shows the plugin's frame
    assert done.returncode == 1


def test_chat_remembers_the_conversation(command: Run, model_dir: Path, expected: Callable[..., str]) -> None:
    done = command(
        "chat", str(model_dir), "--backend", "reference", "--max-tokens", "12", "--system", "Be brief.",
        stdin="one two\n\nthree\n/reset\none two\n/quit\nnever said\n",
    )  # fmt: skip
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one two"}]
    first = expected(messages)
    more = [{"role": "assistant", "content": first}, {"role": "user", "content": "three"}]
    assert done.stdout == f"{first}\n{expected([*messages, *more])}\n{first}\n"
    assert "a new conversation" in done.stderr
    assert done.returncode == 0


def test_chat_takes_a_system_prompt_on_the_way(command: Run, model_dir: Path, expected: Callable[..., str]) -> None:
    done = command(
        "chat", str(model_dir), "--backend", "reference", "--max-tokens", "12", stdin="/system Be brief.\none two\n"
    )
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one two"}]
    assert done.stdout == expected(messages) + "\n"
    assert "a new conversation with this system prompt" in done.stderr


def test_chat_goes_on_after_a_message_that_it_cannot_answer(
    command: Run, model_dir: Path, expected: Callable[..., str]
) -> None:
    done = command(
        "chat", str(model_dir), "--backend", "reference", "--max-tokens", "12", "--max-model-len", "64",
        stdin=f"{'word ' * 100}\n/no\none two\n",
    )  # fmt: skip
    assert done.stdout == expected([{"role": "user", "content": "one two"}]) + "\n"
    assert "maximum context length" in done.stderr
    assert "no such command: /no" in done.stderr
