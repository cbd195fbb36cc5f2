"""The page that an approval link opens: the call, and a form that decides about it.

Always true: opening it decides nothing, as scanners of mail and previews of chats open links too;
only the form does, whose authority is the address itself, so it needs no cookie, and no other site
can send it without knowing that; everything that a model or a person wrote is text, with characters
that could hide or turn it around written out; the page runs no script and is in no cache.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import unicodedata
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tokenwire.errors import InputError, NotAuthenticatedError
from tokenwire.relay.waiting.links import Choice, LinkView
from tokenwire.server.edge.problems import json_response
from tokenwire.server.edge.request_info import RequestInfo
from tokenwire.server.routes.support import route
from tokenwire.server.state import State
from tokenwire.server.tokens.approval_links import LINK_PATH

__all__ = ["routes"]

_MOST_FORM, _MOST_REASON = 8 << 10, 2000
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:2rem auto;padding:0 1rem;"
    "color:#1a1a1a;background:#fff}pre{background:#f3f3f3;padding:.75rem;white-space:pre-wrap;"
    "overflow-wrap:anywhere;unicode-bidi:plaintext;direction:ltr}button{font:inherit;"
    "padding:.5rem 1.25rem;margin-right:.75rem}label{display:block;margin:1rem 0}"
    "input{font:inherit;width:100%;box-sizing:border-box}"
    "@media(prefers-color-scheme:dark){body{color:#eee;background:#161616}pre{background:#262626}}"
)
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-robots-tag": "noindex, nofollow",
    "content-security-policy": (
        f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
}
#: Characters that are written out: what has no form of its own, or changes that of others.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

_WHY = {
    "unknown": "This link does not count here. It may have been changed on its way, or ended.",
    "used": "This link was used before. It decides once.",
    "revoked": "This link was revoked.",
    "expired": "The time to decide is over.",
    "decided": "This call was decided already.",
    "changed": "The call is another one now, so this link does not decide about it.",
    "gone": (
        "There is nothing to decide: the run has ended or was erased, or who made this link may "
        "not decide any more."
    ),
}
_SENT = {"approve": "approve", "deny": "deny", "expired": "deny, as nobody decided in time"}
_NOT_YET = (
    "The run has not taken it yet, and may end before it does. Open this page again to see whether "
    "it counts."
)
_DECIDED = {"approve": "approved", "deny": "denied", "expired": "denied, as nobody decided in time"}


def routes(state: State) -> list[BaseRoute]:
    """``/v1/approval-links/{token}``."""
    path = LINK_PATH + "{token}"
    state.link_paths = (*state.link_paths, LINK_PATH)
    state.raw_bodies[LINK_PATH] = _MOST_FORM
    for method in ("GET", "POST"):
        state.roles.add(method, path)
    return [route(state, path, open_link, "GET"), route(state, path, use_link, "POST")]


async def open_link(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/approval-links/{token}``: the call and a form; decides nothing. 410 for a link that
    is over, 404 for what is none."""
    try:
        link = await state.approval_links.read(request.path_params["token"])
    except NotAuthenticatedError:
        return _answer(info, None, 404)
    view = await state.inbox_links.look(link)
    return _answer(info, view, 200 if view.state == "open" else 410)


