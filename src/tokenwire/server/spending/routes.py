"""``/v1/budgets``: operators read and set budgets while servers run.

Always true: only operators do; a change replaces all budgets of one owner at once, says who made it
in the store and the log, and with ``If-Match`` is made only to what the caller has read.
"""

from __future__ import annotations

import logging
import re
from decimal import Decimal
from typing import Annotated, Literal, cast

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tokenwire.errors import ConfigError, InputError, NotFoundError
from tokenwire.events.names import TENANT_END, checked_thread
from tokenwire.events.principal import Principal, parts_of
from tokenwire.events.validation import quoted
from tokenwire.relay.conversation.scope import parts_of_scope, scope_of
from tokenwire.relay.members.members import is_shared_id
from tokenwire.relay.spending.budgets import Remaining
from tokenwire.relay.spending.prices import NANOS
from tokenwire.relay.spending.stored import (
    STALE,
    Limit,
    SetBudgets,
    StoredBudgets,
    Whose,
    place_of,
)
from tokenwire.server.edge.bodies import read_body
from tokenwire.server.edge.problems import HTTPProblem, json_response
from tokenwire.server.edge.request_info import RequestInfo
from tokenwire.server.routes.support import route
from tokenwire.server.spending.operators import require_operator
from tokenwire.server.spending.usage import BudgetLeft, budget_left, settling_of
from tokenwire.server.state import State

__all__ = ["BudgetAmount", "BudgetBody", "BudgetChange", "BudgetList", "OwnerBudgets", "routes"]

_log = logging.getLogger("tokenwire.server")

#: Owners of one page.
MOST_PAGE = 1000
_MOST_TOKENS = 10**15
#: What a store can hold, in billionths.
_MOST_DOLLARS = 9 * 10**9
_TAG = re.compile(r'"([0-9]{1,18})"')
_OWNER, _ALL = "/v1/budgets/{whose}/{owner:path}", "/v1/budgets/{whose}"


class BudgetAmount(msgspec.Struct, forbid_unknown_fields=True):
    """One budget: ``most`` tokens or dollars of a day, a month, or (a conversation) for good (at
    most 10^15 tokens, nine billion dollars); null: no limit, whatever the configuration says."""

    period: Literal["day", "month", "all"]
    unit: Literal["tokens", "dollars"]
    most: Annotated[float, Meta(ge=0, le=_MOST_TOKENS)] | None


class BudgetBody(msgspec.Struct, forbid_unknown_fields=True):
    """``PUT /v1/budgets/...``. ``budgets``: all that the owner has from now on; ``note``: why, for
    the record."""

    budgets: Annotated[list[BudgetAmount], Meta(min_length=1, max_length=4)]
    note: Annotated[str, Meta(max_length=500)] | None = None


class BudgetChange(msgspec.Struct, omit_defaults=True):
    """A change: ``at``: Unix seconds; ``by``: who made it, empty without keys; ``budgets``: what
    was set, none where they were cleared."""

    at: float
    by: str
    budgets: list[BudgetAmount]
    note: str | None = None


class OwnerBudgets(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is set for one owner. ``owner``: a principal's or tenant's id or a conversation, none
    for all of their kind; ``tenant``: of the principal; ``principal``: who began the conversation;
    ``version``: for ``If-Match``, 0 where nothing was ever set; ``in_force``: what holds for this
    owner, and what is left of it; ``changes``: the newest last."""

    whose: Whose
    owner: str | None = None
    tenant: str | None = None
    principal: str | None = None
    version: int
    budgets: list[BudgetAmount]
    in_force: list[BudgetLeft] | None = None
    changes: list[BudgetChange] = []


class BudgetList(msgspec.Struct, kw_only=True):
    """``configured``: by the settings, as they write it; ``budgets``: a page of what is set;
    ``next``: the ``after`` of the next page, null at the end; ``seen_within``: seconds after which
    every process uses a change; ``zone``: in which days and months begin."""

    configured: list[str]
    budgets: list[OwnerBudgets]
    next: str | None
    seen_within: float
    zone: str


class _Owner(msgspec.Struct, frozen=True):
    """Whose budgets a request is about. ``name``: in the store; None: all of the kind."""

    whose: Whose
    name: str | None

    @property
    def place(self) -> str:
        return place_of(self.whose, self.name)


def routes(state: State) -> list[BaseRoute]:
    """``/v1/budgets``, and below it those of an owner, or of all owners of a kind."""
    for path in ("/v1/budgets", _ALL, _OWNER):
        for method in ("GET", "PUT", "DELETE"):
            state.roles.add(method, path, "admin")
    state.cors_headers += ", If-Match"
    state.cors_exposed += ", ETag"
    return [
        route(state, "/v1/budgets", listed, "GET"),
        *(
            route(state, path, handler, method)
            for path in (_ALL, _OWNER)
            for method, handler in (("GET", read), ("PUT", put), ("DELETE", clear))
        ),
    ]


async def listed(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/budgets``: what is configured, and a page of what is set."""
    stored = _stored(state, info)
    after, limit = request.query_params.get("after", ""), request.query_params.get("limit", "100")
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:6]) <= MOST_PAGE:
        raise InputError(f"'limit' must be 1 to {MOST_PAGE}", field="limit")
    entries = await stored.page(after=after, most=int(limit))
    return json_response(
        BudgetList(
            configured=list(state.settings.budget),
            budgets=[_described(_owner_of(place), entry) for place, entry in entries],
            next=entries[-1][0] if len(entries) == int(limit) else None,
            seen_within=STALE,
            zone=state.settings.usage_zone,
        )
    )


