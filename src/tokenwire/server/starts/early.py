"""New runs that an overloaded server refuses before its application sees them.

A request that goes all the way to be refused takes a third of what a start takes: a server that is
asked for three times what it can do would do little else. So requests that can be nothing but a new
run are answered by their connection. All others go their way: a repetition, a resume, a turn of a
conversation, an approval among messages; and those of a page of another origin, which needs headers
that the application knows.

Always true: a new run that is refused here would be refused there, with the same status, code and
form; nothing but a new run, or a request that is wrong in itself, is refused.
"""

from __future__ import annotations

import logging
import secrets

from tokenwire.observe.line_limit import LineLimit
from tokenwire.server.edge.problems import error_response
from tokenwire.server.state import State

__all__ = ["EarlyRefusals"]

#: Where a request without a query starts a run, unless its body names a conversation.
_PATHS = {b"/v1/runs", b"/v1/chat/completions", b"/v1/messages"}
#: Headers of requests that may be something else.
_NOT_WITH = {b"content-encoding", b"expect", b"idempotency-key", b"last-event-id", b"origin"}
_LINES = LineLimit(logging.getLogger("tokenwire.server"), logging.WARNING)


class EarlyRefusals:
    """Those of the server of ``state``."""

    __slots__ = ("_state",)

    def __init__(self, state: State) -> None:
        self._state = state

    def __call__(
        self, method: bytes, url: bytes, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> bytes | None:
        """The whole answer to a request, behind which its connection closes; None where the
        application has to answer."""
        if method != b"POST" or url not in _PATHS or b'"thread"' in body:
            return None
        if any(name in _NOT_WITH for name, _ in headers):
            return None
        state = self._state
        error = None if state.draining else state.connections.check_overload()
        if error is None:
            return None
        state.limits.refused["max_lag"] += 1
        _LINES.log("refused a new run: %s", error.message)
        request_id = secrets.token_hex(8)
        response = error_response(error, request_id, state.form_for(url.decode("ascii")))
        lines = [b"HTTP/1.1 503 Service Unavailable"]
        lines += [name + b": " + value for name, value in response.raw_headers]
        lines += [b"cache-control: no-store, no-transform", b"x-content-type-options: nosniff"]
        lines += [b"x-request-id: " + request_id.encode("ascii"), b"connection: close", b"", b""]
        return b"\r\n".join(lines) + bytes(response.body)
