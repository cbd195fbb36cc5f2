"""One request of a LangGraph client, and what all routes ask of it."""

from __future__ import annotations

import msgspec
from starlette.requests import Request

from tokenwire.errors import InputError, NotFoundError
from tokenwire.events.names import THREAD
from tokenwire.events.validation import whole_number
from tokenwire.relay.description import RunInfo
from tokenwire.server.access.misses import is_run_id
from tokenwire.server.edge.request_info import RequestInfo
from tokenwire.server.routes.support import place_of
from tokenwire.server.state import State
from tokenwire.wire.langgraph.thread_encoder import run_of_leg
from tokenwire.wire.place import Place

__all__ = ["Caller"]


class Caller(msgspec.Struct, frozen=True):
    """One request."""

    state: State
    request: Request
    info: RequestInfo

    @property
    def principal(self) -> str:
        """Whose request it is."""
        return self.info.principal

    @property
    def thread(self) -> str | None:
        """The thread of the path; None of a run without one. Raises `InputError`."""
        thread = self.request.path_params.get("thread")
        if thread is not None and not THREAD.fullmatch(thread):
            raise InputError("a thread_id has 1 to 128 of the characters A-Z a-z 0-9 _ . : @ -")
        return thread

    @property
    def place(self) -> Place | None:
        """The place in a run after which the client misses it; None: from its start. Raises
        `CursorError`."""
        text = self.request.headers.get("last-event-id")
        return place_of(text if text != "-1" else None)

    async def run(self) -> RunInfo:
        """The run of the path. Raises `NotFoundError`, also for one of another thread."""
        name = run_of_leg(self.request.path_params["run"])
        if not is_run_id(name):
            raise NotFoundError("no such run")
        run = await self.state.runs.info(name, principal=self.principal)
        thread = self.thread
        if thread is not None and run.thread != thread:
            raise NotFoundError("no such run in this thread")
        return run

    def count(self, name: str, usual: int, least: int, most: int) -> int:
        """A number of the query. Raises `InputError`."""
        number = whole_number(self.request.query_params.get(name, str(usual)))
        if number is None or not least <= number <= most:
            raise InputError(f"'{name}' must be a whole number from {least} to {most}", field=name)
        return number
