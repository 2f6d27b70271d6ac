"""The bugs that the suite over a server must find, each with the behaviours that it breaks, and no other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from isotoken.conformance.http.routes import PROMPTS

from .http_proxy import Answer, Ask, Bug

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"

BUGS: dict[str, Bug] = {"none": Bug(frozenset())}

After = Callable[[Ask, Answer], None]
Before = Callable[[Ask], None]


def after(*breaks: str) -> Callable[[After], After]:
    """Register a bug of answers. Its name is the function's."""

    def register(function: After) -> After:
        BUGS[function.__name__.replace("_", "-")] = Bug(frozenset(f"HTTP-{n}" for n in breaks), after=function)
        return function

    return register


def before(*breaks: str) -> Callable[[Before], Before]:
    """Register a bug of how requests are read."""

    def register(function: Before) -> Before:
        BUGS[function.__name__.replace("_", "-")] = Bug(frozenset(f"HTTP-{n}" for n in breaks), before=function)
        return function

    return register


def answered(answer: Answer) -> bool:
    """Whether it is a whole answer with choices."""
    return answer.status == 200 and isinstance(answer.body, dict) and "choices" in answer.body


def choices(answer: Answer) -> Iterator[dict[str, Any]]:
    """Every choice of an answer, or every part of one."""
    for event in [answer.body, *(answer.events or [])]:
        if isinstance(event, dict):
            yield from event.get("choices") or ()


def spoil(choice: dict[str, Any], text: str) -> None:
    """Put another text in."""
    if "message" in choice:
        choice["message"]["content"] = text
    elif "text" in choice:
        choice["text"] = text
    else:
        choice["delta"]["content"] = text


# --- routes and whole answers -------------------------------------------------------------------


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


# --- streams ------------------------------------------------------------------------------------


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


# --- reproducibility ----------------------------------------------------------------------------


@after("13")
def the_third_time_is_another(ask: Ask, answer: Answer) -> None:
    plain = ask.fields.keys() - {"prompt", "messages"} == {"model", "max_tokens", "temperature", "ignore_eos"}
    if answered(answer) and plain and ask.repeats == 2 and ask.fields["max_tokens"] == 16:
        spoil(answer.body["choices"][0], "another")


@after("14")
def seeds_are_for_once(ask: Ask, answer: Answer) -> None:
    if answered(answer) and "seed" in ask.fields and "cache_salt" not in ask.fields and ask.repeats:
        spoil(answer.body["choices"][0], "another")


@after("14")
def every_seed_is_the_same(ask: Ask, answer: Answer) -> None:
    if ask.fields.get("seed") in (1, 2, 3, 4) and answered(answer) and len(ask.fields) == 6:
        spoil(answer.body["choices"][0], "the same")


@after("15")
def company_changes_the_text(ask: Ask, answer: Answer) -> None:
    if answer.events and ask.fields.get("seed", 0) > 100 and ask.repeats == 3:
        spoil(answer.events[1]["choices"][0], "another")


@after("16")
def a_warm_cache_changes_the_text(ask: Ask, answer: Answer) -> None:
    if answered(answer) and "cache_salt" in ask.fields and ask.repeats:
        spoil(answer.body["choices"][0], "another")


@after("17")
def top_p_is_ignored(ask: Ask, answer: Answer) -> None:
    if answered(answer) and ask.fields.get("top_p", 1) < 1:
        spoil(answer.body["choices"][0], "another")


# --- endings ------------------------------------------------------------------------------------


@after("18")
def a_token_too_many(ask: Ask, answer: Answer) -> None:
    if answered(answer) and ask.fields.get("max_tokens") == 7:
        answer.body["usage"]["completion_tokens"] += 1
        answer.body["usage"]["total_tokens"] += 1


@after("18")
def a_token_too_few(ask: Ask, answer: Answer) -> None:
    if answered(answer) and ask.fields.get("max_tokens") == 7:
        answer.body["usage"]["completion_tokens"] -= 1
        answer.body["usage"]["total_tokens"] -= 1


@after("19")
def the_stop_string_leaks(ask: Ask, answer: Answer) -> None:
    if answered(answer) and "stop" in ask.fields and "include_stop_str_in_output" not in ask.fields:
        for choice in choices(answer):
            if choice["finish_reason"] == "stop":
                text = choice["message"]["content"] if "message" in choice else choice["text"]
                spoil(choice, text + ask.fields["stop"][0])


@after("19")
def a_streams_stop_string_leaks(ask: Ask, answer: Answer) -> None:
    if answer.events and "stop" in ask.fields:
        *_, last = choices(answer)
        if last["finish_reason"] == "stop":
            spoil(last, ask.fields["stop"][0][:1])


