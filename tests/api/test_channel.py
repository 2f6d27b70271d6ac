"""The channel: every message arrives whole and equal, whatever pieces the socket brings it in."""

from __future__ import annotations

import random
import socket
from dataclasses import fields

import pytest
from isotoken.api.engine.channel import Channel
from isotoken.api.engine.messages import Abort, Output, Step, Stop, Submit, ToEngine, pack, unpack_from_engine
from isotoken.core.types import DecodeParams, FinishReason, RequestOutput, StepStats, TokenLogprobs

PARAMS = DecodeParams(
    max_tokens=3,
    min_tokens=1,
    temperature=0.5,
    top_k=4,
    top_p=0.9,
    min_p=0.1,
    seed=2**64 - 1,
    presence_penalty=0.1,
    frequency_penalty=-0.2,
    repetition_penalty=1.3,
    logit_bias={5: -1.5},
    allowed_token_ids=(1, 2),
    bad_words_ids=((3, 4), (5,)),
    stop_token_ids=frozenset({6, 7}),
    ignore_eos=True,
    num_logprobs=2,
    num_prompt_logprobs=-1,
    grammar='start: "a"',
)


def test_every_field_of_a_request_arrives() -> None:
    assert all(getattr(PARAMS, each.name) != getattr(DecodeParams(), each.name) for each in fields(DecodeParams))
    submit = Submit("a", [1, 2], PARAMS, [3], priority=-1, timeout_s=1.5, cache_salt=b"\x00\xff")
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    sent: list[ToEngine] = [submit, Abort(["a", "b"]), Submit("c", list(range(5000)), DecodeParams()), Stop()]
    stream = b"".join(pack(message) for message in sent)
    cuts = sorted(rng.sample(range(1, len(stream)), 40))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(theirs)
        assert channel.receive(block=False) == []
        received: list[ToEngine] = []
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            ours.sendall(stream[start:end])
            received += channel.receive(block=False)
        assert received == sent
        ours.close()
        with pytest.raises(EOFError):
            channel.receive(block=True)


def test_every_field_of_a_step_arrives() -> None:
    output = RequestOutput(
        request_id="a",
        token_ids=[1, 2],
        finish_reason=FinishReason.STOP,
        stop_token_id=2,
        logprobs=[TokenLogprobs(1, -0.5, 1, [(1, -0.5)]), TokenLogprobs(2, -1.5, 3, [])],
        prompt_logprobs=[TokenLogprobs(9, -2.5, 1, [(9, -2.5)])],
        num_cached_tokens=16,
        error="why",
    )
    stats = StepStats(**{each.name: i for i, each in enumerate(fields(StepStats))})  # type: ignore[arg-type]
    frame = pack(Step([Output.from_core(output)], stats, ["b"]))
    step = unpack_from_engine(frame[4:])
    assert isinstance(step, Step)
    assert step.outputs[0].to_core() == output
    assert (step.stats, step.started) == (stats, ["b"])
