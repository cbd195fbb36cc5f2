"""The native routes, described: runs, conversations, the token wire, models, health, sessions, and
the description itself."""

from __future__ import annotations

from tokenwire.relay.threads import MOST_THREADS
from tokenwire.server.edge.bodies import ApprovalBody, CancelBody, CreateRun, ToolAnswerBody
from tokenwire.server.feeds.respond import LIVE
from tokenwire.server.openapi import shapes
from tokenwire.server.openapi.conversation import (
    IN_THREAD,
    LIST_EVENTS,
    THREAD_PARAMS,
    ListEventPage,
    QueuedRun,
)
from tokenwire.server.openapi.operation import (
    Answer,
    Operation,
    Param,
    Socket,
    answer,
    body,
    header,
    query,
    stream,
)
from tokenwire.server.openapi.problems import START
from tokenwire.server.routes.meta import SessionBody
from tokenwire.server.routes.threads import NamedThread, ThreadBody
from tokenwire.server.runs import RunDescription
from tokenwire.server.spending.overview import OwnerUsagePage
from tokenwire.server.spending.routes import MOST_PAGE, BudgetBody, BudgetList, OwnerBudgets
from tokenwire.server.spending.usage import RunUsage, ThreadUsage, UsageReport
from tokenwire.server.tokens.routes import IssueBody
from tokenwire.wire.ai_sdk.parts import COMPAT

__all__ = ["AFTER", "KEY", "LAST_EVENT_ID", "OPERATIONS", "SOCKETS"]

KEY = header(
    "Idempotency-Key",
    "The same key of the same caller names the same run, for as long as it is stored.",
    type="string",
    pattern=r"\A[!-~]{1,255}\Z",
)
LAST_EVENT_ID = header(
    "Last-Event-ID", "Continue after this event; in a POST, start nothing and resume."
)
AFTER = query("after", "As Last-Event-ID, which counts more.")

_RUN = ("unknown_run", "gone")
_READ = ("bad_cursor", *_RUN)
_LIMIT = query("limit", "So many of a page.", type="integer", minimum=1, maximum=MOST_THREADS)
_COMPAT = query("compat", "The release of the AI SDK to write for.", enum=list(COMPAT))


def _before(what: str) -> Param:
    return query("before", f"Older ones than this: the `{what}` of the last page.")


_EVENTS = stream("The events, as they come", "StreamedEvent")
_GONE_ON = answer(204, "Nothing is left to read; an EventSource stops")