@before("19")
def only_the_first_stop_string_counts(ask: Ask) -> None:
    if isinstance(ask.fields.get("stop"), list):
        ask.body["stop"] = ask.body["stop"][:1]


@after("19")
def half_a_stop_string_is_swallowed(ask: Ask, answer: Answer) -> None:
    for choice in choices(answer):
        if answer.events and "stop" in ask.fields and choice["finish_reason"] == "length":
            spoil(choice, "")


@after("20")
def nobody_says_what_stopped_it(ask: Ask, answer: Answer) -> None:
    for choice in choices(answer):
        choice.pop("stop_reason", None)


@before("20")
def min_tokens_is_ignored(ask: Ask) -> None:
    ask.fields.pop("min_tokens", None)


# --- log-probabilities --------------------------------------------------------------------------


@after("21")
def a_probability_above_1(ask: Ask, answer: Answer) -> None:
    if answered(answer) and ask.fields.get("logprobs") == 3:
        found = answer.body["choices"][0]["logprobs"]
        found["token_logprobs"][2] = found["top_logprobs"][2][found["tokens"][2]] = 0.25


@after("21")
def a_token_is_no_alternative_of_its_own(ask: Ask, answer: Answer) -> None:
    if answered(answer) and ask.fields.get("logprobs") == 3:
        found = answer.body["choices"][0]["logprobs"]
        del found["top_logprobs"][1][found["tokens"][1]]


@after("21")
def a_list_is_shorter(ask: Ask, answer: Answer) -> None:
    if answered(answer) and ask.fields.get("logprobs") == 3:
        answer.body["choices"][0]["logprobs"]["text_offset"].pop()


@after("21")
def tokens_of_another_text(ask: Ask, answer: Answer) -> None:
    if answered(answer) and ask.fields.get("logprobs") == 3:
        answer.body["choices"][0]["text"] += "more"


@after("22")
def alternatives_in_rising_order(ask: Ask, answer: Answer) -> None:
    if answered(answer) and ask.fields.get("top_logprobs") == 5:
        for item in answer.body["choices"][0]["logprobs"]["content"]:
            item["top_logprobs"].reverse()


@after("22")
def bytes_of_another_text(ask: Ask, answer: Answer) -> None:
    if answered(answer) and ask.fields.get("top_logprobs") == 5:
        answer.body["choices"][0]["logprobs"]["content"][0]["bytes"] = [120, 121]


@after("23")
def a_chunk_without_logprobs(ask: Ask, answer: Answer) -> None:
    if answer.events and 2 in (ask.fields.get("logprobs"), ask.fields.get("top_logprobs")):
        next(choice for choice in choices(answer) if choice["logprobs"])["logprobs"] = None


@before("24", "25")
def echo_is_ignored(ask: Ask) -> None:
    ask.fields.pop("echo", None)


@after("24")
def the_first_token_has_a_score(ask: Ask, answer: Answer) -> None:
    if answered(answer) and ask.fields.get("echo") and ask.fields.get("logprobs") == 1:
        answer.body["choices"][0]["logprobs"]["token_logprobs"][0] = -1.0


@after("24")
def scores_are_one_token_off(ask: Ask, answer: Answer) -> None:
    if answered(answer) and ask.fields.get("echo") and ask.fields.get("logprobs") == 1:
        scores = answer.body["choices"][0]["logprobs"]["token_logprobs"]
        scores[1:] = [scores[-1], *scores[1:-1]]


@after("25")
def prompt_scores_are_one_token_off(ask: Ask, answer: Answer) -> None:
    if answered(answer) and ask.fields.get("prompt_logprobs"):
        positions = answer.body["choices"][0]["prompt_logprobs"]
        values = [next(iter(position.values()))["logprob"] for position in positions[1:]]
        for position, value in zip(positions[1:], [values[-1], *values], strict=False):
            next(iter(position.values()))["logprob"] = value


# --- biases -------------------------------------------------------------------------------------


@before("26")
def biases_are_ignored(ask: Ask) -> None:
    ask.fields.pop("logit_bias", None)


@before("26")
def bans_are_ignored(ask: Ask) -> None:
    if isinstance(ask.fields.get("logit_bias"), dict):
        ask.body["logit_bias"] = {key: value for key, value in ask.body["logit_bias"].items() if value > 0}


@before("27")
def anything_is_allowed(ask: Ask) -> None:
    ask.fields.pop("allowed_token_ids", None)


@before("27")
def bad_words_are_fine(ask: Ask) -> None:
    ask.fields.pop("bad_words", None)


