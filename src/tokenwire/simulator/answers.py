"""Answers to free questions: clearly simulated, about tokenwire, and useful all the same.

Always true: an answer is a function of the conversation and the seed, and says where it is from.
"""

from __future__ import annotations

import random
import re

import msgspec

from tokenwire.simulator.instances import instance
from tokenwire.simulator.script import Ask, Call, SentFile, ToolResult, ToolSpec

__all__ = ["TOPICS", "answer", "follow_up", "thoughts", "wanted_calls"]

_OPENINGS = (
    "This is tokenwire's simulator speaking, not a language model.",
    "A simulated answer (no model was asked, no key was needed).",
    "You are talking to the built-in demo model, which is a simulator.",
)

#: Words in the question -> a title and what the simulator says about it; the first that fits wins.
TOPICS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("resume", "reload", "reconnect", "disconnect", "last-event-id", "cursor"),
        "Resuming",
        "A run belongs to the server, not to the connection that started it. Every event has a "
        "cursor, sent as the SSE `id:`; a reader that comes back with `Last-Event-ID` (or "
        "`?after=`) gets exactly what it missed, and nothing twice.\n\n"
        "```http\nGET /v1/runs/RUN_ID/events\nLast-Event-ID: 42-9f3c\n```\n\n"
        "Closing the tab detaches; stopping is a command: `POST /v1/runs/RUN_ID/cancel`.",
    ),
    (
        ("approval", "approve", "permission"),
        "Approvals",
        "A tool with `needs_approval` stops the run in state `waiting`. "
        "`POST /v1/runs/RUN_ID/approvals/APPROVAL_ID` with yes, no and a reason, or edited "
        "arguments, continues it. Try `scenario:approval`.",
    ),
    (
        ("tool", "function call", "mcp"),
        "Tools",
        "Put `@tool` on a function; its signature becomes the schema. Arguments stream while the "
        "model writes them, and only a complete, valid call of a complete step runs.\n\n"
        "```python\n@tool\ndef get_weather(city: str) -> str:\n"
        '    """The weather in a city."""\n    return f"sunny in {city}"\n```\n\n'
        "Try `scenario:tool`, `scenario:tools` or `scenario:approval`.",
    ),
    (
        ("usechat", "ag-ui", "tanstack", "wire", "protocol", "vercel"),
        "Wires",
        "One event stream in the middle, many wires out: native SSE, the AI SDK's UI message "
        "stream, AG-UI, OpenAI Chat Completions and plain tokens. A client asks for one by "
        "`Accept` or by route; each can be cut anywhere and resumed.",
    ),
    (
        ("fastapi", "starlette", "endpoint", "route"),
        "FastAPI",
        "A streaming chat route takes five lines: start a run with `tokenwire.stream(...)`, hand "
        "it to the response class of `tokenwire.server`, done. Heartbeats, cancel and the "
        "headers that keep proxies from buffering come with it.",
    ),
    (
        ("provider", "openai", "anthropic", "claude", "gemini", "ollama", "gpt", "model"),
        "Providers",
        "Change the model's name and nothing else: `openai:...`, `anthropic:...`, `gemini:...`, "
        "`ollama:...`, `http://host/v1#name`, a GGUF file, or `demo`. Keys come from the usual "
        "environment variables. `tokenwire models` lists what is configured.",
    ),
    (
        ("fast", "speed", "latency", "performance", "benchmark"),
        "Speed",
        "Decoding a chunk costs about a microsecond, because bytes go straight into typed "
        "structs. `make bench` measures it beside the official SDKs on your machine; trust "
        "those figures more than any sentence of mine.",
    ),
    (
        ("redis", "sqlite", "durable", "store", "crash", "log"),
        "The log",
        "Events are written to a log before anyone sees them: in memory, in SQLite or in Redis. "
        "With one of the last two a run's events survive the process that made them.",
    ),
    (
        ("cancel", "stop", "abort"),
        "Stopping",
        "`run.cancel()` in Python, `POST /v1/runs/RUN_ID/cancel` over HTTP, Ctrl-C in the "
        "terminal. The provider's connection closes within a second and the log says who "
        "stopped it.",
    ),
    (
        ("test", "simulat", "scenario", "mock", "fault"),
        "Testing",
        "I am the test double: write `scenario:slow`, `scenario:tool`, `scenario:cut` or another "
        "name as your prompt, and I do it on true provider bytes. `tokenwire simulate` serves me "
        "to any client; faults such as `cut-rst@512` can be added.",
    ),
    (
        ("install", "start", "begin", "quickstart", "how do i"),
        "Getting started",
        "```sh\npip install tokenwire\ntokenwire serve\n```\n\nThen open the page that it names, "
        "or run `tokenwire chat`. With no key you talk to me; with `OPENAI_API_KEY` set, "
        "`--model openai:gpt-4o-mini` talks to a real model.",
    ),
    (
        ("hello", "hi", "hey", "bonjour", "good morning"),
        "Hello",
        "Nice to see you. Ask about resuming, tools, wires, providers or speed, or type "
        "`scenario:text` to see Markdown arrive word by word.",
    ),
    (
        ("tokenwire", "what is", "who are", "about"),
        "tokenwire",
        "tokenwire brings a model's answer to people while it is being written, and never loses "
        "or repeats a word of it: any provider's stream in, one typed event stream in the "
        "middle, any client's wire out, with a durable log between.",
    ),
)

