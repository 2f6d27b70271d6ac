"""docs/http-api.md says what the server does: its session is repeated, its fields, routes and metrics are compared."""

from __future__ import annotations

import doctest
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from isotoken.api.server.openai_schemas import ChatRequest, CompletionRequest
from isotoken.api.server.tgi_schemas import GenerateParameters
from isotoken.models import BUILTIN

PAGE = (Path(__file__).parents[3] / "docs" / "http-api.md").read_text("utf-8")


def test_the_session_repeats(serve_tiny: Callable[..., Any]) -> None:
    server = serve_tiny(config={"model": str(BUILTIN["isotoken-small"]), "num_blocks": 0, "num_threads": 1})
    session = PAGE.split("```python\n")[1].split("```")[0].replace("http://127.0.0.1:8000", server.url)
    example = doctest.DocTestParser().get_doctest(session, {}, "session", "http-api.md", 0)
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    result = runner.run(example, out=said.append)
    assert result.attempted > 10
    assert result.failed == 0, "".join(said)


@pytest.mark.parametrize(
    "model", [CompletionRequest, ChatRequest, GenerateParameters], ids=lambda model: model.__name__
)
def test_every_field_is_documented(model: Any) -> None:
    assert [name for name in model.model_fields if f"`{name}`" not in PAGE] == []


def test_every_route_is_documented(server: Any) -> None:
    routes = {path.replace("{name}", "{id}") for path in server.get("/openapi.json").json()["paths"]}
    assert [route for route in routes if f"{route}`" not in PAGE] == []


def test_every_metric_is_documented_and_none_is_invented(server: Any) -> None:
    served = set(re.findall(r"^# TYPE (\S+) (?!gauge$)?", server.get("/metrics").text, re.MULTILINE))
    served = {name for name in served if not name.endswith("_created")}
    assert set(re.findall(r"`?(llm_\w+)", PAGE)) == served
