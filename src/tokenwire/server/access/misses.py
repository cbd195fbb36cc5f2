"""The run that a path names, and what follows when there is no such run."""

from __future__ import annotations

import re
from types import TracebackType

from starlette.requests import Request

from tokenwire.errors import CursorError, NotFoundError
from tokenwire.server.edge.request_info import RequestInfo
from tokenwire.server.state import State

__all__ = ["count_misses", "is_run_id", "run_id"]

_RUN = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def is_run_id(name: str) -> bool:
    """Whether ``name`` can be the id of a run."""
    return _RUN.fullmatch(name) is not None


def run_id(request: Request) -> str:
    """The run of the path; what cannot be an id is an unknown run."""
    run = request.path_params["run"]
    if not is_run_id(run):
        raise NotFoundError("no such run")
    return run


class count_misses:  # noqa: N801 - reads as a statement
    """Counts unknown runs and invalid cursors per address; too many become a `BusyError`. Only
    where keys are on: an open loopback server has no secret to guess."""

    def __init__(self, state: State, info: RequestInfo) -> None:
        self._state, self._info = state, info

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, NotFoundError | CursorError) and self._state.auth.on:
            self._state.limits.missed(self._info.client)
