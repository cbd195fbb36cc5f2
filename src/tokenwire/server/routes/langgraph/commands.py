"""``POST /langgraph/threads/{thread}/commands``: what the clients of the Agent Streaming Protocol
do in a thread.

Always true: a command does what the route of LangGraph's runs for the same does; an answer is
recorded only for an interrupt that waits under the id that it names.
"""

from __future__ import annotations

from starlette.responses import Response

from tokenwire.errors import ConflictError, InputError, LimitError
from tokenwire.server.edge.problems import json_response
from tokenwire.server.routes.langgraph.caller import Caller
from tokenwire.server.routes.langgraph.runs import begin, resume, waiting_run
from tokenwire.server.routes.langgraph.thread_stream import newest_number
from tokenwire.wire.langgraph.command import Command, failure, parse_command, success
from tokenwire.wire.langgraph.thread_encoder import base_of

__all__ = ["command"]


async def command(caller: Caller) -> Response:
    """``POST /threads/{thread}/commands``."""
    thread = caller.thread or ""
    try:
        order = parse_command(caller.info.json, thread)
        if order.answers is not None:
            through, is_taken = await _respond(caller, order, thread)
            # What is not said here is so: an answer that succeeds is one that counts.
            result = {} if is_taken else {"taken": False}
            return json_response(success(order, result, through))
        run, _ = await begin(caller, order.run)
    except LimitError:
        raise
    except (ConflictError, InputError) as error:
        return json_response(failure(caller.info.json, error))
    return json_response(success(order, {"run_id": run.id}, base_of(run.created)))


async def _respond(caller: Caller, order: Command, thread: str) -> tuple[int, bool]:
    """The number of the newest event before the answer: a page takes an interrupt up to there for
    answered, however late it is sent to it; and whether the run has taken the answer. Raises
    `ConflictError` for one that does not wait, or got another answer meanwhile."""
    run = await waiting_run(caller, thread)
    fold = await caller.state.runs.fold(run.id, principal=caller.principal)
    unknown = sorted(set(order.answers or {}) - set(fold.waiting))
    if unknown:
        raise ConflictError(
            f"the interrupt '{unknown[0][:80]}' does not wait for an answer",
            reason="nothing_waits",
        )
    through = await newest_number(caller, run)
    resumed = await resume(caller, order.run, all_count=True)
    return through, resumed.is_taken
