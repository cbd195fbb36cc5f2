"""A cassette on a loopback port: requests are played from it, or passed on and recorded.

Always true: an address below ``/SCHEME/HOST/`` stands for that of a provider; a request that is
neither recorded nor to be recorded reaches nobody; it is answered with an error that says why, and
noted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from urllib.parse import urlsplit

from tokenwire.errors import NetworkError, ProtocolError
from tokenwire.providers.http.pool import Pool
from tokenwire.providers.http.proxy import Proxies
from tokenwire.simulator.http import Connection
from tokenwire.simulator.http import Exchange as Client
from tokenwire.simulator.playback import Action, Head, Playback, Ticker
from tokenwire.testing.cassettes.file import Exchange
from tokenwire.testing.cassettes.playing import played
from tokenwire.testing.cassettes.recording import BodyError, body_of, has_no_body, record
from tokenwire.testing.cassettes.recordings import Playing, Recordings

__all__ = ["Server", "path_of"]


def path_of(url: str) -> str:
    """The path that stands for an address. Raises ValueError for one that is not of HTTP."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"not an http or https address: {url!r}")
    return f"/{parts.scheme}/{parts.netloc}{parts.path.rstrip('/')}"


class Server:
    """Serves in a thread of its own, so that code of any kind can call it. ``drain``: seconds for
    which closing waits for responses that are being recorded."""

    def __init__(self, recordings: Recordings, *, drain: float) -> None:
        self._recordings, self._drain = recordings, drain
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._plans: Counter[str] = Counter()
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        #: ``http://127.0.0.1:PORT``.
        self.url = ""

    def start(self) -> None:
        """Listen."""
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="tokenwire-cassette", daemon=True
        )
        self._thread.start()
        self._ready.wait()

    def close(self) -> None:
        """Stop. Returns when what was being recorded is in the recordings."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._ticker, self._pool = Ticker(), Pool(proxies=Proxies(os.environ))
        server = await self._loop.create_server(
            lambda: Connection(self._answer, self._connections), "127.0.0.1", 0, backlog=1024
        )
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        server.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._drain)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in list(self._connections):
            connection.abort()
        self._ticker.close()
        self._pool.close()
        await asyncio.sleep(0)  # transports tell their end in the next turn of the loop

    # --- one request ---------------------------------------------------------------------------

    def _answer(self, client: Client) -> None:
        request = client.request
        try:
            url = _url_of(request.target)
            if request.headers.get("upgrade", "").lower() == "websocket":
                raise LookupError(f"{request.method} {_shown(url)}: WebSockets are not recorded")
            exchange = Exchange(
                request.method, url, dict(request.headers), body_of(request), 0, {}, 0, []
            )
            playing = self._recordings.find(exchange, request.headers.get("x-sim-faults", ""))
        except (LookupError, BodyError) as error:
            self._refuse(client, str(error.args[0]))
            return
        if playing is not None:
            self._play(client, playing, exchange)
            return
        task = self._loop.create_task(self._record(client, exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _play(self, client: Client, playing: Playing, exchange: Exchange) -> None:
        plan = playing.plan
        self._plans[plan.text] += 1
        path = urlsplit(exchange.url).path
        reply = played(playing.exchange, playing.speed, plan, self._plans[plan.text], path)
        if has_no_body(exchange.method, reply.status):
            client.answer(reply.status, reply.headers, b"")
            return
        head: Iterator[Action] = iter([Head(reply.wait, reply.status, reply.headers)])
        Playback(client, chain(head, reply.actions), self._ticker, lambda _: None).advance()

    async def _record(self, client: Client, exchange: Exchange) -> None:
        headers, url = exchange.headers, exchange.url
        try:
            await record(self._pool, client, url, exchange, self._recordings.keep)
        except (OSError, NetworkError, ProtocolError, BodyError) as error:
            # No response that could be recorded; what the client has of one is broken off.
            reason = str(error) or type(error).__name__
            text = f"{exchange.method} {_shown(url)} was not recorded: {reason}"
            if exchange.end == "open":
                client.cut()
            else:
                self._refuse(client, text, status=502)
                return
            self._recordings.failed(text)
        except asyncio.CancelledError:
            client.cut()
            if exchange.end == "open":
                self._recordings.recorded(exchange, headers, url)
            else:
                self._recordings.failed(
                    f"{exchange.method} {_shown(url)} had no response when it was closed"
                )
            raise
        else:
            self._recordings.recorded(exchange, headers, url)

    def _refuse(self, client: Client, text: str, *, status: int = 400) -> None:
        """An error in the form of the providers' own, which their clients do not retry."""
        self._recordings.failed(text)
        error = {"type": "cassette_error", "code": "cassette_error", "message": text, "param": None}
        body = json.dumps({"type": "error", "error": error}).encode()
        headers = {"content-type": "application/json", "x-should-retry": "false"}
        with contextlib.suppress(ValueError):
            client.answer(status, headers, body)


def _url_of(target: str) -> str:
    """The address that a request's target stands for. Raises `LookupError`."""
    path, mark, query = target.partition("?")
    _, scheme, host, rest = (*path.split("/", 3), "", "", "")[:4]
    if scheme not in ("http", "https") or not host:
        raise LookupError(
            f"{path} is no address of a cassette; take the base URL from cassette.url(...)"
        )
    # ANTHROPIC_BASE_URL ends with /v1 for some clients, and others add it.
    rest = f"/{rest}".replace("/v1/v1/", "/v1/", 1) if rest else ""
    return f"{scheme}://{host}{rest}{mark}{query}"


def _shown(url: str) -> str:
    """An address without its query, which may hold a key."""
    return url.partition("?")[0]
