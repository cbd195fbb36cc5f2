"""A preparation: code of the host inside a run, before its first model call.

Always true: it runs once to its end; the conversation that it returns is stored before the model is
called, and a worker that resumes the run sends that one; its steps, words and data are recorded as
an agent's; after it the run is that of the model, with its tools and limits.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import msgspec

from tokenwire.agents.context import RunContext
from tokenwire.agents.engine import AgentEngine
from tokenwire.agents.streams import AgentStream
from tokenwire.agents.threads import in_thread
from tokenwire.errors import AgentError, ConfigError, InputError, LimitError
from tokenwire.events.message import Message, messages_of, require_content
from tokenwire.run.conversation import CONVERSATION, Conversation
from tokenwire.run.engine import Abandon, Engine, Setup
from tokenwire.run.plan import Plan
from tokenwire.run.plan_for import Planned

__all__ = ["Preparation", "preparation_of"]

#: Bytes of the messages that a preparation adds.
MOST_BYTES = 8 << 20


class Preparation:
    """A function of a `RunContext` that returns the model's conversation, or None for that of the
    request. ``version`` is recorded with each run: a worker with another one does not resume it."""

    restart = True
    #: It begins nothing elsewhere.
    abandon: Abandon | None = None

    def __init__(self, function: Callable[[RunContext], Any], *, version: str = "1") -> None:
        name = getattr(function, "__name__", type(function).__name__)
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise ConfigError(
                f"the preparation '{name}' is a generator; use a coroutine function, and "
                "'await ctx.say(text)' for words"
            )
        _check_signature(function, name)
        self.name, self.version, self._function = name, version, function

    def __repr__(self) -> str:
        return f"<preparation {self.name}>"

    def allows(self, principal: str) -> bool:
        """Whether this principal's runs are prepared."""
        return True

    def engine(self, setup: Setup) -> Engine:
        """The engine of one run."""
        return AgentEngine(self.name, self._run, setup, title="preparation")

    async def _run(self, engine: AgentEngine) -> None:
        messages = await self._conversation(engine)
        if engine.outlet.held is not None:
            return  # no model is called after an error
        engine.disarm()  # each model call has its own deadlines, as in a run without a preparation
        plan = engine.plan
        request = msgspec.structs.replace(plan.request, messages=messages)
        inner = msgspec.structs.replace(plan, request=request, agent=None)
        planned = Planned(
            plan=inner,
            transport=lambda http: http or engine.http,
            own_transport=False,
            prepare=_nothing,
        )
        stream = AgentStream(engine, planned, name=plan.model, digest="", visible=True)
        async with stream as answer:
            async for _ in answer.batches():
                pass

    async def _conversation(self, engine: AgentEngine) -> list[Message]:
        """What the model receives: as stored, or as the function says now."""
        own, journal = engine.plan.request.messages, engine.journal
        stored = journal.others.get(CONVERSATION)
        if stored is not None:
            conversation = Conversation.decode(stored)
            journal.skip(conversation.operations)
            return conversation.resolved(own)
        context = RunContext(engine)
        try:
            value = await self._call(context)
        finally:
            context.close()
        journal.check_end()
        if engine.outlet.held is not None:
            return own
        messages = self._messages(value, own)
        conversation = Conversation.of(messages, own, journal.count)
        data = conversation.encode()
        if len(data) > MOST_BYTES:
            raise LimitError(
                f"the preparation '{self.name}' added {len(data)} bytes of messages; at most "
                f"{MOST_BYTES} are stored",
                limit="prepared_messages",
                most=MOST_BYTES,
            )
        engine.outlet.close_own()
        await engine.outlet.put(engine.outlet.own, [], durable=True)
        await journal.put_other(CONVERSATION, data)
        return messages

    async def _call(self, context: RunContext) -> Any:
        if inspect.iscoroutinefunction(self._function):
            return await self._function(context)
        value = await in_thread(self._function, context)
        return await value if inspect.isawaitable(value) else value

    def _messages(self, value: object, own: list[Message]) -> list[Message]:
        if value is None:
            return own
        if isinstance(value, str):
            raise AgentError(
                f"the preparation '{self.name}' returned a text; it may return a list of messages, "
                "such as [*ctx.messages, tokenwire.system(text)]"
            )
        try:
            messages = messages_of(value)
            require_content(messages)
        except InputError as error:
            raise AgentError(
                f"the preparation '{self.name}' returned no conversation: {error.message}"
            ) from error
        return messages


def preparation_of(value: object) -> Preparation:
    """A preparation from a function. Raises `ConfigError`."""
    if isinstance(value, Preparation):
        return value
    if not callable(value):
        raise ConfigError(f"prepare must be a function of a RunContext, not {value!r:.80}")
    return Preparation(value)


def _check_signature(function: Callable[..., Any], name: str) -> None:
    try:
        inspect.signature(function).bind(object())
    except TypeError as error:
        raise ConfigError(
            f"the preparation '{name}' must take one argument, the RunContext: {error}"
        ) from None
    except ValueError:
        return  # a builtin without a signature


async def _nothing(_: Plan) -> Callable[[], Any]:
    return _done


async def _done() -> None:
    return None
