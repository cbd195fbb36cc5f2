"""Write a run from a process of your own: a worker of a queue, a function of a cloud.

Always true: an append whose answer was lost is sent again as it was, and is in the log once; a
block that raises never ends its run as ``complete``; a process that dies stops renewing the lease,
and the server ends the run.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeGuard

import msgspec

from tokenwire.client.origin import ApiKey, Origin, run_of_path
from tokenwire.client.reconnect import Patience
from tokenwire.client.retry import json_request
from tokenwire.errors import ConflictError, InputError, ServerProtocolError, TokenwireError
from tokenwire.events.codec import to_fields
from tokenwire.events.message import Message
from tokenwire.events.model import Event

__all__ = ["RemoteRun", "produce"]

#: Seconds of one wait for commands.
_WAIT = 20


class _State(msgspec.Struct):
    """What the server says of the run."""

    run: str
    epoch: int
    next: int
    state: str
    cancelled: bool


class _Page(msgspec.Struct):
    commands: list[dict[str, Any]]
    after: int
    state: str
    cancelled: bool
    #: 0: of a server that does not say it.
    epoch: int = 0


def produce(
    url: str,
    *,
    prompt: str | Sequence[Message | Mapping[str, Any]] | None = None,
    api_key: ApiKey = None,
    run: str | None = None,
    epoch: int | None = None,
    model: str | None = None,
    thread: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    lease: float = 30.0,
    takeover: float = 0.0,
    key: str | None = None,
    patience: Patience | None = None,
) -> RemoteRun:
    """A run that this process writes; use it with ``async with``. Either start one, of ``prompt``
    (a text or messages), or go on with ``run``: as the producer of ``epoch``, or without one as a
    new producer, when the lease of the one before is over.

    ``url``: the server's address; ``api_key``: a key, or a token with the scope ``produce``;
    ``model``: a name for readers; ``thread``: the
    conversation; ``metadata``: JSON values stored with the run; ``patience``: waits of retries;
    ``lease``: seconds (1 to 300) after which the server ends the run
    of a producer that is gone; ``takeover``: seconds after that in which another one may go on;
    ``key``: the idempotency key of the start. Raises `InputError`."""
    if (prompt is None) == (run is None):
        raise InputError("give either 'prompt' or 'run'", field="prompt")
    body: dict[str, Any] | None = None
    if prompt is not None:
        body = {"model": model, "thread": thread, "metadata": metadata, "lease": lease}
        body["prompt" if isinstance(prompt, str) else "messages"] = prompt
        body = {name: value for name, value in body.items() if value is not None}
        body["takeover"] = takeover
    return RemoteRun(
        Origin(url, api_key),
        start=body,
        run=run,
        epoch=epoch,
        lease=lease,
        key=key,
        patience=patience or Patience(),
    )


class RemoteRun:
    """A run that this process writes; `produce` makes it. ``id``: the run's id, ``epoch`` its
    producer's number. ``origin``: the server; ``start``: the body of the start, or ``run`` to go on
    with; ``lease`` in seconds; ``key``: the idempotency key; ``patience``: waits of retries.
    Methods raise `ConflictError` when the run has ended or another producer has it
    (``details['reason']``), and `ServerUnavailableError` when retries did not help."""

    def __init__(
        self,
        origin: Origin,
        *,
        start: dict[str, Any] | None,
        run: str | None,
        epoch: int | None,
        lease: float,
        key: str | None,
        patience: Patience,
    ) -> None:
        self.id = run_of_path(run) if run is not None else ""
        self.epoch = epoch or 0
        self._origin, self._start, self._lease = origin, start, lease
        self._key, self._patience = key or secrets.token_hex(16), patience
        self._next, self._has_ended = 1, False
        self._lock = asyncio.Lock()
        self._cancelled, self._news = False, asyncio.Event()
        self._answers: dict[str, dict[str, Any]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: TokenwireError | None = None
        self._writes_text = False

    @property
    def cancelled(self) -> bool:
        """Whether somebody has cancelled the run: end the block soon. Its lease is not renewed any
        more."""
        return self._cancelled

    @property
    def fenced(self) -> bool:
        """Whether another producer has the run, or the server ended it: end the block soon, nothing
        of it is written any more."""
        return _is_fenced(self._failure)

    async def __aenter__(self) -> RemoteRun:
        try:
            if self._start is not None:
                headers = {"idempotency-key": self._key}
                state = await self._request("POST", "/v1/producers", self._start, headers)
            elif self.epoch:
                state = await self._request("GET", self._path())
            else:
                state = await self._request("POST", self._path("/claim"), {"lease": self._lease})
            described = self._take(state)
            self.id = described.run
            self.epoch = self.epoch or described.epoch
        except BaseException:
            self._origin.close()
            raise
        self._tasks = [
            asyncio.create_task(self._renew(), name=f"renew {self.id}"),
            asyncio.create_task(self._listen(), name=f"commands of {self.id}"),
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                await self.finish("cancelled" if self._cancelled else "complete")
            else:
                with suppress(TokenwireError):  # the block's own error counts
                    await self._fail(error)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._origin.close()

    async def _fail(self, error: BaseException) -> None:
        if self._cancelled:
            await self.finish("cancelled")
        elif not isinstance(error, Exception):  # this process stops
            await self.finish("interrupted", reason="producer_stopped")
        else:
            is_ours = isinstance(error, TokenwireError)
            text = str(error) if is_ours else f"the producer failed: {type(error).__name__}"
            await self.finish("error", error=text)

    # --- writing -------------------------------------------------------------------------------

    async def append(self, *events: Event | Mapping[str, Any]) -> None:
        """Append ``events``, or their JSON objects: all of them or none. Raises
        `InputError` that names the first that may not stand there."""
        async with self._lock:
            await self._append(events)

    async def text(self, text: str) -> None:
        """Append visible ``text``; its step and part begin with the first one."""
        if not text:
            return
        async with self._lock:
            start: list[dict[str, Any]] = []
            if not self._writes_text:
                start = [{"type": "step-start", "step": 1}, {"type": "text-start", "part": 0}]
            await self._append([*start, {"type": "text-delta", "part": 0, "text": text}])
            self._writes_text = True

    async def finish(
        self, outcome: str = "complete", *, reason: str | None = None, error: str | None = None
    ) -> None:
        """End what is open, and the run, as ``outcome`` (``complete``, ``incomplete``,
        ``cancelled``, ``error``, ``interrupted``) because of ``reason``; ``error``: what readers
        are told with ``error``. Nothing, when the run has ended by this producer."""
        async with self._lock:
            if _is_fenced(self._failure):
                raise self._failure
            if self._has_ended:
                return
            body: dict[str, Any] = {"epoch": self.epoch, "first": self._next, "outcome": outcome}
            if reason is not None:
                body["reason"] = reason
            if error is not None:
                body["error"] = {"message": error[:2000]}
            self._take(await self._request("POST", self._path("/finish"), body))

    async def answer(self, name: str) -> dict[str, Any]:
        """Wait for the answer to the approval, or to the call of a client's tool, with the id
        ``name``; it is appended to the run. Raises `ConflictError` when the run is cancelled
        meanwhile."""
        while name not in self._answers:
            if self._cancelled or self._has_ended:
                raise ConflictError("the run is cancelled", reason="cancelled")
            if self._failure is not None:
                raise self._failure
            self._news.clear()
            await self._news.wait()
        answer = self._answers[name]
        await self.append(answer)
        return answer

    # --- inside --------------------------------------------------------------------------------

    async def _append(self, events: Iterable[Event | Mapping[str, Any]]) -> None:
        fields = [to_fields(e) if isinstance(e, Event) else dict(e) for e in events]
        if not fields:
            return
        if self._failure is not None:
            raise self._failure
        body = {"epoch": self.epoch, "first": self._next, "events": fields}
        self._take(await self._request("POST", self._path("/events"), body), len(fields))

    def _take(self, value: Any, count: int | None = None) -> _State:
        try:
            state = msgspec.convert(value, _State)
        except msgspec.ValidationError as error:
            raise ServerProtocolError("the server's response is not a producer's state") from error
        # Of an append that is sent again, what followed is this producer's own, or another's.
        self._next = state.next if count is None else self._next + count
        self._note(state.state, cancelled=state.cancelled)
        return state

    def _note(self, state: str, *, cancelled: bool) -> None:
        self._has_ended = self._has_ended or state != "running"
        self._cancelled = self._cancelled or cancelled or state == "cancelled"
        self._news.set()

    async def _renew(self) -> None:
        while not self._has_ended and not self._cancelled and not self.fenced:
            await asyncio.sleep(self._lease / 3)
            body = {"epoch": self.epoch, "lease": self._lease}
            try:
                value = await self._request("POST", self._path("/renew"), body)
                state = msgspec.convert(value, _State)
            except TokenwireError as error:
                self._fail_later(error)
                return
            self._note(state.state, cancelled=state.cancelled)

    async def _listen(self) -> None:
        after, more = 0, ""
        while not self._has_ended and not self.fenced:
            path = self._path(f"/commands?after={after}&wait={_WAIT}{more}")
            try:
                page = msgspec.convert(await self._request("GET", path), _Page)
            except TokenwireError as error:
                self._fail_later(error)
                return
            if page.epoch not in (0, self.epoch):  # what was sent is for that producer
                other = "another producer has this run now"
                self._fail_later(ConflictError(other, reason="fenced", epoch=page.epoch))
                return
            if page.epoch:
                more = f"&epoch={self.epoch}"
            after = page.after
            for command in page.commands:
                command.pop("number", None)
                name = command.get("approval_id") or command.get("call_id")
                if isinstance(name, str):
                    self._answers.setdefault(name, command)
            self._note(page.state, cancelled=page.cancelled)
            if page.cancelled and not page.commands:
                await asyncio.sleep(1)

    def _fail_later(self, error: TokenwireError) -> None:
        """Let whatever the block does next raise ``error``. That it is fenced stays the reason."""
        if not self.fenced:
            self._failure = error
        self._news.set()

    def _path(self, rest: str = "") -> str:
        return f"/v1/producers/{self.id}{rest}"

    async def _request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Any:
        """One request, retried until the server answers: each may be sent again as it was."""
        try:
            return await json_request(
                self._origin, self._patience, method, path, body, headers, timeout=_WAIT + 20.0
            )
        except ConflictError as error:
            if _is_fenced(error):
                self._fail_later(error)
            raise


def _is_fenced(error: TokenwireError | None) -> TypeGuard[ConflictError]:
    return isinstance(error, ConflictError) and error.details.get("reason") == "fenced"
