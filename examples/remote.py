"""A run on a server, read by one client until it "crashes", and to the end by another."""

import asyncio

from tokenwire.client import Client
from tokenwire.events import Fold
from tokenwire.server import Settings, create_app
from tokenwire.server.start import ThreadedServer


async def main(url: str) -> None:
    # The state takes back what a `step-reset` withdraws; joined deltas would say it twice.
    state = Fold()
    async with Client(url) as client:
        run = await client.start("scenario:slow", key="order-4711")
        first = client.follow(run)
        async for event in first:
            state.apply(event)
            if "5" in state.text:
                break
        await first.aclose()
    # To be stored: the run's id, the cursor of the last event, and the state after it.
    print(f"{state.text}\n-- gone, at {first.cursor}", flush=True)

    async with Client(url, transport="websocket") as client:
        again = await client.start("scenario:slow", key="order-4711")
        assert again.id == run.id, "the key makes it the same run"
        async for event in client.follow(again, after=first.cursor):
            state.apply(event)
        print(f"{state.text}\n-- {state.outcome}")
        # Without a state: the whole text, each time it changes.
        async for text in client.follow(again).texts():
            last = text
        assert last == state.text


if __name__ == "__main__":
    with ThreadedServer(create_app(Settings(port=0, store="memory:", access_log=False))) as server:
        asyncio.run(main(server.url))
