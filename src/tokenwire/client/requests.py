"""Requests of the client with its address and patience, and the run that they describe."""

from __future__ import annotations

from typing import Any

import msgspec

from tokenwire.client.origin import Origin
from tokenwire.client.reconnect import Patience
from tokenwire.client.retry import json_request
from tokenwire.errors import InputError, ServerProtocolError, TokenwireError

__all__ = ["Requests", "RunInfo", "id_of", "run_info"]

#: Attempts of a start or of another command.
_TRIES = 4


class RunInfo(msgspec.Struct, kw_only=True):
    """A run as the server describes it. ``id``; ``state``: ``running``, ``waiting``, ``complete``,
    ``incomplete``, ``cancelled``, ``error`` or ``interrupted``; ``tail``: the number of its events;
    ``model``, ``thread`` and ``metadata`` of its start; ``created``: Unix time in seconds."""

    id: str
    state: str
    tail: int = 0
    model: str | None = None
    thread: str | None = None
    created: float | None = None
    metadata: dict[str, Any] | None = None


class Requests:
    """Plain requests to ``origin``, with the waits of ``patience`` between two attempts."""

    def __init__(self, origin: Origin, patience: Patience) -> None:
        self.origin, self.patience = origin, patience

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        *,
        effected: type[TokenwireError] | None = None,
    ) -> Any:
        """One request, as `json_request` sends and repeats it."""
        return await json_request(
            self.origin,
            self.patience,
            method,
            path,
            body,
            headers,
            tries=_TRIES,
            effected=effected,
        )


def id_of(run: str | RunInfo) -> str:
    """The id of a run. Raises `InputError` for what is neither an id nor a `RunInfo`."""
    run_id = run.id if isinstance(run, RunInfo) else run
    if not isinstance(run_id, str):
        raise InputError("expected a run's id or a RunInfo", field="run")
    return run_id


def run_info(value: Any) -> RunInfo:
    """The server's description of a run. Raises `ServerProtocolError`."""
    try:
        return msgspec.convert(value, RunInfo)
    except msgspec.ValidationError as error:
        raise ServerProtocolError("the server's response does not describe a run") from error
