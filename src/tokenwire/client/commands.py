"""The server's API: start, follow, cancel, approve, answer, look.

Always true: a start is sent again with the same idempotency key, so that it is run and paid once;
what is read (`follow`) is independent of who started it.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal

import msgspec

from tokenwire.client.origin import Origin, is_final, part_of_path, run_of_path, wait_of
from tokenwire.client.reconnect import Patience, Reconnect
from tokenwire.client.sse import open_sse
from tokenwire.client.stream import Follow, OnCut, Open
from tokenwire.errors import ConfigError, InputError, ProtocolError, TokenwireError
from tokenwire.events.message import Message

__all__ = ["Client", "Model", "RunInfo"]

#: A start, or another command, is sent at most this often.
_TRIES = 4
Transport = Literal["sse", "websocket"]


class RunInfo(msgspec.Struct, kw_only=True):
    """A run as the server describes it."""

    id: str
    state: str
    tail: int = 0
    model: str | None = None
    thread: str | None = None
    created: float | None = None
    metadata: dict[str, Any] | None = None


class Model(msgspec.Struct, kw_only=True):
    """A model that runs may name."""

    id: str
    owned_by: str = ""
    default: bool = False


class Client:
    """A server. Use it with ``async with``, or `aclose` it."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8765",
        *,
        api_key: str | None = None,
        transport: Transport = "sse",
        patience: Patience | None = None,
    ) -> None:
        self._origin = Origin(url, api_key)
        self._patience = patience or Patience()
        self._open = _way(transport)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections. Runs go on."""
        self._origin.close()

    # --- runs ----------------------------------------------------------------------------------

    async def start(
        self,
        prompt: str | Sequence[Message | Mapping[str, Any]],
        *,
        model: str | None = None,
        system: str | None = None,
        thread: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        key: str | None = None,
        **options: Any,
    ) -> RunInfo:
        """Start a run: a prompt, or messages. ``key`` makes it happen once however often it is
        asked for; ``options`` are the other fields of ``POST /v1/runs``."""
        body: dict[str, Any] = {"model": model, "system": system, "thread": thread}
        body |= {"metadata": metadata, **options}
        body["prompt" if isinstance(prompt, str) else "messages"] = prompt
        body = {name: value for name, value in body.items() if value is not None}
        headers = {"idempotency-key": key or secrets.token_hex(16)}
        return _run_info(await self._ask("POST", "/v1/runs", body, headers))

    def follow(
        self, run: str | RunInfo, *, after: str | None = None, on_cut: OnCut | None = None
    ) -> Follow:
        """The run's events after a cursor (`Follow.cursor`), each once, to its end."""
        return Follow(
            self._origin,
            _id(run),
            way=self._open,
            after=after,
            patience=self._patience,
            on_cut=on_cut,
        )

    async def text(self, run: str | RunInfo) -> str:
        """The whole text of a run, when it has ended."""
        return await self.follow(run).text()

    async def snapshot(self, run: str | RunInfo) -> dict[str, Any]:
        """The run's state and everything so far, folded."""
        found = await self._ask("GET", self._path(run))
        if not isinstance(found, dict):
            raise ProtocolError("the server's answer is no snapshot")
        return found

    async def cancel(self, run: str | RunInfo, *, reason: str | None = None) -> RunInfo:
        """Stop the run; all its readers see it end as ``cancelled``."""
        body = {"reason": reason} if reason else {}
        return _run_info(await self._ask("POST", self._path(run) + "/cancel", body))

    async def approve(
        self,
        run: str | RunInfo,
        approval: str,
        *,
        approved: bool = True,
        reason: str | None = None,
        arguments: Any = None,
    ) -> None:
        """Answer an ``approval-request``; ``arguments`` replaces the call's own. The first answer
        counts: later ones raise `ConflictError`, as does ours where the network lost its echo."""
        body: dict[str, Any] = {"approved": approved, "reason": reason, "arguments": arguments}
        path = f"{self._path(run)}/approvals/{part_of_path(approval)}"
        await self._ask("POST", path, {k: v for k, v in body.items() if v is not None})

    async def answer_tool(self, run: str | RunInfo, call: str, content: Any) -> None:
        """The result of a tool that this client ran."""
        path = f"{self._path(run)}/tools/{part_of_path(call)}"
        await self._ask("POST", path, {"content": content})

    async def erase(self, run: str | RunInfo) -> None:
        """Stop the run and erase its log."""
        await self._ask("DELETE", self._path(run))

    async def models(self) -> list[Model]:
        """What runs may name as their model."""
        found = await self._ask("GET", "/v1/models")
        try:
            return msgspec.convert(found["data"], list[Model])
        except (msgspec.ValidationError, KeyError, TypeError) as error:
            raise ProtocolError("the server's answer is no list of models") from error

    # --- asking --------------------------------------------------------------------------------

    def _path(self, run: str | RunInfo) -> str:
        return f"/v1/runs/{run_of_path(_id(run))}"

    async def _ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Any:
        """Ask, and again where that can help."""
        loop = asyncio.get_running_loop()
        link = Reconnect(self._patience, loop.time())
        while True:
            try:
                return await self._origin.json(method, path, body, headers)
            except TokenwireError as error:
                if is_final(error) or not error.retryable or link.tries + 1 >= _TRIES:
                    raise
                pause = link.cut(loop.time(), random.random(), wait=wait_of(error))
                if pause is None:
                    raise
                await asyncio.sleep(pause)


def _way(transport: str) -> Open:
    if transport == "sse":
        return open_sse
    if transport != "websocket":
        raise ConfigError(f"a transport is 'sse' or 'websocket', not {transport[:40]!r}")
    from tokenwire.client.websocket import open_socket

    return open_socket


def _id(run: str | RunInfo) -> str:
    found = run.id if isinstance(run, RunInfo) else run
    if not isinstance(found, str):
        raise InputError("a run is named by its id", field="run")
    return found


def _run_info(value: Any) -> RunInfo:
    try:
        return msgspec.convert(value, RunInfo)
    except msgspec.ValidationError as error:
        raise ProtocolError("the server's answer describes no run") from error
