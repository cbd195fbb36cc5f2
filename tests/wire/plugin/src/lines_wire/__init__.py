"""A wire of one line an event: its offset, a word, and its text; and wires that are broken."""

from __future__ import annotations

import json
from typing import Any

from tokenwire.server import OwnWire


class Lines:
    """``{"at", "say"}`` a piece of text, then one line ``{"at", "end"}`` with the outcome."""

    name = "lines"
    content_type = "application/x-ndjson"
    headers = {"x-lines": "1"}
    stateless = True
    encode_json = None
    ended = False

    def encode(self, event: Any, cursor: str) -> bytes:
        kind = type(event).__name__
        if kind == "TextDelta":
            return self.line(at=cursor, say=event.text)
        if kind == "RunEnd":
            return self.line(at=cursor, end=event.outcome)
        return b""

    @staticmethod
    def line(**fields: str) -> bytes:
        return json.dumps(fields).encode() + b"\n"

    def skip(self, event: Any) -> None:
        pass

    def reopen(self) -> bytes:
        return b""

    def finish(self) -> bytes:
        return b""

    def heartbeat(self) -> bytes:
        return b"\n"

    def farewell(self, event: Any) -> bytes | None:
        return self.line(come_back=event.reason)


LINES = OwnWire(name="lines", encoder=Lines, path="/lines")
NOT_A_WIRE = 42
TAKEN = OwnWire(name="ui", encoder=Lines)
PATH_TAKEN = OwnWire(name="other-lines", encoder=Lines, path="/v1/runs")


class Raises(Lines):
    name = "raises"

    def encode(self, event: Any, cursor: str) -> bytes:
        raise ValueError("the plugin is at fault")


class Text(Lines):
    name = "text"

    def encode(self, event: Any, cursor: str) -> bytes:
        return "not bytes"  # type: ignore[return-value]


class Half:
    name = "half"
    content_type = "text/plain"


class Later(Lines):
    """Fails in the middle of what no check could know: the demo's own words."""

    name = "later"

    def encode(self, event: Any, cursor: str) -> bytes:
        text = getattr(event, "text", None)
        if "simulator" in (text or ""):
            raise ZeroDivisionError("it failed in the middle")
        return super().encode(event, cursor)


LATER = OwnWire(name="later", encoder=Later, path="/later")
