"""The demo tools: harmless, offline, and between them every way in which a tool can behave.

Always true: nothing here touches a file, the network or the clock of the machine beyond reading it.
"""

from __future__ import annotations

import ast
import asyncio
import datetime
import math
import operator
import zoneinfo
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Final

from pydantic import Field

from tokenwire.errors import ToolError
from tokenwire.tools.context import Progress
from tokenwire.tools.registry import ToolSet, tool

__all__ = ["calculator", "clock", "delete_file", "demo_tools", "get_weather", "slow_task"]

_SKIES: Final = ("sunny", "cloudy", "light rain", "windy", "foggy", "snow showers")


@tool(idempotent=True)
def get_weather(city: Annotated[str, Field(min_length=1, max_length=100)]) -> dict[str, Any]:
    """Tell the weather in a city (simulated: the same city always has the same weather).

    Args:
        city: Name of the city, for example "Paris".
    """
    number = sum(city.casefold().encode())
    return {
        "city": city,
        "temperature_celsius": number % 35 - 5,
        "sky": _SKIES[number % len(_SKIES)],
        "simulated": True,
    }


@tool(idempotent=True)
def clock(timezone: Annotated[str, Field(max_length=64)] = "UTC") -> dict[str, str]:
    """Tell the date and time.

    Args:
        timezone: A name of the IANA list, for example "Europe/Berlin".
    """
    try:
        zone = zoneinfo.ZoneInfo(timezone)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        raise ToolError(f"unknown time zone {timezone!r}") from None
    now = datetime.datetime.now(zone)
    return {"time": now.isoformat(timespec="seconds"), "weekday": now.strftime("%A")}


@tool(idempotent=True)
def calculator(expression: Annotated[str, Field(max_length=200)]) -> float | int:
    """Work out an arithmetic expression: + - * / // % **, brackets, sqrt, abs, round, min, max,
    sin, cos, tan, log, exp, pi, e.

    Args:
        expression: For example "(3 + 4) * 2 ** 5".
    """
    try:
        tree = ast.parse(expression.strip(), mode="eval")
        return _evaluate(tree.body)
    except ToolError:
        raise
    except ZeroDivisionError:
        raise ToolError("division by zero") from None
    except (SyntaxError, ValueError, OverflowError, TypeError, RecursionError, MemoryError):
        raise ToolError(f"cannot evaluate {expression!r}") from None


@tool(timeout=120)
async def slow_task(
    steps: Annotated[int, Field(ge=1, le=100)] = 5,
    seconds: Annotated[float, Field(ge=0, le=60)] = 2.0,
) -> AsyncIterator[Any]:
    """Do nothing useful for a while and report progress.

    Args:
        steps: How many times to report.
        seconds: How long it takes altogether.
    """
    for number in range(steps):
        yield Progress(number / steps, f"step {number + 1} of {steps}")
        await asyncio.sleep(seconds / steps)
    yield Progress(1.0, "done")
    yield {"steps": steps, "finished": True}


@tool(needs_approval=True)
def delete_file(path: Annotated[str, Field(min_length=1, max_length=500)]) -> dict[str, Any]:
    """Delete a file (simulated: nothing is deleted). Always asks a person first.

    Args:
        path: The file, for example "notes.txt".
    """
    return {"deleted": path, "simulated": True}


def demo_tools() -> ToolSet:
    """All demo tools."""
    return ToolSet([get_weather, clock, calculator, slow_task, delete_file])


_OPERATORS: Final[dict[type, Callable[..., Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "abs": abs,
    "round": round,
    "min": min,
    "max": max,
    **{name: getattr(math, name) for name in ("sqrt", "sin", "cos", "tan", "log", "exp")},
}
_CONSTANTS: Final = {"pi": math.pi, "e": math.e}
#: Larger numbers are useless here, and each further operation on them costs more.
_LARGEST: Final = 10**100


def _evaluate(node: ast.AST) -> Any:
    """Walks the syntax tree; nothing is ever compiled or run."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return _bounded(node.value)
    if isinstance(node, ast.Name) and node.id in _CONSTANTS:
        return _CONSTANTS[node.id]
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_evaluate(node.operand))
    if isinstance(node, ast.BinOp):
        first, second = _evaluate(node.left), _evaluate(node.right)
        if isinstance(node.op, ast.Pow):
            return _bounded(_power(first, second))
        if type(node.op) in _OPERATORS:
            return _bounded(_OPERATORS[type(node.op)](first, second))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        function = _FUNCTIONS.get(node.func.id)
        if function is not None:
            return _bounded(function(*[_evaluate(argument) for argument in node.args]))
    raise ToolError(
        "unsupported syntax; use numbers, + - * / // % **, brackets and the listed functions"
    )


def _power(base: Any, exponent: Any) -> Any:
    if abs(exponent) > 1000 or (abs(base) > 1 and abs(exponent) * math.log10(abs(base)) > 100):
        raise ToolError("the number would be too large")
    return base**exponent


def _bounded(value: Any) -> Any:
    if isinstance(value, complex) or value != value or abs(value) > _LARGEST:
        raise ToolError("the number is too large or not real")
    return value
