"""Push notifications of A2A: the a2a-sdk's client asks, a real receiver is told, in order."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from a2a.types import a2a_pb2 as pb
from a2a.utils.errors import (
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotFoundError,
)
from google.protobuf.json_format import ParseDict

from support.a2a_client import BINDINGS, Seen, client, data, in_loop, question, state_of
from support.process import serving
from support.server import simulator
from tokenwire import RunContext, agent
from tokenwire.providers.registry import Registry
from tokenwire.server.app import create_app
from tokenwire.server.settings import Settings
from tokenwire.server.start import ThreadedServer


@agent(name="clerk")
async def clerk(ctx: RunContext) -> None:
    for number in range(5):
        ctx.progress(number / 5, f"page {number}")
    if await ctx.request_approval("send", {"to": "ann"}):
        await ctx.say("sent")


class Receiver:
    """Takes notifications; the first ``fails`` get this status instead of 200."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.statuses: list[int] = []
        self.url = ""

    def states(self) -> list[str]:
        """The state of each message."""
        return [state_of(self.task(m)) for m in self.messages]

    def task(self, message: dict[str, Any]) -> pb.Task:
        """A message as the SDK reads it: a ``StreamResponse``."""
        response = ParseDict(message, pb.StreamResponse())
        if response.HasField("task"):
            return response.task
        update = response.status_update
        return pb.Task(id=update.task_id, context_id=update.context_id, status=update.status)

    async def until(self, state: str) -> None:
        """Wait for a message of this state."""
        while state not in self.states():
            await asyncio.sleep(0.01)


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = receiver.statuses.pop(0) if receiver.statuses else 200
            if status == 200:
                receiver.messages.append(json.loads(body))
            receiver.headers.append({k.lower(): v for k, v in self.headers.items()})
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    registry = Registry(demo_url=simulator().server.url + "/v1", env={})
    settings = Settings(port=0, access_log=False, model=["demo"], a2a_push=["127.0.0.1:*", "a.b"])
    with ThreadedServer(create_app(settings, registry=registry, agents=[clerk])) as server:
        yield server.url


def config(url: str, **more: Any) -> pb.TaskPushNotificationConfig:
    return pb.TaskPushNotificationConfig(url=url, **more)


@pytest.mark.parametrize("binding", BINDINGS)
@in_loop
async def test_each_change_of_state_in_order(url: str, binding: str) -> None:
    with receiving() as receiver:
        receiver.statuses = [500]
        async with client(url, binding, streaming=False, tenant="clerk") as a:
            asked = question("hello")
            login = pb.AuthenticationInfo(scheme="Bearer", credentials="c1")
            asked.configuration.task_push_notification_config.CopyFrom(
                config(receiver.url, id="mine", token="t1", authentication=login)
            )
            seen = await Seen().read(a.send_message(asked))
            assert seen.states == ["INPUT_REQUIRED"]
            await receiver.until("INPUT_REQUIRED")
            decision = data({"approved": True}, task_id=seen.task.id)
            await Seen().read(a.send_message(decision))
            await receiver.until("COMPLETED")
    assert receiver.states() == ["WORKING", "INPUT_REQUIRED", "WORKING", "COMPLETED"]
    whole = receiver.task(receiver.messages[-1])
    assert (whole.id, whole.artifacts[0].parts[0].text) == (seen.task.id, "sent")
    assert whole.context_id == seen.task.context_id
    for headers in receiver.headers:
        assert headers["x-a2a-notification-token"] == "t1"
        assert headers["authorization"] == "Bearer c1"
        assert headers["content-type"] == "application/a2a+json"


