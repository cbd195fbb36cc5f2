"""What TLS to the provider costs: per token, and per start of a request.

Tokens: a server reads the same model over HTTP and over HTTPS, in turns (`harness.py`). Starts: one
request after the other, read to its end, from a peer in another process; the connection is new
without TLS, new with a full handshake, new with the session of the one before, or kept. CPU of the
side that is ours.

    python benchmarks/tls.py --streams 100,400 --rounds 3
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop
from harness import (
    ROOT,
    measure,
    other_core,
    post,
    process,
    running_model,
    running_tokenwire,
    server_core,
)

sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from support.tls import Authority  # noqa: E402
from tokenwire.providers.http.pool import Pool  # noqa: E402

STARTS = 200
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n%b\r\nok"
WAYS = ("new, no TLS", "new, full handshake", "new, resumed", "kept")


# --- the peer of starts -------------------------------------------------------------------------


class Peer(asyncio.Protocol):
    """Answers every request with two bytes; closes after it where the path is ``/close``."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        is_last = data.startswith(b"POST /close")
        self.transport.write(OK % (b"connection: close\r\n" if is_last else b""))
        if is_last:
            self.transport.close()


async def serve(certificate: str, key: str, port_file: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    loop = asyncio.get_running_loop()
    plain = await loop.create_server(Peer, "127.0.0.1", 0, backlog=1024)
    secure = await loop.create_server(Peer, "127.0.0.1", 0, backlog=1024, ssl=context)
    ports = [server.sockets[0].getsockname()[1] for server in (plain, secure)]
    Path(port_file).write_text(json.dumps(ports))
    await asyncio.Event().wait()


@contextlib.contextmanager
def running_peer(files: tuple[Path, Path], folder: str) -> Iterator[tuple[int, int]]:
    """Its ports: without and with TLS."""
    file = Path(folder, "ports")
    command = [sys.executable, __file__, "--serve", *map(str, files), str(file)]
    with process(*command, core=other_core()) as child:
        while not file.exists() or not file.read_text():
            if child.poll() is not None:
                raise SystemExit("the peer ended")
            time.sleep(0.05)
        plain, secure = json.loads(file.read_text())
        yield plain, secure


async def starts(way: str, ports: tuple[int, int], context: ssl.SSLContext) -> tuple[float, float]:
    """CPU and wall microseconds of one request."""
    plain, secure = ports
    url = f"http://127.0.0.1:{plain}/close"
    if way != WAYS[0]:
        url = f"https://127.0.0.1:{secure}/{'keep' if way == 'kept' else 'close'}"
    pool = Pool(context)

    async def ask() -> None:
        response = await pool.request("POST", url, {"accept": "text/event-stream"}, b"{}" * 50)
        while await response.read():
            pass
        await response.aclose()

    await ask()
    cpu, begin = time.process_time(), time.perf_counter()
    for _ in range(STARTS):
        if way == WAYS[1]:
            pool.close()
            pool = Pool(context)
        await ask()
    used = time.process_time() - cpu, time.perf_counter() - begin
    pool.close()
    return used[0] / STARTS * 1e6, used[1] / STARTS * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", default="100,400")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--starts", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        uvloop.run(serve(*given.serve))
        return
    if given.starts:
        way, plain, secure, pem = given.starts
        context = ssl.create_default_context(cafile=pem)
        print(*uvloop.run(starts(way, (int(plain), int(secure)), context)))
        return
    os.sched_setaffinity(0, {other_core()})
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        authority = Authority(Path(folder), "authority")
        files = authority.certificate("peer", "127.0.0.1")
        print("start of a request   CPU us  wall us")
        ports = stack.enter_context(running_peer(files, folder))
        costs: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for _ in range(given.rounds):
            for way in WAYS:
                command = [sys.executable, __file__, "--starts", way, *map(str, ports)]
                done = subprocess.run(
                    [*command, str(authority.pem)],
                    check=True,
                    capture_output=True,
                    preexec_fn=lambda: os.sched_setaffinity(0, {server_core()}),
                )
                cpu, wall = map(float, done.stdout.split())
                costs[way].append((cpu, wall))
        for way, pairs in costs.items():
            cpu, wall = map(statistics.median, zip(*pairs, strict=True))
            print(f"{way:19s}  {cpu:7.0f}  {wall:7.0f}", flush=True)
        os.environ["SSL_CERT_FILE"] = str(authority.pem)  # whom the servers trust
        servers = {}
        for name, tls in (("http", None), ("https", files)):
            upstream = stack.enter_context(running_model(tls=tls))
            port, child = stack.enter_context(running_tokenwire(upstream))
            body = json.dumps({"prompt": "x", "model": f"{upstream}#bench"}).encode()
            servers[name] = port, child.pid, post(port, "/v1/runs", body)
        print("streams  http us/token  https us/token   ratio  difference  (medians of rounds)")
        for streams in map(int, given.streams.split(",")):
            pairs = []
            for _ in range(given.rounds):
                pair = []
                for port, pid, request in servers.values():
                    row = uvloop.run(measure(port, pid, streams, 50.0, given.seconds, request))
                    pair.append(row["us_per_token"])
                pairs.append(pair)
            plain, secure = map(statistics.median, zip(*pairs, strict=True))
            ratio = statistics.median(b / a for a, b in pairs)
            more = statistics.median(b - a for a, b in pairs)
            print(
                f"{streams:7d}  {plain:13.1f}  {secure:14.1f}  {ratio:6.2f}  {more:10.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
