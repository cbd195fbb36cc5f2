"""A tenant's principal in the host's code: plain id and tenant, and no mistake between tenants."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import tokenwire
from tokenwire import Principal, RunContext, ToolContext, ToolSet, agent, tool
from tokenwire.events.principal import PrincipalLimits
from tokenwire.relay.outbox import EndedRun
from tokenwire.server import Live
from tokenwire.testing import ScriptedModel, call

ANN = Principal("ann", tenant="acme")
OTHERS = [
    Principal("ann"),
    Principal("ann", tenant="globex"),
    Principal("bob", tenant="acme"),
    Principal("acme", tenant="ann"),
    Principal("acmeann"),
]


def test_every_place_has_the_parts() -> None:
    seen: list[tuple[str, Any]] = []

    @tool
    def look(context: ToolContext) -> str:
        seen.append(("tool", (context.user, context.tenant, context.principal)))
        return "done"

    async def prepare(context: RunContext) -> None:
        seen.append(("prepare", (context.user, context.tenant, context.principal)))

    async def before_start(start: tokenwire.StartRequest) -> None:
        seen.append(("start", (start.user, start.tenant, start.principal)))

    def before_tool(request: tokenwire.CallRequest) -> None:
        seen.append(("call", (request.user, request.tenant, request.principal)))

    ended: asyncio.Queue[EndedRun] = asyncio.Queue()
    model = ScriptedModel(*[[call("look")], ["Done."]] * 2)

    async def main() -> None:
        live = Live(
            "memory:",
            models=["scripted"],
            registry=model,
            http=model,
            tools=[look],
            prepare=prepare,
            before_start=before_start,
            before_tool=before_tool,
            on_end=ended.put,
        )
        async with live:
            for who in (ANN, OTHERS[0]):
                await live.start("Look", principal=who)
                run = await asyncio.wait_for(ended.get(), 60)
                seen.append(("end", (run.user, run.tenant, run.principal)))

    asyncio.run(main())
    places = ["start", "prepare", "call", "tool", "end"]
    parts = [("ann", "acme", ANN.name), ("ann", None, "ann")]
    assert seen == [(place, expected) for expected in parts for place in places]


def rules(listed: Any) -> list[Any]:
    @tool(allow=listed)
    def look() -> str:
        return ""

    @agent("job", allow=listed)
    async def job(ctx: RunContext) -> None: ...

    return [next(iter(ToolSet.of([look]))).allows, job.allows]


@pytest.mark.parametrize("kind", [list, set, tuple, frozenset])
def test_allow_takes_principals(kind: Any) -> None:
    for allows in rules(kind([ANN, "cat"])):
        assert allows(ANN.name)
        assert allows("cat")
        assert not any(allows(other.name) for other in OTHERS)
        assert not allows("")
        assert not allows(Principal("cat", tenant="acme").name)
    for allows in rules(kind(["ann"])):
        assert allows("ann")
        assert not allows(ANN.name)
    # What else is known of a principal does not count.
    more = Principal(
        "ann", tenant="acme", roles=frozenset({"read"}), limits=PrincipalLimits(runs=1)
    )
    for allows in rules(kind([more])):
        assert allows(ANN.name)
        assert not any(allows(other.name) for other in OTHERS)
