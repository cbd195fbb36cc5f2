"""Commands to a run while it runs: cancel, answers to approvals, results of client tools, words.

Always true: a cancel sticks (later commands do not undo it) and interrupts every wait of the
run at once; the first answer to an approval or a call wins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tokenwire.events.model import ApprovalAnswer, Control, ToolError, ToolResult

__all__ = ["Command", "Inbox"]

Command = Control | ApprovalAnswer | ToolResult | ToolError


class _Hook:
    """What is called when model calls end; called itself, it is no more."""

    __slots__ = ("_inbox", "call")

    def __init__(self, inbox: Inbox, call: Callable[[], None]) -> None:
        self._inbox, self.call = inbox, call

    def __call__(self) -> None:
        self._inbox.remove(self)


class Inbox:
    """One run's commands. Belongs to one event loop."""

    __slots__ = (
        "_hooks",
        "_waiter",
        "_waiting",
        "cancelled",
        "steers",
        "stopped",
    )

    def __init__(self) -> None:
        #: The cancel command, once there is one.
        self.cancelled: Control | None = None
        #: Why no model may be called any more, while the tools under way end; None else.
        self.stopped: str | None = None
        #: What people said while the answer was written, for between two steps.
        # (Two empty lists would take 112 bytes of each run.)
        self.steers: list[Control] | None = None
        self._waiting: list[Command] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._hooks: tuple[_Hook, ...] = ()

    def put(self, command: Command) -> None:
        """Add a command; after a cancel, a second one and an approval have no effect."""
        if isinstance(command, Control) and command.command == "cancel":
            if self.cancelled is not None:
                return
            self.cancelled = command
            for hook in self._hooks:
                hook.call()
        elif isinstance(command, Control):
            self.steers = self.steers or []
            self.steers.append(command)
            return
        elif (
            self.cancelled is not None and isinstance(command, ApprovalAnswer) and command.approved
        ):
            return  # whoever sent it was told that the cancel had come first
        else:
            self._waiting = self._waiting or []
            self._waiting.append(command)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def stop(self, reason: str) -> None:
        """End the model call under way, and begin no other; tools are not disturbed."""
        if self.stopped is None:
            self.stopped = reason
            for hook in self._hooks:
                hook.call()

    @property
    def ends_calls(self) -> bool:
        """Whether no model is to be called: after a cancel, or a stop."""
        return self.cancelled is not None or self.stopped is not None

    def on_cancel(self, hook: Callable[[], None]) -> Callable[[], None]:
        """Call ``hook`` when model calls end (at once if they have). Returns its removal."""
        own = _Hook(self, hook)
        self._hooks = (*self._hooks, own)
        if self.ends_calls:
            hook()
        return own

    def remove(self, hook: _Hook) -> None:
        """End what `on_cancel` began."""
        self._hooks = tuple(other for other in self._hooks if other is not hook)

    def take(self) -> list[Command]:
        """Remove and return the waiting commands, without the cancel."""
        commands, self._waiting = self._waiting, None
        return commands or []

    async def wait(self) -> None:
        """Wait until there is a command or a cancel."""
        while not self._waiting and self.cancelled is None:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    async def sleep(self, seconds: float) -> None:
        """Wait ``seconds``, or until model calls end."""
        if self.ends_calls or seconds <= 0:
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        timer = asyncio.get_running_loop().call_later(seconds, wake)
        release = self.on_cancel(wake)
        try:
            await woken
        finally:
            timer.cancel()
            release()
