"""The routes of producers outside of the server, described."""

from __future__ import annotations

from tokenwire.relay.remote.state import RemoteState
from tokenwire.server.openapi.operation import Operation, answer, body, header, query
from tokenwire.server.routes.producers.routes import (
    AppendBody,
    ClaimBody,
    CommandPage,
    FinishBody,
    RenewBody,
    StartBody,
)

__all__ = ["OPERATIONS"]

_ONE = "/v1/producers/{run}"
_UNKNOWN = ("conflict", "unknown_run", "gone")
_STATE = (answer(200, "Where the next append goes", RemoteState),)
_KEY = header(
    "Idempotency-Key",
    "The same key of the same caller names the same run, for as long as it is stored.",
    type="string",
    pattern=r"\A[!-~]{1,255}\Z",
)

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/v1/producers"): Operation(
        summary="Start a run that a worker of yours writes",
        tag="Producers",
        params=(_KEY,),
        body=body(StartBody),
        answers=(
            answer(201, "A new run", RemoteState, Location="its path", Tokenwire_Run="its id"),
            answer(200, "The run that the key names", RemoteState),
        ),
        problems=("budget", "conflict", "idempotency_key_reused", "unknown_run", "gone"),
    ),
    ("GET", _ONE): Operation(
        summary="A run as its producer sees it",
        tag="Producers",
        answers=_STATE,
        problems=_UNKNOWN,
    ),
    ("POST", _ONE + "/events"): Operation(
        summary="Append events",
        tag="Producers",
        text="All of them or none; the same append again changes nothing. 409 has a `reason`: "
        "`gap`, `conflict`, `fenced` or `closed`, with `next` and `epoch`.",
        body=body(AppendBody),
        answers=_STATE,
        problems=("log_limit", *_UNKNOWN),
    ),
    ("POST", _ONE + "/renew"): Operation(
        summary="Renew the lease",
        tag="Producers",
        text="That of a cancelled run is not renewed.",
        body=body(RenewBody),
        answers=_STATE,
        problems=_UNKNOWN,
    ),
    ("POST", _ONE + "/claim"): Operation(
        summary="Take a run over from another producer",
        tag="Producers",
        body=body(ClaimBody),
        answers=_STATE,
        problems=_UNKNOWN,
    ),
    ("POST", _ONE + "/finish"): Operation(
        summary="End the run",
        tag="Producers",
        text="Parts and steps that are open end first.",
        body=body(FinishBody),
        answers=_STATE,
        problems=_UNKNOWN,
    ),
    ("GET", _ONE + "/commands"): Operation(
        summary="Wait for a cancel or an answer",
        tag="Producers",
        params=(
            query("after", "The number of the last command that is known.", type="integer"),
            query("wait", "Seconds.", type="integer", minimum=0, maximum=60),
            query("epoch", "The producer's; 409 where that is another.", type="integer", minimum=1),
        ),
        answers=(answer(200, "What was sent", CommandPage),),
        problems=("bad_request", "conflict", *_UNKNOWN),
    ),
}
