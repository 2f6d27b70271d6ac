"""POST /v1/moderations, in OpenAI's shape: a classifier's opinion of texts. There when a classifier is set."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from litestar import Request, post
from litestar.params import JSONBody
from pydantic import BaseModel, Field, PlainValidator

from ..server.documentation import answers
from ..server.errors import ApiError
from ..server.exchange import Exchange
from ..server.prompts import run_text
from ..server.schemas import RequestModel
from ..server.service import Served
from .filters import Classifier

MAX_INPUTS = 2048
YES = 0.5


def check_input(value: Any) -> Any:
    """Accept a text, texts, or the parts of one text."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and 0 < len(value) <= MAX_INPUTS:
        if all(isinstance(item, str) for item in value):
            return value
        if all(isinstance(item, dict) and isinstance(item.get("text"), str) for item in value):
            return "\n".join(item["text"] for item in value)
    raise ValueError(f'a string, a list of 1 to {MAX_INPUTS} strings, or a list of parts of type "text"')


class ModerationRequest(RequestModel):
    """POST /v1/moderations."""

    input: Annotated[str | list[str], PlainValidator(check_input)]
    model: str = Field(default="", description="May be left out: there is one classifier.")


class ModerationResult(BaseModel):
    """What is thought of one text."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[Literal["text"]]]


class ModerationResponse(BaseModel):
    """The answer: a result for each text."""

    id: str
    model: str
    results: list[ModerationResult]


@post(
    "/v1/moderations",
    status_code=200,
    tags=["OpenAI"],
    summary="Say what is harmful in a text",
    responses=answers(ModerationResponse),
)
async def create_moderation(
    request: Request[Any, Any, Any], data: JSONBody[ModerationRequest], service: Served
) -> dict[str, Any]:
    """Return categories, scores and whether any is a yes. The text is neither kept nor logged."""
    filters = service.stages.filters
    classifier = None if filters is None else filters.classifier
    if classifier is None:
        raise ApiError(404, "no classifier is set: safety.moderations names one", code="not_found")
    judge: Classifier = classifier
    texts = [data.input] if isinstance(data.input, str) else data.input
    scores = await run_text(lambda: judge.classify(texts), 10 * sum(map(len, texts)))
    return {
        "id": f"modr-{Exchange.of(request.scope).id}",
        "model": judge.name,
        "results": [_result(one) for one in scores],
    }


def _result(scores: dict[str, float]) -> dict[str, Any]:
    yes = {category: score >= YES for category, score in scores.items()}
    return {
        "flagged": any(yes.values()),
        "categories": yes,
        "category_scores": scores,
        "category_applied_input_types": {category: ["text"] for category in scores},
    }


ROUTES = (create_moderation,)
