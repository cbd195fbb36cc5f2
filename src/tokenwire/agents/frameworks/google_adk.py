"""Agents of Google's ADK: its events to ours, and its runner driven with a session of the run.

Always true: text that came in pieces is not said again by the whole event that follows them; a
call is told when it is whole, because pieces of calls are repeated too; ADK's own calls that only
ask for a confirmation are the question, not calls.
"""

from __future__ import annotations

from typing import Any

from tokenwire.agents.context import RunContext
from tokenwire.agents.frameworks.conversation import (
    Content,
    bytes_of,
    entries_of,
    question_of,
)
from tokenwire.agents.frameworks.steps import Steps, usage_event
from tokenwire.agents.frameworks.turns import Turn, ask, cut_short
from tokenwire.agents.frameworks.values import plain, title
from tokenwire.agents.outlet import Source
from tokenwire.agents.spec import Agent
from tokenwire.errors import AgentError, InputError
from tokenwire.events import model as m
from tokenwire.events.message import Message, TextPart, ToolCallPart, ToolResultPart
from tokenwire.providers.history import arguments_object

__all__ = ["AdkEvents", "adk_agent", "adk_contents"]

_CONFIRMATION = "adk_request_confirmation"
#: The reasons of Gemini, which ADK uses for all models.
_REASONS: dict[str, m.FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
}
_CUT = ("length", "content_filter")


class AdkEvents:
    """The reading of one author's events in one `run_async`."""

    def __init__(self) -> None:
        self._steps = Steps(provider="google-adk")
        self._texts = {"text": "", "reasoning": ""}
        #: Questions that wait for a person: ADK's own call id -> the call that they are about.
        self.confirmations: dict[str, dict[str, Any]] = {}
        self.reason: m.FinishReason = "stop"
        #: What ADK says of a failure, as code and message; it raises for others.
        self.failure: tuple[str, str] | None = None

    def read(self, event: Any) -> list[m.Event]:
        """One event of ADK."""
        parts = (event.content.parts if event.content else None) or []
        if event.partial:
            return self._pieces(parts)
        events: list[m.Event] = []
        answers = bool(event.usage_metadata or event.finish_reason or self._steps.in_step)
        calls = [p.function_call for p in parts if p.function_call]
        for part in parts:
            events += self._whole(part)
        for call in calls:
            if call.name == _CONFIRMATION:
                question = plain(call.args)["originalFunctionCall"]
                self.confirmations[call.id] = question
            else:
                arguments = _text(plain(call.args or {}))
                events += self._steps.call(call.id, call.id, call.name, arguments)
        if answers or calls:
            events += self._end(event, bool(calls))
        waits = set(event.actions.requested_tool_confirmations or {}) if event.actions else set()
        for part in parts:
            if part.function_response and part.function_response.id not in waits:
                events += _result(part.function_response)
        if event.error_code and event.error_code not in _REASONS:
            self.failure = event.error_code, event.error_message or ""
        return events

    def end(self) -> list[m.Event]:
        """The author says no more."""
        return self._steps.end(self.reason)

    def _pieces(self, parts: list[Any]) -> list[m.Event]:
        events: list[m.Event] = self._steps.start()
        for part in parts:
            if part.text:
                events += self._say("reasoning" if part.thought else "text", part.text)
        return events

    def _whole(self, part: Any) -> list[m.Event]:
        """What a whole event says beyond its pieces; everything, if there were none."""
        if not part.text:
            return []
        kind = "reasoning" if part.thought else "text"
        spoken = self._texts[kind]
        if spoken.startswith(part.text):
            self._texts[kind] = spoken[len(part.text) :]
            return []
        if spoken and part.text.startswith(spoken):
            self._texts[kind] = ""
            return self._steps.text("text", part.text[len(spoken) :]) if kind == "text" else []
        return [] if spoken else self._say(kind, part.text, counts=False)

    def _say(self, kind: str, text: str, *, counts: bool = True) -> list[m.Event]:
        if counts:
            self._texts[kind] += text
        say = self._steps.reasoning if kind == "reasoning" else self._steps.text
        return say(kind, text)

    def _end(self, event: Any, calls: bool) -> list[m.Event]:
        """A model's answer is whole."""
        self._texts = {"text": "", "reasoning": ""}
        name = event.finish_reason.name if event.finish_reason else "STOP"
        reason = _REASONS.get(name, "other")
        self.reason = "tool_calls" if calls and reason == "stop" else reason
        usage = event.usage_metadata
        counts = None
        if usage is not None:
            output = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
            counts = usage_event(usage.prompt_token_count, output)
        return self._steps.end(self.reason, counts)


def _result(response: Any) -> list[m.Event]:
    content = plain(response.response)
    start = m.ToolStart(call_id=response.id, name=response.name)
    if isinstance(content, dict) and set(content) == {"error"}:
        text = str(content["error"])[:500]
        error = m.ToolError(call_id=response.id, name=response.name, code="exception", message=text)
        return [start, error]
    if isinstance(content, dict) and set(content) == {"result"}:
        content = content["result"]
    return [start, m.ToolResult(call_id=response.id, name=response.name, content=content)]


def adk_agent(agent: Any, name: str | None = None) -> Agent:
    """An agent of ADK. Tools with ``require_confirmation`` ask a person, also over a restart; ADK
    cannot run a call with other arguments, so that editing them is a no."""

    async def work(ctx: RunContext) -> None:
        await _drive(ctx, agent)

    return Agent(name or title(agent.name), work)


