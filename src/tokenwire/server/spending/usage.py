"""``/v1/usage``: what the caller's runs used, and what that cost.

Always true: a principal reads its own sums, those of conversations that it belongs to, and, with
the role ``admin``, those of its tenant; a token for a browser opens none of this; tokens without a
price make a cost unknown, never less.
"""

from __future__ import annotations

import re
import time
from datetime import date
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tokenwire.errors import InputError
from tokenwire.events.names import checked_thread
from tokenwire.relay.spending.bill import Sum
from tokenwire.relay.spending.budgets import Remaining
from tokenwire.relay.spending.counts import Counts
from tokenwire.relay.spending.ledger import (
    Account,
    Ledger,
    StoredSum,
    owner_account,
    thread_account,
)
from tokenwire.relay.spending.prices import NANOS
from tokenwire.relay.spending.settling import Settling
from tokenwire.server.access.misses import count_misses, run_id
from tokenwire.server.edge.problems import HTTPProblem, json_response
from tokenwire.server.edge.request_info import RequestInfo
from tokenwire.server.routes.support import route
from tokenwire.server.state import State

__all__ = [
    "BudgetLeft",
    "ModelUsage",
    "PeriodUsage",
    "RunUsage",
    "ThreadUsage",
    "UsageReport",
    "budget_left",
    "day_of_query",
    "model_usage",
    "period_usage",
    "routes",
    "settling_of",
]

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class ModelUsage(Counts, kw_only=True):
    """Model calls and their tokens. ``unreported_calls``: of which the provider did not say what
    they used; ``cost``: US dollars, null where there are such calls, or tokens without a price
    (``unpriced_tokens``), or estimated ones; ``known_cost``: of the others. ``estimated_tokens``,
    ``estimated_cost``: what calls used beyond what their providers said, of answers that were cut
    or not counted; in no other number."""

    calls: int
    unreported_calls: int = 0
    cost: float | None
    known_cost: float
    unpriced_tokens: int = 0
    estimated_tokens: int = 0
    estimated_cost: float = 0.0


class PeriodUsage(ModelUsage, kw_only=True):
    """A sum. ``period``: a day or a month, none of a conversation; ``runs``: those that have ended;
    ``models``: by provider and model."""

    period: str | None = None
    runs: int
    models: dict[str, ModelUsage]


class Owner(msgspec.Struct):
    """The sums of a day and of its month."""

    day: PeriodUsage
    month: PeriodUsage


