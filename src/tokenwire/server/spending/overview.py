"""``/v1/usage/principals`` and ``/v1/usage/tenants``: what everybody used, for operators.

Always true: only operators read it; a page costs its own length, however many there are; what was
summed before names were stored has none.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tokenwire.errors import InputError
from tokenwire.events.names import TENANT_END
from tokenwire.events.principal import parts_of
from tokenwire.relay.spending.bill import Sum
from tokenwire.relay.spending.ledger import owner_account
from tokenwire.relay.spending.settling import Settling
from tokenwire.server.edge.problems import json_response
from tokenwire.server.edge.request_info import RequestInfo
from tokenwire.server.routes.support import route
from tokenwire.server.spending.operators import require_operator
from tokenwire.server.spending.usage import (
    BudgetLeft,
    ModelUsage,
    budget_left,
    day_of_query,
    model_usage,
    settling_of,
)
from tokenwire.server.state import State

__all__ = ["MOST_OWNERS", "OwnerUsage", "OwnerUsagePage", "routes"]

#: Owners of one page.
MOST_OWNERS = 200
_PLACE = re.compile(r"[0-9a-f]{32}")
#: Where the sums of everybody are, on a server without keys.
_NOBODY = owner_account("day", "", "p", "").name.rpartition(".")[2]


class OwnerUsage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One principal's or tenant's sums of a day and its month. ``owner``: its id, null where the
    sum is older than names in sums; ``budgets``: those in force now, where the day is today."""

    owner: str | None
    tenant: str | None = None
    day: ModelUsage
    month: ModelUsage
    budgets: list[BudgetLeft] = []


class OwnerUsagePage(msgspec.Struct, kw_only=True):
    """A page of those who used something in the month of ``day``, in no order that means anything.
    ``next``: the ``after`` of the next page, null at the end; ``prices``: the table that new runs
    are priced by, null without one."""

    day: str
    today: str
    zone: str
    prices: str | None
    owners: list[OwnerUsage]
    next: str | None


def routes(state: State) -> list[BaseRoute]:
    """Both routes."""
    state.roles.add("GET", "/v1/usage/principals", "admin")
    state.roles.add("GET", "/v1/usage/tenants", "admin")
    return [
        route(state, "/v1/usage/principals", principals, "GET"),
        route(state, "/v1/usage/tenants", tenants, "GET"),
    ]


async def principals(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/usage/principals``: by principal."""

    async def budgets(name: str) -> list[BudgetLeft]:
        remaining = await state.budgets.remaining(settling_of(state), name)
        return [budget_left(one) for one in remaining if one.budget.whose == "principal"]

    return await _answer(state, request, info, "p", budgets)


async def tenants(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/usage/tenants``: by tenant."""

    async def budgets(name: str) -> list[BudgetLeft]:
        remaining = await state.budgets.remaining(settling_of(state), f"{name}{TENANT_END}-")
        return [budget_left(one) for one in remaining if one.budget.whose == "tenant"]

    return await _answer(state, request, info, "t", budgets)


async def _answer(
    state: State,
    request: Request,
    info: RequestInfo,
    kind: str,
    budgets: Callable[[str], Awaitable[list[BudgetLeft]]],
) -> Response:
    require_operator(state, info.identity)
    settling = settling_of(state)
    today = settling.day(time.time())
    day = day_of_query(request, today)
    after = request.query_params.get("after", "")
    if after and not _PLACE.fullmatch(after):
        raise InputError("'after' must be the 'next' of the page before", field="after")
    owners, following = await _owners(settling, day, kind, after)
    for name, owner in owners:
        if day == today and owner.owner is not None:
            owner.budgets = await budgets(name)
    return json_response(
        OwnerUsagePage(
            day=day,
            today=today,
            zone=state.settings.usage_zone,
            prices=settling.table,
            owners=[owner for _, owner in owners],
            next=following,
        )
    )


async def _owners(
    settling: Settling, day: str, kind: str, after: str
) -> tuple[list[tuple[str, OwnerUsage]], str | None]:
    """A page of owners with their names in the store, and the place behind which the next
    begins."""
    months = await settling.ledger.page("month", day[:7], kind, after=after, most=MOST_OWNERS)
    # Whoever used something on the day did so in its month: no more than these, and in order.
    days = dict(await settling.ledger.page("day", day, kind, after=after, most=MOST_OWNERS))
    owners: list[tuple[str, OwnerUsage]] = []
    for place, month in months:
        user, tenant = parts_of(month.owner) if kind == "p" else (month.owner, None)
        usage = OwnerUsage(
            owner=user if month.owner or place == _NOBODY else None,
            tenant=tenant,
            day=model_usage(days.get(place, Sum())),
            month=model_usage(month),
        )
        owners.append((month.owner, usage))
    return owners, months[-1][0] if len(months) == MOST_OWNERS else None
