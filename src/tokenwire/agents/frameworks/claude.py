"""Agents of the Claude Agent SDK: its messages to ours, and `query` driven with a question.

Always true: text is read from the raw events of the model, and a whole message only where none of
its events came; an answer that broke off and is asked for again is reset; results of tools wait
until the answer that called them has its end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

from tokenwire.agents.context import RunContext
from tokenwire.agents.frameworks.answers import Answers
from tokenwire.agents.frameworks.conversation import (
    Content,
    bytes_of,
    entries_of,
    question_of,
    refused,
)
from tokenwire.agents.frameworks.turns import Turn, ask, cut_short
from tokenwire.agents.frameworks.values import plain
from tokenwire.agents.outlet import Source
from tokenwire.agents.spec import Agent
from tokenwire.errors import AgentError, ConfigError, InputError
from tokenwire.events import model as m
from tokenwire.events.message import FilePart, Message, TextPart, ToolCallPart
from tokenwire.providers.history import arguments_text, result_text, text_in

__all__ = ["ClaudeEvents", "claude_agent", "claude_content"]

_CUT = ("length", "content_filter")


class ClaudeEvents:
    """The reading of one speaker's messages in one `query`. ``agent``: who speaks."""

    def __init__(self, agent: m.Agent) -> None:
        self._answers = Answers("claude-agent-sdk")
        self._answers.speaker = agent
        self._stopped = False
        self._streamed: set[str] = set()
        self._results: list[m.Event] = []
        #: What failed, in the SDK's word.
        self.failure: str | None = None

    @property
    def reason(self) -> str:
        """Why the last answer ended, in our word."""
        return self._answers.reason

    def read(self, message: Any) -> list[m.Event]:
        """One message of the SDK, known by its class's name."""
        name = type(message).__name__
        if name == "StreamEvent":
            return self._raw(message.event)
        if name == "AssistantMessage":
            return self._whole(message)
        if name == "UserMessage":
            return self._user(message.content)
        return []

    def end(self) -> list[m.Event]:
        """The speaker says no more: an answer without an end was cut."""
        return [*self._answers.end(), *self._flushed()]

    def _raw(self, event: dict[str, Any]) -> list[m.Event]:
        events: list[m.Event] = []
        kind = event.get("type")
        if kind == "message_start":
            events += [*self._answers.reset(), *self._flushed()]
            self._stopped = False
            self._streamed.add(event.get("message", {}).get("id", ""))
        elif kind == "message_delta":
            self._stopped = bool(event.get("delta", {}).get("stop_reason"))
        elif kind == "message_stop" and not self._stopped:
            return []  # the SDK closes what broke off; it may be asked for again
        elif not self._answers.is_open:
            return []
        events += self._answers.item(event)
        if kind == "message_stop":
            events += [*self._answers.end(), *self._flushed()]
        return events

    def _whole(self, message: Any) -> list[m.Event]:
        """A whole message: what its events did not bring."""
        if message.error is not None:
            self.failure = str(message.error)
            return []
        if message.message_id is None or message.message_id in self._streamed:
            return []
        self._streamed.add(message.message_id)
        events: list[m.Event] = []
        start = {"id": message.message_id, "model": message.model, "usage": message.usage or {}}
        items: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
        for index, block in enumerate(message.content):
            items += _block(index, block)
        reason = message.stop_reason or "end_turn"
        items.append({"type": "message_delta", "delta": {"stop_reason": reason}})
        items.append({"type": "message_stop"})
        for item in items:
            events += self._answers.item(item)
        return [*events, *self._answers.end(), *self._flushed()]

    def _user(self, content: Any) -> list[m.Event]:
        for block in content if isinstance(content, list) else []:
            if type(block).__name__ != "ToolResultBlock":
                continue
            call_id, value = block.tool_use_id, plain(block.content)
            name = self._answers.names.get(call_id, "")
            self._results.append(m.ToolStart(call_id=call_id, name=name))
            if block.is_error:
                text = str(value)[:500]
                end: m.Event = m.ToolError(
                    call_id=call_id, name=name, code="exception", message=text
                )
            else:
                end = m.ToolResult(call_id=call_id, name=name, content=_content(value))
            self._results.append(end)
        return [] if self._answers.is_open else self._flushed()

    def _flushed(self) -> list[m.Event]:
        results, self._results = self._results, []
        return results


