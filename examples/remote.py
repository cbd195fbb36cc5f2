"""A run on a server, read by one client until it "crashes", and to the end by another."""

import asyncio

from tokenwire.client import Client
from tokenwire.events import TextDelta
from tokenwire.server import Settings, create_app
from tokenwire.server.start import ThreadedServer


async def main(url: str) -> None:
    async with Client(url) as client:
        run = await client.start("scenario:slow", key="order-4711")
        first = client.follow(run)
        async for event in first:
            if isinstance(event, TextDelta):
                print(event.text, end="", flush=True)
                if "5" in event.text:
                    break
        await first.aclose()
    # What is kept: the run's id, and the cursor of the last event that was dealt with.
    print(f"\n-- gone, at {first.cursor}", flush=True)

    async with Client(url, transport="websocket") as client:
        again = await client.start("scenario:slow", key="order-4711")
        assert again.id == run.id, "the key makes it the same run"
        async for event in client.follow(again, after=first.cursor):
            if isinstance(event, TextDelta):
                print(event.text, end="", flush=True)
        print(f"\n-- {(await client.snapshot(again))['state']}")


if __name__ == "__main__":
    with ThreadedServer(create_app(Settings(port=0, store="memory:", access_log=False))) as server:
        asyncio.run(main(server.url))
