"""``tokenwire chat``: a conversation with a model in the terminal.

Always true: the first Ctrl-C cancels the answer (and closes the provider's connection), the second
exits; a tool call is printed whole before a person approves it.
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
#: Characters of a tool's result to print; the model reads the rest.
_PRINTED: Final = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatOptions:
    """The options of the command."""

    models: list[str]
    #: In place of a model: MODULE:NAME.
    agent: str | None = None
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
    """One prompt, or a conversation. Returns the exit code."""
    prompt = _prompt(words)
    chat = Chat(options)
    if prompt is not None:
        return chat.ask(prompt)
    return chat.converse()


class Chat:
    """A conversation: its messages and options."""

    def __init__(self, options: ChatOptions) -> None:
        self._options = options
        self._out = Out(raw=options.raw)
        self._history: list[Message] = []

    def ask(self, prompt: str) -> int:
        """One prompt and its answer. Returns the exit code."""
        try:
            return asyncio.run(self._answer(prompt))
        except CancelledRunError:
            return INTERRUPTED

    def converse(self) -> int:
        """Prompts from the keyboard until Ctrl-D, Ctrl-C or /bye."""
        _enable_line_editing()
        note(f"{', '.join(self._options.models)}: Ctrl-C cancels an answer, Ctrl-D exits")
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
                    if self.ask(prompt) == _EXIT:
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
                    [*self._history, user(prompt)],
                    model=self._model(),
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
            screen = printer(self._out, plain=options.plain)
            try:
                async for event in run:
                    await self._show(event, screen, run)
                    if stop.is_exiting:
                        break
            finally:
                screen.finish()
            if stop.count:
                note("[stopped]")
                return _EXIT if stop.is_exiting else INTERRUPTED
            result = await run.result()
        self._history += [user(prompt), *result.history]
        self._summarize(result)
        return 0

    def _model(self) -> Any:
        options = self._options
        if options.agent is not None:
            from tokenwire.agents.load import load_agent

            return load_agent(options.agent)
        return options.models if len(options.models) > 1 else options.models[0]

    async def _tools(self, stack: AsyncExitStack) -> Any:
        names = self._options.tools
        if self._options.agent is not None and names is None:
            return None  # an agent has its own
        if names is None:
            # The demo model calls demo tools; a real one has only those of --tool.
            names = ["demo"] if self._options.models == ["demo"] else []
        if not names:
            return None
        from tokenwire.tools.load import open_tools

        return await stack.enter_async_context(open_tools(names))

    async def _show(self, event: Event, screen: Printer, run: Any) -> None:
        if isinstance(event, TextDelta | RefusalDelta):
            screen.text(event.text)
        elif isinstance(event, ReasoningDelta):
            if self._options.reasoning:
                screen.reasoning(event.text)
        elif isinstance(event, ApprovalRequest):
            await self._approve(event, screen, run)
        elif isinstance(event, StepReset) and event.discard_parts:
            screen.aside("[the model restarted; the answer begins again]")
        else:
            line = _aside(event)
            if line:
                screen.aside(line)

    async def _approve(self, event: ApprovalRequest, screen: Printer, run: Any) -> None:
        screen.finish()
        # Escaped and whole: a person approves only what was printed.
        arguments = json.dumps(event.arguments, ensure_ascii=False, indent=2)
        note(f"The model wants to call {event.name} with {arguments}")
        if self._options.yes:
            run.approve(event.approval_id, True, by="--yes")
        elif not sys.stdin.isatty():
            note("[rejected: no terminal to ask on; --yes approves every call]")
            run.approve(event.approval_id, False, reason="no terminal to ask on")
        else:
            answer = await _read_line("Run it? [y/N] ")
            run.approve(event.approval_id, answer.strip().lower() in ("y", "yes"), by="terminal")

    def _summarize(self, result: Any) -> None:
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


#: What `Chat.ask` returns after a second Ctrl-C.
_EXIT: Final = -1


class _Interrupts:
    """Counts Ctrl-C during an answer: the first cancels it."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self.count = 0
        self._task = asyncio.current_task()

    @property
    def is_exiting(self) -> bool:
        """Whether Ctrl-C was pressed twice."""
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
        percent = "" if event.fraction is None else f"{event.fraction:4.0%} "
        return f"  {percent}{event.message or ''}"
    if isinstance(event, ToolResult):
        return f"← {_short(event.content)}"
    if isinstance(event, ToolError):
        return f"← {event.code}: {event.message}"
    return None


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _PRINTED else f"{text[:_PRINTED]}… ({len(text) - _PRINTED} more)"


def _prompt(words: list[str]) -> str | None:
    """The prompt of the command line, and of standard input if it is not a terminal."""
    prompt = " ".join(word for word in words if word != "-").strip()
    # Bytes that are not text (of a file name, perhaps) arrive as lone surrogates.
    prompt = prompt.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if sys.stdin is not None and ("-" in words or not sys.stdin.isatty()):
        try:
            piped = sys.stdin.buffer.read().decode().strip()
        except UnicodeDecodeError:
            raise InputError("standard input is not UTF-8 text") from None
        prompt = f"{prompt}\n\n{piped}".strip() if piped else prompt
        return prompt or _no_prompt()
    return prompt or None


def _no_prompt() -> str:
    raise InputError("no prompt: give one as an argument or on standard input")


async def _read_line(question: str) -> str:
    """A line from the keyboard, without blocking the event loop; empty at its end."""

    def read() -> str:
        sys.stderr.write(inert(question))
        sys.stderr.flush()
        return sys.stdin.readline()

    return await asyncio.to_thread(read)


def _enable_line_editing() -> None:
    try:
        import readline  # noqa: F401 - the import gives input() a history
    except ImportError:
        return