def _block(index: int, block: Any) -> list[dict[str, Any]]:
    """A block of a whole message as the events that would have brought it."""
    kind = type(block).__name__
    if kind == "TextBlock":
        start: dict[str, Any] = {"type": "text", "text": ""}
        delta = {"type": "text_delta", "text": block.text}
    elif kind == "ThinkingBlock":
        start = {"type": "thinking", "thinking": ""}
        delta = {"type": "thinking_delta", "thinking": block.thinking}
    elif kind == "ToolUseBlock":
        from pydantic_core import to_json

        start = {"type": "tool_use", "id": block.id, "name": block.name, "input": {}}
        text = to_json(block.input).decode()
        delta = {"type": "input_json_delta", "partial_json": text}
    else:
        return []
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        {"type": "content_block_delta", "index": index, "delta": delta},
        {"type": "content_block_stop", "index": index},
    ]


def _content(value: Any) -> Any:
    """A result's blocks; a single text as a text."""
    if isinstance(value, list) and len(value) == 1 and value[0].get("type") == "text":
        return value[0].get("text", "")
    return value


def claude_agent(options: Any, name: str | None = None) -> Agent:
    """The options of an agent. Tools that need a permission ask a person, unless the options have
    a way of their own; a question does not survive its worker, as the SDK's process does not."""
    if options.resume is not None or options.continue_conversation:
        raise ConfigError(
            "these ClaudeAgentOptions continue one conversation; leave out resume and "
            "continue_conversation: the log keeps the conversations"
        )

    async def work(ctx: RunContext) -> None:
        turn = await Turn.begin(ctx, 1)
        state = turn.state
        if state is None:
            state = await _run(ctx, turn, options)
        if state["reason"] in _CUT:
            cut_short(ctx, state["reason"])

    return Agent(name or "claude", work)


async def _run(ctx: RunContext, turn: Turn, options: Any) -> dict[str, Any]:
    from claude_agent_sdk import ClaudeSDKError, query

    speakers: dict[str | None, tuple[ClaudeEvents, Source]] = {}
    names: dict[str, str] = {}
    result: Any = None
    content = claude_content(ctx.messages)
    stream: Any = query(prompt=_prompt(ctx, content), options=_options(ctx, options))
    try:
        async for message in stream:
            if type(message).__name__ == "ResultMessage":
                result = message
                continue
            reading, source = _speaker(ctx, turn, speakers, names, message)
            events = reading.read(message)
            names |= {e.call_id: e.name for e in events if isinstance(e, m.ToolCallStart)}
            if events:
                await ctx.engine.outlet.put(source, events)
    except ClaudeSDKError as error:
        if result is None:
            raise AgentError(f"the Claude Agent SDK failed: {type(error).__name__}") from error
    finally:
        await stream.aclose()
        for reading, source in speakers.values():
            ctx.engine.outlet.emit(source, reading.end())
            ctx.engine.outlet.close(source)
    root = speakers.get(None)
    failure = root[0].failure if root is not None else None
    if result is None or result.is_error or failure is not None:
        what = failure or getattr(result, "terminal_reason", None) or "no result"
        raise AgentError(f"the Claude agent failed: {what}")
    if result.structured_output is not None:
        await turn.say([m.Data(name="output", payload=plain(result.structured_output))])
    state = {"reason": root[0].reason if root is not None else "stop"}
    if result.subtype == "error_max_turns":
        state["reason"] = "length"
    await turn.finish(state)
    return state


def _speaker(
    ctx: RunContext,
    turn: Turn,
    speakers: dict[str | None, tuple[ClaudeEvents, Source]],
    names: dict[str, str],
    message: Any,
) -> tuple[ClaudeEvents, Source]:
    """The reading and the voice of who says a message: the agent, or one inside of a call."""
    parent: str | None = getattr(message, "parent_tool_use_id", None)
    if parent not in speakers:
        root = ctx.engine.name
        if parent is None:
            source, agent = turn.source, m.Agent(id=root, name=root)
        else:
            source = ctx.engine.source(turn.source.operation)
            agent = m.Agent(id=parent, name=names.get(parent, "subagent"), parent=root)
        source.agent = agent
        speakers[parent] = ClaudeEvents(agent), source
    return speakers[parent]


