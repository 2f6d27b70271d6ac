"""Commands and programs in the documentation run as they stand, against a real server with the built-in model.

A block that follows `<!-- runnable: sh -->` or `<!-- runnable: python -->` is run; `<!-- runnable: serve -->` marks the
command that starts the server which the page's other blocks talk to.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/getting-started.md", "docs/python-api.md")
DOCUMENTED_URL = "http://127.0.0.1:8000"
EXPECTED = {  # what must come out, where it is not enough that the block runs
    ("README.md", 1): ["Paris"],
    ("README.md", 2): ["Tokyo"],
    ("README.md", 3): ["The capital of France is Paris.", "The capital of Japan is Tokyo."],
    ("docs/getting-started.md", 1): ["Tokyo"],
    ("docs/getting-started.md", 2): ["Tokyo"],
    ("docs/getting-started.md", 3): ["Paris"],
    ("docs/getting-started.md", 4): ["Tokyo"],
    ("docs/python-api.md", 0): ["The capital of France is ->  Paris"],
    ("docs/python-api.md", 1): ["Tokyo"],
    ("docs/python-api.md", 2): [" Paris"],
    ("docs/python-api.md", 3): ["top_p = 1.5 is not allowed: a number above 0 and at most 1"],
}


class Block(NamedTuple):
    page: str
    index: int
    how: str  # "sh", "python" or "serve"
    text: str


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        pattern = r"<!-- runnable: (\w+) -->\n```\w+\n(.*?)```"
        matches = re.findall(pattern, (ROOT / page).read_text(), re.DOTALL)
        found += [Block(page, index, how, text) for index, (how, text) in enumerate(matches)]
    return found


BLOCKS = blocks()
SEEDED = [block for block in BLOCKS if "--seed" in block.text]  # has a test of its own
RUNNABLE = [block for block in BLOCKS if block.how != "serve" and block not in SEEDED]


@pytest.fixture(scope="module")
def url(serve: Any) -> Iterator[str]:
    """Start the server that the pages start, on a free port."""
    commands = {block.text.strip() for block in BLOCKS if block.how == "serve"}
    (command,) = commands
    program, name, *flags = shlex.split(command)
    assert (program, name) == ("isotoken", "serve")
    with serve(*flags) as server:
        yield server.url


def run(block: Block, url: str) -> str:
    text = block.text.replace(DOCUMENTED_URL, url)
    arguments = [sys.executable, "-P", "-c", text] if block.how == "python" else ["sh", "-ec", text]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("block", RUNNABLE, ids=lambda block: f"{block.page}-{block.index}")
def test_the_block_runs_and_says_what_it_should(block: Block, url: str) -> None:
    output = run(block, url)
    for expected in EXPECTED.get((block.page, block.index), []):
        assert expected in output


def test_the_expectations_are_about_blocks_that_exist() -> None:
    assert set(EXPECTED) <= {(block.page, block.index) for block in RUNNABLE}


def test_the_same_seed_says_the_same_on_both_backends(url: str) -> None:
    (block,) = SEEDED
    commands = block.text.strip().splitlines()
    assert ["--backend" in commands[0], "--backend reference" in commands[1]] == [False, True]
    first, second = (run(block._replace(text=command), url) for command in commands)
    assert first == second


def test_the_first_request_is_answered_as_openai_would(url: str) -> None:
    block = next(block for block in RUNNABLE if block.page == "README.md")
    answer = json.loads(run(block, url))
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"].startswith(" Paris")
