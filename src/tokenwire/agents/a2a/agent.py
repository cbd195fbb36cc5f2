"""A remote A2A agent as an agent of ours: turns of one remote task, with a person between them.

Always true: the id of the remote task is stored before anything of it is said, so that another
worker goes on with that task; a run that ends while its task does not, cancels it, also where
nobody works at the run by then; how the task ended is how the run ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from tokenwire.agents.a2a.address import Address, address_of, title_of
from tokenwire.agents.a2a.card import Peer
from tokenwire.agents.a2a.connection import Connection, find_peer
from tokenwire.agents.a2a.failures import is_cut
from tokenwire.agents.a2a.follow import FIRST_PAUSE, Follower, Lost, Outgoing, find_task
from tokenwire.agents.a2a.message import message_name, parts_of
from tokenwire.agents.a2a.questions import ask
from tokenwire.agents.a2a.reading import Reading
from tokenwire.agents.a2a.task import Question, words_of
from tokenwire.agents.context import RunContext
from tokenwire.agents.frameworks.turns import Turn, cut_short
from tokenwire.agents.spec import Agent
from tokenwire.errors import ProviderError
from tokenwire.events import model as m
from tokenwire.events.reasons import INCOMPLETE_REASONS
from tokenwire.run.engine import AgentWork

__all__ = ["remote_agent"]

_log = logging.getLogger("tokenwire.agents")

#: Seconds for which a card is not fetched again.
CARD_SECONDS = 300.0
#: Seconds that a cancelled run waits for its agent, which hears of the cancel in any case.
CANCEL_SECONDS = 0.8
_DOCUMENT = "a2a"
_CODE = re.compile(r"[a-z][a-z_]{0,39}")
#: Cancels of remote tasks that are under way.
_cancels: set[asyncio.Task[None]] = set()


class _State(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How a turn ended. ``facts``: of a peer that is tokenwire as well."""

    task: str
    state: str
    context: str = ""
    words: str = ""
    error: str = ""
    reason: str = ""
    question: Question | None = None


def remote_agent(
    place: str, name: str | None = None, *, env: Mapping[str, str] | None = None
) -> Agent:
    """The agent at ``a2a:https://HOST/PATH#TENANT``. Raises `ConfigError`."""
    name = name or title_of(place)
    address = address_of(place, name, os.environ if env is None else env)
    cards = _Cards(address)

    async def work(ctx: RunContext) -> None:
        await _RemoteRun(ctx, address, cards).work()

    async def abandon(left: AgentWork) -> None:
        task = left.documents.get(_DOCUMENT, b"").decode()

        async def connect() -> Connection:
            peer = await find_peer(left.http, address, left.deadlines)
            return Connection(left.http, address, peer, left.deadlines)

        await _cancel_task(connect, task, left.run, message_name(left.run, left.agent, 0))

    return Agent(name, work, version=address.version, abandon=abandon)


async def _cancel_task(
    connect: Callable[[], Awaitable[Connection]], task: str, run: str, context: str
) -> None:
    """Cancel a run's remote task: ``task``, or the one of its ``context`` where no id is known."""
    for attempt in (1, 2, 3):
        try:
            remote = await connect()
            name = task or await find_task(remote, context)
            if name:
                await remote.call("CancelTask", {"id": name})
            return
        except ProviderError as error:
            if not is_cut(error):
                return  # it has ended, or is gone
            _log.warning("run %s: its remote task is not cancelled: %s", run, error)
        await asyncio.sleep(FIRST_PAUSE * attempt * 4)


