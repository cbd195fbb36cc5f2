"""What a plain stream holds while its model is silent: structure, not bytes."""

from __future__ import annotations

import asyncio
import gc
from types import AsyncGeneratorType
from typing import Any

import pytest

from support.raw_provider import HEAD, chunked, held, raw_provider
from support.spine import request_of, run_async
from tokenwire.events.model import Event, TextDelta
from tokenwire.providers.base import Target
from tokenwire.providers.http.client import HttpClient
from tokenwire.providers.http.response import Response
from tokenwire.providers.openai.chat import DIALECT, ChatDecoder
from tokenwire.run.call.attempt import Answer
from tokenwire.run.inbox import Inbox
from tokenwire.run.loop import Loop
from tokenwire.run.plan import Plan

WORD = b'data: {"id":"x","model":"m","choices":[{"index":0,"delta":{"content":"word"}}]}\n\n'


class Busy:
    """A `Sink` that is not ready: all goes the long way."""

    ready = False

    async def settle(self) -> None:
        """Nothing was taken."""

    def take(self, _: object) -> Any:
        raise AssertionError

    take_json = lend = repay = take


def plan_of(url: str) -> Plan:
    target = Target(provider="p", dialect=DIALECT.name, model="m", base_url=url)
    return Plan(run="r", request=request_of("hi"), candidates=[(DIALECT, target)], model="m")


def test_a_silent_stream_waits_in_two_generators_which_hold_nothing_of_what_was_said() -> None:
    async def main() -> None:
        async with raw_provider(held(HEAD + chunked(WORD))) as provider:
            http = HttpClient()
            loop = Loop(plan_of(provider.url), http, Inbox())
            loop.sink = Busy()
            batches = loop.batches()
            async for batch in batches:
                if any(isinstance(event, TextDelta) for event in batch):
                    break
            waiting = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            generators = [
                each
                for each in gc.get_objects()
                if isinstance(each, AsyncGeneratorType)
                and each.ag_frame is not None
                and each.ag_frame.f_locals.get("self") is loop
            ]
            assert sorted(each.__name__ for each in generators) == ["_model", "batches"]
            objects = [o for each in generators for o in each.ag_frame.f_locals.values()]
            (answer,) = [o for o in objects if isinstance(o, Answer)]
            assert not [o for o in objects if isinstance(o, list | Event)]
            response = answer._source._stream
            assert isinstance(response, Response)
            assert response.headers == {}
            del answer, response
            del generators, objects
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await batches.aclose()
            await asyncio.wait_for(provider.left.wait(), 10)
            await http.aclose()

    run_async(main())


def reachable(root: object) -> dict[int, Any]:
    """The objects of our own that ``root`` holds, and the containers in them, by their ids."""
    objects: dict[int, Any] = {}
    queue = [root]
    while queue:
        one = queue.pop()
        is_ours = type(one).__module__.startswith("tokenwire")
        if id(one) not in objects and (is_ours or isinstance(one, list | dict | set | tuple)):
            objects[id(one)] = one
            queue += gc.get_referents(one)
    return objects


@pytest.mark.parametrize("make", [ChatDecoder, Inbox])
def test_nothing_empty_is_kept_for_what_most_streams_never_need(make: type) -> None:
    decoders: list[Any] = []
    for _ in range(2):
        decoders.append(make())
        if make is ChatDecoder:
            decoders[-1].feed(WORD)
    one, other = map(reachable, decoders)
    # What both have is shared, and there once. The events of the next read go into a list.
    empty = [
        own
        for number, own in one.items()
        if number not in other and isinstance(own, list | dict | set) and not own
    ]
    assert empty == ([[]] if make is ChatDecoder else [])