_RUNS: dict[tuple[str, str], Operation] = {
    ("POST", "/v1/runs"): Operation(
        summary="Start a run",
        tag="Runs",
        text="Of a `prompt` or of `messages`. With `Accept: text/event-stream` its events follow "
        "in the same answer.",
        params=(KEY, LAST_EVENT_ID, *THREAD_PARAMS),
        body=body(CreateRun),
        answers=(
            answer(202, "The turn waits", QueuedRun, Tokenwire_Run="its id"),
            answer(201, "A new run", RunDescription, Location="its path", Tokenwire_Run="its id"),
            answer(200, "The run that the key or event names", RunDescription),
            stream("A new run's events", "StreamedEvent", status=201),
            _EVENTS,
        ),
        problems=START,
    ),
    ("GET", "/v1/runs/{run}"): Operation(
        summary="The run so far",
        tag="Runs",
        answers=(answer(200, "Its state, and its message so far", shapes.Snapshot),),
        problems=_RUN,
    ),
    ("DELETE", "/v1/runs/{run}"): Operation(
        summary="Delete a run",
        tag="Runs",
        text="A run under way is cancelled first.",
        answers=(answer(204, "Deleted"),),
        problems=_RUN,
    ),
    ("GET", "/v1/runs/{run}/info"): Operation(
        summary="A run's description",
        tag="Runs",
        answers=(answer(200, "Its description", RunDescription),),
        problems=_RUN,
    ),
    ("GET", "/v1/runs/{run}/events"): Operation(
        summary="A run's events",
        tag="Runs",
        text="What is there, then what comes, until `run-end`. A stream that ends without it was "
        "cut, or asked its reader to come back: continue with the last `id`.",
        params=(
            LAST_EVENT_ID,
            AFTER,
            query(
                "live",
                "`long-poll`: one page as soon as there is something; `no`: what is there.",
                enum=["sse", "long-poll", "no"],
            ),
        ),
        answers=(_EVENTS, answer(200, "A page of events", shapes.EventPage), _GONE_ON),
        problems=("bad_request", *_READ),
    ),
    ("POST", "/v1/runs/{run}/cancel"): Operation(
        summary="Cancel a run",
        tag="Runs",
        body=body(CancelBody, required=False),
        answers=(answer(202, "Readers see it end as `cancelled`", RunDescription),),
        problems=_RUN,
    ),
    ("POST", "/v1/runs/{run}/approvals/{approval}"): Operation(
        summary="Approve or reject a tool call",
        tag="Runs",
        text="The first answer counts; later ones get 409.",
        body=body(ApprovalBody),
        answers=(answer(202, "Recorded", shapes.Approved),),
        problems=("conflict", *_RUN),
    ),
    ("POST", "/v1/runs/{run}/tools/{call}"): Operation(
        summary="The result of a tool that the client runs",
        tag="Runs",
        body=body(ToolAnswerBody),
        answers=(answer(202, "Recorded", shapes.ToolAnswered),),
        problems=("conflict", *_RUN),
    ),
    ("POST", "/v1/runs/{run}/attach-tokens"): Operation(
        summary="A token or ticket for this run",
        tag="Runs",
        text="Without a body one that reads its events for ten minutes. Sent with a token, refresh "
        "it.",
        body=body(IssueBody, required=False),
        answers=(answer(201, "A token for a browser", shapes.AttachToken),),
        problems=("bad_request", "forbidden", *_RUN),
    ),
    ("DELETE", "/v1/runs/{run}/attach-tokens"): Operation(
        summary="End the tokens for this run",
        tag="Runs",
        text="Sent with a token, end that one and what it was refreshed to.",
        answers=(answer(204, "They end on every server of the store"),),
        problems=_RUN,
    ),
}

_THREADS: dict[tuple[str, str], Operation] = {
    ("GET", "/v1/threads"): Operation(
        summary="Conversations, newest first",
        tag="Conversations",
        text="With `live` the list as it changes: first a snapshot, then each conversation that is "
        "new or another, as an SSE block with its JSON; `id` is its cursor.",
        params=(
            _LIMIT,
            _before("next"),
            query("live", "As a stream, or one JSON page of what changes.", enum=list(LIVE)),
            header("Last-Event-ID", "With `live`: continue after this event."),
            query("after", "As Last-Event-ID, which counts more."),
        ),
        answers=(
            answer(200, "A page of them", shapes.ThreadPage),
            LIST_EVENTS,
            answer(200, "A page of events", ListEventPage),
        ),
        problems=("bad_request", "bad_cursor"),
    ),
    ("GET", "/v1/threads/{thread}"): Operation(
        summary="A conversation",
        tag="Conversations",
        text="Its runs; with `as=ui-messages` its messages for the AI SDK.",
        params=(
            query("as", "The form of the answer.", enum=["ui-messages"]),
            _LIMIT,
            _before("next` or `cursor"),
            _COMPAT,
        ),
        answers=(
            answer(200, "Its runs, newest first", shapes.Thread),
            answer(200, "Its messages", shapes.UIConversation),
        ),
        problems=("bad_request", *_READ),
    ),
    ("PUT", "/v1/threads/{thread}"): Operation(
        summary="Set a conversation's title and rules",
        tag="Conversations",
        text="An empty title restores the one that it had by itself. `history` and `while_busy` "
        "are the rules of its turns where a request names none; null is the server's.",
        body=body(ThreadBody),
        answers=(answer(200, "The conversation", NamedThread),),
        problems=("bad_request",),
    ),
    ("DELETE", "/v1/threads/{thread}"): Operation(
        summary="Delete a conversation and all of its runs",
        tag="Conversations",
        answers=(answer(204, "Deleted"),),
    ),
    ("POST", "/v1/threads/{thread}/attach-tokens"): Operation(
        summary="A token or ticket for this conversation",
        tag="Conversations",
        text="It reaches later runs too. Without a body it reads for ten minutes. Sent with a "
        "token, refresh it.",
        body=body(IssueBody, required=False),
        answers=(answer(201, "A token for a browser", shapes.AttachToken),),
        problems=("bad_request", "forbidden"),
    ),
    ("DELETE", "/v1/threads/{thread}/attach-tokens"): Operation(
        summary="End the tokens for this conversation",
        tag="Conversations",
        text="Sent with a token, end that one and what it was refreshed to.",
        answers=(answer(204, "They end on every server of the store"),),
    ),
}

