"""Writes the bytes of conformance/wire and of docs/protocol, and docs/protocol/events.md.

``python scripts/wire_docs.py`` writes; ``--check`` only says what is stale (exit 1).

A case file holds a run's events; its ``bytes`` are what each encoder makes of them. A page of
docs/protocol shows them between ``<!-- bytes: CASE WIRE -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from tokenwire.events.codec import encode, from_fields, to_fields  # noqa: E402
from tokenwire.events.model import EVENT_TYPES  # noqa: E402
from tokenwire.wire.a2a.encoder import A2AEncoder  # noqa: E402
from tokenwire.wire.ag_ui.encoder import AGUIEncoder  # noqa: E402
from tokenwire.wire.ag_ui.tanstack import AGUILinesEncoder  # noqa: E402
from tokenwire.wire.ai_sdk.encoder import UIMessageEncoder  # noqa: E402
from tokenwire.wire.anthropic.encoder import AnthropicEncoder  # noqa: E402
from tokenwire.wire.durable import control_frame, data_frame, offset_text  # noqa: E402
from tokenwire.wire.langgraph.encoder import LangGraphEncoder  # noqa: E402
from tokenwire.wire.native import NativeEncoder, socket_message  # noqa: E402
from tokenwire.wire.openai.chat import OpenAIChatEncoder  # noqa: E402
from tokenwire.wire.openai.responses import OpenAIResponsesEncoder  # noqa: E402
from tokenwire.wire.token_sse import TokenEncoder  # noqa: E402

CASES = ROOT / "conformance" / "wire"
PAGES = ROOT / "docs" / "protocol"
TOOLS = frozenset({"locate"})
QUESTION = {"type": "human", "content": "Hi", "id": "u1"}

ENCODERS: dict[str, Callable[[], Any]] = {
    "native": NativeEncoder,
    "token": lambda: TokenEncoder("Zx81Zx81Zx81Zx81Zx81Zx"),
    "ui-5": lambda: UIMessageEncoder(compat="5"),
    "ui-common": lambda: UIMessageEncoder(compat="common"),
    "ui-6": lambda: UIMessageEncoder(compat="6"),
    "ui-7": lambda: UIMessageEncoder(compat="7"),
    "ag-ui": lambda: AGUIEncoder(history=[{"id": "u1", "role": "user", "content": "Hi"}]),
    "tanstack": lambda: AGUIEncoder(tanstack=True),
    "tanstack-lines": lambda: AGUILinesEncoder(tanstack=True),
    "openai-chat": lambda: OpenAIChatEncoder(include_usage=True, tools=TOOLS),
    "openai-responses": lambda: OpenAIResponsesEncoder(tools=TOOLS),
    "anthropic": lambda: AnthropicEncoder(tools=TOOLS),
    "a2a": lambda: A2AEncoder(keeps=True),
    "langgraph": lambda: LangGraphEncoder(history=[QUESTION]),
}


def encoded(events: list[Any], wire: str, cut: int | None = None) -> str:
    """What ``wire`` says of ``events``; after ``cut`` events that the reader has, the rest."""
    if wire == "durable":
        parts = [
            json.dumps(to_fields(e), separators=(",", ":")).encode() for e in events[cut or 0 :]
        ]
        tail = offset_text(len(events))
        end = control_frame(tail, None, up_to_date=True, closed=True, endReason="complete")
        return (data_frame("json", parts) + end).decode()
    if wire == "websocket":
        rest = [(f"{e.seq}-{e.seq:016x}", encode(e)) for e in events[cut or 0 :]]
        return socket_message("Zx81Zx81Zx81Zx81Zx81Zx", rest).decode() + "\n"
    encoder = ENCODERS[wire]()
    pieces: list[bytes] = []
    for number, event in enumerate(events):
        if cut is not None and number < cut:
            encoder.skip(event)
            continue
        if number == cut:
            pieces.append(encoder.reopen())
        pieces.append(encoder.encode(event, f"{event.seq}-{event.seq:016x}"))
    pieces.append(encoder.finish())
    return b"".join(pieces).decode()


def fresh_case(path: Path) -> str:
    """A case file with its bytes made anew."""
    case = json.loads(path.read_text())
    events = [from_fields({**fields, "seq": n}) for n, fields in enumerate(case["events"], 1)]
    case["bytes"] = {wire: encoded(events, wire, case.get("cut")) for wire in case["wires"]}
    return json.dumps(case, indent=1, ensure_ascii=False) + "\n"


_BLOCK = re.compile(r"<!-- bytes: (\S+) (\S+) -->\n.*?<!-- end -->", re.DOTALL)


def fresh_page(text: str, cases: dict[str, Any]) -> str:
    """A page with its blocks made anew."""

    def block(match: re.Match[str]) -> str:
        shown = cases[match[1]]["bytes"][match[2]].rstrip("\n")
        return f"<!-- bytes: {match[1]} {match[2]} -->\n```text\n{shown}\n```\n<!-- end -->"

    return _BLOCK.sub(block, text)


def events_page() -> str:
    """docs/protocol/events.md from the event union itself."""
    lines = [
        "# Events",
        "",
        "Every fact that a run can tell. This page is made from `tokenwire/events/model.py` by",
        "`scripts/wire_docs.py`; a test keeps it fresh. The JSON form is one object with `type`",
        "first; defaults are left out; fields that a reader does not know are to be ignored, and",
        "unknown types as well.",
        "",
        "Every event has `seq` (its place in the run: 1, 2, 3, ... without gap) and `t`",
        "(milliseconds since the run began). Which event may follow which is the table of",
        "`tokenwire/events/order.py`.",
        "",
    ]
    base = {"seq", "t", "extra"}
    order = list(dict.fromkeys([*_FIRST, *EVENT_TYPES]))
    for name in order:
        kind = EVENT_TYPES[name]
        lines += [f"## `{name}`", ""]
        about = inspect.getdoc(kind) or ""
        parent = kind.__mro__[1]
        own = about if kind.__doc__ and kind.__doc__ != parent.__doc__ else ""
        lines += [(own or _MOMENTS.get(parent.__name__, "")).replace("``", "`"), ""]
        fields = [f for f in kind.__struct_fields__ if f not in base]
        if not fields:
            continue
        hints = typing.get_type_hints(kind)
        defaults = dict(
            zip(
                kind.__struct_fields__[-len(kind.__struct_defaults__) :],
                kind.__struct_defaults__,
                strict=True,
            )
        )
        lines += ["| field | type | default |", "|---|---|---|"]
        for field in fields:
            shown = _type(hints[field]).replace("|", "\\|")
            default = defaults.get(field, _REQUIRED)
            known = (
                "required"
                if default is _REQUIRED or "NODEFAULT" in repr(default)
                else _json(default)
            )
            lines.append(f"| `{field}` | {shown} | {known} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


_REQUIRED = object()
_FIRST = "run-start run-claim run-wait step-start response-start usage finish step-end".split()
_FIRST += "step-reset run-end".split()
_MOMENTS = {
    "PartStart": "A part of this kind begins. `choice`: which candidate, when there are more.",
    "PartDelta": "The next piece of the part, never the text so far.",
    "PartEnd": "The part is over. `text`, when present, replaces what the pieces gave.",
}


def _json(value: Any) -> str:
    return (
        f"`{json.dumps(value)}`"
        if not callable(value) and type(value).__name__ != "Factory"
        else ""
    )


def _type(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(f'`"{v}"`' for v in typing.get_args(hint))
    if hint is Any:
        return "any JSON"
    arguments = [a for a in typing.get_args(hint) if a is not type(None)]
    if type(None) in typing.get_args(hint) or isinstance(hint, types.UnionType):
        return " or ".join(_type(a) for a in arguments)
    if typing.get_origin(hint) is dict:
        return "object"
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return "object of " + ", ".join(f"`{name}`" for name in hint.__struct_fields__)
    if typing.get_origin(hint) is list:
        return f"list of {_type(arguments[0])}"
    return {"str": "text", "int": "integer", "float": "number", "bool": "boolean"}.get(
        getattr(hint, "__name__", ""), str(hint)
    )


def main(check: bool) -> int:
    """Write, or say what is stale."""
    wanted: dict[Path, str] = {path: fresh_case(path) for path in sorted(CASES.glob("*.json"))}
    cases = {path.stem: json.loads(text) for path, text in wanted.items()}
    for path in sorted(PAGES.glob("*.md")):
        wanted[path] = fresh_page(path.read_text(), cases)
    wanted[PAGES / "events.md"] = events_page()
    stale = [p for p, text in wanted.items() if not p.exists() or p.read_text() != text]
    for path in stale:
        print(("stale: " if check else "wrote ") + str(path.relative_to(ROOT)))
        if not check:
            path.write_text(wanted[path])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