#: Files that are named one by one.
_MOST_FILES = 20
_ECHO = 300  # characters of the question that are shown again


def answer(ask: Ask, seed: int) -> str:
    """What the simulator says to a free question."""
    question = ask.prompt.strip()
    draw = random.Random(f"{seed}:{question}")
    opening = draw.choice(_OPENINGS)
    if ask.files:
        echo = f"\n\nYou said:\n\n{_echo(question)}" if question else ""
        return f"{opening} {_received(ask.files)}{echo}"
    lowered = question.lower()
    for keywords, title, text in TOPICS:
        if any(re.search(rf"\b{re.escape(word)}", lowered) for word in keywords):
            return f"{opening}\n\n**{title}.** {text}\n\nYou asked:\n\n{_echo(question)}"
    turns = sum(1 for turn in ask.turns if turn.role == "user")
    place = "" if turns < 2 else f" This is your message number {turns} in this conversation."
    return (
        f"{opening} I cannot think about that, but I can show how it would arrive.{place}\n\n"
        f"You said:\n\n{_echo(question)}\n\n"
        "Ask me about **resuming**, **tools**, **wires**, **FastAPI**, **providers** or "
        "**speed**, or start a prompt with `scenario:text`, `scenario:reasoning`, "
        "`scenario:tool` or `scenario:slow` to see each of them on the wire."
    )


def _received(files: list[SentFile]) -> str:
    lines = [f"- {_described(file)}" for file in files[:_MOST_FILES]]
    if len(files) > _MOST_FILES:
        lines.append(f"- and {len(files) - _MOST_FILES} more")
    many = "this file" if len(files) == 1 else f"these {len(files)} files"
    return f"I cannot look into files, but I received {many}:\n\n" + "\n".join(lines)


def _described(file: SentFile) -> str:
    # In a code span nothing of a name is Markdown.
    name = "".join(char for char in file.name if char.isprintable() and char != "`")
    kind = "".join(char for char in file.type if char.isprintable() and char != "`")
    size = "by its address" if file.size is None else f"{file.size:,} bytes"
    return f"{f'`{name}`' if name else 'without a name'}, `{kind}`, {size}"


def thoughts(ask: Ask) -> str:
    """Reasoning for those who ask for it: what the simulator does with a question."""
    words = len(ask.prompt.split())
    return (
        f"The question has {words} words. I am a simulator, so I do not weigh them: I look for a "
        "subject that I know, and say so when there is none."
    )


def _echo(question: str) -> str:
    if not question:
        return "*(nothing)*"
    short = question if len(question) <= _ECHO else question[:_ECHO] + " …"
    return "\n".join(f"> {line}" for line in short.splitlines())


