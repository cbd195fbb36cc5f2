"""Webhooks of runs: signed, at least once, retried, and erased with the run."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.agents import LEASE, asked, crash, events_of
from support.spine import run_async
from support.webhook import Receiver
from tokenwire import Principal, RunContext, Runs, agent, open_store
from tokenwire.agents.load import agents_of
from tokenwire.errors import ConfigError
from tokenwire.events import model as m
from tokenwire.observe.hooks import observe
from tokenwire.relay.upkeep import rounds
from tokenwire.relay.upkeep.retention import Retention
from tokenwire.relay.webhooks import deliveries
from tokenwire.relay.webhooks.config import Webhooks

KEY = b"k" * 32
SECRET = "whsec_" + base64.b64encode(KEY).decode()
OTHER = "whsec_" + base64.b64encode(b"o" * 32).decode()


@agent
async def job(ctx: RunContext):
    yield "Hello "
    if ctx.prompt == "fail":
        raise RuntimeError("no")
    if ctx.prompt == "sleep":
        await asyncio.sleep(60)
    if ctx.prompt.startswith("ask"):
        seconds = float(ctx.prompt[3:] or 60)
        answer = await ctx.request_approval("send", {"to": "all"}, timeout=seconds)
        yield f"{bool(answer)} {answer.reason}"
    yield ctx.prompt


@asynccontextmanager
async def opened(
    store: str, *urls: str, secrets: list[str] | None = None, **more: Any
) -> AsyncIterator[Runs]:
    webhooks = Webhooks(urls, secrets or [SECRET])
    options = {"lease": LEASE, "leave_for": 0.5, "owner": f"elsewhere:{id(webhooks)}:x", **more}
    runs = Runs(open_store(store), agents=agents_of([job]), webhooks=webhooks, **options)
    await runs.open()
    try:
        yield runs
    finally:
        await runs.aclose()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "PERIOD", 0.05)
    for name, value in {"LOOK_SECONDS": 0.1, "FIRST_PAUSE": 0.05}.items():
        monkeypatch.setattr(deliveries, name, value)
    # No proxy is used, whatever the environment says.
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


def bodies(receiver: Receiver, event: str | None = None) -> list[dict[str, Any]]:
    """What was received, each message once."""
    by_id: dict[str, dict[str, Any]] = {}
    for _, headers, body in list(receiver.requests):
        assert is_signed(headers, body)
        by_id[headers["webhook-id"]] = json.loads(body)
    return [body for body in by_id.values() if event in (None, body["type"])]


def is_signed(headers: dict[str, str], body: bytes, key: bytes = KEY) -> bool:
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    return f"v1,{digest}" in headers["webhook-signature"].split()


def sqlite(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path / 'runs.db'}"


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_every_end_is_sent_signed(kind: str, tmp_path: Path, receiver: Receiver) -> None:
    async def main() -> None:
        async with opened("memory:" if kind == "memory" else sqlite(tmp_path), receiver.url) as r:
            whole = await r.start(asked("you"), model="job", principal="eve", thread="t")
            eve = Principal("eve", tenant="acme").name
            failed = await r.start(asked("fail"), model="job", principal=eve)
            stopped = await r.start(asked("sleep"), model="job")
            await asyncio.sleep(0.1)
            await r.cancel(stopped.id)
            await until(lambda: len(bodies(receiver)) == 3)
            await asyncio.sleep(0.3)
            assert len(receiver.requests) == 3, "sent again though it was received"
            by_run = {body["data"]["run"]: body for body in bodies(receiver)}
            first = by_run[whole.id]
            assert first["type"] == "run.ended"
            assert (first["data"]["outcome"], first["data"]["principal"]) == ("complete", "eve")
            assert "tenant" not in first["data"]
            other = by_run[failed.id]["data"]
            assert (other["principal"], other["tenant"]) == ("eve", "acme")
            assert first["data"]["message"]["content"][0]["text"] == "Hello you"
            assert by_run[failed.id]["data"]["error"]["code"] == "agent_failed"
            assert by_run[stopped.id]["data"]["outcome"] == "cancelled"
            assert await r.store.documents("webhook") == {}

    run_async(main())


def test_the_public_library_verifies_them(receiver: Receiver) -> None:
    standard = pytest.importorskip("standardwebhooks")

    async def main() -> None:
        async with opened("memory:", receiver.url, secrets=[OTHER, SECRET]) as runs:
            await runs.start(asked("you"), model="job")
            await until(lambda: receiver.requests)

    run_async(main())
    _, headers, body = receiver.requests[0]
    for secret in (SECRET, OTHER):  # while a secret is replaced, either verifies
        assert standard.Webhook(secret).verify(body, headers)["type"] == "run.ended"
    wrong = "whsec_" + base64.b64encode(b"w" * 32).decode()
    with pytest.raises(standard.WebhookVerificationError):
        standard.Webhook(wrong).verify(body, headers)
    with pytest.raises(standard.WebhookVerificationError):
        standard.Webhook(SECRET).verify(body + b" ", headers)
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("status", [500, 429, 302, 404, 0])
def test_what_is_not_received_is_sent_again_under_its_id(status: int, receiver: Receiver) -> None:
    receiver.status = status
    receiver.headers = {"location": receiver.url} if status == 302 else {}

    async def main() -> None:
        async with opened("memory:", receiver.url) as runs:
            await runs.start(asked("you"), model="job")
            await until(lambda: len(receiver.requests) >= 2)
            receiver.status = 204
            await until_received(runs)

    run_async(main())
    assert len({headers["webhook-id"] for _, headers, _ in receiver.requests}) == 1
    assert len({body for _, _, body in receiver.requests}) == 1
    assert {path for path, _, _ in receiver.requests} == {"/hook"}


async def until_received(runs: Runs) -> None:
    async with asyncio.timeout(60):
        while await runs.store.documents("webhook"):
            await asyncio.sleep(0.02)


def test_a_receiver_that_is_away_delays_no_other(receiver: Receiver) -> None:
    slow = Receiver()
    slow.hold.clear()

    async def main() -> None:
        async with opened("memory:", slow.url, receiver.url, "http://127.0.0.1:9/x") as runs:
            for _ in range(3):
                await runs.start(asked("you"), model="job")
            await until(lambda: len(bodies(receiver)) == 3)
            assert slow.requests
            slow.hold.set()

    try:
        run_async(main())
    finally:
        slow.close()


def test_another_process_sends_what_a_dead_one_did_not(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "CLAIM_SECONDS", 0.3)

    async def main() -> None:
        async with opened(sqlite(tmp_path), "http://127.0.0.1:9/away") as first:
            info = await first.start(asked("you"), model="job")
            await events_of(first, info.id)
            async with asyncio.timeout(60):
                while b'"error"' not in (await first.store.document("webhook", info.id) or b""):
                    await asyncio.sleep(0.02)
        async with opened(sqlite(tmp_path), receiver.url) as second:
            # Its message has the address of before, which waits for a process that has it.
            again = await second.start(asked("more"), model="job")
            await until(lambda: bodies(receiver))
            assert [b["data"]["run"] for b in bodies(receiver)] == [again.id]
        receiver.requests.clear()
        async with opened(sqlite(tmp_path), receiver.url) as third:
            lost = await third.start(asked("sleep"), model="job")
            await events_of(third, lost.id, lambda e: isinstance(e, m.TextDelta))
            assert third.outbox is not None
            await third.outbox.aclose()  # it dies with the end written and nothing said
            third.worker.outbox = None
            await third.cancel(lost.id)
            await events_of(third, lost.id)
            crash(third)
            async with opened(sqlite(tmp_path), receiver.url):
                await until(lambda: bodies(receiver))
        assert {b["data"]["run"] for b in bodies(receiver)} == {lost.id}

    run_async(main())


def test_a_marked_end_is_looked_at_while_a_message_waits_for_its_next_try() -> None:
    now = time.time()
    message = deliveries._Message(
        id="1", event=deliveries.WAITING, url="http://127.0.0.1:9/", at=now, until=now + 3600
    )
    note = deliveries._Note(since=now - 7200, ends=now + 600, messages=[message])
    assert deliveries._due(msgspec.json.encode(note)) == note.ends
    note.ends = now - 1  # looked at, and not there yet
    assert deliveries._due(msgspec.json.encode(note)) == message.until


def test_two_processes_that_look_in_the_same_moment_send_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their notes are equal to the microsecond, and the store tells both that theirs is there."""
    message = deliveries._Message(id="m", event=deliveries.ENDED, url="http://127.0.0.1:9", at=1.0)
    note = deliveries._Note(since=1.0, messages=[message], has_ended=True)

    async def main() -> None:
        logs = [open_store(sqlite(tmp_path)) for _ in range(8)]
        for log in logs:
            await log.start()
        await logs[0].set_document(deliveries._KIND, "run", msgspec.json.encode(note))
        monkeypatch.setattr(deliveries.time, "time", lambda: 1000.0)
        webhooks = Webhooks([message.url], [SECRET])
        senders = [deliveries.Deliveries(log, webhooks) for log in logs]
        claimed = await asyncio.gather(*(sender._claim("run", note) for sender in senders))
        monkeypatch.undo()
        assert [m.id for messages in claimed for m in messages] == ["m"]
        for log in logs:
            await log.close()

    run_async(main())


