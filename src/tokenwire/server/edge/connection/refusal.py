"""Answers that are written without an application: to what is no request that it could see."""

from __future__ import annotations

import logging

import msgspec

from tokenwire.observe.line_limit import LineLimit

__all__ = ["CODES", "MALFORMED", "refusal"]

_LINES = {
    400: b"HTTP/1.1 400 Bad Request\r\n",
    405: b"HTTP/1.1 405 Method Not Allowed\r\nallow: GET\r\n",
    408: b"HTTP/1.1 408 Request Timeout\r\n",
    426: b"HTTP/1.1 426 Upgrade Required\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n",
    431: b"HTTP/1.1 431 Request Header Fields Too Large\r\n",
    503: b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\n",
}
#: The code of each status.
CODES = {
    400: "bad_request",
    405: "method_not_allowed",
    408: "timeout",
    426: "bad_request",
    431: "headers_too_large",
    503: "busy",
}
#: The lines of the log about what is no HTTP: anybody can cause them.
MALFORMED = LineLimit(logging.getLogger("tokenwire.server"), logging.WARNING)


def refusal(status: int, message: str) -> bytes:
    """A whole answer, in our own form; the connection closes behind it."""
    body = msgspec.json.encode({"error": {"code": CODES[status], "message": message}})
    return (
        _LINES[status]
        + b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
        + b"cache-control: no-store\r\nx-content-type-options: nosniff\r\n"
        + b"connection: close\r\n\r\n"
        + body
    )