# --- errors -------------------------------------------------------------------------------------


@before("28")
def any_model_will_do(ask: Ask) -> None:
    if not ask.is_stream:
        ask.fields.pop("model", None)


@after("28")
def another_frameworks_errors_for_models(ask: Ask, answer: Answer) -> None:
    if answer.status == 404 and ask.method == "POST" and not ask.is_stream:
        answer.body = {"detail": "Not Found"}


@after("29")
def another_frameworks_errors(ask: Ask, answer: Answer) -> None:
    if answer.status == 400 and ask.fields.get("stream") is not True and "context" not in str(answer.body):
        answer.status, answer.body = 422, {"detail": [{"loc": ["body"], "msg": "bad"}]}


@after("29")
def the_field_is_not_named(ask: Ask, answer: Answer) -> None:
    if answer.status == 400 and ask.fields and not ask.is_stream and "context" not in str(answer.body):
        answer.body["error"] |= {"message": "bad request", "param": None}


@after("29")
def bad_json_is_a_500(ask: Ask, answer: Answer) -> None:
    if answer.status == 400 and ask.body is None:
        answer.status = 500


@after("30")
def a_long_prompt_is_a_500(ask: Ask, answer: Answer) -> None:
    if answer.status == 400 and "context" in str(answer.body):
        answer.status = 500


@before("30")
def a_long_prompt_is_cut(ask: Ask) -> None:
    if ask.path in (COMPLETIONS, CHAT):
        ask.body["truncate_prompt_tokens"] = 1000


@after("31")
def errors_come_as_streams(ask: Ask, answer: Answer) -> None:
    if answer.status >= 400 and ask.is_stream and ask.path != "/generate_stream" and ask.fields["stream"] is True:
        answer.status, answer.events = 200, [answer.body, "[DONE]"]
        answer.headers["content-type"] = "text/event-stream"


@after("32")
def unknown_routes_are_a_page(ask: Ask, answer: Answer) -> None:
    if answer.status == 404 and ask.method == "GET" and "models" not in ask.path:
        answer.body, answer.content = None, b"<h1>Not Found</h1>"


# --- load and metrics ---------------------------------------------------------------------------


@after("33")
def all_answers_have_one_id(ask: Ask, answer: Answer) -> None:
    for event in [answer.body, *(answer.events or [])]:
        if isinstance(event, dict) and "choices" in event:
            event["id"] = "cmpl-1"


BUGS["work-goes-on-for-those-who-left"] = Bug(frozenset({"HTTP-34"}), deaf=True)


@after("35")
def prompts_are_not_counted(ask: Ask, answer: Answer) -> None:
    if ask.path == "/metrics":
        lines = answer.content.decode().splitlines(keepends=True)
        answer.content = "".join(line for line in lines if not line.startswith("llm_prompt_tokens_total ")).encode()


# --- text ---------------------------------------------------------------------------------------


@after("36")
def characters_are_broken(ask: Ask, answer: Answer) -> None:
    if answer.events and len(ask.fields.get("logit_bias", ())) > 1:
        for choice in choices(answer):
            text = choice.get("text") or choice.get("delta", {}).get("content") or ""
            broken = "".join(character if character < "\x80" else "\ufffd\ufffd" for character in text)
            if text:
                spoil(choice, broken)


@after("37")
def a_token_more_is_counted(ask: Ask, answer: Answer) -> None:
    if ask.path == "/tokenize":
        answer.body["count"] += 1


@after("37")
def spaces_are_lost_on_the_way_back(ask: Ask, answer: Answer) -> None:
    if ask.path == "/detokenize" and len(ask.fields["tokens"]) > 1:
        answer.body["prompt"] = answer.body["prompt"].replace("  ", " ")


@after("38")
def tokens_are_not_told_special(ask: Ask, answer: Answer) -> None:
    if ask.path == "/generate" and answer.status == 200:
        for token in answer.body["details"]["tokens"]:
            del token["special"]


@after("38")
def tgi_errors_are_openais(ask: Ask, answer: Answer) -> None:
    if ask.path == "/generate" and answer.status == 422:
        answer.status, answer.body = 400, {"error": {"message": answer.body["error"], "type": "invalid_request_error"}}


@after("39")
def the_last_event_has_no_text(ask: Ask, answer: Answer) -> None:
    if ask.path == "/generate_stream" and answer.events:
        answer.events[-1]["generated_text"] = None


@after("40")
def request_ids_are_the_servers(ask: Ask, answer: Answer) -> None:
    answer.headers["x-request-id"] = f"own-{id(answer)}"
