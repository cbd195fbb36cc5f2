"""``tokenwire chat``: ask a model in the terminal and watch the answer.

Always true: the first Ctrl-C stops the answer (the provider's connection is closed), the second
leaves; what a tool call would do is shown whole before somebody says yes to it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Final

from tokenwire.cli.render import Printer, printer
from tokenwire.cli.terminal import Out, inert, no_echo_of_interrupts, note
from tokenwire.errors import CancelledRunError, InputError, TokenwireError
from tokenwire.events.message import Message, user
from tokenwire.events.model import (
    ApprovalRequest,
    Event,
    ReasoningDelta,
    RefusalDelta,
    StepReset,
    TextDelta,
    ToolError,
    ToolProgress,
    ToolResult,
    ToolStart,
)

__all__ = ["ChatOptions", "run_chat"]

INTERRUPTED: Final = 128 + signal.SIGINT
#: Longer results are for the model to read, not for the person.
_SHOWN: Final = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatOptions:
    """The options of the command."""

    models: list[str]
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    tools: list[str] | None = None
    yes: bool = False
    plain: bool = False
    raw: bool = False
    reasoning: bool = True
    stats: bool = False


def run_chat(words: list[str], options: ChatOptions) -> int:
    """One question, or a conversation; the exit code."""
    prompt = _prompt(words)
    chat = Chat(options)
    if prompt is not None:
        return chat.ask(prompt)
    return chat.converse()


class Chat:
    """A conversation: what was said, and how to say more."""

    def __init__(self, options: ChatOptions) -> None:
        self._options = options
        self._out = Out(raw=options.raw)
        self._history: list[Message] = []

    def ask(self, prompt: str) -> int:
        """One question and its answer; the exit code."""
        try:
            return asyncio.run(self._answer(prompt))
        except CancelledRunError:
            return INTERRUPTED

    def converse(self) -> int:
        """Questions from the keyboard until Ctrl-D, Ctrl-C or /bye."""
        _enable_line_editing()
        note(f"{', '.join(self._options.models)}: Ctrl-C stops an answer, Ctrl-D leaves.")
        while True:
            try:
                prompt = input("> ").strip()
            except (EOFError, KeyboardInterrupt):
                print()
                return 0
            if prompt in ("/bye", "/exit", "/quit"):
                return 0
            if prompt:
                try:
                    if self.ask(prompt) == _LEAVE:
                        return INTERRUPTED
                except TokenwireError as error:
                    note(f"tokenwire: {error.message}")

    async def _answer(self, prompt: str) -> int:
        import tokenwire

        options = self._options
        async with AsyncExitStack() as stack:
            tools = await self._tools(stack)
            run = await stack.enter_async_context(
                tokenwire.stream(
                    options.models if len(options.models) > 1 else options.models[0],
                    [*self._history, user(prompt)],
                    system=options.system,
                    temperature=options.temperature,
                    max_tokens=options.max_tokens,
                    seed=options.seed,
                    tools=tools,
                )
            )
            stop = _Interrupts(run.cancel)
            stack.enter_context(stop)
            stack.enter_context(no_echo_of_interrupts())
            shown = printer(self._out, plain=options.plain)
            try:
                async for event in run:
                    await self._show(event, shown, run)
                    if stop.leaving:
                        break
            finally:
                shown.finish()
            if stop.count:
                note("[stopped]")
                return _LEAVE if stop.leaving else INTERRUPTED
            result = await run.result()
        self._history += [user(prompt), *result.history]
        self._tell(result)
        return 0

    async def _tools(self, stack: AsyncExitStack) -> Any:
        names = self._options.tools
        if names is None:
            # The demo model calls demo tools; a real one gets only what it is given.
            names = ["demo"] if self._options.models == ["demo"] else []
        if not names:
            return None
        from tokenwire.tools.load import open_tools

        return await stack.enter_async_context(open_tools(names))

    async def _show(self, event: Event, shown: Printer, run: Any) -> None:
        if isinstance(event, TextDelta | RefusalDelta):
            shown.text(event.text)
        elif isinstance(event, ReasoningDelta):
            if self._options.reasoning:
                shown.reasoning(event.text)
        elif isinstance(event, ApprovalRequest):
            await self._approve(event, shown, run)
        elif isinstance(event, StepReset):
            shown.aside("[the model was asked again; the answer begins anew]")
        else:
            line = _aside(event)
            if line:
                shown.aside(line)

    async def _approve(self, event: ApprovalRequest, shown: Printer, run: Any) -> None:
        shown.finish()
        # Escaped and whole: who says yes must have seen all of it.
        arguments = json.dumps(event.arguments, ensure_ascii=False, indent=2)
        note(f"The model wants to call {event.name} with {arguments}")
        if self._options.yes:
            run.approve(event.approval_id, True, by="--yes")
        elif not sys.stdin.isatty():
            note("[said no: nobody is at the keyboard; --yes says yes]")
            run.approve(event.approval_id, False, reason="nobody is at the keyboard")
        else:
            answer = await _read_line("Run it? [y/N] ")
            run.approve(event.approval_id, answer.strip().lower() in ("y", "yes"), by="terminal")

    def _tell(self, result: Any) -> None:
        if result.outcome != "complete":
            note(f"[the answer is {result.outcome}: {result.finish_reason}]")
        if self._options.stats:
            timings = result.timings
            facts = [f"{name} {count}" for name, count in result.usage.items()]
            if timings.first_token_seconds is not None:
                facts.append(f"first token {timings.first_token_seconds:.2f} s")
            facts.append(f"total {timings.total_seconds:.2f} s")
            if timings.tokens_per_second:
                facts.append(f"{timings.tokens_per_second:.0f} tokens/s")
            note(", ".join(facts))


#: What `Chat.ask` returns when Ctrl-C was pressed twice.
_LEAVE: Final = -1


class _Interrupts:
    """Counts Ctrl-C while an answer is being written: the first stops it."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self.count = 0
        self._task = asyncio.current_task()

    @property
    def leaving(self) -> bool:
        """Was it pressed twice?"""
        return self.count > 1

    def __enter__(self) -> _Interrupts:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._pressed)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)

    def _pressed(self) -> None:
        self.count += 1
        if self.count == 1:
            self._stop()
        elif self._task is not None:
            self._task.cancel()


