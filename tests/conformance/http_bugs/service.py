"""Bugs of a service: errors, load, metrics, text, and text-generation-inference's routes."""

from __future__ import annotations

from ..http_proxy import Answer, Ask, Bug
from .registry import BUGS, CHAT, COMPLETIONS, after, before, choices, spoil


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
    if ask.path in (COMPLETIONS, CHAT) and ask.fields:
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
        answer.content = "".join(line for line in lines if not line.startswith("llm_prompt_tokens_total")).encode()


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


@after()
def another_vendor(ask: Ask, answer: Answer) -> None:
    """No bug: a server of somebody else's, without the routes that not everybody has."""
    if ask.path == "/v1/models":
        for card in answer.body["data"]:
            card["owned_by"] = "somebody"
            del card["engine"]
    elif ask.path in ("/generate", "/generate_stream", "/tokenize", "/detokenize", "/metrics", "/health"):
        answer.status, answer.body, answer.events, answer.content = 404, {"detail": "Not Found"}, None, b""
        answer.headers["content-type"] = "application/json"
