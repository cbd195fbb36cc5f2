"""A response that its provider keeps is read on after a cut, without a second bill."""

from __future__ import annotations

import json

import pytest

from support.spine import QUICK, request_of, run_async, simulator
from tokenwire.errors import NetworkError
from tokenwire.events import model as m
from tokenwire.events.fold import fold
from tokenwire.events.order import Order, closing
from tokenwire.providers.base import Target
from tokenwire.providers.http.client import HttpClient
from tokenwire.providers.openai.responses import DIALECT
from tokenwire.run.inbox import Inbox
from tokenwire.run.loop import Loop
from tokenwire.run.plan import Plan
from tokenwire.run.stream import Run, new_run_id

KEPT = {"background": True, "store": True}


def plan_of(url, extra=KEPT):
    target = Target(
        provider="openai", dialect="openai-responses", model="demo", base_url=f"{url}/v1"
    )
    return Plan(
        run=new_run_id(),
        request=request_of("scenario:text", extra=extra),
        candidates=[(DIALECT, target)],
        model="demo",
        retry=QUICK,
    )


async def events_of(plan):
    async with Run(plan, http=HttpClient) as run:
        return [event async for event in run]


@pytest.mark.parametrize("cut", ["cut-rst@1500", "cut-fin@3000", "cut-rst@9000"])
def test_a_cut_is_not_noticed_and_nothing_is_asked_again(cut):
    async def main():
        async with simulator() as whole:
            expected = fold(await events_of(plan_of(whole.url))).text
        async with simulator(faults=cut) as server:
            events = await events_of(plan_of(server.url))
            assert [r.method for r in server.requests].count("POST") == 1
            assert [r.method for r in server.requests].count("GET") >= 1
        assert fold(events).text == expected
        assert events[-1].outcome == "complete"
        assert not any(isinstance(e, m.StepReset | m.Error) for e in events)

    run_async(main())


def test_without_background_a_cut_is_an_error():
    async def main():
        async with simulator(faults="cut-rst@3000") as server:
            async with Run(plan_of(server.url, extra=None), http=HttpClient) as run:
                with pytest.raises(NetworkError):
                    await run.result()
            assert [r.method for r in server.requests] == ["POST"]

    run_async(main())


def test_another_worker_reads_the_kept_response_instead_of_paying_again():
    async def main():
        async with simulator() as server:
            plan = plan_of(server.url)
            first = await events_of(plan)
            cut = next(n for n, e in enumerate(first) if isinstance(e, m.TextDelta)) + 1
            order, state = Order(), fold(first[:cut])
            for event in first[:cut]:
                order.check(event)
            assert closing(order, part="truncated", step="error")  # the first worker left it open
            http = HttpClient()
            loop = Loop(plan, http, Inbox(), order=order, fold=state)
            rest = [event async for batch in loop.batches() for event in batch]
            await http.aclose()
            assert [r.method for r in server.requests] == ["POST", "GET"]
            assert any(isinstance(e, m.StepReset) for e in rest)
            assert state.text == fold(first).text
            assert rest[-1].outcome == "complete"

    run_async(main())


def test_a_delta_that_is_sent_again_after_a_cut_is_shown_once():
    def delta(number, text):
        value = {
            "type": "response.output_text.delta",
            "item_id": "m",
            "output_index": 0,
            "content_index": 0,
            "delta": text,
            "sequence_number": number,
        }
        return f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode()

    decoder = DIALECT.decoder()
    events = [e for number in range(1, 5) for e in decoder.feed(delta(number, f"{number} "))]
    decoder.reattach()
    events += [e for number in range(3, 7) for e in decoder.feed(delta(number, f"{number} "))]
    assert "".join(e.text for e in events if isinstance(e, m.TextDelta)) == "1 2 3 4 5 6 "
