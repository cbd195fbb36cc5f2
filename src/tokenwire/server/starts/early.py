"""New runs that an overloaded server refuses before its application sees them.

A request that goes all the way to be refused takes a third of what a start takes: a server that is
asked for three times what it can do would do little else. So requests that can be nothing but a new
run are answered by their connection. All others go their way: a repetition, a resume, a turn of a
conversation, an approval among messages, all with a token, which may be for a conversation; those
of a page of another origin, which needs headers that the application knows; and all whose key has
to be judged, since without one that counts they get 401, however late the server is.

Always true: a new run that is refused here would be refused there, with the same status, code, form
and headers; nothing but a new run, or a request that is wrong in itself, is refused.
"""

from __future__ import annotations

import logging
import math
import secrets
import time

from tokenwire.observe.line_limit import LineLimit
from tokenwire.server.edge.guard import SAME_ORIGIN, with_common_headers
from tokenwire.server.edge.problems import error_response
from tokenwire.server.edge.sessions import ATTACH
from tokenwire.server.process.overload import OverloadedServerError
from tokenwire.server.state import State
from tokenwire.server.tokens.tokens import TOKEN

__all__ = ["EarlyRefusals"]

#: Where a request without a query starts a run, unless its body names a conversation.
_PATHS = {b"/v1/runs", b"/v1/chat/completions", b"/v1/messages"}
#: Headers of requests that may be something else.
_NOT_WITH = {b"content-encoding", b"expect", b"idempotency-key", b"last-event-id", b"origin"}
#: Headers that may hold a token, and how tokens begin.
_CREDENTIALS, _TOKENS = {b"authorization", b"x-api-key"}, (TOKEN.encode(), ATTACH.encode())
#: What is in a body that names a conversation: letters of a name may be written as escapes.
_NAMES = (b'"thread"', rb"\u006", rb"\u007")
#: Seconds for which an answer serves others as well, and so many of each path, with different times
#: to come again.
_KEPT_SECONDS, _VARIANTS = 0.1, 16
#: What stands for the id of a request.
_ID = b"----request-id--"
_LINES = LineLimit(logging.getLogger("tokenwire.server"), logging.WARNING)


class EarlyRefusals:
    """Those of the server of ``state``."""

    __slots__ = ("_answers", "_count", "_state")

    def __init__(self, state: State) -> None:
        self._state = state
        self._count = 0
        #: When each answer was made, by path and number; with `_ID` in place of the request's id.
        self._answers: dict[tuple[bytes, int], tuple[float, bytes]] = {}

    def __call__(
        self, method: bytes, url: bytes, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> bytes | None:
        """The whole answer to a request, behind which its connection closes; None where the
        application has to answer."""
        if method != b"POST" or url not in _PATHS or any(name in body for name in _NAMES):
            return None
        for name, value in headers:
            if name in _NOT_WITH or (name in _CREDENTIALS and any(t in value for t in _TOKENS)):
                return None
        state = self._state
        if state.identify.hosted or not state.auth.knows(dict(headers)):
            return None
        error = None if state.draining else state.connections.check_overload()
        if error is None:
            return None
        state.limits.refused["max_lag"] += 1
        _LINES.log("refused a new run: %s", error.message)
        self._count += 1
        key, now = (url, self._count % _VARIANTS), time.monotonic()
        made_at, answer = self._answers.get(key, (-math.inf, b""))
        if now > made_at + _KEPT_SECONDS:
            answer = _answer(error, url.decode("ascii"), state)
            self._answers[key] = now, answer
        return answer.replace(_ID, secrets.token_hex(8).encode("ascii"))


def _answer(error: OverloadedServerError, path: str, state: State) -> bytes:
    request_id = _ID.decode("ascii")
    response = error_response(error, request_id, state.form_for(path))
    headers = with_common_headers(response.raw_headers, request_id, SAME_ORIGIN)
    if path in state.request_id_names:
        headers.append((state.request_id_names[path], _ID))
    lines = [b"HTTP/1.1 503 Service Unavailable"]
    lines += [name + b": " + value for name, value in headers]
    lines += [b"connection: close", b"", b""]
    return b"\r\n".join(lines) + bytes(response.body)