async def use_link(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST /v1/approval-links/{token}``: decide, once: ``decision`` is ``approve`` or ``deny``,
    with a ``reason`` perhaps, of a form or as JSON. 410 where the link is over."""
    choice, reason = _form(info)
    try:
        link = await state.approval_links.read(request.path_params["token"])
    except NotAuthenticatedError:
        return _answer(info, None, 404)
    view = await state.inbox_links.decide(link, choice, reason=reason)
    return _answer(info, view, 200 if view.state == "done" else 410)


def _form(info: RequestInfo) -> tuple[Choice | None, str | None]:
    """The decision of a body, and the reason."""
    kind = info.headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    try:
        text = info.body.decode()
        if kind == b"application/json":
            fields = json.loads(text, object_pairs_hook=_single) if text else {}
        elif kind == b"application/x-www-form-urlencoded":
            pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=8)
            fields = {name: value for name, value in _single(pairs).items() if value}
        else:
            raise InputError("send the form of the page, or JSON", field="decision")
    except (ValueError, RecursionError):
        raise InputError("the body cannot be read", field="decision") from None
    if not isinstance(fields, dict):
        raise InputError("the body must be an object", field="decision")
    choice, reason = fields.get("decision"), fields.get("reason") or None
    if choice not in ("approve", "deny", None):
        raise InputError("'decision' must be approve or deny", field="decision")
    if reason is not None and (not isinstance(reason, str) or len(reason) > _MOST_REASON):
        raise InputError(f"'reason' has at most {_MOST_REASON} characters", field="reason")
    return choice, reason


def _single(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Fields that were each said once: of two decisions neither is taken."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise InputError("a field may stand in the body once only", field="decision")
    return fields


def _answer(info: RequestInfo, view: LinkView | None, status: int) -> Response:
    accept = info.headers.get(b"accept", b"")
    if b"application/json" in accept and b"text/html" not in accept:
        return json_response(_fields(view), status, {**_HEADERS})
    body = _page(view)
    return Response(body, status, headers=_HEADERS, media_type="text/html")


def _fields(view: LinkView | None) -> dict[str, Any]:
    if view is None:
        return {"state": "unknown"}
    fields: dict[str, Any] = {"state": view.state, "decision": view.decision}
    if view.decision is not None:
        fields["taken"] = view.is_taken
    if view.state == "open":
        fields |= {"tool": view.tool, "arguments": view.arguments, "choice": view.link.choice}
        fields |= {"run": view.link.run, "expires": view.link.ends}
    return fields


def _page(view: LinkView | None) -> str:
    if view is None:
        return _document("Nothing to decide", f"<p>{_WHY['unknown']}</p>")
    if view.decision is not None and not view.is_taken:
        return _document(
            "The decision was sent",
            f"<p>{_call(view)}: {_SENT[view.decision]}. {_NOT_YET}</p>",
        )
    if view.state == "done":
        word = _DECIDED[view.decision or "deny"]
        return _document(f"The call was {word}", f"<p>{_call(view)}</p><p>You may close this.</p>")
    if view.state != "open":
        more = f" The call was {_DECIDED[view.decision]}." if view.decision else ""
        return _document("Nothing to decide", f"<p>{_WHY[view.state]}{more}</p>")
    ends = datetime.fromtimestamp(view.link.ends, UTC).strftime("%Y-%m-%d %H:%M UTC")
    asks = f"{_text(view.model)}{f' for {_text(view.user)}' if view.user else ''} asks"
    reason = f"<p>Why: {_text(view.reason)}</p>" if view.reason else ""
    buttons = "".join(
        f'<button type="submit" name="decision" value="{choice}">{label}</button>'
        for choice, label in (("approve", "Approve"), ("deny", "Deny"))
        if view.link.choice in (None, choice)
    )
    return _document(
        "Approve this call?",
        f"<p>{asks} to call {_call(view)} with:</p>"
        f"<pre>{_text(_json(view.arguments), is_json=True)}</pre>{reason}"
        f'<form method="post"><label>Reason, if any<input name="reason" maxlength="500" '
        f'autocomplete="off"></label>{buttons}</form>'
        f"<p>The link decides once, until {ends}. Opening it decided nothing.</p>",
    )


def _call(view: LinkView) -> str:
    return f"<b>{_text(view.tool)}</b>"


def _document(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{title}</h1>{body}</body></html>"
    )


def _json(arguments: Any) -> str:
    return json.dumps(arguments, ensure_ascii=False, indent=2)


def _text(text: str, *, is_json: bool = False) -> str:
    """``text`` as HTML, whole; characters that hide or turn others around are written out."""
    plain = "\n" if is_json else ""
    pieces = (
        char if char in plain or unicodedata.category(char) not in _HIDDEN else _escape(char)
        for char in text
    )
    return html.escape("".join(pieces))


def _escape(char: str) -> str:
    data = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{data[n]:02x}{data[n + 1]:02x}" for n in range(0, len(data), 2))