async def _drive(ctx: RunContext, agent: Any) -> None:
    from google.genai import types

    history, message = adk_contents(ctx.messages)
    earlier: list[dict[str, Any]] | None = None
    number = 0
    while True:
        number += 1
        turn = await Turn.begin(ctx, number)
        state = turn.state
        if state is None:
            before = _history(history, agent) if earlier is None else _events(earlier)
            state = await _run(ctx, turn, agent, message, before)
        if not state["confirmations"]:
            if state["reason"] in _CUT:
                cut_short(ctx, state["reason"])
            return
        earlier = state["events"]
        replies = [await _reply(ctx, *item) for item in state["confirmations"].items()]
        message = types.Content(role="user", parts=replies)


async def _run(
    ctx: RunContext, turn: Turn, agent: Any, message: Any, before: list[Any]
) -> dict[str, Any]:
    """One turn; returns what the next one needs."""
    from google.adk.agents.run_config import RunConfig, StreamingMode
    from google.adk.runners import Runner
    from google.adk.sessions import InMemorySessionService

    sessions = InMemorySessionService()
    runner = Runner(app_name="tokenwire", agent=agent, session_service=sessions)
    where = {"app_name": "tokenwire", "user_id": ctx.principal or "user", "session_id": ctx.run}
    session = await sessions.create_session(**where)
    for event in before:
        await sessions.append_event(session, event)
    config = RunConfig(streaming_mode=StreamingMode.SSE, max_llm_calls=ctx.engine.plan.limits.steps)
    speakers: dict[str, tuple[AdkEvents, Source]] = {}
    stream = runner.run_async(
        user_id=where["user_id"], session_id=ctx.run, new_message=message, run_config=config
    )
    last: AdkEvents | None = None
    try:
        async for event in stream:
            reading, source = _speaker(ctx, turn, speakers, event.author)
            last = reading
            events = reading.read(event)
            if events:
                await ctx.engine.outlet.put(source, events)
        for reading, source in speakers.values():
            await ctx.engine.outlet.put(source, reading.end())
    finally:
        await stream.aclose()
        for _, source in speakers.values():
            ctx.engine.outlet.close(source)
    for reading, _ in speakers.values():
        if reading.failure is not None:
            raise AgentError(f"the model of the ADK agent failed: {reading.failure[0]}")
    confirmations = {k: v for r, _ in speakers.values() for k, v in r.confirmations.items()}
    state = {
        "confirmations": confirmations,
        "reason": last.reason if last is not None else "stop",
        "events": None,
    }
    if confirmations:
        whole = await sessions.get_session(**where)
        state["events"] = [e.model_dump(mode="json") for e in whole.events] if whole else []
    await turn.finish(state)
    return state


def _speaker(
    ctx: RunContext, turn: Turn, speakers: dict[str, tuple[AdkEvents, Source]], author: str
) -> tuple[AdkEvents, Source]:
    """An author's reading and voice; the first one is the agent itself."""
    if author not in speakers:
        source = turn.source if not speakers else ctx.engine.source(turn.source.operation)
        parent = None if author == ctx.engine.name else ctx.engine.name
        source.agent = m.Agent(id=author, name=author, parent=parent)
        speakers[author] = AdkEvents(), source
    return speakers[author]


async def _reply(ctx: RunContext, question: str, call: dict[str, Any]) -> Any:
    """What a person says to a confirmation, as the part that ADK takes."""
    from google.genai import types

    answer = await ask(ctx, call["id"], call["name"], call["args"])
    same = answer.arguments == call["args"]
    response = {"confirmed": bool(answer) and same}
    return types.Part(
        function_response=types.FunctionResponse(id=question, name=_CONFIRMATION, response=response)
    )


def adk_contents(messages: list[Message]) -> tuple[list[Any], Any]:
    """The conversation before the question as contents of ADK, and the question. A system message
    is the user's, marked as such: ADK has no other in a conversation. Raises `InputError`, also
    for a conversation whose last message is not the user's."""
    from google.genai import types

    before, question = question_of(entries_of(messages))
    if question is None:
        raise InputError("an ADK agent needs a message of the user as the last one")
    contents: list[Any] = []
    for entry in before:
        parts = [_part(part) for part in entry.parts]
        if entry.role == "system":
            text = f"<system>\n{entry.text}\n</system>"
            parts = [types.Part(text=text), *map(_part, entry.files)]
        role = "model" if entry.role == "assistant" else "user"
        contents.append(types.Content(role=role, parts=parts))
    return contents, types.Content(role="user", parts=[_part(part) for part in question.parts])


def _part(part: Content) -> Any:
    from google.genai import types

    if isinstance(part, TextPart):
        return types.Part(text=part.text)
    if isinstance(part, ToolCallPart):
        call = types.FunctionCall(id=part.call_id, name=part.name, args=arguments_object(part))
        return types.Part(function_call=call)
    if isinstance(part, ToolResultPart):
        key = "error" if part.is_error else "result"
        content = part.content if isinstance(part.content, dict) else {key: part.content}
        response = types.FunctionResponse(id=part.call_id, name=part.name, response=content)
        return types.Part(function_response=response)
    if part.data is None and part.url is not None:
        return types.Part(file_data=types.FileData(file_uri=part.url, mime_type=part.media_type))
    blob = types.Blob(data=bytes_of(part, "ADK"), mime_type=part.media_type)
    return types.Part(inline_data=blob)


def _history(contents: list[Any], agent: Any) -> list[Any]:
    """Contents as events: what a tool answered is the agent's, as in a session of ADK's own."""
    from google.adk.events import Event

    events: list[Any] = []
    for content in contents:
        is_result = any(part.function_response for part in content.parts)
        author = "user" if content.role == "user" and not is_result else agent.name
        events.append(Event(author=author, content=content))
    return events


def _events(stored: list[dict[str, Any]]) -> list[Any]:
    from google.adk.events import Event

    return [Event.model_validate(x) for x in stored]


def _text(arguments: Any) -> str:
    from pydantic_core import to_json

    return to_json(arguments).decode()
