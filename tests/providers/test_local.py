"""A GGUF file is served by an embedded llama.cpp and read by the ordinary client and decoder."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

import tokenwire
from tokenwire.errors import ConfigError, UnknownModelError
from tokenwire.events.message import user
from tokenwire.events.model import (
    Event,
    Finish,
    StepEnd,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    ToolResult,
)
from tokenwire.events.order import Order
from tokenwire.events.request import Request
from tokenwire.providers import local
from tokenwire.providers.base import Call
from tokenwire.providers.http.client import HttpClient
from tokenwire.providers.registry import Registry
from tokenwire.providers.summary import facts

needs_llama = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None or importlib.util.find_spec("gguf") is None,
    reason="the extra 'local' and the package 'gguf' are not installed",
)


def model(path: Path, *template: str) -> str:
    spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny_gguf.py"))
    assert spec is not None
    assert spec.loader is not None
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    return str(tiny.write(path / "tiny.gguf", *template))


#: A chat template that tells of tools and calls, as those of models that were trained for them.
WITH_TOOLS = """{% for tool in tools or [] %}<tool>{{ tool | tojson }}</tool>
{% endfor %}{% for m in messages %}<{{ m.role }}>{{ m.content or '' }}
{%- for call in m.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}</{{ m.role }}>
{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"""


@needs_llama
def test_a_tiny_model_answers_through_the_ordinary_client(tmp_path: Path) -> None:
    name = model(tmp_path)
    registry = Registry(env={})
    dialect, target = registry.resolve(name)
    try:
        assert target.base_url.startswith("http://127.0.0.1:")
        assert Registry(env={}).resolve(name)[1] is target  # loaded once

        async def ask(call: Call) -> tuple[int, list[Any]]:
            client = HttpClient()
            stream = await client.open(call, connect_timeout=30)
            decoder = dialect.decoder(content_type=stream.headers.get("content-type"))
            events: list[Any] = []
            while data := await stream.read():
                if stream.status == 200:
                    events += decoder.feed(data)
            events += decoder.finish()
            await stream.aclose()
            await client.aclose()
            return stream.status, events

        request = Request(messages=[user("abc")], max_tokens=6, seed=1)
        call = dialect.build(request, target)
        status, events = asyncio.run(ask(call))
        found = facts(events)
        assert status == 200
        assert found["complete"]
        assert found["finish_reason"] == "length"
        assert found["tokens"]["output"] == 6
        call.headers.pop("authorization")
        assert asyncio.run(ask(call))[0] == 401  # nobody else's business
    finally:
        local.close_all()


@needs_llama
@pytest.mark.parametrize("template", [(), (WITH_TOOLS,)], ids=["plain", "with tools"])
@pytest.mark.parametrize("choice", ["required", "paint"])
def test_a_forced_call_is_made_run_and_answered(
    tmp_path: Path, template: tuple[str, ...], choice: str
) -> None:
    """Random weights would never call a tool by themselves; the grammar makes them."""
    name = model(tmp_path, *template)
    told = "tools_in_prompt" in local.target(name).quirks
    assert told is (not template)
    ran: list[tuple[str, int]] = []

    @tokenwire.tool
    def paint(colour: Literal["red", "blue"], coats: Literal[1, 2] = 1) -> dict[str, str]:
        """Paint the wall."""
        ran.append((colour, coats))
        return {"wall": colour}

    @tokenwire.tool
    def wash(wall: Literal["north", "south"]) -> dict[str, str]:
        """Wash a wall."""
        ran.append((wall, 0))
        return {"wall": wall}

    async def main() -> list[Event]:
        options: dict[str, Any] = {
            "tools": [paint, wash],
            "tool_choice": choice,
            "max_tokens": 600,
            "seed": 3,
            # The end of the answer (token 2) is made likely: noise has none of its own accord.
            "extra": {"logit_bias": [[2, 6.0]]},
        }
        async with tokenwire.stream("abc", model=name, **options) as run:
            events = [event async for event in run]
            result = await run.result()
        assert result.outcome == "complete"
        assert [m.role for m in result.history] == ["assistant", "tool", "assistant"]
        return events

    try:
        events = asyncio.run(main())
    finally:
        local.close_all()
    order = Order()
    for event in events:
        order.check(event)
    steps = [e for e in events if isinstance(e, StepEnd)]
    assert [s.status for s in steps] == ["complete", "complete"]
    first = [e for e in events if e.seq < steps[0].seq]
    assert not [e for e in first if isinstance(e, TextDelta)]
    (start,) = [e for e in events if isinstance(e, ToolCallStart)]
    assert start.name in (["paint"] if choice == "paint" else ["paint", "wash"])
    assert len([e for e in events if isinstance(e, ToolCallDelta)]) > 1
    assert len(ran) == 1
    (result,) = [e for e in events if isinstance(e, ToolResult)]
    assert result.content == {"wall": ran[0][0]}
    assert [e.reason for e in events if isinstance(e, Finish)] == ["tool_calls", "stop"]


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "does not exist"), (b"PK\3\4....", "is not a GGUF"), (b"", "is not a GGUF")],
)
def test_a_file_that_is_no_model_is_refused(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    path = tmp_path / "x.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnknownModelError, match=says) as caught:
        Registry(env={}).resolve(str(path))
    assert str(tmp_path) not in str(caught.value)


@needs_llama
def test_a_damaged_model_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(ConfigError, match="cannot load"):
        Registry(env={}).resolve(str(path))


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + b"\0" * 100)
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(ConfigError, match=r"tokenwire\[local\]"):
        Registry(env={}).resolve(str(path))
