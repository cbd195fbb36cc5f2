"""Values that a tool gets anew for each call, such as a database session, and that end with it.

Always true: what was opened for a call is closed when its function has ended, whether it returned,
raised, was cancelled or ran out of time; the model never sees these parameters.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any

from tokenwire.errors import ConfigError
from tokenwire.tools.context import ToolContext

__all__ = ["PerCall", "with_values"]


class PerCall:
    """Marks a parameter of a tool as a value made for each call:
    ``session: Annotated[Session, PerCall(new_session)]``, or ``session: Session =
    PerCall(new_session)``.

    ``factory``: takes the `ToolContext` of the call, or nothing. It returns a context manager or an
    async one, which is entered before the tool and left after it; or it is a generator or an async
    generator that yields the value once; or it returns the value, or a coroutine of it. A tool that
    is a plain function takes factories without ``async`` only. Raises `ConfigError` for what cannot
    be called so.
    """

    def __init__(self, factory: Callable[..., Any]) -> None:
        if not callable(factory):
            raise ConfigError(f"PerCall takes a function, not {type(factory).__name__}")
        self.name = getattr(factory, "__name__", type(factory).__name__)
        self._takes_context = _takes_context(factory, self.name)
        self.is_async = inspect.iscoroutinefunction(factory) or inspect.isasyncgenfunction(factory)
        if inspect.isasyncgenfunction(factory):
            factory = contextlib.asynccontextmanager(factory)
        elif inspect.isgeneratorfunction(factory):
            factory = contextlib.contextmanager(factory)
        self._factory: Callable[..., Any] = factory

    def make(self, context: ToolContext) -> Any:
        """What the factory returns for the call with this ``context``."""
        return self._factory(context) if self._takes_context else self._factory()


def with_values(
    function: Callable[..., Any], values: Mapping[str, PerCall], context: ToolContext
) -> Callable[..., Any]:
    """``function`` of the same kind (plain, async, generator), which also gets ``values``."""
    if inspect.isasyncgenfunction(function):

        async def generate(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            async with contextlib.AsyncExitStack() as stack:
                kwargs |= {n: await _enter_async(v, context, stack) for n, v in values.items()}
                async with contextlib.aclosing(function(*args, **kwargs)) as items:
                    async for item in items:
                        yield item

        return generate
    if _is_coroutine_function(function):

        async def call_async(*args: Any, **kwargs: Any) -> Any:
            async with contextlib.AsyncExitStack() as stack:
                kwargs |= {n: await _enter_async(v, context, stack) for n, v in values.items()}
                return await function(*args, **kwargs)

        return call_async
    if inspect.isgeneratorfunction(function):

        def generate_plain(*args: Any, **kwargs: Any) -> Iterator[Any]:
            with contextlib.ExitStack() as stack:
                kwargs |= {n: _enter(v, context, stack) for n, v in values.items()}
                return (yield from function(*args, **kwargs))

        return generate_plain

    def call(*args: Any, **kwargs: Any) -> Any:
        with contextlib.ExitStack() as stack:
            kwargs |= {n: _enter(v, context, stack) for n, v in values.items()}
            value = function(*args, **kwargs)
            if (
                inspect.isawaitable(value)
                or inspect.isasyncgen(value)
                or inspect.isgenerator(value)
            ):
                raise TypeError("a tool with PerCall values must say itself that it is async")
            return value

    return call


async def _enter_async(
    value: PerCall, context: ToolContext, stack: contextlib.AsyncExitStack
) -> Any:
    item: Any = value.make(context)
    if inspect.isawaitable(item) and not isinstance(item, AbstractAsyncContextManager):
        item = await item
    if isinstance(item, AbstractAsyncContextManager):
        return await stack.enter_async_context(item)
    return stack.enter_context(item) if isinstance(item, AbstractContextManager) else item


def _enter(value: PerCall, context: ToolContext, stack: contextlib.ExitStack) -> Any:
    item: Any = value.make(context)
    if isinstance(item, AbstractContextManager):
        return stack.enter_context(item)
    if inspect.iscoroutine(item):
        item.close()
    if inspect.isawaitable(item) or isinstance(item, AbstractAsyncContextManager):
        raise TypeError(f"'{value.name}' is async, so the tool must be 'async def'")
    return item


def _is_coroutine_function(function: Callable[..., Any]) -> bool:
    call = getattr(function, "__call__", function)  # noqa: B004 - objects with an async __call__
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _takes_context(factory: Callable[..., Any], name: str) -> bool:
    try:
        signature = inspect.signature(factory)
    except ValueError:
        return False  # a builtin without a signature
    for count in (0, 1):
        try:
            signature.bind(*[object()] * count)
        except TypeError:
            continue
        # One that could do without, such as a sessionmaker with options, gets nothing.
        return bool(count)
    raise ConfigError(f"the PerCall factory '{name}' must take the ToolContext, or nothing")