def _options(ctx: RunContext, options: Any) -> Any:
    """The options with partial messages, and with a person who is asked."""
    own = options.can_use_tool is not None or options.permission_prompt_tool_name is not None
    return dataclasses.replace(
        options,
        include_partial_messages=True,
        can_use_tool=options.can_use_tool if own else _permission(ctx),
        max_turns=options.max_turns or ctx.engine.plan.limits.steps,
    )


def _permission(ctx: RunContext) -> Any:
    from claude_agent_sdk import PermissionResultAllow, PermissionResultDeny

    async def may_use(name: str, arguments: dict[str, Any], context: Any) -> Any:
        answer = await ask(ctx, context.tool_use_id, name, plain(arguments), refuses=False)
        if answer:
            return PermissionResultAllow(updated_input=answer.arguments)
        return PermissionResultDeny(message=answer.reason or "a person denied this call")

    return may_use


async def _prompt(ctx: RunContext, content: Any) -> AsyncIterator[dict[str, Any]]:
    message = {"role": "user", "content": content}
    yield {"type": "user", "message": message, "parent_tool_use_id": None, "session_id": ctx.run}


def claude_content(messages: list[Message]) -> str | list[dict[str, Any]]:
    """The question, after what was said before it, as content of one message of the user's: the SDK
    takes no history of others. Calls and their results are told in words, files are blocks. Raises
    `InputError`, also for a conversation whose last message is not the user's."""
    before, question = question_of(entries_of(messages))
    if question is None:
        raise InputError("a Claude agent needs a message of the user as the last one")
    blocks: list[dict[str, Any]] = []
    for entry in before:
        for part in entry.parts:
            blocks += _earlier(entry.role, part)
    if blocks:
        blocks = [_text("<conversation>\n"), *blocks, _text("</conversation>\n\n")]
    blocks = _joined([*blocks, *(_content_block(part) for part in question.parts)])
    return blocks[0]["text"] if len(blocks) == 1 and blocks[0]["type"] == "text" else blocks


def _earlier(role: str, part: Content) -> list[dict[str, Any]]:
    """A part of the conversation before: who said it, and what."""
    if isinstance(part, TextPart):
        return [_text(f"{role}: {part.text}\n\n")]
    if isinstance(part, ToolCallPart):
        return [_text(f"{role} called {part.name}({arguments_text(part)})\n\n")]
    if isinstance(part, FilePart):
        name = part.name or part.media_type
        return [_text(f"{role} sent the file {name}:\n"), _content_block(part), _text("\n\n")]
    failed = " failed" if part.is_error else ""
    return [_text(f"result of {part.name}{failed}: {result_text(part)}\n\n")]


def _content_block(part: Content) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return _text(part.text)
    if not isinstance(part, FilePart):
        raise InputError(f"a user's message holds text and files, not a {type(part).__name__}")
    kind = "image" if part.media_type.startswith("image/") else "document"
    words = text_in(part)
    if words is not None:
        source = {"type": "text", "media_type": "text/plain", "data": words}
    elif kind == "document" and part.media_type != "application/pdf":
        raise refused(part, "the Claude Agent SDK")
    elif part.data is None:
        source = {"type": "url", "url": part.url}
    else:
        bytes_of(part, "the Claude Agent SDK")  # which checks them
        source = {"type": "base64", "media_type": part.media_type, "data": part.data}
    block = {"type": kind, "source": source}
    return {**block, "title": part.name} if part.name and kind == "document" else block


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _joined(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same blocks, with texts that follow each other as one."""
    joined: list[dict[str, Any]] = []
    for block in blocks:
        if joined and block["type"] == joined[-1]["type"] == "text":
            joined[-1] = _text(joined[-1]["text"] + block["text"])
        else:
            joined.append(block)
    return joined