def test_waiting_is_sent_once_also_over_a_restart(tmp_path: Path, receiver: Receiver) -> None:
    async def main() -> None:
        async with opened(sqlite(tmp_path), receiver.url) as first:
            info = await first.start(asked("ask"), model="job", thread="t")
            events = await events_of(first, info.id, lambda e: isinstance(e, m.RunWait))
            await until(lambda: bodies(receiver, "run.waiting"))
            crash(first)
            async with opened(sqlite(tmp_path), receiver.url) as second:
                await asyncio.sleep(3 * LEASE + 0.5)
                assert len(receiver.requests) == 1, "it was sent again"
                await second.approve(info.id, events[-1].pending[0], approved=True)
                await until(lambda: bodies(receiver, "run.ended"))
        (waiting,) = bodies(receiver, "run.waiting")
        assert waiting["data"]["thread"] == "t"
        (approval,) = waiting["data"]["approvals"]
        assert approval["approval_id"] == events[-1].pending[0]
        assert (approval["name"], approval["arguments"]) == ("send", {"to": "all"})
        assert not bodies(receiver, "approval.expired")

    run_async(main())


def test_an_approval_that_expires_with_the_run(receiver: Receiver) -> None:
    async def main() -> None:
        async with opened("memory:", receiver.url, wait_timeout=0.2) as runs:
            info = await runs.start(asked("ask"), model="job")
            await until(lambda: bodies(receiver, "run.ended"))
            await until(lambda: bodies(receiver, "approval.expired"))
            (expired,) = bodies(receiver, "approval.expired")
            (ended,) = bodies(receiver, "run.ended")
            assert expired["data"]["run"] == info.id
            assert expired["data"]["approvals"][0]["name"] == "send"
            assert (ended["data"]["outcome"], ended["data"]["reason"]) == ("incomplete", "expired")

    run_async(main())


