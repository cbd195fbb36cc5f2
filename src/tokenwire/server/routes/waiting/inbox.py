"""``/v1/waiting``: what waits for the caller, and the links by which it is decided elsewhere.

Always true: a principal sees what it may decide about and nothing else; a token for one run or
conversation opens none of this; who makes or revokes a link may approve.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tokenwire.errors import InputError, NotFoundError
from tokenwire.relay.waiting.links import LINK_SECONDS, MOST_LINK_SECONDS, Choice, Link
from tokenwire.server.access.misses import count_misses, run_id
from tokenwire.server.edge.bodies import read_body
from tokenwire.server.edge.problems import json_response
from tokenwire.server.edge.request_info import RequestInfo
from tokenwire.server.routes.support import route
from tokenwire.server.routes.waiting import live, page
from tokenwire.server.state import State

__all__ = ["ApprovalLink", "LinkBody", "LinkList", "routes"]

_LINKS = "/v1/runs/{run}/approvals/{approval}/links"
_PARAMETERS = {"limit", "after", "thread", "tool"}


class LinkBody(msgspec.Struct, forbid_unknown_fields=True):
    """``decision``: the only one that the link offers; without it its reader chooses. ``ttl``:
    seconds for which it counts."""

    decision: Choice | None = None
    ttl: Annotated[int, Meta(ge=1, le=MOST_LINK_SECONDS)] = LINK_SECONDS


class ApprovalLink(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A link. ``url``: its address, said once, when it is made; ``by``: who made it; ``created``,
    ``expires``, ``used``: Unix seconds; ``decided``: what it decided."""

    id: str
    run: str
    approval: str
    url: str | None = None
    decision: Choice | None = None
    by: str | None = None
    created: float
    expires: float
    used: float | None = None
    decided: Choice | None = None
    revoked: bool = False


class LinkList(msgspec.Struct):
    """The links of an approval."""

    links: list[ApprovalLink]


def routes(state: State) -> list[BaseRoute]:
    """``/v1/waiting``, the links of approvals, and the page that a link opens."""
    for method in ("GET", "POST"):
        state.roles.add(method, _LINKS, "approve")
    for path in (_LINKS, _LINKS + "/{link}"):
        state.roles.add("DELETE", path, "approve")
    return [
        route(state, "/v1/waiting", waiting, "GET"),
        route(state, _LINKS, make_link, "POST"),
        route(state, _LINKS, list_links, "GET"),
        route(state, _LINKS, revoke_links, "DELETE"),
        route(state, _LINKS + "/{link}", revoke_links, "DELETE"),
        *live.routes(state),
        *page.routes(state),
    ]


async def waiting(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/waiting``: what waits for the caller, what waits longest first; ``thread`` and
    ``tool`` choose of it, ``after`` is the ``next`` of the page before."""
    query = request.query_params
    if unknown := set(query) - _PARAMETERS:
        raise InputError(f"unknown parameter '{min(unknown)}'", field=min(unknown))
    limit = query.get("limit", "50")
    if not limit.isascii() or not limit.isdigit():
        raise InputError("'limit' must be a number", field="limit")
    result = await state.inbox.page(
        info.principal,
        limit=int(limit),
        after=query.get("after", ""),
        thread=query.get("thread"),
        tool=query.get("tool"),
    )
    return json_response(result)


async def make_link(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST .../links``: a link that approves or denies this call, once; 201."""
    run = run_id(request)
    body = read_body(info.json, LinkBody)
    async with count_misses(state, info):
        link = await state.approval_links.make(
            info.identity,
            run,
            request.path_params["approval"],
            choice=body.decision,
            seconds=body.ttl,
        )
    url = await state.approval_links.url(link, _base(info))
    return json_response(_described(link, url), 201)


async def list_links(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET .../links``: the links of this approval, without their addresses."""
    links = await _links(state, request, info)
    return json_response(LinkList([_described(link) for link in links]))


async def revoke_links(state: State, request: Request, info: RequestInfo) -> Response:
    """``DELETE .../links`` and ``.../links/{link}``: they decide nothing from now on; 204."""
    links = await _links(state, request, info)
    name = request.path_params.get("link")
    if name is not None:
        links = [link for link in links if link.id == name]
        if not links:
            raise NotFoundError("this approval has no such link", what="link")
    for link in links:
        await state.inbox_links.revoke(link)
    return Response(status_code=204)


async def _links(state: State, request: Request, info: RequestInfo) -> list[Link]:
    run = run_id(request)
    async with count_misses(state, info):
        await state.inbox_links.require(run, info.principal)
    return await state.inbox_links.of(run, request.path_params["approval"])


def _described(link: Link, url: str | None = None) -> ApprovalLink:
    return ApprovalLink(
        id=link.id,
        run=link.run,
        approval=link.approval,
        url=url,
        decision=link.choice,
        by=link.maker or None,
        created=link.issued,
        expires=link.ends,
        used=link.used_at or None,
        decided=link.decision,
        revoked=link.is_revoked,
    )


def _base(info: RequestInfo) -> str:
    """The address of this server as the request has it."""
    host = info.headers.get(b"host", b"").decode("latin-1")
    return f"{'https' if info.secure else 'http'}://{host}{info.mount}"
