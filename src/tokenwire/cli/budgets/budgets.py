"""``tokenwire budgets``: what is set on a server, for operators, and a change of it.

Always true: what is wrong with the words of the command is said before anything is sent.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlencode

from tokenwire.cli.terminal import Out, note
from tokenwire.client.origin import Origin
from tokenwire.client.reconnect import Patience
from tokenwire.client.requests import Requests
from tokenwire.errors import AccessError, InputError, NotAuthenticatedError

__all__ = ["amounts_of", "path_of", "run_budgets"]

_AMOUNT = re.compile(r"(day|month|all)=(?:(none)(-dollars)?|(\$?)([0-9][0-9_]*(?:\.[0-9]+)?))")
_ACTIONS = ("list", "show", "set", "clear")


def run_budgets(
    action: str,
    whose: str | None,
    amounts: list[str],
    *,
    tenant: str | None,
    principal: str | None,
    reason: str | None,
    url: str,
    as_json: bool,
) -> int:
    """List, show, set or clear budgets. Returns the exit code."""
    if action not in _ACTIONS:
        raise InputError(f"unknown action '{action[:40]}'; choose of {', '.join(_ACTIONS)}")
    if (whose is None) is not (action == "list"):
        raise InputError(
            "'list' takes no owner"
            if action == "list"
            else f"name whose to {action}, as principal/ann, tenant/acme or principal (of all)"
        )
    if bool(amounts) is not (action == "set"):
        raise InputError(
            "name what to set, as day=200000 or 'month=$100'"
            if action == "set"
            else f"'{action}' takes no amounts"
        )
    budgets = amounts_of(amounts)
    path = "/v1/budgets" if whose is None else path_of(whose, tenant, principal)
    body = {"budgets": budgets, **({"note": reason} if reason else {})} if budgets else None
    method = {"set": "PUT", "clear": "DELETE"}.get(action, "GET")
    return asyncio.run(_work(method, path, body, url, as_json))


def path_of(whose: str, tenant: str | None, principal: str | None) -> str:
    """The path of ``principal/ann``, ``tenant``, ... Raises `InputError`."""
    kind, slash, owner = whose.partition("/")
    if kind not in ("principal", "tenant", "thread") or (slash and not owner):
        raise InputError(
            f"'{whose[:80]}' is no owner; write principal/ann, tenant/acme or thread/talk, or "
            "principal, tenant or thread for all of them"
        )
    query = {"tenant": tenant, "principal": principal}
    text = urlencode({name: value for name, value in query.items() if value is not None})
    path = f"/v1/budgets/{kind}" + (f"/{quote(owner, safe='')}" if owner else "")
    return path + (f"?{text}" if text else "")


def amounts_of(texts: list[str]) -> list[dict[str, Any]]:
    """``day=200000``, ``month=$100``, ``all=none`` (tokens) or ``all=none-dollars``, as the server
    takes them. Raises `InputError`."""
    amounts: list[dict[str, Any]] = []
    for text in texts:
        match = _AMOUNT.fullmatch(text)
        if match is None:
            raise InputError(
                f"'{text[:80]}' is no budget; write day=200000 (tokens), 'month=$100', "
                "day=none or day=none-dollars (no limit), and all=... for a conversation"
            )
        period, none, of_dollars, dollar, number = match.groups()
        unit = "dollars" if dollar or of_dollars else "tokens"
        if not none:
            number = number.replace("_", "")
        most = None if none else float(number) if "." in number else int(number)
        amounts.append({"period": period, "unit": unit, "most": most})
    return amounts


async def _work(method: str, path: str, body: Any, url: str, as_json: bool) -> int:
    out = Out(raw=False)
    origin = Origin(url, os.environ.get("TOKENWIRE_API_KEY") or None)
    requests = Requests(origin, Patience())
    try:
        is_list = path == "/v1/budgets"
        after: str | None = ""
        while after is not None:
            query = f"?{urlencode({'after': after})}" if is_list and after else ""
            value = await requests.send(method, path + query, body)
            if as_json:
                out.write(json.dumps(value, ensure_ascii=False) + "\n")
            elif is_list:
                out.write("" if after else _configured(value))
                out.write("".join(map(_text, value["budgets"])))
            else:
                out.write(_text(value) + _details(value))
            after = value["next"] if is_list else None
        if method != "GET":
            note("[every worker of the store uses it within a second]")
        return 0
    except AccessError as error:
        hint = f"{error.message} (the key comes from TOKENWIRE_API_KEY)"
        raise NotAuthenticatedError(hint) from error
    finally:
        origin.close()


def _configured(value: Any) -> str:
    return f"configured: {', '.join(value['configured']) or 'none'} (days of {value['zone']})\n"


def _text(value: Any) -> str:
    owner = value.get("owner")
    name = value["whose"] if owner is None else f"{value['whose']}/{owner or '(without a key)'}"
    of = [f"{what} {value[what]}" for what in ("principal", "tenant") if value.get(what)]
    words = ", ".join(map(_amount, value["budgets"])) or "nothing is set"
    return f"{name}{' (' + ', '.join(of) + ')' if of else ''}: {words}\n"


def _amount(one: Any) -> str:
    when = {"day": "a day", "month": "a month", "all": "for good"}[one["period"]]
    if one["most"] is None:
        return f"no limit of {one['unit']} {when}"
    return f"{_number(one['most'], one['unit'])} {when}"


def _number(amount: float, unit: str) -> str:
    if unit == "tokens":
        return f"{amount:,.0f} tokens"
    dollars = Decimal(str(amount))
    is_cents = dollars == round(dollars, 2)
    return f"${dollars:,.2f}" if is_cents else f"${dollars.normalize():,f}"


def _details(value: Any) -> str:
    lines: list[str] = []
    for one in value.get("in_force") or []:
        resets = ""
        if one.get("resets") is not None:
            resets = f", until {datetime.fromtimestamp(one['resets']).astimezone():%Y-%m-%d %H:%M}"
        left = _number(one["left"], one["unit"])
        lines.append(f"  {one['name']}: {left} of {_number(one['most'], one['unit'])} left{resets}")
    for one in value.get("changes", []):
        when = f"{datetime.fromtimestamp(one['at']).astimezone():%Y-%m-%d %H:%M}"
        words = ", ".join(map(_amount, one["budgets"])) or "cleared"
        # On its own line, whatever it has: a second one would look like another change.
        why = f": {' '.join(one['note'].split())}" if one.get("note") else ""
        lines.append(f"  {when} {one['by'] or '(without a key)'}: {words}{why}")
    return "".join(f"{line}\n" for line in lines)