_META: dict[tuple[str, str], Operation] = {
    ("GET", "/chat/stream"): Operation(
        summary="Ask, and read the answer's text",
        tag="Token wire",
        text="For a browser's EventSource: `token` events whose data is the text, then one `done` "
        "or `error`. It exists on loopback without keys only, unless the settings say otherwise.",
        params=(
            query("prompt", "The question.", type="string", minLength=1),
            query("model", "One of `/v1/models`."),
            *IN_THREAD,
            LAST_EVENT_ID,
        ),
        answers=(stream("The answer's text", "TokenEvent"), _GONE_ON),
        problems=("bad_request", *START),
        costly=True,
    ),
    ("GET", "/v1/models"): Operation(
        summary="Models and agents",
        tag="Models",
        answers=(answer(200, "What requests may name", shapes.Models),),
        form="openai",
    ),
    ("GET", "/v1/models/{model}"): Operation(
        summary="One model or agent",
        tag="Models",
        text="Its name may hold slashes and colons.",
        answers=(answer(200, "The model", shapes.Model),),
        problems=("model_not_found",),
        form="openai",
    ),
    ("GET", "/livez"): Operation(
        summary="Whether the process runs",
        tag="Service",
        answers=(answer(200, "It runs", shapes.Health),),
        access="none",
    ),
    ("GET", "/healthz"): Operation(
        summary="Whether runs can be started and read",
        tag="Service",
        answers=(
            answer(200, "They can", shapes.Health),
            answer(503, "The server stops, or its store is down", shapes.Health),
        ),
        access="none",
    ),
    ("GET", "/v1/probe"): Operation(
        summary="A stream for looking at what stands between",
        tag="Service",
        text="It starts no run. Events: `seen` (the request as it arrived), `burst` and "
        "`burst-end`, `tick`, `end`; `at` is in seconds since the request arrived. "
        "`tokenwire doctor URL` reads it.",
        params=(
            query("seconds", "Its length.", type="number", exclusiveMinimum=0, maximum=300),
            query("interval", "Between two events.", type="number", minimum=0.05, maximum=300),
            query("silent", "Comments in place of events.", type="boolean"),
            query("burst", "So many at once, first.", type="integer", minimum=0, maximum=2000),
        ),
        answers=(
            Answer(
                status=200, text="The stream", items=shapes.ProbeEvent, content="text/event-stream"
            ),
        ),
        problems=("bad_request", "busy"),
    ),
    ("GET", "/metrics"): Operation(
        summary="Metrics for Prometheus",
        tag="Service",
        answers=(Answer(status=200, text="Prometheus' text", type=str, content="text/plain"),),
        problems=("unknown_run", "not_found"),
    ),
    ("GET", "/openapi.json"): Operation(
        summary="This document",
        tag="Service",
        params=(
            query("version", "Of OpenAPI; 3.1 has no events of streams.", enum=["3.2", "3.1"]),
        ),
        answers=(answer(200, "An OpenAPI document", dict),),
        problems=("bad_request",),
        access="none",
    ),
    ("GET", "/docs"): Operation(
        summary="This document as a page",
        tag="Service",
        answers=(Answer(status=200, text="A page", type=str, content="text/html"),),
        access="none",
    ),
    ("POST", "/v1/session"): Operation(
        summary="Exchange a key for a cookie",
        tag="Session",
        body=body(SessionBody),
        answers=(answer(200, "Signed in", shapes.SessionBegun, Set_Cookie="the session"),),
        access="none",
        problems=("not_authenticated", "store_error", "store_full", "store_unavailable"),
    ),
    ("DELETE", "/v1/session"): Operation(
        summary="End the session",
        tag="Session",
        answers=(answer(204, "Signed out", Set_Cookie="none"),),
        access="none",
        problems=("other_reader", "store_error", "store_full", "store_unavailable"),
    ),
}

