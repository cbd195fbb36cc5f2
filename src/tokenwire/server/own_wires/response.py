"""A run in a wire of one's own, as a response of the server."""

from __future__ import annotations

from tokenwire.server.edge.respond import RunResponse, run_response
from tokenwire.server.state import State
from tokenwire.wire.own import OwnEncoder, OwnWire

__all__ = ["cursor_in", "own_response"]


def cursor_in(place: str | None) -> str | None:
    """The cursor of an id that a reader sends back, which may name its run in front of a colon."""
    return place.rpartition(":")[2] or None if place else None


async def own_response(
    state: State, wire: OwnWire, run: str, after: str | None, principal: str
) -> RunResponse:
    """The run ``run`` in ``wire``, after the id ``after``. Raises as `run_response` does."""
    encoder = OwnEncoder(wire.encoder(), wire.name)
    return await run_response(
        state,
        run,
        encoder=encoder,
        after=cursor_in(after),
        principal=principal,
        headers={"tokenwire-run": run},
        preamble=None if encoder.is_event_stream else b"",
    )
