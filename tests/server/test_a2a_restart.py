"""An A2A task outlives its server: killed and started again, or taken over by another one."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from a2a.client.errors import A2AClientError
from a2a.types import a2a_pb2 as pb

from support.a2a_client import Seen, client, in_loop, question
from support.process import Process, serving

SLOW = "".join(f"{number} " for number in range(1, 91))


async def begin(url: str, binding: str) -> Seen:
    """A client that has read the beginning of a task; its stream stays open."""
    seen = Seen()
    async with client(url, binding) as a:
        stream = a.send_message(question("scenario:slow"))
        async for response in stream:
            seen.take(response)
            if seen.text.count(" ") >= 3:
                break
    return seen


async def goes_on(server: Process, binding: str, seen: Seen) -> None:
    """The client comes back with its cursor, and then once more in the middle."""
    request = pb.SubscribeToTaskRequest(id=seen.task.id)
    async with client(server.url, binding) as a:
        rest = await Seen().read(a.subscribe(request, context=seen.resume))
        assert rest.kinds[0] == "task"
        assert (rest.text, rest.states[-1]) == (SLOW, "COMPLETED")
        task = await a.get_task(pb.GetTaskRequest(id=seen.task.id))
        assert "".join(p.text for x in task.artifacts for p in x.parts) == SLOW
        again = await Seen().read(a.subscribe(request, context=seen.resume))
        assert (again.text, again.task.status) == (SLOW, rest.task.status)


@in_loop
async def test_a_killed_server_that_starts_again(tmp_path: Path) -> None:
    binding, store = "HTTP+JSON", f"sqlite:{tmp_path / 'runs.db'}"
    with serving(tmp_path, "--store", store) as one:
        seen = await begin(one.url, binding)
        assert seen.text
        assert SLOW.startswith(seen.text)
        one.stop(signal.SIGKILL)
    with serving(tmp_path, "--store", store) as two:
        await goes_on(two, binding, seen)


@in_loop
async def test_another_server_takes_over_while_a_client_subscribes(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path / 'runs.db'}"
    with serving(tmp_path, "--store", store) as one, serving(tmp_path, "--store", store) as two:
        seen = await begin(one.url, "JSONRPC")
        request = pb.SubscribeToTaskRequest(id=seen.task.id)
        async with client(two.url) as a, client(one.url) as b:
            watcher: Any = a.subscribe(request, context=seen.resume)
            watched = await Seen().read(watcher, most=2)
            cut = b.subscribe(request)
            broken = await Seen().read(cut, most=1)
            one.stop(signal.SIGKILL)
            with pytest.raises(A2AClientError):  # never the end of an answer
                await broken.read(cut)
            await watched.read(watcher)
        assert (watched.text, watched.states[-1]) == (SLOW, "COMPLETED")
        await goes_on(two, "JSONRPC", broken)
