"""Tool calls in OpenAI's shape: whole, and as the deltas of a stream."""

from __future__ import annotations

from typing import Any

from ..tools.events import Arguments, CallOpened, Content, Event
from ..tools.offer import Offer


class ToolCalls:
    """Reads one choice's text. Feed it all of the text, then call finish."""

    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self._parser = offer.parser()

    @property
    def found(self) -> bool:
        """Whether there was any call yet."""
        return self._parser.num_calls > 0

    def deltas(self, text: str, *, last: bool) -> list[dict[str, Any]]:
        """Return the deltas that more text brings, and what was held back if it is the `last`."""
        events = self._parser.feed(text) + (self._parser.finish() if last else [])
        return [self._delta(event) for event in events if not self._is_surplus(event)]

    def message(self, text: str) -> dict[str, Any]:
        """Return the whole message that a text is: content, null where there are calls only, and calls."""
        content: list[str] = []
        calls: list[dict[str, Any]] = []
        for delta in self.deltas(text, last=True):
            content.append(delta.get("content", ""))
            for part in delta.get("tool_calls", ()):
                if "id" in part:
                    calls.append({"id": part["id"], "type": "function", "function": dict(part["function"])})
                else:
                    calls[part["index"]]["function"]["arguments"] += part["function"]["arguments"]
        written = "".join(content)
        return {"content": written or None, "tool_calls": calls} if calls else {"content": written}

    def finish_reason(self, reason: str | None) -> str | None:
        """Return a choice's finish_reason: an answer that ended by itself with calls ended for them."""
        return "tool_calls" if reason == "stop" and self.found else reason

    def _is_surplus(self, event: Event) -> bool:
        """Whether it belongs to a call beyond the one that was asked for."""
        return not self._offer.parallel and not isinstance(event, Content) and event.index > 0

    def _delta(self, event: Event) -> dict[str, Any]:
        match event:
            case Content(text):
                return {"content": text}
            case CallOpened(index, name):
                function = {"name": name, "arguments": ""}
                call = {"index": index, "id": self._offer.format.new_id(), "type": "function", "function": function}
                return {"tool_calls": [call]}
            case Arguments(index, text):
                return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}