def _aside(event: Event) -> str | None:
    if isinstance(event, ToolStart):
        return f"→ {event.name}({_short(event.arguments)})"
    if isinstance(event, ToolProgress):
        done = "" if event.fraction is None else f"{event.fraction:4.0%} "
        return f"  {done}{event.message or ''}"
    if isinstance(event, ToolResult):
        return f"← {_short(event.content)}"
    if isinstance(event, ToolError):
        return f"← {event.code}: {event.message}"
    return None


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text) - _SHOWN} more)"


def _prompt(words: list[str]) -> str | None:
    """The question from the command line and, when it is no keyboard, standard input."""
    asked = " ".join(word for word in words if word != "-").strip()
    # Bytes that are no text (a file name, perhaps) come as half characters.
    asked = asked.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if sys.stdin is not None and ("-" in words or not sys.stdin.isatty()):
        try:
            piped = sys.stdin.buffer.read().decode().strip()
        except UnicodeDecodeError:
            raise InputError("standard input is no UTF-8 text") from None
        asked = f"{asked}\n\n{piped}".strip() if piped else asked
        return asked or _nothing()
    return asked or None


def _nothing() -> str:
    raise InputError("nothing to ask: give a prompt, or text on standard input")


async def _read_line(question: str) -> str:
    """A line from the keyboard without stopping the event loop; an empty one at its end."""

    def read() -> str:
        sys.stderr.write(inert(question))
        sys.stderr.flush()
        return sys.stdin.readline()

    return await asyncio.to_thread(read)


def _enable_line_editing() -> None:
    try:
        import readline  # noqa: F401 - importing it gives input() a history
    except ImportError:
        return