@pytest.mark.parametrize("binding", BINDINGS)
@in_loop
async def test_configurations(url: str, binding: str) -> None:
    with receiving() as receiver:
        async with client(url, binding, streaming=False, tenant="demo") as a:
            seen = await Seen().read(a.send_message(question("scenario:text")))
            task = seen.task.id
            login = pb.AuthenticationInfo(scheme="Basic", credentials="c1")
            made = await a.create_task_push_notification_config(
                config(receiver.url, task_id=task, token="t", authentication=login)
            )
            assert (made.task_id, made.url, made.token) == (task, receiver.url, "t")
            assert (made.authentication.scheme, made.authentication.credentials) == ("Basic", "")
            await receiver.until("COMPLETED")  # it had ended before
            one = await a.get_task_push_notification_config(
                pb.GetTaskPushNotificationConfigRequest(task_id=task, id=made.id)
            )
            assert one == made
            many = pb.ListTaskPushNotificationConfigsRequest(task_id=task)
            listed = await a.list_task_push_notification_configs(many)
            assert list(listed.configs) == [made]
            gone = pb.DeleteTaskPushNotificationConfigRequest(task_id=task, id=made.id)
            await a.delete_task_push_notification_config(gone)
            await a.delete_task_push_notification_config(gone)
            assert not (await a.list_task_push_notification_configs(many)).configs
            with pytest.raises(InvalidParamsError):
                await a.get_task_push_notification_config(
                    pb.GetTaskPushNotificationConfigRequest(task_id=task, id=made.id)
                )
            for refused in (
                "http://a.b/hook",
                "https://elsewhere/hook",
                "ftp://127.0.0.1/",
                "http://u:p@127.0.0.1/",
            ):
                with pytest.raises(InvalidParamsError):
                    await a.create_task_push_notification_config(config(refused, task_id=task))
            for wrong in (
                {"token": "a\nb"},
                {"id": "x" * 300},
                {"authentication": pb.AuthenticationInfo(scheme="a b")},
            ):
                with pytest.raises(InvalidParamsError):
                    await a.create_task_push_notification_config(
                        config(receiver.url, task_id=task, **wrong)
                    )
            with pytest.raises(TaskNotFoundError):
                await a.create_task_push_notification_config(config(receiver.url, task_id="x" * 22))


@in_loop
async def test_a_task_has_a_bounded_number_and_each_is_told(url: str) -> None:
    with receiving() as receiver:
        async with client(url, streaming=False, tenant="clerk") as a:
            seen = await Seen().read(a.send_message(question("hello")))
            for number in range(10):
                await a.create_task_push_notification_config(
                    config(f"{receiver.url}/{number}", task_id=seen.task.id, id=str(number))
                )
            with pytest.raises(InvalidParamsError):
                await a.create_task_push_notification_config(
                    config(receiver.url, task_id=seen.task.id)
                )
            await a.cancel_task(pb.CancelTaskRequest(id=seen.task.id))
            while receiver.states().count("CANCELED") < 10:
                await asyncio.sleep(0.01)


@in_loop
async def test_a_message_with_an_address_that_may_not_be_called_starts_nothing(url: str) -> None:
    async with client(url, streaming=False, tenant="demo") as a:
        asked = question("hello")
        asked.message.context_id = "never"
        asked.configuration.task_push_notification_config.url = "https://elsewhere/"
        with pytest.raises(InvalidParamsError):
            await Seen().read(a.send_message(asked))
    page = httpx.get(f"{url}/a2a/tasks?contextId=never", trust_env=False).json()
    assert page["tasks"] == []


@in_loop
async def test_without_the_setting_nothing_is_promised() -> None:
    registry = Registry(demo_url=simulator().server.url + "/v1", env={})
    app = create_app(Settings(port=0, access_log=False, model=["demo"]), registry=registry)
    with ThreadedServer(app) as server:
        card = httpx.get(f"{server.url}/.well-known/agent-card.json", trust_env=False).json()
        assert card["capabilities"]["pushNotifications"] is False
        async with client(server.url, streaming=False, tenant="demo") as a:
            asked = question("hello")
            asked.configuration.task_push_notification_config.url = "https://elsewhere/"
            with pytest.raises(PushNotificationNotSupportedError):
                await Seen().read(a.send_message(asked))


@in_loop
async def test_a_killed_server_loses_no_notification(tmp_path: Path) -> None:
    """The receiver is down while the task goes on; the server is killed; another one tells what
    happened meanwhile, once."""
    flags = ["--store", f"sqlite:{tmp_path / 'runs.db'}", "--a2a-push", "127.0.0.1:*"]
    with receiving() as first:
        port = int(first.url.split(":")[2].partition("/")[0])
    with serving(tmp_path, *flags) as one:
        async with client(one.url, streaming=False) as a:
            asked = question("scenario:text")
            asked.configuration.task_push_notification_config.url = first.url
            seen = await Seen().read(a.send_message(asked))
            assert seen.states == ["COMPLETED"]
        one.stop(signal.SIGKILL)
    with receiving(port) as receiver, serving(tmp_path, *flags):
        await receiver.until("COMPLETED")
    assert receiver.states() == ["WORKING", "COMPLETED"]
    assert receiver.task(receiver.messages[-1]).id == seen.task.id