def follow_up(ask: Ask) -> str:
    """The answer after tools have answered; uses what they said."""
    lines: list[str] = []
    names = ask.called
    for at, result in enumerate(ask.results):
        name = result.name or (names[at] if at < len(names) else "")
        lines.append(_told(name, result))
    return "\n\n".join(lines) + "\n\n(Simulated, from the tool results above.)"


_DENIALS = ("denied", "declined", "reject", "refused", "not approv", "not allowed")


def _told(name: str, result: ToolResult) -> str:
    text = _spoken(result.content.strip()) or "nothing"
    lowered = text.lower()
    if name == "delete_file":
        if result.is_error or any(word in lowered for word in _DENIALS):
            return f"I did not delete the file: {text}"
        return f"Done: {text}"
    if result.is_error or lowered.startswith("error"):
        return f"The tool {name or 'I called'} failed: {text}"
    if name == "get_weather":
        return f"The weather report says: {text}"
    return f"{name or 'The tool'} says: {text}"


def _spoken(content: str) -> str:
    """A result as people read it: the fields of a flat JSON object, otherwise the text."""
    try:
        value = msgspec.json.decode(content)
    except msgspec.DecodeError:
        value = None
    if isinstance(value, dict) and not any(isinstance(v, dict | list) for v in value.values()):
        fields = [(key, field) for key, field in value.items() if key != "simulated"]
        content = ", ".join(f"{key.replace('_', ' ')} {field}" for key, field in fields)
    return content if len(content) <= 2000 else content[:2000] + " …"


_CITY = re.compile(
    r"\bweather (?:in|for|at) (\w[\w'-]*(?: (?!today|tomorrow|now|and|or|please)[\w'-]+)*)", re.I
)
_SUM = re.compile(r"(?:calculate|compute|what is|how much is)\s([-+*/().\d\s^%]*+)", re.IGNORECASE)
_DELETE = re.compile(r"\b(?:delete|remove)\s+(?:the )?(?:file )?([\w./-]+\.\w+)", re.IGNORECASE)


def wanted_calls(ask: Ask, seed: int) -> list[Call]:
    """The declared tools that the question asks for, with arguments read from it."""
    declared = {tool.name: tool for tool in ask.tools}
    if not declared or ask.tool_choice == "none":
        return []
    calls: list[Call] = []
    for name, arguments in _asked(ask.prompt):
        if name in declared:
            calls.append(Call(name, _fitting(arguments, declared[name], seed)))
    lowered = ask.prompt.lower()
    called = {call.name for call in calls}
    for tool in ask.tools:
        spoken = tool.name.lower().replace("_", " ")
        if tool.name not in called and (spoken in lowered or tool.name.lower() in lowered):
            calls.append(Call(tool.name, instance(tool.parameters, random.Random(seed)) or {}))
    if not calls and ask.tool_choice not in ("auto", ""):  # required, any, or one by name
        tool = declared.get(ask.tool_choice) or ask.tools[0]
        calls.append(Call(tool.name, instance(tool.parameters, random.Random(seed)) or {}))
    return calls


def _asked(prompt: str) -> list[tuple[str, dict[str, str]]]:
    calls: list[tuple[str, dict[str, str]]] = []
    for match in _CITY.finditer(prompt):
        calls.append(("get_weather", {"city": match[1].strip("-'")}))
    if re.search(r"\bwhat(?:'s| is)? (?:the )?time\b|\btime is it\b", prompt, re.IGNORECASE):
        calls.append(("clock", {}))
    for match in _SUM.finditer(prompt):
        if re.search(r"\d", match[1]):
            calls.append(("calculator", {"expression": match[1].strip(" \n.")}))
    for match in _DELETE.finditer(prompt):
        calls.append(("delete_file", {"path": match[1]}))
    if re.search(r"\bslow (?:task|tool)\b", prompt, re.IGNORECASE):
        calls.append(("slow_task", {}))
    return calls


def _fitting(arguments: dict[str, str], tool: ToolSpec, seed: int) -> dict[str, object]:
    """What was read, plus plausible values for what the schema demands besides."""
    filled = instance(tool.parameters, random.Random(seed)) or {}
    required = tool.parameters.get("required") or []
    missing = {key: filled.get(key) for key in required if key not in arguments}
    return {**arguments, **missing}
