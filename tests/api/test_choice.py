"""Stop strings, stop tokens and log-probabilities of one choice, for any split of its tokens into steps."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pytest
from isotoken.api.choice import Choice, TextDelta
from isotoken.api.stop_strings import StopStrings
from isotoken.api.text import SamplingParams, TextModel
from isotoken.core.types import FinishReason, RequestOutput, TokenLogprobs

EOS = {1}


def outputs(rng: random.Random, ids: Sequence[int], reason: FinishReason, **last: object) -> Iterator[RequestOutput]:
    """The tokens as an engine may publish them: some each step, log-probabilities beside them."""
    ids = list(ids)
    while True:
        taken, ids = ids[: (size := rng.randrange(1, 5))], ids[size:]
        logprobs = [TokenLogprobs(token_id, -float(token_id), 1, []) for token_id in taken]
        if not ids:
            yield RequestOutput(request_id="r", token_ids=taken, logprobs=logprobs, finish_reason=reason, **last)  # type: ignore[arg-type]
            return
        yield RequestOutput(request_id="r", token_ids=taken, logprobs=logprobs)


def run(choice: Choice, stream: Iterator[RequestOutput]) -> list[TextDelta]:
    deltas = []
    for output in stream:
        deltas.append(choice.feed(output))
        if deltas[-1].finish_reason is not None:
            break
    return deltas


def first_end(text: str, stops: Sequence[str]) -> tuple[int, str] | None:
    """Where the first stop string is complete, by trying every place; the longest of several."""
    for end in range(1, len(text) + 1):
        if found := [stop for stop in stops if text[:end].endswith(stop)]:
            return end, max(found, key=len)
    return None


@pytest.mark.parametrize("include", [False, True])
def test_deltas_add_up_to_the_text_before_the_first_stop_string(text_model: TextModel, include: bool) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    num_stopped = 0
    for _ in range(400):
        ids = rng.choices(range(2, text_model.tokenizer.get_vocab_size()), k=rng.randrange(1, 30))
        text = text_model.decode(ids)
        places = [(rng.randrange(len(text) + 1), rng.randrange(1, 6)) for _ in range(rng.randrange(3))]
        stops = [stop for at, size in places if (stop := text[at : at + size])]
        params = SamplingParams(stop=stops, include_stop_str_in_output=include, logprobs=0)
        deltas = run(Choice(text_model, params, EOS), outputs(rng, ids, FinishReason.LENGTH))
        shown = "".join(delta.text for delta in deltas)
        tokens = [token for delta in deltas for token in delta.token_ids]
        logprobs = [entry.token_id for delta in deltas for entry in delta.logprobs or []]
        assert logprobs == tokens == ids[: len(tokens)]
        if (hit := first_end(text, stops)) is None:
            assert (shown, tokens, deltas[-1].finish_reason) == (text, ids, FinishReason.LENGTH)
            continue
        num_stopped += 1
        end, stop = hit
        assert shown == text[: end if include else end - len(stop)]
        assert (deltas[-1].finish_reason, deltas[-1].stop_reason) == (FinishReason.STOP, stop)
        if len(tokens) < len(ids):  # ended by the token that completes the stop string, by no earlier one
            assert first_end(text_model.decode(tokens[:-1]).rstrip("\ufffd"), stops) is None
    assert num_stopped > 50


def test_what_may_become_a_stop_string_is_held_back_until_it_cannot() -> None:
    stops = StopStrings(["<end>", "<else>"])
    assert stops.feed("a<") == ("a", None)
    assert stops.feed("e") == ("", None)
    assert stops.feed("x") == ("<ex", None)
    assert stops.feed("b<en") == ("b", None)
    assert stops.flush() == "<en"


def test_overlapping_stop_strings_end_at_the_first_that_is_complete() -> None:
    assert StopStrings(["abcd", "bc"]).feed("xabcd") == ("xa", "bc")
    assert StopStrings(["bc", "abc"]).feed("xabc") == ("x", "abc")  # both at once: the longest
    assert StopStrings(["aab"]).feed("aaab") == ("a", "aab")  # a failed start may hold the next one


def test_no_stop_string_counts_before_min_tokens(text_model: TextModel) -> None:
    ids = text_model.encode("zero one zero one zero")
    rng = random.Random(0)
    params = SamplingParams(stop="zero", min_tokens=len(ids) - 1)
    deltas = run(Choice(text_model, params, EOS), outputs(rng, ids, FinishReason.LENGTH))
    assert "".join(delta.text for delta in deltas) == "zero one zero one "
    assert deltas[-1].stop_reason == "zero"


def test_the_end_token_is_counted_but_not_shown(text_model: TextModel) -> None:
    word = text_model.encode("fox")
    for stop_id, shown, reason in ((1, "", None), (300, text_model.token_text(300), 300)):
        for include in (False, True):
            params = SamplingParams(stop_token_ids=[300], include_stop_str_in_output=include)
            stream = outputs(random.Random(1), [*word, stop_id], FinishReason.STOP, stop_token_id=stop_id)
            deltas = run(Choice(text_model, params, EOS), stream)
            assert "".join(delta.text for delta in deltas) == "fox" + (shown if include else "")
            assert [token for delta in deltas for token in delta.token_ids] == [*word, stop_id]
            assert (deltas[-1].finish_reason, deltas[-1].stop_reason) == (FinishReason.STOP, reason)


def test_special_tokens_are_shown_when_asked_for(text_model: TextModel) -> None:
    params = SamplingParams(skip_special_tokens=False)
    deltas = run(Choice(text_model, params, EOS), outputs(random.Random(1), [2, 3], FinishReason.LENGTH))
    assert "".join(delta.text for delta in deltas) == "<|user|><|assistant|>"


def test_an_unfinished_character_and_held_text_come_out_at_the_end(text_model: TextModel) -> None:
    first_byte = next(i for i in range(4, 300) if text_model.token_bytes(i) == b"\xf0")
    for ids, shown in ((text_model.encode("fox<e"), "fox<e"), ([*text_model.encode("fox"), first_byte], "fox\ufffd")):
        choice = Choice(text_model, SamplingParams(stop="<end>"), EOS)
        deltas = run(choice, outputs(random.Random(1), ids, FinishReason.LENGTH))
        assert "".join(delta.text for delta in deltas) == shown
