"""Call ids that a server uses twice: in two answers, and in one."""

from __future__ import annotations

import asyncio
from typing import Any

import tokenwire
from tokenwire.testing import ScriptedModel, call


def test_a_call_id_that_comes_again_names_another_call() -> None:
    ran: list[int] = []

    def double(number: int) -> int:
        ran.append(number)
        return number * 2

    def asked(*numbers: int) -> list[Any]:
        return [call("double", {"number": n}, call_id="call_0") for n in numbers]

    async def main() -> None:
        model = ScriptedModel(asked(1), asked(2, 2), asked(3), ["done"])
        async with tokenwire.stream("Hi", model=model, tools=[double]) as run:
            result = await run.result()
        assert result.text == "done"
        assert sorted(ran) == [1, 2, 2, 3]
        sent = model.requests[-1]["messages"]
        ids = [c["id"] for m in sent for c in m.get("tool_calls") or []]
        assert ids == ["call_0", "call_0-2", "call_0-3", "call_0-4"]
        answers = {m["tool_call_id"]: m["content"] for m in sent if m["role"] == "tool"}
        assert answers == {"call_0": "2", "call_0-2": "4", "call_0-3": "4", "call_0-4": "6"}

    asyncio.run(main())
