"""Bugs of whole answers and of streams."""

from __future__ import annotations

import json

from isotoken.conformance.http.routes import PROMPTS

from ..http_proxy import Answer, Ask
from .registry import CHAT, COMPLETIONS, after, answered, choices, spoil


@after("1")
def the_list_is_no_list(ask: Ask, answer: Answer) -> None:
    if ask.path == "/v1/models" and ask.method == "GET":
        answer.body["object"] = "models"


@after("2")
def a_model_looks_different_alone(ask: Ask, answer: Answer) -> None:
    if ask.path.startswith("/v1/models/") and answer.status == 200:
        answer.body["created"] += 1


@after("2")
def unknown_models_are_shown(ask: Ask, answer: Answer) -> None:
    if ask.path.startswith("/v1/models/"):
        answer.status = 200


@after("3")
def health_is_500(ask: Ask, answer: Answer) -> None:
    if ask.path == "/health":
        answer.status = 500


@after("4")
def completions_are_not_dated(ask: Ask, answer: Answer) -> None:
    if ask.path == COMPLETIONS and answered(answer):
        answer.body["created"] = None


@after("4")
def completions_have_logprobs_unasked(ask: Ask, answer: Answer) -> None:
    if ask.path == COMPLETIONS and answered(answer) and "logprobs" not in ask.fields:
        names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
        answer.body["choices"][0]["logprobs"] = {name: [] for name in names}


@after("5")
def a_bot_chats(ask: Ask, answer: Answer) -> None:
    if ask.path == CHAT and answered(answer):
        answer.body["choices"][0]["message"]["role"] = "bot"


@after("6")
def the_total_is_no_sum(ask: Ask, answer: Answer) -> None:
    for event in [answer.body, *(answer.events or [])]:
        if isinstance(event, dict) and event.get("usage"):
            event["usage"]["total_tokens"] += 1


@after("6")
def usage_counts_the_prompt_for_every_choice(ask: Ask, answer: Answer) -> None:
    if answered(answer) and ask.fields.get("n") == 3:
        usage = answer.body["usage"]
        usage["prompt_tokens"] *= ask.fields["n"]
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]


@after("7")
def choices_are_numbered_backwards(ask: Ask, answer: Answer) -> None:
    if isinstance(ask.fields.get("prompt"), list) and answer.status == 200:
        count = len(ask.fields["prompt"]) * ask.fields.get("n", 1)
        for choice in choices(answer):
            choice["index"] = count - 1 - choice["index"]


@after("8")
def done_never_comes(ask: Ask, answer: Answer) -> None:
    if answer.events:
        answer.events = [event for event in answer.events if event != "[DONE]"]


@after("8")
def done_comes_twice(ask: Ask, answer: Answer) -> None:
    if answer.events and answer.events[-1] == "[DONE]" and len(ask.fields) == 5:
        answer.events.append("[DONE]")


@after("8")
def each_chunk_has_an_id_of_its_own(ask: Ask, answer: Answer) -> None:
    for number, event in enumerate(answer.events or ()):
        if isinstance(event, dict) and "id" in event:
            event["id"] += str(number)


@after("8")
def a_stream_is_called_plain_text(ask: Ask, answer: Answer) -> None:
    if answer.is_stream:
        answer.headers["content-type"] = "text/plain"


@after("9")
def streams_of_several_prompts_are_mixed_up(ask: Ask, answer: Answer) -> None:
    if answer.events and isinstance(ask.fields.get("prompt"), list):
        for choice in choices(answer):
            choice["index"] ^= 1


@after("9")
def the_first_piece_is_lost(ask: Ask, answer: Answer) -> None:
    if answer.events and ask.path == CHAT and ask.fields["messages"][0]["content"] == PROMPTS[2]:
        spoil(answer.events[1]["choices"][0], "")


@after("10")
def the_finish_is_dropped(ask: Ask, answer: Answer) -> None:
    for choice in choices(answer):
        if answer.events and choice["finish_reason"]:
            choice["finish_reason"] = None


@after("10")
def the_finish_comes_twice(ask: Ask, answer: Answer) -> None:
    for at, event in enumerate(answer.events or ()):
        if isinstance(event, dict) and event.get("choices") and event["choices"][0].get("finish_reason"):
            again = json.loads(json.dumps(event))
            again["choices"][0]["logprobs"] = None
            spoil({"delta": {}, **again["choices"][0]}, "")
            if "text" in again["choices"][0]:
                again["choices"][0]["text"] = ""
            answer.events.insert(at, again)
            return


@after("10")
def the_finish_is_another_in_streams(ask: Ask, answer: Answer) -> None:
    for choice in choices(answer):
        if answer.events and choice["finish_reason"] == "length":
            choice["finish_reason"] = "stop"


@after("11")
def the_role_is_left_out(ask: Ask, answer: Answer) -> None:
    for choice in choices(answer):
        choice.get("delta", {}).pop("role", None)


@after("11")
def every_chunk_says_the_role(ask: Ask, answer: Answer) -> None:
    for choice in choices(answer):
        if "delta" in choice:
            choice["delta"]["role"] = "assistant"


@after("12")
def the_usage_chunk_is_left_out(ask: Ask, answer: Answer) -> None:
    if answer.events:
        answer.events = [e for e in answer.events if not (isinstance(e, dict) and e.get("choices") == [])]


@after("12")
def every_chunk_has_usage(ask: Ask, answer: Answer) -> None:
    for event in answer.events or ():
        if isinstance(event, dict) and "choices" in event:
            event["usage"] = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


@after("12")
def the_usage_comes_double(ask: Ask, answer: Answer) -> None:
    for at, event in enumerate(answer.events or ()):
        if isinstance(event, dict) and event.get("choices") == []:
            answer.events.insert(at, event)  # type: ignore[union-attr]
            return


@after("12")
def usage_is_streamed_unasked(ask: Ask, answer: Answer) -> None:
    if answer.events and "stream_options" not in ask.fields and len(ask.fields) == 5 and "choices" in answer.events[0]:
        answer.events.insert(-1, {**answer.events[0], "choices": [], "usage": {"total_tokens": 1}})
