"""``/v1/threads/{thread}/members`` and ``/invites``, and ``/v1/invites/accept``: several people in
one conversation.

Always true: only an owner changes who belongs to it, and everybody may leave it; people are named
by their id within the caller's tenant, so nobody of another one can be; whoever is no member gets
the answer for a conversation that never was.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tokenwire.errors import InputError
from tokenwire.events.names import principal_fault
from tokenwire.events.principal import Principal, parts_of
from tokenwire.relay.members.access import Access
from tokenwire.relay.members.roster import MemberRole, Roster
from tokenwire.server.edge.bodies import read_body
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.edge.problems import json_response
from tokenwire.server.routes.conversation.turns import of_thread, thread_of
from tokenwire.server.routes.runs import count_misses
from tokenwire.server.routes.support import route
from tokenwire.server.state import State
from tokenwire.server.tokens.invites import accept_invite, invite_token

__all__ = [
    "AcceptBody",
    "InviteBody",
    "InviteDescription",
    "MemberBody",
    "MemberDescription",
    "MemberList",
    "routes",
]

#: Seconds for which an invitation is open unless it says otherwise, and at most.
_TTL, _MOST_TTL = 7 * 86_400, 30 * 86_400


class MemberBody(msgspec.Struct, forbid_unknown_fields=True):
    """``PUT .../members/{principal}``."""

    role: MemberRole


class InviteBody(msgspec.Struct, forbid_unknown_fields=True):
    """``POST .../invites``. ``ttl``: seconds; ``uses``: how many people may accept it. An owner is
    made by name."""

    role: Literal["read", "write", "approve"] = "read"
    ttl: Annotated[int, Meta(ge=1, le=_MOST_TTL)] = _TTL
    uses: Annotated[int, Meta(ge=1, le=100)] = 1


class AcceptBody(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /v1/invites/accept``."""

    token: Annotated[str, Meta(max_length=2000)]


class MemberDescription(msgspec.Struct):
    """A member: the plain id, the role, and the Unix seconds of joining (0: from the beginning)."""

    principal: str
    role: MemberRole
    since: float


class MemberList(msgspec.Struct, omit_defaults=True):
    """Who belongs to a conversation. ``thread``: what the caller calls it; ``id``: by which every
    member reaches it, once it is shared; ``role``, ``principal``: the caller's own."""

    thread: str
    role: MemberRole
    members: list[MemberDescription]
    id: str | None = None
    principal: str = ""


class InviteDescription(msgspec.Struct):
    """An open invitation. ``expires_in``: seconds; ``uses``: that are left; ``by``: who invited."""

    invite: str
    role: MemberRole
    expires_in: int
    uses: int
    by: str


def routes(state: State) -> list[BaseRoute]:
    """Members and invitations of a thread."""
    members, invites = "/v1/threads/{thread}/members", "/v1/threads/{thread}/invites"
    one, invite = members + "/{principal:path}", invites + "/{invite}"
    state.roles.add("DELETE", one, "write", "read")  # who leaves may only read
    state.roles.add("DELETE", invite, "write")
    state.roles.add("POST", "/v1/invites/accept", "read")
    return [
        route(state, members, of_thread(listed), "GET"),
        route(state, one, of_thread(put), "PUT"),
        route(state, one, of_thread(remove), "DELETE"),
        route(state, invites, of_thread(create_invite), "POST"),
        route(state, invites, of_thread(list_invites), "GET"),
        route(state, invite, of_thread(revoke_invite), "DELETE"),
        route(state, "/v1/invites/accept", accept, "POST"),
    ]


async def listed(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/threads/{thread}/members``: who belongs to the conversation."""
    async with count_misses(state, info):
        access = await _enter(state, request, info, "read")
    return json_response(_list_of(access, await state.runs.members.roster(access.scope)))


async def put(state: State, request: Request, info: RequestInfo) -> Response:
    """``PUT .../members/{principal}`` with a ``role``: add somebody, or change what they may do."""
    body = read_body(info.json, MemberBody)
    name = _principal(request, info)
    async with count_misses(state, info):
        access = await _enter(state, request, info, "own")
        roster = await state.runs.members.put(access, name, body.role)
    await state.threads.note(access.scope)
    current = await state.runs.members.in_scope(access.scope, info.principal)
    return json_response(_list_of(current or access, roster))


async def remove(state: State, request: Request, info: RequestInfo) -> Response:
    """``DELETE .../members/{principal}``: remove somebody, or leave; their streams end, and their
    tokens."""
    name = _principal(request, info)
    if name != info.principal:
        info.identity.require("write")
    async with count_misses(state, info):
        access = await _enter(state, request, info, "read" if name == info.principal else "own")
        await state.runs.members.remove(access, name)
    return Response(status_code=204)


async def create_invite(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST .../invites``: a token by which others join, each with the ``role``."""
    body = read_body(info.json, InviteBody) if info.body else InviteBody()
    async with count_misses(state, info):
        access = await _enter(state, request, info, "own")
        thread, name = await state.runs.members.invite(
            access, body.role, ttl=body.ttl, uses=body.uses
        )
    await state.threads.note(access.scope)
    token = await invite_token(state.identify.sessions, thread, name)
    fields = {"token": token, "invite": name, "thread": thread, "role": body.role}
    return json_response({**fields, "expires_in": body.ttl, "uses": body.uses}, 201)


async def list_invites(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET .../invites``: the open ones, for owners; without their tokens."""
    async with count_misses(state, info):
        access = await _enter(state, request, info, "own")
    roster, now = await state.runs.members.roster(access.scope), time.time()
    invites = roster.open_invites(now) if roster is not None else {}
    body = [
        InviteDescription(name, one.role, max(0, int(one.ends - now)), one.uses, _id_of(one.by))
        for name, one in invites.items()
    ]
    return json_response({"invites": body})


async def revoke_invite(state: State, request: Request, info: RequestInfo) -> Response:
    """``DELETE .../invites/{invite}``: it admits nobody any more; who has joined stays."""
    async with count_misses(state, info):
        access = await _enter(state, request, info, "own")
        await state.runs.members.uninvite(access, request.path_params["invite"])
    return Response(status_code=204)


async def accept(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST /v1/invites/accept`` with the ``token``: join, and learn the conversation's id."""
    body = read_body(info.json, AcceptBody)
    async with count_misses(state, info):
        access = await accept_invite(
            state.identify.sessions, state.runs.members, body.token, info.principal
        )
    roster = await state.runs.members.roster(access.scope)
    return json_response(_list_of(access, roster))


async def _enter(state: State, request: Request, info: RequestInfo, role: MemberRole) -> Access:
    return await state.runs.members.enter(info.principal, thread_of(request), role)


def _principal(request: Request, info: RequestInfo) -> str:
    """The name of the principal in the path, of the caller's tenant. Raises `InputError`."""
    text: str = request.path_params["principal"]
    if fault := principal_fault(text):
        raise InputError(f"the id of a member {fault}", field="principal")
    return Principal(text, info.identity.tenant).name


def _id_of(principal: str) -> str:
    return parts_of(principal)[0]


def _list_of(access: Access, roster: Roster | None) -> dict[str, Any]:
    if roster is None:  # of one person
        own = [MemberDescription(_id_of(access.principal), "own", 0.0)] if access.principal else []
        return msgspec.to_builtins(
            MemberList(access.thread, access.role, own, principal=_id_of(access.principal))
        )
    members = [
        MemberDescription(_id_of(name), member.role, member.since)
        for name, member in roster.members.items()
    ]
    who = _id_of(access.principal)
    return msgspec.to_builtins(MemberList(access.thread, access.role, members, roster.id, who))
