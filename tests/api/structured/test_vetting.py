"""Grammars are tried out in a process that may be killed: verdicts are kept, hostile ones cost nobody else anything."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from isotoken.api.engine.types import EngineInfo
from isotoken.api.errors import NotOffered, Overloaded, ParameterError
from isotoken.api.structured.outputs import StructuredOutputs
from isotoken.api.structured.settings import StructuredSettings
from isotoken.api.structured.vetting import Vetting
from isotoken.api.text import TextModel

from .hostile import GRAMMARS

pytest.importorskip("llguidance", reason="grammars need the extra: pip install 'isotoken[structured]'")

GOOD = StructuredOutputs(regex="[ab]+")
SLOW = StructuredOutputs(parts=GRAMMARS["many properties"])
MUST_BE_REFUSED = (
    *("a remote reference", "a file as reference", "a reference to itself", "deep nesting"),
    *("many properties", "nested groups", "nested GBNF", "a grammar of many rules", "left recursion for ever"),
)


@pytest.fixture(scope="module")
def info(model_dir: Path) -> EngineInfo:
    vocab_size = TextModel.load(model_dir).tokenizer.get_vocab_size()
    facts: dict[str, Any] = dict.fromkeys(EngineInfo.__dataclass_fields__, 0)
    facts |= {"model": str(model_dir), "vocab_size": vocab_size, "eos_token_ids": frozenset({1}), "no_grammars": ""}
    return EngineInfo(**{**facts, "why": (), "settings": {}})


def with_vetting(info: EngineInfo, body: Callable[[Vetting], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(120):
            vetting = Vetting(info)
            vetting.settings = StructuredSettings(**settings)
            try:
                await body(vetting)
            finally:
                await vetting.close()

    asyncio.run(main())


async def verdict(vetting: Vetting, outputs: StructuredOutputs) -> str:
    try:
        await vetting.check(outputs)
    except ParameterError as error:
        return str(error)
    return ""


def test_good_ones_pass_and_bad_ones_are_refused_with_a_reason(info: EngineInfo) -> None:
    async def body(vetting: Vetting) -> None:
        assert await verdict(vetting, GOOD) == ""
        refusal = await verdict(vetting, StructuredOutputs(regex="(", name="response_format"))
        assert refusal.startswith("response_format is not allowed: ") and len(refusal) > 40
        assert "satisfy" in await verdict(vetting, StructuredOutputs(json={"$ref": "#"}))

    with_vetting(info, body)


def test_hostile_grammars_are_refused_or_cheap_and_stall_nobody(info: EngineInfo) -> None:
    """While all of them are under trial at once, a good grammar is answered; afterwards the process still lives."""

    async def body(vetting: Vetting) -> None:
        assert await verdict(vetting, GOOD) == ""
        assert vetting._process is not None
        pid = vetting._process.pid
        hostile = [
            asyncio.create_task(verdict(vetting, StructuredOutputs(parts=grammar))) for grammar in GRAMMARS.values()
        ]
        await asyncio.sleep(0)
        assert await verdict(vetting, StructuredOutputs(regex="[xyz]+")) == ""
        verdicts = dict(zip(GRAMMARS, await asyncio.gather(*hostile), strict=True))
        for name in MUST_BE_REFUSED:
            assert verdicts[name], name
        assert vetting._process.pid == pid and vetting._process.returncode is None
        children = psutil.Process(pid).children()
        assert children == []

    with_vetting(info, body, compile_cpu_s=1, max_waiting_each=64)


def test_a_grammar_that_takes_too_long_is_killed_and_remembered(info: EngineInfo) -> None:
    async def body(vetting: Vetting) -> None:
        await verdict(vetting, GOOD)
        started = time.monotonic()
        first = await verdict(vetting, SLOW)
        took = time.monotonic() - started
        assert "longer than 1 s" in first
        started = time.monotonic()
        assert await verdict(vetting, SLOW) == first
        assert time.monotonic() - started < took / 10

    with_vetting(info, body, compile_cpu_s=1, compile_timeout_s=60)


def test_the_same_grammar_is_tried_once(info: EngineInfo) -> None:
    async def body(vetting: Vetting) -> None:
        await asyncio.gather(*(verdict(vetting, GOOD) for _ in range(20)))
        assert next(vetting._ids) == 1
        for index in range(5):
            await verdict(vetting, StructuredOutputs(regex=f"a{index}"))
        assert await verdict(vetting, GOOD) == ""
        assert next(vetting._ids) == 8  # it was forgotten meanwhile
        assert len(vetting._verdicts) == 3

    with_vetting(info, body, max_cached=3)


def test_nobody_may_have_many_under_trial(info: EngineInfo) -> None:
    async def body(vetting: Vetting) -> None:
        greedy = [asyncio.create_task(vetting.check(StructuredOutputs(regex=f"a{i}"), "greedy")) for i in range(6)]
        other = asyncio.create_task(vetting.check(StructuredOutputs(regex="b"), "other"))
        results = await asyncio.gather(*greedy, other, return_exceptions=True)
        assert [isinstance(result, Overloaded) for result in results] == [False] * 2 + [True] * 4 + [False]
        await vetting.check(StructuredOutputs(regex="c"), "greedy")

    with_vetting(info, body, max_waiting_each=2)


def test_the_process_is_started_again_when_it_dies(info: EngineInfo) -> None:
    async def body(vetting: Vetting) -> None:
        await verdict(vetting, GOOD)
        assert vetting._process is not None
        os.kill(vetting._process.pid, signal.SIGKILL)
        assert await verdict(vetting, StructuredOutputs(regex="again")) == ""

    with_vetting(info, body)


def test_a_trial_under_way_starts_no_process_after_the_end(info: EngineInfo) -> None:
    async def body(vetting: Vetting) -> None:
        await verdict(vetting, GOOD)
        under_way = asyncio.create_task(vetting.check(SLOW))
        while not vetting._answers:
            await asyncio.sleep(0)
        await vetting.close()
        with pytest.raises(Overloaded):
            await under_way
        assert vetting._process is None

    with_vetting(info, body)


def test_without_the_library_requests_are_told_what_is_missing(info: EngineInfo) -> None:
    async def body(vetting: Vetting) -> None:
        with pytest.raises(NotOffered, match=r"isotoken\[structured\]"):
            await vetting.check(GOOD)

    with_vetting(replace(info, no_grammars="grammars need llguidance: pip install 'isotoken[structured]'"), body)
