"""What a request asks of its answer's form: structured outputs in any client's words, and tools."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import ParameterError
from ..structured.outputs import StructuredOutputs
from ..text import SamplingParams
from ..tools.offer import Offer
from .schemas import SamplingFields

if TYPE_CHECKING:
    from .exchange import Exchange
    from .served import ServedModel

GUIDED = ("json", "regex", "choice", "grammar")
FIELDS = {"response_format", "structured_outputs", *(f"guided_{kind}" for kind in GUIDED)}
_TYPES = "text, json_object or json_schema"


@dataclass(frozen=True, slots=True)
class Asked:
    """The form of the content, the tools that may be called instead, and the markers that are tokens, by name."""

    form: StructuredOutputs | None
    offer: Offer | None = None
    special: Mapping[str, int] = field(default_factory=dict)

    def outputs(self) -> StructuredOutputs | None:
        """Return what the whole output must be. Raises ParameterError for a form that cannot stand beside tools."""
        if self.offer is None:
            return self.form
        calls = self.offer.calls(self.special)
        if self.offer.is_required:
            return StructuredOutputs(parts=calls, name="tools")
        if self.form is None:
            return None
        content = json.loads(self.form.text)
        if content["type"] == "grammar":
            raise ParameterError(self.form.name, "a grammar", "anything but a grammar, where tools are given")
        return StructuredOutputs(parts={"type": "any_of", "parts": [content, calls]}, name=self.form.name)

    @property
    def shown_special_tokens(self) -> tuple[int, ...]:
        """The special tokens that mark calls, and so are read."""
        if self.offer is None:
            return ()
        return tuple(self.special[marker] for marker in self.offer.format.markers if marker in self.special)


def form_of(request: SamplingFields) -> StructuredOutputs | None:
    """Return the form that a request asks for, in one of its fields. Raises ParameterError."""
    if FIELDS.isdisjoint(request.model_fields_set):
        return None
    forms = [
        _response_format(request.response_format),
        StructuredOutputs.of(request.structured_outputs),
        *(_guided(kind, getattr(request, f"guided_{kind}")) for kind in GUIDED),
    ]
    given = [form for form in forms if form is not None]
    if len(given) > 1:
        names = [form.name for form in given]
        raise ParameterError(names[0], names, "one of response_format, structured_outputs and guided_...")
    return given[0] if given else None


def _guided(kind: str, value: Any) -> StructuredOutputs | None:
    return None if value in (None, "", []) else StructuredOutputs.of({kind: value}, f"guided_{kind}")


def _response_format(given: Mapping[str, Any]) -> StructuredOutputs | None:
    kind = given.get("type", "text")
    if kind == "text":
        return None
    if kind == "json_object":
        return StructuredOutputs(json_object=True, name="response_format")
    if kind != "json_schema":
        raise ParameterError("response_format.type", kind, _TYPES)
    inner = given.get("json_schema")
    if not isinstance(inner, Mapping):
        raise ParameterError("response_format.json_schema", inner, "an object with a name and a schema")
    schema = inner.get("schema", {"type": "object"})
    if not isinstance(schema, Mapping | bool):
        raise ParameterError("response_format.json_schema.schema", schema, "a JSON schema")
    return StructuredOutputs(json=schema, lenient=inner.get("strict") is not True, name="response_format")


async def vet(model: ServedModel, params: SamplingParams, exchange: Exchange) -> None:
    """Try out a request's grammar. Raises ParameterError for one that cannot be used, NotOffered and Overloaded."""
    if isinstance(params.structured_outputs, StructuredOutputs):
        await model.engine.vetting.check(params.structured_outputs, exchange.principal.key_id or exchange.address)
