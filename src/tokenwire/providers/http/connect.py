"""Connected sockets: the fastest of a name's addresses (RFC 8305), and tunnels through proxies.

Always true: the next address is tried when one fails, or after `NEXT_AFTER` seconds without an
answer; the first that connects is used, all others are closed; so they are after a cancel.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any

from tokenwire.errors import NetworkError
from tokenwire.providers.http.proxy import Proxy

__all__ = ["NEXT_AFTER", "open_socket", "open_tunnel"]

#: Seconds after which the next address is tried as well.
NEXT_AFTER = 0.25
#: Largest head of a proxy's reply to CONNECT.
_MOST_REPLY = 16 << 10
_STATUS = re.compile(rb"HTTP/1\.\d (\d{3})")

#: What `getaddrinfo` returns.
_Info = tuple[Any, Any, int, str, Any]


async def open_socket(host: str, port: int) -> socket.socket:
    """A socket that is connected to ``host``. Raises `OSError`: of the look-up, or of the first
    address when none connects."""
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not infos:
        raise OSError(f"no address of {host}")
    if len(infos) == 1:
        return await _connected(infos[0])
    return await _first(_interleaved(infos))


async def open_tunnel(proxy: Proxy, host: str, port: int, *, tunnel: bool) -> socket.socket:
    """A socket to the proxy; with ``tunnel``, asked to connect it to ``host`` (CONNECT). Raises
    `NetworkError` that names the proxy."""
    try:
        sock = await open_socket(proxy.host, proxy.port)
    except OSError as error:
        raise NetworkError(
            f"cannot connect to the proxy {proxy.name}: refused or unknown",
            reason=type(error).__name__,
        ) from error
    if not tunnel:
        return sock
    try:
        await _connect_through(sock, proxy, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except OSError as error:
        sock.close()
        raise NetworkError(
            f"the proxy {proxy.name} closed the connection", reason=type(error).__name__
        ) from error
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect_through(sock: socket.socket, proxy: Proxy, target: str) -> None:
    loop = asyncio.get_running_loop()
    lines = [f"CONNECT {target} HTTP/1.1", f"host: {target}"]
    if proxy.authorization:
        lines.append(f"proxy-authorization: {proxy.authorization}")
    await loop.sock_sendall(sock, "\r\n".join([*lines, "", ""]).encode("latin-1"))
    reply = b""
    # Nothing follows the head: the server speaks when it was spoken to.
    while b"\r\n\r\n" not in reply and b"\n\n" not in reply:
        data = await loop.sock_recv(sock, 4096)
        if not data or len(reply) > _MOST_REPLY:
            raise NetworkError(f"the proxy {proxy.name} sent no reply to CONNECT")
        reply += data
    match = _STATUS.match(reply)
    status = int(match[1]) if match else 0
    if not 200 <= status < 300:
        reasons = {0: "it did not reply with HTTP", 407: "it wants a user and password"}
        why = reasons.get(status, f"status {status}")
        raise NetworkError(
            f"the proxy {proxy.name} does not connect to {target}: {why}",
            should_retry=None if status >= 500 else False,
            reason="ProxyError",
        )


async def _connected(info: _Info) -> socket.socket:
    family, kind, protocol, _, address = info
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def _interleaved(infos: Sequence[_Info]) -> list[_Info]:
    """Families in turn, that of the first address first; each address once."""
    families: dict[Any, list[_Info]] = {}
    for info in infos:
        group = families.setdefault(info[0], [])
        if info not in group:
            group.append(info)
    return [i for i in chain.from_iterable(zip_longest(*families.values())) if i is not None]


async def _first(infos: Sequence[_Info]) -> socket.socket:
    waiting = list(reversed(infos))
    running: set[asyncio.Task[socket.socket]] = set()
    failure: OSError | None = None
    try:
        while True:
            if waiting:
                running.add(asyncio.create_task(_connected(waiting.pop())))
            if not running:
                raise failure or OSError("no address connects")
            finished, running = await asyncio.wait(
                running,
                timeout=NEXT_AFTER if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in finished:
                error = task.exception()
                if error is None:
                    running |= finished - {task}
                    return task.result()
                if not isinstance(error, OSError):
                    raise error
                failure = failure or error
    finally:
        for task in running:
            task.cancel()
            task.add_done_callback(_close)


def _close(task: asyncio.Task[socket.socket]) -> None:
    """Close the socket of an attempt that came too late."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()