class _Cards:
    """The peer that the last card of an address described."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._peer: Peer | None = None
        self._until = 0.0

    async def peer(self, ctx: RunContext) -> Peer:
        """The peer. Raises `ProviderError`."""
        if self._peer is None or time.monotonic() > self._until:
            self._peer = await self._fetch(ctx)
            self._until = time.monotonic() + CARD_SECONDS
        return self._peer

    async def _fetch(self, ctx: RunContext) -> Peer:
        engine, attempt = ctx.engine, 1
        while True:
            try:
                return await find_peer(engine.http, self._address, engine.plan.deadlines)
            except ProviderError as error:
                if attempt == 3 or not is_cut(error):
                    raise
            await asyncio.sleep(FIRST_PAUSE * attempt)
            attempt += 1


class _RemoteRun:
    """One run."""

    def __init__(self, ctx: RunContext, address: Address, cards: _Cards) -> None:
        self._ctx, self._engine = ctx, ctx.engine
        self._address, self._cards = address, cards
        self._reading = Reading(self._engine.earlier())
        self._remote: Connection | None = None
        self._task = ""
        #: Whether a message may have reached the agent.
        self._is_sent = False
        self._is_done = False

    async def work(self) -> None:
        """All turns."""
        stored = self._engine.journal.others.get(_DOCUMENT)
        self._task = stored.decode() if stored is not None else ""
        self._is_sent = bool(self._task)
        message = {
            "messageId": self._name(1),
            "contextId": self._name(0),
            "role": "ROLE_USER",
            "parts": parts_of(self._ctx.messages),
        }
        number = 0
        try:
            while True:
                number += 1
                state = await self._turn(number, message)
                if state.question is None:
                    return await self._report(state)
                self._reading.answered_key = state.question.key
                answer = await ask(self._ctx, state.question, self._watch)
                if answer.is_refused:
                    return await self._refuse()
                message = None
                if answer.parts:
                    message = {
                        "messageId": self._name(number + 1),
                        "contextId": state.context,
                        "taskId": state.task,
                        "role": "ROLE_USER",
                        "parts": answer.parts,
                    }
        finally:
            if not self._is_done:
                await self._let_go()

    def _name(self, number: int) -> str:
        return message_name(self._ctx.run, self._engine.name, number)

    # --- a turn ----------------------------------------------------------------------------------

    async def _turn(self, number: int, message: dict[str, Any] | None) -> _State:
        turn = await Turn.begin(self._ctx, number, resumable=True)
        self._engine.in_turn = False  # another worker goes on with the task at any time
        if turn.state is not None:
            state = msgspec.convert(turn.state, _State)
            self._reading.status.task, self._reading.status.context = state.task, state.context
            return state
        self._adopt(turn)
        if not turn.is_open:
            # In the log before the message is sent: who finds it there does not send it again.
            await self._engine.outlet.put(turn.source, self._reading.writer.start(), durable=True)
        outgoing = None
        if message is not None:
            outgoing = Outgoing(message, may_have_arrived=turn.is_open)
            if self._task and not message.get("taskId"):
                outgoing = None  # it is there, and its task is known
        if self._task:
            self._reading.status.task = self._task
        follower = Follower(await self._connect(), self._reading, turn.say)
        follower.named = self._named
        self._is_sent = True
        try:
            await follower.run(outgoing)
        except Lost:
            await self._engine.interrupt(
                "message_in_doubt",
                "the connection to the remote agent was lost while a message was sent; whether it "
                "arrived is unknown, so it is not sent again",
            )
        state = self._state()
        await turn.say(self._ending(state))
        await turn.finish(msgspec.to_builtins(state))
        return state

    def _adopt(self, turn: Turn) -> None:
        """Go on in the step that an earlier worker left open."""
        writer, source = self._reading.writer, turn.source
        if writer.step is None or not turn.is_open:
            return
        source.steps[writer.step] = writer.step
        for part in writer.open_parts:
            source.parts[part] = part
            source.kinds[part] = "text"
        self._engine.outlet.resume(source, writer.step)

    async def _connect(self) -> Connection:
        peer = await self._cards.peer(self._ctx)
        engine = self._engine
        self._remote = Connection(engine.http, self._address, peer, engine.plan.deadlines)
        return self._remote

    async def _named(self, task: str) -> None:
        if task != self._task:
            self._task = task
            await self._engine.journal.put_other(_DOCUMENT, task.encode())

    def _state(self) -> _State:
        reading, status = self._reading, self._reading.status
        if reading.is_message:
            return _State(task="", state="COMPLETED")
        facts = status.facts
        error, reason = facts.get("error"), facts.get("finishReason")
        return _State(
            task=status.task,
            context=status.context,
            state=status.state,
            words=words_of(status.message),
            error=error if isinstance(error, str) and _CODE.fullmatch(error) else "",
            reason=reason if isinstance(reason, str) else "",
            question=reading.question,
        )

    def _ending(self, state: _State) -> list[m.Event]:
        """The end of the turn's step."""
        writer = self._reading.writer
        if state.question is not None or state.state == "COMPLETED":
            return writer.end("stop")
        if state.state == "REJECTED":
            return [*writer.refuse(state.words), *writer.end("refusal")]
        if state.error in INCOMPLETE_REASONS:
            return writer.end(state.error)  # type: ignore[arg-type]
        return writer.end("error", is_whole=False)

    # --- ends ------------------------------------------------------------------------------------

    async def _report(self, state: _State) -> None:
        """How the run ends, as its task did."""
        self._is_done = True
        if state.state in ("COMPLETED", "REJECTED"):
            return
        if state.error in INCOMPLETE_REASONS:
            cut_short(self._ctx, state.error)
        elif state.state == "CANCELED":
            suffix = f": {state.words}" if state.words else ""
            await self._fail("remote_canceled", f"the remote agent's task was cancelled{suffix}")
        else:
            await self._fail(
                state.error or "remote_failed", state.words or "the remote agent's task failed"
            )

    async def _fail(self, code: str, message: str) -> None:
        await self._ctx.emit(m.Error(scope="provider", code=code, message=message))

    async def _refuse(self) -> None:
        """A person refused to authorise the agent: nothing more can come of the task."""
        await self._let_go(always=True)
        self._is_done = True
        await self._fail("remote_unauthorised", "the remote agent was not authorised")

    async def _watch(self) -> None:
        """Until the agent does not wait for its authorisation any more."""
        remote = await self._connect()
        pause = 1.0
        while True:
            await asyncio.sleep(pause)
            pause = min(30.0, pause * 1.5)
            try:
                task = await remote.call("GetTask", {"id": self._reading.status.task})
            except ProviderError as error:
                if not is_cut(error):
                    raise
                continue
            status = task.get("status")
            if isinstance(status, dict) and status.get("state") != "TASK_STATE_AUTH_REQUIRED":
                return

    async def _let_go(self, *, always: bool = False) -> None:
        """Cancel the remote task where the run ends here, and no other worker goes on."""
        over = always or self._engine.is_over or not _is_cancelling()
        if not over or not self._is_sent or self._reading.status.has_ended:
            return
        task = asyncio.create_task(self._cancel())
        _cancels.add(task)
        task.add_done_callback(_cancels.discard)
        try:
            await asyncio.wait([task], timeout=CANCEL_SECONDS)
        except asyncio.CancelledError:  # once more, by who waits for the end of this
            await asyncio.wait([task], timeout=CANCEL_SECONDS)
            raise

    async def _cancel(self) -> None:
        async def connect() -> Connection:
            return self._remote or await self._connect()

        await _cancel_task(connect, self._task, self._ctx.run, self._name(0))


def _is_cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