def test_an_approval_that_expires_by_its_own_timeout(receiver: Receiver) -> None:
    async def main() -> None:
        async with opened("memory:", receiver.url) as runs:
            info = await runs.start(asked("ask 0.2"), model="job")
            await until(lambda: bodies(receiver, "run.ended"))
            await until(lambda: bodies(receiver, "approval.expired"))
            assert bodies(receiver, "run.ended")[0]["data"]["outcome"] == "complete"
            (expired,) = bodies(receiver, "approval.expired")
            assert (expired["data"]["run"], len(expired["data"]["approvals"])) == (info.id, 1)

    run_async(main())


def test_what_fails_for_a_day_is_listed_and_counted(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "MOST_SECONDS", -1.0)
    receiver.status = 500
    facts: list[Any] = []
    stop = observe(facts.append)

    async def main() -> None:
        async with opened("memory:", receiver.url) as runs:
            info = await runs.start(asked("you"), model="job")
            assert runs.outbox is not None
            failed: dict[str, str] = {}
            async with asyncio.timeout(60):
                while not failed:
                    failed = await runs.outbox.failed()
                    await asyncio.sleep(0.02)
            assert list(failed) == [info.id]
            assert "run.ended" in failed[info.id]
            assert "500" in failed[info.id]
            assert await runs.outbox.undelivered([info.id]) == set(), "it may expire"
            await runs.delete(info.id)
            assert await runs.outbox.failed() == {}

    try:
        run_async(main())
    finally:
        stop()
    sent = [f for f in facts if type(f).__name__ == "WebhookSent"]
    assert [(f.event, f.how) for f in sent] == [("run.ended", "failed")]