class BudgetLeft(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A budget. ``left``, ``most``: tokens, or dollars; ``resets``: Unix seconds at which it begins
    anew."""

    name: str
    unit: Literal["tokens", "dollars"]
    left: float
    most: float
    resets: float | None = None


class UsageReport(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The caller's sums of a day and its month, in the time ``zone``. ``prices``: the table that
    new runs are priced by, none without one; ``tenant``: of all its principals, for who has the
    role ``admin``; ``budgets``: the caller's own and its tenant's."""

    zone: str
    prices: str | None = None
    day: PeriodUsage
    month: PeriodUsage
    tenant: Owner | None = None
    budgets: list[BudgetLeft] = []


class ThreadUsage(msgspec.Struct, kw_only=True):
    """All runs of a conversation that have ended, erased ones too."""

    thread: str
    total: PeriodUsage


class RunUsage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one run used. ``is_settled``: it has ended, and is in the sums; before that it is what
    its log says so far; ``prices``: the table by which it was priced."""

    run: str
    is_settled: bool
    prices: str | None = None
    total: ModelUsage
    models: dict[str, ModelUsage]


def routes(state: State) -> list[BaseRoute]:
    """``/v1/usage`` and the usage of a run and a conversation."""
    return [
        route(state, "/v1/usage", usage, "GET"),
        route(state, "/v1/runs/{run}/usage", run_usage, "GET"),
        route(state, "/v1/threads/{thread}/usage", thread_usage, "GET"),
    ]


async def usage(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/usage``: what the caller's runs used on a ``day`` (today), and in its month."""
    settling = settling_of(state)
    day = day_of_query(request, settling.day(time.time()))
    identity, ledger = info.identity, settling.ledger
    budgets = await state.budgets.remaining(settling, identity.principal, None, identity)
    own = await _owner(ledger, day, "p", identity.principal)
    tenant: Owner | None = None
    is_admin = identity.roles is not None and "admin" in identity.roles
    if is_admin and identity.tenant is not None:
        tenant = await _owner(ledger, day, "t", identity.tenant)
    return json_response(
        UsageReport(
            zone=state.settings.usage_zone,
            prices=settling.table,
            day=own.day,
            month=own.month,
            tenant=tenant,
            budgets=[budget_left(one) for one in budgets],
        )
    )


async def run_usage(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/runs/{run}/usage``: what a run used, or has used so far."""
    settling, run = settling_of(state), run_id(request)
    async with count_misses(state, info):
        await state.runs.info(run, principal=info.principal)
        bill = await settling.bill_so_far(run)
    total, models = Sum(), dict[str, Sum]()
    for line in bill.lines:
        total.add(line.sum)
        models.setdefault(line.model, Sum()).add(line.sum)
    return json_response(
        RunUsage(
            run=run,
            is_settled=bill.is_settled,
            prices=bill.table,
            total=model_usage(total),
            models={name: model_usage(part) for name, part in models.items()},
        )
    )


async def thread_usage(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/threads/{thread}/usage``: what all runs of a conversation used."""
    settling, thread = settling_of(state), request.path_params["thread"]
    checked_thread(thread)
    access = await state.runs.members.enter(info.principal, thread, "read")
    entry = await settling.ledger.read(thread_account(access.scope))
    return json_response(ThreadUsage(thread=thread, total=period_usage(None, entry)))


def day_of_query(request: Request, today: str) -> str:
    """The ``?day=`` of a request, or today. Raises `InputError`."""
    day = request.query_params.get("day") or today
    if not _is_date(day):
        raise InputError("'day' must be a date such as 2026-11-29", field="day")
    return day


def _is_date(text: str) -> bool:
    try:
        return _DAY.fullmatch(text) is not None and bool(date.fromisoformat(text))
    except ValueError:
        return False


def budget_left(remaining: Remaining) -> BudgetLeft:
    """A budget, as an answer says it."""
    budget, amount, resets = remaining
    return BudgetLeft(
        name=budget.name,
        unit=budget.unit,
        left=budget.shown(max(0, amount)),
        most=budget.shown(budget.most),
        resets=None if resets is None else round(time.time() + resets),
    )


def settling_of(state: State) -> Settling:
    """What counts usage here. Raises `HTTPProblem` where nothing does."""
    if state.settling is None:
        raise HTTPProblem(
            404,
            "usage_off",
            "this server counts no usage, and holds no budgets: start it with --usage, or with "
            "--budget, which implies it",
        )
    return state.settling


async def _owner(ledger: Ledger, day: str, kind: str, whose: str) -> Owner:
    async def read(account: Account) -> PeriodUsage:
        return period_usage(account.name.partition(".")[0], await ledger.read(account))

    return Owner(
        await read(owner_account("day", day, kind, whose)),
        await read(owner_account("month", day, kind, whose)),
    )


def period_usage(period: str | None, entry: StoredSum) -> PeriodUsage:
    """A sum, as an answer says it."""
    models = {name: model_usage(part) for name, part in entry.models.items()}
    return PeriodUsage(period=period, runs=entry.runs, models=models, **_fields(entry))


def model_usage(part: Sum) -> ModelUsage:
    """Calls and their tokens, as an answer says them."""
    return ModelUsage(**_fields(part))


def _fields(part: Sum) -> dict[str, Any]:
    dollars = part.cost / NANOS
    is_known = not part.unpriced_tokens and not part.unreported_calls and not part.estimated_tokens
    return {
        **{name: getattr(part.counts, name) for name in Counts.__struct_fields__},
        "calls": part.calls,
        "unreported_calls": part.unreported_calls,
        "cost": dollars if is_known else None,
        "known_cost": dollars,
        "unpriced_tokens": part.unpriced_tokens,
        "estimated_tokens": part.estimated_tokens,
        "estimated_cost": part.estimated_cost / NANOS,
    }