_DAY = query("day", "Of this day, `2026-11-29`; default: today.", format="date")
_OPERATORS = "For operators."
_WHOSE = (
    query("tenant", "Of the principal."),
    query("principal", "Who began the conversation."),
)
_MATCH = header("If-Match", "The `ETag` that was read: 412 where the budgets have changed since.")
_SET = answer(200, "What is set now", OwnerBudgets, ETag="the version")
_READING = ("bad_request", "forbidden", "not_found", "unknown_run", "usage_off")
_SETTING = ("conflict", "not_found", "precondition_failed", "unknown_run", "usage_off")


def _budgets(path: str, of: str) -> dict[tuple[str, str], Operation]:
    """Reading, setting and clearing."""
    query_of = _WHOSE if path.endswith("}/{owner}") else ()
    return {
        ("GET", path): Operation(
            summary=f"The budgets of {of}",
            tag="Usage",
            text="What is set, what is in force, and the last changes. " + _OPERATORS,
            params=query_of,
            answers=(_SET,),
            problems=_READING,
        ),
        ("PUT", path): Operation(
            summary=f"Set the budgets of {of}",
            tag="Usage",
            text="All of them at once. They count before those of the configuration. " + _OPERATORS,
            params=(_MATCH, *query_of),
            body=body(BudgetBody),
            answers=(_SET,),
            problems=_SETTING,
        ),
        ("DELETE", path): Operation(
            summary=f"Clear the budgets of {of}",
            tag="Usage",
            text="Those of the configuration count again. " + _OPERATORS,
            params=(_MATCH, *query_of),
            answers=(_SET,),
            problems=_SETTING,
        ),
    }


_USAGE: dict[tuple[str, str], Operation] = {
    ("GET", "/v1/budgets"): Operation(
        summary="The budgets that are set",
        tag="Usage",
        text="While servers run, beside those of the configuration. " + _OPERATORS,
        params=(
            query("limit", "So many of a page.", type="integer", minimum=1, maximum=MOST_PAGE),
            query("after", "The `next` of the page before."),
        ),
        answers=(answer(200, "A page of them", BudgetList),),
        problems=("bad_request", "forbidden", "usage_off"),
    ),
    **_budgets("/v1/budgets/{whose}", "all owners of a kind"),
    **_budgets("/v1/budgets/{whose}/{owner}", "one owner"),
    **{
        ("GET", f"/v1/usage/{kind}s"): Operation(
            summary=f"What each {kind} used and cost",
            tag="Usage",
            text="On one day and in its month, and what is left of budgets. " + _OPERATORS,
            params=(_DAY, query("after", "The `next` of the page before.")),
            answers=(answer(200, "A page of them", OwnerUsagePage),),
            problems=("bad_request", "forbidden", "usage_off"),
        )
        for kind in ("principal", "tenant")
    },
    ("GET", "/v1/usage"): Operation(
        summary="What the caller's runs used and cost",
        tag="Usage",
        text="On one day and in its month, runs that have ended. Where usage is counted (404).",
        params=(_DAY,),
        answers=(answer(200, "The sums", UsageReport),),
        problems=("bad_request", "usage_off"),
    ),
    ("GET", "/v1/runs/{run}/usage"): Operation(
        summary="What a run used and cost",
        tag="Usage",
        text="Or has used so far. `is_settled`, soon after its end: it is in the sums.",
        answers=(answer(200, "By model", RunUsage),),
        problems=(*_RUN, "usage_off"),
    ),
    ("GET", "/v1/threads/{thread}/usage"): Operation(
        summary="What a conversation used and cost",
        tag="Usage",
        answers=(answer(200, "The sum of its runs that have ended", ThreadUsage),),
        problems=("bad_request", "unknown_run", "usage_off"),
    ),
}

OPERATIONS = {**_RUNS, **_THREADS, **_META, **_USAGE}

SOCKETS: dict[str, Socket] = {
    "/ws": Socket(
        summary="Many runs over one WebSocket",
        text="JSON text messages with an `op`: you send `auth`, `start`, `follow`, `unfollow`, "
        "`cancel`, `approve`, `tool` and `ping`; you get `started`, `events`, `end`, `ok`, `pong`, "
        "`error` and `reconnect`.",
    ),
}
