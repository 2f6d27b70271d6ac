"""Safety: the stage that looks at what goes into a model and at what comes out, by the tenant's policy."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter

from ...plugins.manager import PluginError, Plugins
from ..server.errors import ApiError
from ..server.exchange import Exchange
from ..server.prompts import run_text
from ..server.schemas import RequestModel
from ..text import TextModel
from .chain import Chain
from .filters import Block, Classifier, FilterContext, Finding, MakeFilter
from .outputs import OutputFilters
from .prompts import Slot, slots
from .settings import FilterSettings, Policy, SafetySettings

log = logging.getLogger("isotoken.safety")
prompt_log = logging.getLogger("isotoken.prompts")

Side = Literal["prompts", "outputs"]

POLICY_CODE = "content_policy_violation"
TOO_LONG_CODE = "string_above_max_length"


class _Makers(NamedTuple):
    """A policy, ready."""

    prompts: list[MakeFilter]
    outputs: list[MakeFilter]


Place = tuple[str | int, ...]
"""Where something stands in the settings."""


class FilterError(ValueError):
    """A filter cannot be made as it is asked for."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(f"safety.{'.'.join(map(str, place))}: {message}")
        self.place = place
        self.reason = message


class _Workshop:
    """Makes filters and classifiers, each classifier once."""

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins
        self._classifiers: dict[str, Classifier] = {}

    def ready(self, place: Place, policy: Policy) -> _Makers:
        return _Makers(self._makers(place, "prompts", policy.prompts), self._makers(place, "outputs", policy.outputs))

    def _makers(self, place: Place, side: Side, asked: Sequence[FilterSettings]) -> list[MakeFilter]:
        return [self._maker((*place, side, i), side, one) for i, one in enumerate(asked)]

    def _maker(self, place: Place, side: Side, asked: FilterSettings) -> MakeFilter:
        try:
            factory = self._plugins.filters.get_factory(asked.filter)
            made: MakeFilter = factory(asked.options, FilterContext(side, self.classifier))
        except (ValueError, PluginError) as error:
            raise FilterError(place, _told(error)) from error
        return made

    def classifier(self, name: str) -> Classifier:
        if name not in self._classifiers:
            try:
                self._classifiers[name] = self._plugins.classifiers.get_factory(name)()
            except PluginError as error:
                raise FilterError(("moderations",), str(error)) from error
        return self._classifiers[name]


class Safety:
    """Filters by tenant. Values that never change: any number of requests use it at once."""

    def __init__(self, settings: SafetySettings, plugins: Plugins, registry: CollectorRegistry | None = None) -> None:
        """Prepare every filter that is asked for. Raises FilterError, which says where it is asked for."""
        self._log_prompts = settings.log_prompts
        workshop = _Workshop(plugins)
        self.classifier = workshop.classifier(settings.moderations) if settings.moderations else None
        self._default = workshop.ready(("default",), settings.default)
        self._tenants: Mapping[str, _Makers] = {
            name: workshop.ready(("tenants", name), policy) for name, policy in settings.tenants.items()
        }
        self._findings = Counter(
            "llm_filter_findings", "What filters found", ["side", "kind", "action"], registry=registry
        )

    async def prompt(self, exchange: Exchange, data: RequestModel) -> None:
        """Look at a request's text and put what the filters leave in its place. Raises ApiError 400."""
        makers = self._of(exchange).prompts
        if not makers and not self._log_prompts:
            return
        model = exchange.model
        assert model is not None
        found = list(slots(data, model.text))
        texts = await run_text(
            lambda: [self._checked(makers, slot, exchange) for slot in found], sum(len(slot.text) for slot in found)
        )
        for slot, text in zip(found, texts, strict=True):
            if text != slot.text:
                slot.put(text)
        if self._log_prompts:
            for text in texts:
                prompt_log.info("%s %r", exchange.id, text)

    def output(self, exchange: Exchange, text: TextModel, *, skip_special_tokens: bool = True) -> OutputFilters | None:
        """Return the filters of one generation; None: its tenant has none."""
        makers = self._of(exchange).outputs
        if not makers:
            return None
        return OutputFilters(makers, text, skip_special_tokens, lambda found: self._note("outputs", found, exchange))

    def _of(self, exchange: Exchange) -> _Makers:
        return self._tenants.get(exchange.principal.tenant, self._default)

    def _checked(self, makers: Sequence[MakeFilter], slot: Slot, exchange: Exchange) -> str:
        if not makers or not slot.text:
            return slot.text
        chain = Chain([make() for make in makers])
        passed = chain.whole(slot.text)
        self._note("prompts", chain.findings, exchange)
        if passed.block is not None:
            raise _refusal(passed.block, slot.field)
        return passed.text

    def _note(self, side: Side, findings: Sequence[Finding], exchange: Exchange) -> None:
        """Count what was found, and say so in the log: its kind, never the text."""
        if not findings:
            return
        for finding in findings:
            self._findings.labels(side, finding.kind, finding.action).inc()
        kinds = ", ".join(sorted({f"{finding.kind} ({finding.action})" for finding in findings}))
        log.info("%s %s of tenant %s: %s", exchange.id, side, exchange.principal.tenant, kinds)


def open_safety(settings: SafetySettings, plugins: Plugins, registry: CollectorRegistry | None = None) -> Safety | None:
    """Return the stage; None: nothing is asked for. Raises FilterError for settings that are wrong."""
    return None if settings.is_off and not settings.moderations else Safety(settings, plugins, registry)


def _refusal(block: Block, field: str) -> ApiError:
    code = TOO_LONG_CODE if block.stop_reason == "max_characters" else POLICY_CODE
    return ApiError(400, f"the prompt is not taken: {block.reason}", param=field, code=code)


def _told(error: Exception) -> str:
    """Say what is wrong with options in one line."""
    from pydantic import ValidationError  # noqa: PLC0415

    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return str(error)
