"""Write the tables of docs/guide/providers.md from the code.

``python scripts/providers_table.py`` writes them; ``--check`` only says whether they are current.
What can be asked is found by asking each dialect to build it; what can be answered, by which
events its decoder knows.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))
PAGE = ROOT / "docs" / "guide" / "providers.md"
BEGIN, END = "<!-- {}: made by scripts/providers_table.py -->", "<!-- /{} -->"

ASKED = (
    "system",
    "temperature",
    "top_p",
    "max_tokens",
    "stop",
    "seed",
    "tools",
    "tool_choice",
    "output",
    "reasoning effort",
    "reasoning tokens",
    "image",
    "audio",
    "file",
)
ANSWERED: dict[str, tuple[str, ...]] = {
    "reasoning": ("ReasoningStart",),
    "signatures": ('"signature"', "signature="),
    "encrypted reasoning": ('"encrypted"', "OpaqueStart"),
    "refusals": ("RefusalStart", ".refuse("),
    "tool calls": ("ToolCallStart", "Slots"),
    "provider-run tools": ("ProviderResultStart",),
    "citations": ('"citation"',),
    "images and files": ("FileStart", ".show("),
    "log probabilities": ('"logprobs"',),
    "several choices": ("choice=",),
    "usage": ("Usage(", "usage_of("),
}


def requests() -> dict[str, Any]:
    """One request for each thing that can be asked."""
    from tokenwire.events.message import FilePart, Message, TextPart, user
    from tokenwire.events.request import OutputSchema, Request, ToolSpec

    def with_file(media_type: str) -> Request:
        parts = [TextPart(text="x"), FilePart(media_type=media_type, data="AAAA", name="f")]
        return Request(messages=[Message(role="user", content=parts)])

    ask, tool = [user("x")], [ToolSpec(name="f", parameters={"type": "object"})]
    return {
        "system": Request(messages=ask, system="s"),
        "temperature": Request(messages=ask, temperature=0.5),
        "top_p": Request(messages=ask, top_p=0.5),
        "max_tokens": Request(messages=ask, max_tokens=77),
        "stop": Request(messages=ask, stop=["END"]),
        "seed": Request(messages=ask, seed=77),
        "tools": Request(messages=ask, tools=tool),
        "tool_choice": Request(messages=ask, tools=tool, tool_choice="f"),
        "output": Request(messages=ask, output=OutputSchema(schema={"type": "object"})),
        "reasoning effort": Request(messages=ask, reasoning="low"),
        "reasoning tokens": Request(messages=ask, reasoning=2048),
        "image": with_file("image/png"),
        "audio": with_file("audio/wav"),
        "file": with_file("application/pdf"),
    }


def can_ask(dialect: Any, name: str, request: Any) -> bool:
    """Whether the dialect builds it, and builds something for it."""
    from tokenwire.errors import InputError
    from tokenwire.events.message import user
    from tokenwire.events.request import Request
    from tokenwire.providers.base import Target

    target = Target(provider="p", dialect=dialect.name, model="m", base_url="http://h/v1")
    without = Request(messages=[user("x")], tools=request.tools if name == "tool_choice" else None)
    try:
        body = dialect.build(request, target).body
    except InputError:
        return False
    if name in ("image", "audio", "file"):
        return b"AAAA" in body
    return body != dialect.build(without, target).body


def source_of(dialect: str) -> str:
    """The text of the modules that read a dialect: its decoder's, and those of its folder that the
    decoder imports. What builds requests tells nothing of answers."""
    from tokenwire.providers.registry import DIALECTS

    texts: dict[str, str] = {}
    waiting = [DIALECTS[dialect]]
    folder = DIALECTS[dialect].rpartition(".")[0]
    while waiting:
        module = waiting.pop()
        if module in texts or module.endswith(("_request", ".request")):
            continue
        path = ROOT / "src" / Path(*module.split(".")).with_suffix(".py")
        texts[module] = path.read_text(encoding="utf-8")
        if folder != "tokenwire.providers":  # a module there is a dialect of its own
            waiting += re.findall(rf"^from ({re.escape(folder)}\.\w+) import", texts[module], re.M)
    return "".join(texts.values())


def capabilities() -> str:
    """The table of dialects."""
    from tokenwire.providers.registry import DIALECTS, Registry

    registry, asked = Registry(env={}), requests()
    names = list(DIALECTS)
    lines = ["| | " + " | ".join(f"`{n}`" for n in names) + " |", "|---" * (len(names) + 1) + "|"]
    for what in ASKED:
        cells = [can_ask(registry.dialect(n), what, asked[what]) for n in names]
        lines.append(f"| ask: {what} | " + " | ".join("yes" if c else "–" for c in cells) + " |")
    texts = {n: source_of(n) for n in names}
    for what, words in ANSWERED.items():
        cells = [any(w in texts[n] for w in words) for n in names]
        lines.append(f"| answer: {what} | " + " | ".join("yes" if c else "–" for c in cells) + " |")
    return "\n".join(lines)


def providers() -> str:
    """The table of providers."""
    from tokenwire.providers.compatible import PROVIDERS

    lines = ["| Model name | Provider | Wire | Key | Address |", "|---|---|---|---|---|"]
    for row in PROVIDERS.values():
        keys = " or ".join(f"`{k}`" for k in row.keys) or "none"
        lines.append(
            f"| `{row.name}:{row.example}` | {row.title} | `{row.dialect}` | {keys} "
            f"| `{row.base_url}` |"
        )
    return "\n".join(lines)


def quirks() -> str:
    """The table of named switches."""
    from tokenwire.providers.compatible import PROVIDERS, QUIRKS

    lines = ["| Switch | Meaning | On for |", "|---|---|---|"]
    for name, meaning in QUIRKS.items():
        on = ", ".join(f"`{p.name}`" for p in PROVIDERS.values() if name in p.quirks)
        lines.append(f"| `{name}` | {meaning} | {on} |")
    return "\n".join(lines)


def page() -> str:
    """The page with its tables as they should be."""
    text = PAGE.read_text(encoding="utf-8")
    made = {"capabilities": capabilities(), "providers": providers(), "quirks": quirks()}
    for name, table in made.items():
        begin, end = BEGIN.format(name), END.format(name)
        head, _, rest = text.partition(begin)
        text = f"{head}{begin}\n\n{table}\n\n{end}{rest.partition(end)[2]}"
    return text


def main() -> int:
    """Write, or check."""
    wanted = page()
    if "--check" in sys.argv:
        if PAGE.read_text(encoding="utf-8") != wanted:
            print("docs/guide/providers.md is old: run python scripts/providers_table.py")
            return 1
        return 0
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
