"""The server's HTTP API: start, follow, approve, cancel, delete and describe runs.

Always true: a retried start has the same idempotency key, so that it runs and costs once;
any client may follow a run, whoever started it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlencode

import msgspec

from tokenwire.client.members import MemberList, accepted
from tokenwire.client.origin import ApiKey, Origin, part_of_path, run_of_path
from tokenwire.client.reconnect import Patience
from tokenwire.client.requests import Requests, RunInfo, id_of, run_info
from tokenwire.client.sse import open_sse
from tokenwire.client.stream import Follow, OnCut, Open
from tokenwire.client.thread import Thread
from tokenwire.client.thread_list import ListEvents
from tokenwire.client.waiting import ApprovalLink, WaitingPage, value_of
from tokenwire.errors import ConfigError, ServerProtocolError
from tokenwire.events.message import Message

__all__ = ["Client", "Model", "RunInfo"]

Transport = Literal["sse", "websocket"]


class Model(msgspec.Struct, kw_only=True):
    """A model that the server accepts: its name ``id``, its provider ``owned_by``, and whether it
    is the ``default``."""

    id: str
    owned_by: str = ""
    default: bool = False


class Client:
    """A tokenwire server. Use it with ``async with``, or call `aclose`.

    ``url``: the server's address. ``api_key``: a key or token, sent to this address only; or a
    function, also a coroutine function, that returns one: it is called before the first request,
    and once more for each request that the server refuses with 401. ``headers`` and ``cookies``:
    by name, of a login in front of the server; they go to this address only, with every request and
    WebSocket, and what the server answers does not change them. ``transport``: how runs
    are followed, ``sse`` or ``websocket``. ``patience``: waits and timeouts of retries. Raises
    `ConfigError` for an address, key, header or cookie that is none.

    Methods take a ``run`` as its id or `RunInfo`; a ``reason`` is for the log and its readers. All
    of them raise `ServerUnavailableError` when retries did not help, `ServerProtocolError` for a
    response that is not tokenwire's, `AccessError`, and `NotFoundError` or `GoneError` for the run.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8765",
        *,
        api_key: ApiKey = None,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        transport: Transport = "sse",
        patience: Patience | None = None,
    ) -> None:
        self._origin = Origin(url, api_key, headers=headers, cookies=cookies)
        self._patience = patience or Patience()
        self._requests = Requests(self._origin, self._patience)
        self._open = _opener(transport)

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
        """Close all connections. The runs continue."""
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
        """Start a run of ``prompt``: a text, or messages. ``model``: default the server's first;
        ``system``: system prompt; ``thread``: a conversation's id; ``metadata``: JSON values that
        are stored with the run. ``key`` is the idempotency key: a repeated start with
        the same key gives the same run. ``options`` are the other fields of ``POST /v1/runs``."""
        body: dict[str, Any] = {"model": model, "system": system, "thread": thread}
        body |= {"metadata": metadata, **options}
        body["prompt" if isinstance(prompt, str) else "messages"] = prompt
        body = {name: value for name, value in body.items() if value is not None}
        headers = {"idempotency-key": key or secrets.token_hex(16)}
        return run_info(await self._requests.send("POST", "/v1/runs", body, headers))

    def follow(
        self, run: str | RunInfo, *, after: str | None = None, on_cut: OnCut | None = None
    ) -> Follow:
        """The run's events after the cursor ``after`` (`Follow.cursor`), each exactly once, up to
        its end. ``on_cut``: called at each lost connection with the error (None: a planned
        reconnect) and the seconds until the next attempt."""
        return Follow(
            self._origin,
            id_of(run),
            opener=self._open,
            after=after,
            patience=self._patience,
            on_cut=on_cut,
        )

    async def text(self, run: str | RunInfo) -> str:
        """The whole text of a run; returns after its end."""
        return await self.follow(run).text()

    async def info(self, run: str | RunInfo) -> RunInfo:
        """The run's description: state, model, thread, tail. Raises `NotFoundError`."""
        return run_info(await self._requests.send("GET", self._path(run) + "/info"))

    async def snapshot(self, run: str | RunInfo) -> dict[str, Any]:
        """The run's state so far: the fold of its events, as a JSON object."""
        snapshot = await self._requests.send("GET", self._path(run))
        if not isinstance(snapshot, dict):
            raise ServerProtocolError("the server's response is not a snapshot")
        return snapshot

    async def cancel(self, run: str | RunInfo, *, reason: str | None = None) -> RunInfo:
        """Cancel the run; every reader sees it end as ``cancelled``."""
        body = {"reason": reason} if reason else {}
        return run_info(await self._requests.send("POST", self._path(run) + "/cancel", body))

    async def approve(
        self,
        run: str | RunInfo,
        approval: str,
        *,
        approved: bool = True,
        reason: str | None = None,
        arguments: Any = None,
    ) -> bool:
        """Decide the ``approval-request`` with the id ``approval``: ``approved`` or not;
        ``arguments`` replaces the call's own. The first decision wins; later ones raise
        `ConflictError`, as does a retry whose first response was lost. False where the run has not
        taken the decision yet: it may end without it, and its events say whether it did."""
        body: dict[str, Any] = {"approved": approved, "reason": reason, "arguments": arguments}
        path = f"{self._path(run)}/approvals/{part_of_path(approval)}"
        body = {name: value for name, value in body.items() if value is not None}
        return _is_taken(await self._requests.send("POST", path, body))

    async def waiting(
        self,
        *,
        limit: int = 50,
        after: str = "",
        thread: str | None = None,
        tool: str | None = None,
    ) -> WaitingPage:
        """A page of what waits for the caller, what waits longest first. ``limit``: entries, at
        most 200; ``after``: the `next` of the page before; ``thread``, ``tool``: only of these.
        Raises `InputError`."""
        query = {"limit": str(limit), "after": after, "thread": thread, "tool": tool}
        text = urlencode({name: value for name, value in query.items() if value})
        return value_of(await self._requests.send("GET", f"/v1/waiting?{text}"), WaitingPage)

    async def approval_link(
        self,
        run: str | RunInfo,
        approval: str,
        *,
        decision: Literal["approve", "deny"] | None = None,
        ttl: int | None = None,
    ) -> ApprovalLink:
        """A link for a mail or a chat that decides about ``approval``, once, without a login.
        ``decision``: the only one that it offers; ``ttl``: seconds for which it counts (default: a
        day). Whoever has its address may decide. Raises `ConflictError` for an approval that is
        decided."""
        path = f"{self._path(run)}/approvals/{part_of_path(approval)}/links"
        body = {"decision": decision, "ttl": ttl}
        body = {name: value for name, value in body.items() if value is not None}
        return value_of(await self._requests.send("POST", path, body), ApprovalLink)

    async def revoke_links(self, run: str | RunInfo, approval: str) -> None:
        """End all links of ``approval``."""
        path = f"{self._path(run)}/approvals/{part_of_path(approval)}/links"
        await self._requests.send("DELETE", path)

    async def answer_tool(self, run: str | RunInfo, call: str, content: Any) -> bool:
        """Record ``content``, any JSON value, as the result of the tool call with the id ``call``;
        what is returned as of `approve`. Raises `ConflictError` if it has one."""
        path = f"{self._path(run)}/tools/{part_of_path(call)}"
        return _is_taken(await self._requests.send("POST", path, {"content": content}))

    async def delete(self, run: str | RunInfo) -> None:
        """Cancel the run and delete its log."""
        await self._requests.send("DELETE", self._path(run))

    # --- conversations -------------------------------------------------------------------------

    def thread(self, thread: str) -> Thread:
        """The conversation ``thread`` (1 to 128 of ``A-Z a-z 0-9 _ . : @ -``), which the server
        keeps: its turns, its branches, and the turns that wait. Sends nothing. Raises
        `InputError`."""
        return Thread(self._requests, thread)

    def threads(self, *, after: str | None = None, on_cut: OnCut | None = None) -> ListEvents:
        """The list of the caller's conversations as it changes: first a ``snapshot`` of the newest
        50, or what follows the cursor ``after``. A lost connection is resumed; ``on_cut`` is called
        at each."""
        return ListEvents(
            self._origin,
            "/v1/threads?live=sse",
            after=after,
            patience=self._patience,
            on_cut=on_cut,
        )

    async def accept_invite(self, token: str) -> MemberList:
        """Join the conversation to which ``token`` invites (`Thread.invite`); `thread` opens it by
        the answer's ``id``. Raises `NotFoundError` for an invitation that does not count, and
        `LimitError` where the conversation is full."""
        body = {"token": token}
        return accepted(await self._requests.send("POST", "/v1/invites/accept", body))

    async def models(self) -> list[Model]:
        """The models that the server accepts."""
        body = await self._requests.send("GET", "/v1/models")
        try:
            return msgspec.convert(body["data"], list[Model])
        except (msgspec.ValidationError, KeyError, TypeError) as error:
            raise ServerProtocolError("the server's response is not a list of models") from error

    # --- paths ---------------------------------------------------------------------------------

    def _path(self, run: str | RunInfo) -> str:
        return f"/v1/runs/{run_of_path(id_of(run))}"


def _is_taken(answer: Any) -> bool:
    """Whether the run has what was answered; a server of an earlier release does not say it."""
    return not isinstance(answer, dict) or answer.get("taken", True) is True


def _opener(transport: str) -> Open:
    if transport == "sse":
        return open_sse
    if transport != "websocket":
        raise ConfigError(f"unknown transport {transport[:40]!r}; choose 'sse' or 'websocket'")
    from tokenwire.client.websocket import open_socket

    return open_socket