def test_a_receiver_that_is_gone_is_not_called_again(receiver: Receiver) -> None:
    receiver.status = 410

    async def main() -> None:
        async with opened("memory:", receiver.url) as runs:
            info = await runs.start(asked("you"), model="job")
            assert runs.outbox is not None
            async with asyncio.timeout(60):
                while not await runs.outbox.failed():
                    await asyncio.sleep(0.02)
            await asyncio.sleep(0.3)
            assert len(receiver.requests) == 1
            assert list(await runs.outbox.failed()) == [info.id]

    run_async(main())


def test_deleting_a_run_forgets_its_webhooks(receiver: Receiver) -> None:
    receiver.status = 500

    async def main() -> None:
        async with opened("memory:", receiver.url) as runs:
            info = await runs.start(asked("you"), model="job")
            await until(lambda: receiver.requests)
            await runs.delete(info.id)
            await asyncio.sleep(0.2)
            count = len(receiver.requests)
            await asyncio.sleep(0.4)
            assert len(receiver.requests) == count
            assert await runs.store.documents("webhook") == {}

    run_async(main())


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_retention_waits_for_them(kind: str, tmp_path: Path, receiver: Receiver) -> None:
    receiver.status = 500

    async def main() -> None:
        store = "memory:" if kind == "memory" else sqlite(tmp_path)
        async with opened(store, receiver.url) as runs:
            info = await runs.start(asked("you"), model="job")
            await until(lambda: receiver.requests)
            await asyncio.sleep(0.05)
            assert runs.outbox is not None
            retention = Retention(runs.store, 0.0, deliveries=[runs.outbox])
            assert await retention.sweep() == 0
            receiver.status = 200
            await until_received(runs)
            assert (await runs.info(info.id)).state == "complete"

    run_async(main())


def test_a_large_answer_is_left_out(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "MOST_BODY", 100)

    async def main() -> None:
        async with opened("memory:", receiver.url) as runs:
            await runs.start(asked("you"), model="job")
            await until(lambda: receiver.requests)

    run_async(main())
    (body,) = bodies(receiver)
    assert body["data"]["is_truncated"]
    assert "message" not in body["data"]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/x", "http://", "127.0.0.1:80/x", "http://me:secret@127.0.0.1/x",
        "http://127.0.0.1:99999/x", "http://127.0.0.1/a b", "http://127.0.0.1/#part",
    ],
)  # fmt: skip
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError):
        Webhooks([url], [SECRET])


@pytest.mark.parametrize(
    "secret", ["", "hunter2-hunter2-hunter2", "whsec_", "whsec_!!!!", "whsec_c2hvcnQ=", "whsec_é"]
)
def test_secrets_that_are_none_and_are_not_shown(secret: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Webhooks(["http://127.0.0.1:80/x"], [secret])
    assert not secret or secret == "whsec_" or secret not in str(caught.value)
    with pytest.raises(ConfigError, match="TOKENWIRE_WEBHOOK_SECRETS"):
        Webhooks(["http://127.0.0.1:80/x"], [])
