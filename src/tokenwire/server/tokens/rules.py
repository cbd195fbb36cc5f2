"""Which paths a token opens, and the scope that each needs.

Always true: a path that is not listed is closed to tokens; what a listed one reads and changes is
held to the grant once more by `tokenwire.server.tokens.door`.
"""

from __future__ import annotations

import re

from tokenwire.errors import ForbiddenError, NotFoundError
from tokenwire.server.tokens.grant import Grant, Scope

__all__ = ["check_path"]

_RUN, _THREAD = "/v1/runs/[^/]+", "/v1/threads/(?P<thread>[^/]+)"

#: Methods and path -> scope. For a path that starts or continues a run, what was said decides.
_TABLE: tuple[tuple[str, str, Scope | None], ...] = (
    ("POST", "/v1/runs", "write"),
    ("GET", rf"{_RUN}(?:/info|/events|/wires/[^/]+)?", "read"),
    ("POST", rf"{_RUN}/cancel", "write"),
    ("POST", rf"{_RUN}/tools/[^/]+", "write"),
    ("POST", rf"{_RUN}/approvals/[^/]+", "approve"),
    ("POST DELETE", rf"{_RUN}/attach-tokens", "read"),
    ("POST", "/v1/producers", "produce"),
    ("GET", "/v1/producers/[^/]+(?:/commands)?", "produce"),
    ("POST", "/v1/producers/[^/]+/(?:events|renew|claim|finish)", "produce"),
    ("GET", _THREAD, "read"),
    ("PUT", _THREAD, "write"),
    ("POST DELETE", rf"{_THREAD}/attach-tokens", "read"),
    ("GET", rf"{_THREAD}/(?:turns|events|queue|members)", "read"),
    ("PUT", rf"{_THREAD}/head", "write"),
    ("POST", rf"{_THREAD}/typing", "write"),
    ("PUT DELETE", rf"{_THREAD}/queue/[^/]+", "write"),
    ("POST", rf"{_THREAD}/queue/[^/]+/now", "write"),
    ("GET", "/chat/stream", "read"),
    ("POST", "/api/chat", None),
    ("GET", "/api/chat/[^/]+/stream", "read"),
    ("POST", "/api/chat/[^/]+/stop", "write"),
    ("POST", "/api/chat/[^/]+/approval", "approve"),
    ("POST", "/ag-ui", None),
    ("GET", "/ag-ui", "read"),
    ("POST", "/v1/(?:chat/completions|responses|messages|messages/count_tokens)", "write"),
    ("GET", "/v1/responses/[^/]+", "read"),
    ("POST", "/v1/responses/[^/]+/cancel", "write"),
    ("POST", "/ds/chat", "write"),
    ("GET", "/ds/chat/[^/]+/stream", "read"),
    ("GET HEAD", "/ds/v1/stream/runs/[^/]+", "read"),
    ("WEBSOCKET", "/ws|/ag-ui|/api/chat/ws", "read"),
)
_RULES: tuple[tuple[tuple[str, ...], re.Pattern[str], Scope | None], ...] = tuple(
    (tuple(methods.split()), re.compile(path), scope) for methods, path, scope in _TABLE
)


def check_path(grant: Grant, method: str, path: str) -> None:
    """Raise `ForbiddenError` for a path that tokens do not open, `RoleError` for a scope that
    ``grant`` lacks, and `NotFoundError` for another conversation."""
    for methods, pattern, scope in _RULES:
        match = pattern.fullmatch(path) if method in methods else None
        if match is None:
            continue
        if scope is not None:
            grant.require(scope)
        elif grant.scopes == ("read",):
            grant.require("write")
        thread = match.groupdict().get("thread")
        if thread is not None and (grant.kind, grant.name) != ("thread", thread):
            raise NotFoundError("no such conversation", what="thread")
        return
    raise ForbiddenError("a token does not open this; it is for one run or conversation")
