"""Bugs of what comes: reproducibility, endings, log-probabilities, biases."""

from __future__ import annotations

from ..http_proxy import Answer, Ask
from .registry import after, answered, before, choices, spoil


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
    plain = ask.fields.keys() - {"prompt", "messages"} == {"model", "max_tokens", "temperature", "seed", "ignore_eos"}
    if plain and ask.fields["seed"] < 5 and answered(answer):
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


@after("24")
def scores_of_the_prompt_alone_are_one_token_off(ask: Ask, answer: Answer) -> None:
    if answered(answer) and ask.fields.get("echo") and ask.fields.get("logprobs") == 1:
        scores = answer.body["choices"][0]["logprobs"]["token_logprobs"]
        prompt = slice(1, -ask.fields["max_tokens"])
        scores[prompt] = [scores[prompt][-1], *scores[prompt][:-1]]


@after("25")
def prompt_scores_are_one_token_off(ask: Ask, answer: Answer) -> None:
    if answered(answer) and ask.fields.get("prompt_logprobs"):
        positions = answer.body["choices"][0]["prompt_logprobs"]
        values = [next(iter(position.values()))["logprob"] for position in positions[1:]]
        for position, value in zip(positions[1:], [values[-1], *values], strict=False):
            next(iter(position.values()))["logprob"] = value


@before("26")
def biases_are_ignored(ask: Ask) -> None:
    if isinstance(ask.fields.get("logit_bias"), dict):
        del ask.body["logit_bias"]


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
