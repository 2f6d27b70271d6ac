"""The documentation page: the OpenAPI document as plain HTML, with no script and nothing from other hosts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from litestar import Request
from litestar.openapi.plugins import OpenAPIRenderPlugin

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}"
    "code{font-size:.95em}summary{cursor:pointer}details{margin:.3em 0}table{border-collapse:collapse;margin:.5em 0}"
    "td,th{text-align:left;vertical-align:top;padding:.15em .8em .15em 0;border-bottom:1px solid #ddd}"
)


class DocsPage(OpenAPIRenderPlugin):
    """Lists the operations with the fields of their bodies."""

    def __init__(self) -> None:
        super().__init__(path="/")

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Return the page."""
        return "".join(_page(openapi_schema)).encode()


def _page(document: Mapping[str, Any]) -> Iterator[str]:
    about = document["info"]
    title = escape(f"{about['title']} {about['version']}")
    yield f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
    yield f"<h1>{title}</h1><p>{escape(about.get('description', ''))} "
    yield 'As a document for tools: <a href="/openapi.json">openapi.json</a>.</p>'
    by_tag: dict[str, list[str]] = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            by_tag.setdefault(operation.get("tags", [""])[0], []).append(_operation(document, path, method, operation))
    for tag, operations in by_tag.items():
        yield f"<h2>{escape(tag)}</h2>{''.join(operations)}"
    yield "</html>"


def _operation(document: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any]) -> str:
    body = _body_schema(document, operation)
    statuses = "".join(
        f"<tr><td><code>{status}</code><td>{escape(answer.get('description', ''))}"
        for status, answer in operation.get("responses", {}).items()
    )
    return (
        f"<details><summary><code>{method.upper()} {escape(path)}</code> "
        f"{escape(operation.get('summary', ''))}</summary>"
        f"<p>{escape(operation.get('description', ''))}</p>"
        f"<table>{_fields(document, body)}</table><table>{statuses}</table></details>"
    )


def _body_schema(document: Mapping[str, Any], operation: Mapping[str, Any]) -> Mapping[str, Any]:
    content = operation.get("requestBody", {}).get("content", {})
    for media in content.values():
        return _resolve(document, media.get("schema", {}))
    return {}


def _resolve(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: Mapping[str, Any] = document["components"]["schemas"][reference.rsplit("/", 1)[-1]]
    return found


def _fields(document: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = []
    for name, field in schema.get("properties", {}).items():
        kind = _kind(document, field)
        note = "required" if name in required else _default(field)
        rows.append(
            f"<tr><td><code>{escape(name)}</code><td>{kind}<td>{note}<td>{escape(field.get('description', ''))}"
        )
    return "".join(rows)


def _kind(document: Mapping[str, Any], field: Mapping[str, Any]) -> str:
    if "oneOf" in field:
        return " or ".join(_kind(document, option) for option in field["oneOf"])
    if "$ref" in field:
        return escape(field["$ref"].rsplit("/", 1)[-1])
    if field.get("type") == "array":
        return f"list of {_kind(document, field.get('items', {}))}"
    return escape(str(field.get("type", "any")))


def _default(field: Mapping[str, Any]) -> str:
    return f"<code>{escape(repr(field['default']))}</code>" if "default" in field else ""