async def read(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/budgets/{whose}/{owner}``: what is set, what holds, and who changed it."""
    stored = _stored(state, info)
    owner = await _owner(state, request, info)
    return await _answer(state, owner, await stored.read(owner.place))


async def put(state: State, request: Request, info: RequestInfo) -> Response:
    """``PUT /v1/budgets/{whose}/{owner}``: set all budgets of an owner."""
    stored = _stored(state, info)
    body = read_body(info.json, BudgetBody)
    owner = await _owner(state, request, info)
    limits = [_limit(owner.whose, number, one) for number, one in enumerate(body.budgets)]
    if len({(limit.period, limit.unit) for limit in limits}) < len(limits):
        raise InputError("two budgets are for the same period and unit", field="budgets")
    return await _change(state, stored, request, info, owner, limits, body.note)


async def clear(state: State, request: Request, info: RequestInfo) -> Response:
    """``DELETE /v1/budgets/{whose}/{owner}``: nothing is set any more; the configuration counts."""
    stored = _stored(state, info)
    owner = await _owner(state, request, info)
    return await _change(state, stored, request, info, owner, [], None)


async def _change(
    state: State,
    stored: StoredBudgets,
    request: Request,
    info: RequestInfo,
    owner: _Owner,
    limits: list[Limit],
    note: str | None,
) -> Response:
    version, by = _version(request), info.identity.user
    if version is not None and (await stored.read(owner.place)).version != version:
        raise HTTPProblem(412, "precondition_failed", "the budgets have changed; read them again")
    entry = await stored.put(owner.place, limits, by=by, note=note, version=version)
    _log.info(
        "budgets of %s are now %s, set by %s (version %d)",
        quoted(owner.place.replace(TENANT_END, "/").replace("\x1f", "/")),
        ", ".join(map(_words, limits)) or "those of the configuration",
        by or "a caller without a key",
        entry.version,
    )
    return await _answer(state, owner, entry)


async def _answer(state: State, owner: _Owner, entry: SetBudgets) -> Response:
    described = _described(owner, entry)
    described.changes = [
        BudgetChange(one.at, one.by, list(map(_amount, one.limits)), one.note)
        for one in entry.changes
    ]
    if owner.name is not None:
        described.in_force = await _in_force(state, owner.whose, owner.name)
    return json_response(described, headers={"etag": f'"{entry.version}"'})


async def _in_force(state: State, whose: Whose, name: str) -> list[BudgetLeft]:
    """The budgets of one owner that count now, and what is left of them."""
    principal, scope = {
        "principal": (name, None),
        "tenant": (f"{name}{TENANT_END}-", None),
        "thread": (parts_of_scope(name)[0], name),
    }[whose]
    remaining: list[Remaining] = await state.budgets.remaining(settling_of(state), principal, scope)
    return [budget_left(one) for one in remaining if one.budget.whose == whose]


def _stored(state: State, info: RequestInfo) -> StoredBudgets:
    require_operator(state, info.identity)
    settling_of(state)
    return state.budgets.stored


def _version(request: Request) -> int | None:
    """The version that ``If-Match`` names."""
    header = request.headers.get("if-match")
    if header is None:
        return None
    match = _TAG.fullmatch(header.strip())
    if match is None:
        raise InputError("'If-Match' must be one ETag of these budgets", field="if-match")
    return int(match[1])


async def _owner(state: State, request: Request, info: RequestInfo) -> _Owner:
    """Of the path, with ``?tenant=`` and, for a conversation, ``?principal=``."""
    whose = request.path_params["whose"]
    if whose not in ("principal", "tenant", "thread"):
        raise HTTPProblem(404, "not_found", "budgets are of a principal, tenant or thread")
    owner = request.path_params.get("owner")
    tenant = _named(request, "tenant", is_of_use=owner is not None and whose != "tenant")
    principal = _named(request, "principal", is_of_use=owner is not None and whose == "thread")
    if owner is None:
        return _Owner(whose, None)
    try:
        if whose == "principal":
            return _Owner(whose, Principal(owner, tenant).name)
        if whose == "tenant":
            return _Owner(whose, Principal("-", owner).tenant)
        checked_thread(owner)
        if principal is None and tenant is not None:
            raise InputError("'tenant' needs the 'principal' of the conversation", field="tenant")
        beginner = Principal(principal, tenant).name if principal is not None else ""
    except ConfigError as error:
        raise InputError(error.message, field="owner") from None
    if not is_shared_id(owner):
        if principal is None and info.how != "open":
            raise InputError("name the 'principal' who began the conversation", field="principal")
        return _Owner("thread", scope_of(beginner, owner))
    scope = await state.runs.members.scope(beginner or "-", owner)
    if scope == scope_of(beginner or "-", owner):
        raise NotFoundError("no such conversation", what="thread")
    return _Owner("thread", scope)


def _named(request: Request, name: str, *, is_of_use: bool) -> str | None:
    """What the query says of an owner; a name that would count for nothing, so that budgets are set
    for more or for others than were meant, is refused."""
    values = request.query_params.getlist(name)
    if len(values) > 1:
        raise InputError(f"'{name}' may be given once", field=name)
    if values and not is_of_use:
        raise InputError(f"'{name}' says nothing about these budgets: leave it out", field=name)
    return values[0] if values else None


def _owner_of(place: str) -> _Owner:
    whose, _, name = place.partition("/")
    return _Owner(cast(Whose, whose), name or None)


def _limit(whose: Whose, number: int, amount: BudgetAmount) -> Limit:
    field = f"budgets[{number}]"
    if (amount.period == "all") is not (whose == "thread"):
        periods = "'all'" if whose == "thread" else "'day' or 'month'"
        raise InputError(f"the period of a {whose}'s budget is {periods}", field=field)
    period = None if amount.period == "all" else amount.period
    if amount.most is None:
        return Limit(period, amount.unit, None)
    if amount.unit == "tokens":
        if amount.most != int(amount.most):
            raise InputError("a number of tokens must be whole", field=field)
        return Limit(period, "tokens", int(amount.most))
    if amount.most > _MOST_DOLLARS:
        raise InputError(f"a budget has at most ${_MOST_DOLLARS:,}", field=field)
    most = int(Decimal(str(amount.most)) * NANOS)
    if amount.most and not most:
        raise InputError("a budget of dollars must be a billionth at least", field=field)
    return Limit(period, "dollars", most)


def _amount(limit: Limit) -> BudgetAmount:
    most = limit.most
    if most is not None and limit.unit == "dollars":
        return BudgetAmount(limit.period or "all", limit.unit, most / NANOS)
    return BudgetAmount(limit.period or "all", limit.unit, most)


def _words(limit: Limit) -> str:
    amount = _amount(limit)
    most = "unlimited" if amount.most is None else f"{amount.most:.12g} {limit.unit}"
    return f"{most} a {amount.period}" if limit.period is not None else f"{most} for good"


def _described(owner: _Owner, entry: SetBudgets) -> OwnerBudgets:
    described = OwnerBudgets(
        whose=owner.whose, version=entry.version, budgets=list(map(_amount, entry.limits))
    )
    if owner.name is None:
        return described
    if owner.whose == "principal":
        described.owner, described.tenant = parts_of(owner.name)
    elif owner.whose == "tenant":
        described.owner = owner.name
    else:
        principal, described.owner = parts_of_scope(owner.name)
        described.principal, described.tenant = parts_of(principal)
    return described
