"""Messages and tool values on spans and as log events, where the environment asks for them.

Always true: without ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` nothing is recorded; a
value that it does not know counts as off and is logged.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from tokenwire.events.fold import Fold
from tokenwire.events.request import Request
from tokenwire.observe.genai.messages import MODES, encoded, messages_of_answer, value_of

__all__ = ["VARIABLE", "Recorder"]

VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_EVENT = "gen_ai.client.inference.operation.details"
_CUT = "tokenwire.content.is_cut"

_log = logging.getLogger("tokenwire.observe")


class Recorder:
    """Records content as the environment says at its making. ``on_spans``, ``on_events``:
    where."""

    def __init__(self, logger_provider: Any = None) -> None:
        value = os.environ.get(VARIABLE, "").strip().upper()
        if value and value not in MODES:
            _log.warning("%s must be one of %s; no content is recorded", VARIABLE, ", ".join(MODES))
        self.on_spans, self.on_events = MODES.get(value, (False, False))
        self._logger: Any = None
        if self.on_events:
            from opentelemetry import _logs

            self._logger = _logs.get_logger("tokenwire", logger_provider=logger_provider)

    def answer(self, span: Any, request: Request, state: Fold) -> None:
        """The messages of an answer, whose ``span`` is about to end."""
        content = messages_of_answer(request, state)
        values: dict[str, Any] = {
            "gen_ai.system_instructions": content.system,
            "gen_ai.input.messages": content.input,
            "gen_ai.output.messages": content.output,
        }
        values = {name: value for name, value in values.items() if value}
        cut = {_CUT: True} if content.is_cut else {}
        if self.on_spans:
            span.set_attributes({name: encoded(value) for name, value in values.items()} | cut)
        if self.on_events:
            self._emit(span, {"gen_ai.operation.name": "chat", **values, **cut})

    def arguments(self, span: Any, arguments: Any) -> None:
        """What a tool is called with."""
        self._value(span, "gen_ai.tool.call.arguments", arguments)

    def result(self, span: Any, content: Any) -> None:
        """What a tool returned."""
        self._value(span, "gen_ai.tool.call.result", content)

    def _value(self, span: Any, name: str, value: Any) -> None:
        cleaned, is_cut = value_of(value)
        span.set_attribute(name, cleaned if isinstance(cleaned, str) else encoded(cleaned))
        if is_cut:
            span.set_attribute(_CUT, True)

    def _emit(self, span: Any, attributes: dict[str, Any]) -> None:
        from opentelemetry import trace
        from opentelemetry._logs import LogRecord

        context = trace.set_span_in_context(span)
        record = LogRecord(event_name=_EVENT, attributes=attributes, context=context)
        self._logger.emit(record)
