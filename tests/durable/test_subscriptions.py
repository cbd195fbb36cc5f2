"""Subscriptions to Durable Streams over HTTP: pull-wake, webhooks, restarts, several processes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from support import process as process_support
from support.node import serving
from support.redis import need_redis, redis_server
from support.server import AS_A, AS_B, KEYS
from support.webhook import Receiver, verified
from tokenwire.durable.rules import Append
from tokenwire.durable.store import StreamStore
from tokenwire.durable.subscriptions import waker as ds_sub_wake
from tokenwire.durable.subscriptions.config import Config
from tokenwire.durable.subscriptions.rules import Subscription, Wake
from tokenwire.durable.subscriptions.store import SubscriptionStore
from tokenwire.errors import ConfigError
from tokenwire.log.memory import MemoryStore
from tokenwire.relay.webhooks.post import Targets
from tokenwire.server.app import create_app
from tokenwire.server.settings import Settings
from tokenwire.server.start import check
from tokenwire.server.state import State

JSON = {"content-type": "application/json"}
ROOT = "/ds/v1/stream"
ZERO = "0000000000000000_0000000000000000"


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Ask again until the answer is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return value


class Api:
    """A client of one server's streams and subscriptions."""

    state_of_server: State
    opened: ClassVar[list[httpx.Client]] = []

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        self.client = httpx.Client(base_url=url + ROOT, headers=headers or {}, timeout=60)
        self.opened.append(self.client)

    def stream(self, path: str, *items: Any) -> str:
        """Make a JSON stream; its tail."""
        made = self.client.put(f"/{path}", json=list(items), headers=JSON)
        assert made.status_code == 201, made.text
        return made.headers["stream-next-offset"]

    def append(self, path: str, *items: Any) -> str:
        told = self.client.post(f"/{path}", json=list(items), headers=JSON)
        assert told.status_code == 204, told.text
        return told.headers["stream-next-offset"]

    def items(self, path: str) -> list[Any]:
        return self.client.get(f"/{path}").json()

    def ask(self, method: str, name: str, body: Any = None, token: str = "") -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        more = {"json": body} if body is not None else {}
        return self.client.request(method, f"/__ds/subscriptions/{name}", headers=headers, **more)

    def subscribe(self, name: str, **fields: Any) -> dict[str, Any]:
        made = self.ask("PUT", name, {"type": "pull-wake", "wake_stream": "wake", **fields})
        assert made.status_code == 201, made.text
        return made.json()

    def state(self, name: str) -> dict[str, Any]:
        found = self.ask("GET", name)
        assert found.status_code == 200, found.text
        return found.json()

    def cursors(self, name: str) -> dict[str, str]:
        return {s["path"]: s["acked_offset"] for s in self.state(name)["streams"]}

    def claim(self, name: str, worker: str = "w") -> dict[str, Any]:
        claimed = self.ask("POST", f"{name}/claim", {"worker": worker})
        assert claimed.status_code == 200, claimed.text
        return claimed.json()

    def ack(self, name: str, claimed: dict[str, Any], **more: Any) -> httpx.Response:
        body = {"wake_id": claimed["wake_id"], "generation": claimed["generation"], **more}
        return self.ask("POST", f"{name}/ack", body, claimed["token"])

    def wakes(self, count: int, path: str = "wake") -> list[Any]:
        """The wake stream, once it has that many events."""
        return until(lambda: (found := self.items(path))[count - 1 :] and found)


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    for client in Api.opened:
        client.close()


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with serving(durable_streams="readwrite") as server:
        made = Api(server.url)
        made.state_of_server = server.app.state
        made.stream("wake")
        yield made


# --- pull-wake ---------------------------------------------------------------------------------


def test_work_goes_from_worker_to_worker_and_none_is_lost(api: Api) -> None:
    api.stream("w1")
    api.stream("jobs/old", "before")
    made = api.subscribe("pull", pattern="jobs/*", wake_stream="w1", lease_ttl_ms=60_000)
    assert made["status"] == "active"
    assert [s["path"] for s in made["streams"]] == ["jobs/old"]
    assert code_of(api.ask("POST", "pull/claim", {"worker": "w"})) == (409, "NO_PENDING_WORK")
    tail = api.stream("jobs/new", "one")
    event = api.wakes(1, "w1")[0]
    assert {k: event[k] for k in ("type", "subscription_id", "stream", "generation")} == {
        "type": "wake",
        "subscription_id": "pull",
        "stream": "jobs/new",
        "generation": 1,
    }
    first = api.claim("pull", "w1")
    told = {s["path"]: s for s in first["streams"]}
    assert told["jobs/new"]["acked_offset"] == ZERO
    assert (told["jobs/new"]["tail_offset"], told["jobs/new"]["has_pending"]) == (tail, True)
    assert told["jobs/old"]["has_pending"] is False
    busy = api.ask("POST", "pull/claim", {"worker": "w2"})
    assert code_of(busy) == (409, "ALREADY_CLAIMED")
    assert busy.json()["error"]["current_holder"] == "w1"
    # More comes while the work is under way: it is not told again, but once the worker is done.
    later = api.append("jobs/old", "two")
    assert api.ack("pull", first).json() == {"ok": True, "next_wake": False}
    done = api.ack("pull", first, acks=[{"stream": "jobs/new", "offset": tail}], done=True)
    assert done.json() == {"ok": True, "next_wake": True}
    assert code_of(api.ack("pull", first, done=True)) == (409, "FENCED")
    assert api.wakes(2, "w1")[1]["generation"] == 2
    second = api.claim("pull", "w2")
    release = api.ask(
        "POST",
        "pull/release",
        {"wake_id": second["wake_id"], "generation": second["generation"]},
        second["token"],
    )
    assert release.status_code == 204
    assert api.wakes(3, "w1")[2]["generation"] == 3
    third = api.claim("pull", "w2")
    assert code_of(api.ack("pull", second)) == (409, "FENCED")
    acks = [{"path": "jobs/old", "offset": later}]
    assert api.ack("pull", third, acks=acks, done=True).json()["next_wake"] is False
    assert api.cursors("pull") == {"jobs/old": later, "jobs/new": tail}
    assert len(api.items("w1")) == 3


def test_a_worker_that_is_silent_loses_its_lease(api: Api) -> None:
    api.stream("w2")
    api.subscribe("silent", pattern="silent/*", wake_stream="w2", lease_ttl_ms=1000)
    tail = api.stream("silent/a", 1)
    first = api.claim("silent", "w1")
    assert api.wakes(1, "w2")[0]["generation"] == 1
    until(lambda: api.items("w2")[-1]["generation"] >= 2)
    assert code_of(api.ack("silent", first, done=True)) == (409, "FENCED")

    def finished() -> bool:
        """A second is short where much goes on: who was too slow tries again."""
        claimed = api.ask("POST", "silent/claim", {"worker": "w2"})
        if claimed.status_code != 200:
            return False
        assert claimed.json()["generation"] >= 2
        acks = [{"stream": "silent/a", "offset": tail}]
        return api.ack("silent", claimed.json(), acks=acks, done=True).is_success

    until(finished)
    assert api.cursors("silent") == {"silent/a": tail}


def test_acks_that_cannot_be_are_refused_and_move_nothing(api: Api) -> None:
    api.stream("w3")
    api.subscribe("strict", pattern="strict/*", wake_stream="w3", lease_ttl_ms=600_000)
    half = api.stream("strict/a", 1)
    tail = api.append("strict/a", 2)
    claimed = api.claim("strict")
    beyond = f"{0:016d}_{9999:016d}"
    for stream, offset in (
        ("strict/a", beyond),
        ("strict/a", "-1"),
        ("strict/a", "now"),
        ("strict/a", ""),
        ("strict/b", half),
        ("wake", ZERO),
    ):
        acks = [{"stream": "strict/a", "offset": half}, {"stream": stream, "offset": offset}]
        assert code_of(api.ack("strict", claimed, acks=acks)) == (409, "INVALID_OFFSET")
    for acks in ("x", [1], [{}], [{"stream": "strict/a"}], [{"stream": 1, "offset": half}]):
        assert code_of(api.ack("strict", claimed, acks=acks)) == (400, "INVALID_REQUEST")
    assert api.cursors("strict") == {"strict/a": ZERO}
    assert api.ack("strict", claimed, acks=[{"stream": "strict/a", "offset": tail}]).is_success
    back = api.ack("strict", claimed, acks=[{"stream": "strict/a", "offset": half}])
    assert code_of(back) == (409, "INVALID_OFFSET")


def test_tokens_are_good_for_one_wake_of_one_subscription(api: Api) -> None:
    api.stream("w4")
    for name in ("mine", "other"):
        api.subscribe(name, pattern="t/*", wake_stream="w4", lease_ttl_ms=600_000)
    api.stream("t/a", 1)
    mine, other = api.claim("mine"), api.claim("other")
    crossed = {**mine, "token": other["token"]}
    assert code_of(api.ack("mine", crossed)) == (401, "TOKEN_INVALID")
    for token in ("x", ".", "é", "a" * 5000, mine["token"][:-2], mine["token"] + "AAAA"):
        broken = api.client.post(
            "/__ds/subscriptions/mine/ack",
            json={"wake_id": mine["wake_id"], "generation": mine["generation"]},
            headers={"authorization": f"Bearer {token}".encode("latin-1")},
        )
        assert code_of(broken) == (401, "TOKEN_INVALID"), token
    basic = api.client.post("/__ds/subscriptions/mine/ack", json={}, auth=("a", "b"))
    assert code_of(basic) == (401, "TOKEN_INVALID")
    assert api.ask("DELETE", "mine").status_code == 204
    gone = api.ack("mine", mine, done=True)
    assert code_of(gone) == (404, "SUBSCRIPTION_NOT_FOUND")
    api.subscribe("mine", pattern="t/*", wake_stream="w4")
    assert code_of(api.ack("mine", mine)) == (401, "TOKEN_INVALID"), "of the one before"
    callback = api.ask("POST", "other/callback", {}, other["token"])
    assert code_of(callback) == (400, "INVALID_REQUEST"), "that is for webhooks"


def test_streams_are_followed_by_name_and_by_pattern(api: Api) -> None:
    api.stream("w5")
    old = api.stream("f/old", 1)
    api.subscribe("follow", pattern="f/*", streams=["/named/a/", "f/old"], wake_stream="w5")
    links = {s["path"]: s["link_type"] for s in api.state("follow")["streams"]}
    assert links == {"named/a": "explicit", "f/old": "explicit"}
    api.stream("named/b", 1)
    assert api.ask("POST", "follow/streams", {"streams": ["named/b", "named/c"]}).status_code == 204
    assert api.ask("POST", "follow/streams", {"streams": ["named/b"]}).status_code == 204
    assert api.items("w5") == [], "what was there before is not told"
    assert api.ask("DELETE", "follow/streams/f%2Fold").status_code == 204
    assert api.ask("DELETE", "follow/streams/named/b").status_code == 204
    assert api.ask("DELETE", "follow/streams/never").status_code == 204
    links = {s["path"]: s["link_type"] for s in api.state("follow")["streams"]}
    assert links == {"named/a": "explicit", "f/old": "glob", "named/c": "explicit"}
    assert api.cursors("follow")["f/old"] == old
    api.append("named/b", 2)
    assert code_of(api.ask("POST", "follow/claim", {"worker": "w"})) == (409, "NO_PENDING_WORK")
    api.stream("named/c", 1)
    assert api.wakes(1, "w5")[0]["stream"] == "named/c"
    again = {"type": "pull-wake", "pattern": "f/*", "streams": ["f/old", "named/a"]}
    confirmed = api.ask("PUT", "follow", {**again, "wake_stream": "w5"})
    assert confirmed.status_code == 200, "the same configuration, whatever was added since"
    other = api.ask("PUT", "follow", {**again, "wake_stream": "w5", "lease_ttl_ms": 5000})
    assert code_of(other) == (409, "SUBSCRIPTION_ALREADY_EXISTS")


def test_a_deleted_stream_is_forgotten_and_a_new_one_is_read_from_its_beginning(api: Api) -> None:
    api.stream("w6")
    api.subscribe("again", pattern="again/*", wake_stream="w6", lease_ttl_ms=600_000)
    tail = api.stream("again/a", 1, 2, 3)
    claimed = api.claim("again")
    acks = [{"stream": "again/a", "offset": tail}]
    assert api.ack("again", claimed, acks=acks, done=True).is_success
    assert api.client.delete("/again/a").status_code == 204
    assert api.ask("POST", "again/claim", {"worker": "w"}).status_code == 409
    api.stream("again/a", 1)
    claimed = api.claim("again")
    assert [s["acked_offset"] for s in claimed["streams"]] == [ZERO]
    assert claimed["streams"][0]["tail_offset"] < tail, "shorter than what was acked of the old"
    # Deleted while a worker has it: nothing is left to wake for.
    assert api.client.delete("/again/a").status_code == 204
    assert api.ack("again", claimed, done=True).json()["next_wake"] is False


def test_a_wake_stream_that_comes_late_or_will_not_do(api: Api) -> None:
    api.subscribe("late", pattern="late/*", wake_stream="late-wake")
    api.stream("late/a", 1)
    failed = until(lambda: (s := api.state("late"))["status"] == "failed" and s)
    assert "wake stream" in failed["last_error"]
    assert failed["next_attempt_at"] > time.time() * 1000 - 60_000
    claimed = api.claim("late")  # who asks need not wait for it
    assert claimed["generation"] == 1
    api.client.put("/text-wake", headers={"content-type": "text/plain"})
    api.subscribe("typed", pattern="typed/*", wake_stream="text-wake")
    api.stream("typed/a", 1)
    assert "content type" in until(lambda: api.state("typed").get("last_error"))
    api.subscribe("made", pattern="made/*", wake_stream="made-wake")
    api.stream("made/a", 1)
    until(lambda: api.state("made")["status"] == "failed")
    api.stream("made-wake")
    assert api.wakes(1, "made-wake")[0]["generation"] == 1
    until(lambda: api.state("made")["status"] == "active")


def test_a_pattern_that_matches_its_own_wake_stream_does_not_turn_in_circles(api: Api) -> None:
    api.stream("loop/wake")
    api.subscribe("loop", pattern="loop/**", wake_stream="loop/wake")
    tail = api.stream("loop/a", 1)
    api.wakes(1, "loop/wake")
    claimed = api.claim("loop")
    acks = [{"stream": "loop/a", "offset": tail}]
    assert api.ack("loop", claimed, acks=acks, done=True).json()["next_wake"] is False
    assert [s["path"] for s in api.state("loop")["streams"]] == ["loop/a"]
    refused = api.ask("POST", "loop/streams", {"streams": ["loop/wake"]})
    assert code_of(refused) == (400, "INVALID_REQUEST")


def test_control_paths_are_no_streams(api: Api) -> None:
    for path in ("__ds", "__ds/", "__ds/x", "__ds/subscriptions", "__ds/subscriptions/"):
        for method in ("PUT", "GET", "POST", "DELETE"):
            answer = api.client.request(method, f"/{path}", headers=JSON)
            assert answer.status_code == 404, (method, path)
    assert api.client.put("/__ds/jwks.json", headers=JSON, json=[]).status_code == 405
    assert code_of(api.client.get("/__ds/jwks.json")) == (404, "NOT_FOUND")
    assert api.ask("PATCH", "x", {}).status_code == 405
    assert api.ask("GET", "x/claim").status_code == 405
    assert api.ask("OPTIONS", "x").headers["allow"] == "PUT, GET, DELETE, OPTIONS"
    assert api.client.put("/a/__ds/b", headers=JSON).status_code == 201, "only the first segment"
    assert code_of(api.ask("GET", "never")) == (404, "SUBSCRIPTION_NOT_FOUND")
    assert api.ask("DELETE", "never").status_code == 204


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b'{"type":"pull-wake","type":"webhook"}', 400),
        (b"[" * 100_000, 400),
        (b'{"type":' + b"[" * 70 + b"]" * 70 + b"}", 400),
        (b'{"a":"' + b"x" * (1 << 20) + b'"}', 413),
    ],
)
def test_bodies_that_will_not_do(api: Api, content: bytes, status: int) -> None:
    for method, path in (
        ("PUT", "bad"),
        ("POST", "bad/streams"),
        ("POST", "bad/claim"),
        ("POST", "bad/ack"),
        ("POST", "bad/release"),
    ):
        headers = {**JSON, "authorization": "Bearer x"}
        answer = api.client.request(
            method, f"/__ds/subscriptions/{path}", content=content, headers=headers
        )
        assert answer.status_code == status, (path, answer.text)
    assert api.ask("GET", "bad").status_code == 404
    typed = api.client.put("/__ds/subscriptions/bad", content=b"{}")
    assert typed.status_code == 415
    for name in ("x" * 300, "a%0Ab", "a%00b"):
        body = {"type": "pull-wake", "pattern": "x", "wake_stream": "wake"}
        assert code_of(api.ask("PUT", name, body)) == (400, "INVALID_REQUEST")


# --- who asks ----------------------------------------------------------------------------------


def test_subscriptions_belong_to_who_made_them(tmp_path: Path) -> None:
    with serving(durable_streams="readwrite", api_keys=KEYS) as server:
        a, b, nobody = Api(server.url, AS_A), Api(server.url, AS_B), Api(server.url)
        for person in (a, b):
            person.stream("wake")
        a.subscribe("sub", pattern="s/*")
        assert code_of(b.ask("GET", "sub")) == (404, "SUBSCRIPTION_NOT_FOUND")
        unknown = b.ask("GET", "never").json()["error"]
        assert unknown["message"] == b.ask("GET", "sub").json()["error"]["message"]
        for method, path, body in (
            ("POST", "sub/claim", {"worker": "w"}),
            ("POST", "sub/streams", {"streams": ["x"]}),
            ("DELETE", "sub/streams/x", None),
        ):
            assert code_of(b.ask(method, path, body)) == (404, "SUBSCRIPTION_NOT_FOUND")
        assert b.ask("DELETE", "sub").status_code == 204
        assert a.state("sub")["id"] == "sub", "that was another one's, or none"
        b.subscribe("sub", pattern="s/*")
        b.stream("s/a", 1)
        assert a.ask("POST", "sub/claim", {"worker": "w"}).status_code == 409
        tail = a.stream("s/a", 1)
        claimed = a.claim("sub")
        # The token is all that a worker needs: it has no key of its own.
        acks = [{"stream": "s/a", "offset": tail}]
        assert nobody.ack("sub", claimed, acks=acks).is_success
        assert a.cursors("sub") == {"s/a": tail}
        assert b.cursors("sub") == {"s/a": ZERO}
        assert nobody.ask("GET", "sub").status_code == 401
        assert nobody.ask("POST", "sub/claim", {"worker": "w"}).status_code == 401
        keyed = a.ask("POST", "sub/release", {}, AS_A["authorization"].partition(" ")[2])
        assert code_of(keyed) == (401, "TOKEN_INVALID"), "a key is no token"
        assert nobody.client.get("/s/a").status_code == 401
        crossing = nobody.client.post(
            "/__ds/subscriptions/sub/ack",
            json={},
            headers={
                "authorization": f"Bearer {claimed['token']}",
                "origin": "https://evil.example",
            },
        )
        assert crossing.status_code == 403


# --- webhooks ----------------------------------------------------------------------------------


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def hook(receiver: Receiver, pattern: str = "h/*", **more: Any) -> dict[str, Any]:
    return {"type": "webhook", "pattern": pattern, "webhook": {"url": receiver.url}, **more}


def test_webhooks_are_off_unless_the_settings_name_their_host(receiver: Receiver) -> None:
    with serving(durable_streams="readwrite") as server:
        refused = Api(server.url).ask("PUT", "hook", hook(receiver))
        assert code_of(refused) == (400, "WEBHOOK_URL_REJECTED")
        assert "--durable-streams-webhooks" in refused.json()["error"]["message"]
    allowed = [f"127.0.0.1:{receiver.port}"]
    with serving(durable_streams="readwrite", durable_streams_webhooks=allowed) as server:
        api = Api(server.url)
        for url in ("http://10.0.0.1/hook", "http://127.0.0.1:1/", "https://evil.example/", "x"):
            body = {**hook(receiver), "webhook": {"url": url}}
            assert code_of(api.ask("PUT", "hook", body)) == (400, "WEBHOOK_URL_REJECTED")
        assert api.ask("PUT", "hook", hook(receiver)).status_code == 201
    assert receiver.requests == []


def test_settings_of_webhooks_that_cannot_be_are_refused_at_the_start(tmp_path: Path) -> None:
    settings = Settings(durable_streams_webhooks=["worker.example"])
    with pytest.raises(ConfigError, match="--durable-streams readwrite"):
        check(settings, keys_on=False)
    for more in (
        {"durable_streams_webhooks": ["https://worker.example"]},
        {"durable_streams_webhooks": ["w"], "durable_streams_webhook_key": str(tmp_path / "none")},
    ):
        with pytest.raises(ConfigError):
            create_app(Settings(durable_streams="readwrite", **more))


def test_a_webhook_is_called_signed_and_acks_at_once_or_later(receiver: Receiver) -> None:
    settings = {
        "durable_streams": "readwrite",
        "durable_streams_webhooks": ["127.0.0.1:*"],
        "api_keys": KEYS,
    }
    with serving(**settings) as server:
        api, nobody = Api(server.url, AS_A), Api(server.url)
        made = api.ask("PUT", "hook", hook(receiver, lease_ttl_ms=600_000)).json()
        signing = made["webhook"]["signing"]
        assert signing["jwks_url"] == f"{server.url}{ROOT}/__ds/jwks.json"
        keys = httpx.get(signing["jwks_url"])
        assert keys.headers["content-type"] == "application/jwk-set+json"
        assert keys.headers["cache-control"] == "public, max-age=300"
        assert [key["kid"] for key in keys.json()["keys"]] == [signing["kid"]]
        tail = api.stream("h/a", 1)
        _, headers, raw = until(lambda: receiver.requests and receiver.requests[0])
        assert verified(keys.json(), headers["webhook-signature"], raw)
        told = json.loads(raw)
        assert told["callback_url"] == f"{server.url}{ROOT}/__ds/subscriptions/hook/callback"
        assert [(s["path"], s["tail_offset"]) for s in told["streams"]] == [("h/a", tail)]
        body = {"wake_id": told["wake_id"], "generation": told["generation"]}
        # While the webhook is at it, what comes more is not told.
        later = api.append("h/a", 2)
        token = told["callback_token"]
        heard = nobody.ask("POST", "hook/callback", body, token)
        assert heard.json() == {"ok": True, "next_wake": False}
        receiver.body = b'{"done": true}'
        done = {**body, "acks": [{"stream": "h/a", "offset": tail}], "done": True}
        assert nobody.ask("POST", "hook/callback", done, token).json()["next_wake"] is True
        assert code_of(nobody.ask("POST", "hook/callback", done, token)) == (409, "FENCED")
        until(lambda: len(receiver.requests) == 2)
        until(lambda: api.cursors("hook") == {"h/a": later}), "acked by what was answered"
        assert json.loads(receiver.requests[1][2])["generation"] == 2
        assert code_of(api.ask("POST", "hook/claim", {"worker": "w"})) == (400, "INVALID_REQUEST")
        assert code_of(nobody.ask("POST", "hook/ack", body, token)) == (400, "INVALID_REQUEST")


def test_what_came_while_a_webhook_worked_is_told_next(receiver: Receiver) -> None:
    receiver.body = b'{"done": true}'
    allowed = ["127.0.0.1:*"]
    with serving(durable_streams="readwrite", durable_streams_webhooks=allowed) as server:
        api = Api(server.url)
        api.ask("PUT", "hook", hook(receiver, lease_ttl_ms=1000))
        receiver.hold.clear()
        first = api.stream("h/a", 1)
        until(lambda: receiver.requests)
        for number in range(5):
            tail = api.append("h/a", number)
        receiver.hold.set()
        until(lambda: api.cursors("hook") == {"h/a": tail})
        bodies = [json.loads(raw) for _, _, raw in receiver.requests]
        assert [body["generation"] for body in bodies] == list(range(1, len(bodies) + 1))
        assert bodies[0]["streams"][0]["tail_offset"] == first
        assert bodies[1]["streams"][0]["acked_offset"] == first
        assert bodies[-1]["streams"][0]["tail_offset"] == tail


@pytest.mark.parametrize("fault", ["500", "302", "cut"])
def test_a_webhook_that_fails_is_called_again_with_the_same_wake(
    receiver: Receiver, fault: str
) -> None:
    inside = Receiver()
    allowed = ["127.0.0.1:*"]
    with serving(durable_streams="readwrite", durable_streams_webhooks=allowed) as server:
        api = Api(server.url)
        receiver.status = int(fault) if fault != "cut" else 0
        receiver.headers = {"location": inside.url}
        api.ask("PUT", "hook", hook(receiver))
        tail = api.stream("h/a", 1)
        failed = until(lambda: (s := api.state("hook"))["status"] == "failed" and s)
        assert failed["last_error"]
        assert failed["next_attempt_at"]
        receiver.status, receiver.body = 200, b'{"done":true}'
        until(lambda: api.cursors("hook") == {"h/a": tail})
        assert api.state("hook")["status"] == "active"
        assert {json.loads(raw)["generation"] for _, _, raw in receiver.requests} == {1}
        assert len({json.loads(raw)["wake_id"] for _, _, raw in receiver.requests}) == 1
    assert inside.requests == [], "a redirect is not followed"
    inside.close()


@pytest.mark.parametrize("answer", [b"", b"null", b"[]", b'{"done":1}', b"\xff", b"{", b"[" * 9999])
def test_an_answer_that_is_not_done_leaves_the_work_to_the_callback(
    receiver: Receiver, answer: bytes
) -> None:
    receiver.body = answer
    allowed = ["127.0.0.1:*"]
    with serving(durable_streams="readwrite", durable_streams_webhooks=allowed) as server:
        api = Api(server.url)
        api.ask("PUT", "hook", hook(receiver, lease_ttl_ms=600_000))
        api.stream("h/a", 1)
        told = json.loads(until(lambda: receiver.requests)[0][2])
        body = {"wake_id": told["wake_id"], "generation": 1, "done": True}
        heard = api.ask("POST", "hook/callback", body, told["callback_token"])
        assert heard.json() == {"ok": True, "next_wake": True}, "done, but nothing was acked"
        until(lambda: len(receiver.requests) == 2)


def test_an_append_while_the_wake_before_it_is_acked_is_not_lost(api: Api) -> None:
    """The ack has looked at the stream, the append comes and finds it pending, the ack is kept."""
    api.stream("w7")
    api.subscribe("edge", pattern="edge/*", wake_stream="w7", lease_ttl_ms=600_000)
    tail = api.stream("edge/a", 0)
    claimed = api.claim("edge")
    service = api.state_of_server.durable
    store = service.subscriptions._store
    seen = store.tails
    appended: list[str] = []

    async def late(owner: str, paths: Any) -> Any:
        found = await seen(owner, paths)
        if not appended and "edge/a" in found:
            appended.append("")
            wanted = Append(content_type="application/json", body=b"1")
            await service.streams.append(owner, "edge/a", wanted, time.time())
        return found

    store.tails = late
    try:
        acks = [{"stream": "edge/a", "offset": tail}]
        assert api.ack("edge", claimed, acks=acks, done=True).is_success
    finally:
        store.tails = seen
    assert appended
    assert [event["generation"] for event in api.wakes(2, "w7")] == [1, 2]
    assert api.claim("edge")["generation"] == 2


def test_an_older_look_does_not_put_off_what_is_due() -> None:
    """An append that looked before a wake began, and comes back after it."""

    def due_at(moment: float | None) -> Subscription:
        wake = Wake(id="w", tell_at=moment) if moment is not None else None
        config = Config(type="pull-wake", pattern="x", wake_stream="wake")
        return Subscription(
            id="s", owner="o", config=config, birth="b", created=0.0, base="", wake=wake
        )

    kept = StreamStore(MemoryStore())
    waker = ds_sub_wake.Waker(kept, SubscriptionStore(kept), Targets([]), None)
    for moment in (50.0, 10.0, 40.0, None):
        waker._changed("key", due_at(moment))
    assert waker._due == {"key": 10.0}


# --- restarts and several processes ------------------------------------------------------------


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:{tmp_path / 'kept.db'}"
        return
    need_redis()
    with redis_server() as server:
        yield server.url


def test_cursors_leases_and_retries_outlive_a_restart(store: str, receiver: Receiver) -> None:
    settings: dict[str, Any] = {
        "store": store,
        "durable_streams": "readwrite",
        "durable_streams_webhooks": ["127.0.0.1:*"],
    }
    with serving(**settings) as server:
        api = Api(server.url)
        api.stream("wake")
        api.subscribe("pull", pattern="p/*", lease_ttl_ms=600_000)
        tail = api.stream("p/a", 1)
        claimed = api.claim("pull", "w1")
        assert api.ack("pull", claimed, acks=[{"stream": "p/a", "offset": tail}]).is_success
        receiver.status = 500
        made = api.ask("PUT", "hook", hook(receiver)).json()
        api.stream("h/a", 1)
        until(lambda: api.state("hook")["status"] == "failed")
    with serving(**settings) as server:
        api = Api(server.url)
        busy = api.ask("POST", "pull/claim", {"worker": "w2"})
        assert code_of(busy) == (409, "ALREADY_CLAIMED")
        assert api.cursors("pull") == {"p/a": tail}
        later = api.append("p/a", 2)
        done = api.ack("pull", claimed, acks=[{"stream": "p/a", "offset": later}], done=True)
        assert done.json() == {"ok": True, "next_wake": False}
        api.append("p/a", 3)
        assert api.claim("pull")["generation"] == 2
        # Nobody asks for it: the server itself goes on where it was with the failed call.
        receiver.status, receiver.body = 200, b'{"done":true}'
        until(lambda: api.state("hook")["status"] == "active")
        assert {json.loads(raw)["generation"] for _, _, raw in receiver.requests} == {1}
        again = api.ask("PUT", "hook", hook(receiver))
        assert again.status_code == 200
        kid = again.json()["webhook"]["signing"]["kid"]
        assert kid == made["webhook"]["signing"]["kid"], "the same key"


def test_what_a_process_that_died_could_not_tell_is_found(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"store": store, "durable_streams": "readwrite"}
    with serving(**settings) as server:
        api = Api(server.url)
        api.stream("wake")
        api.stream("p/old")
        api.subscribe("pull", pattern="p/*")

        async def died(self: Any, owner: str, path: str) -> None:
            """The append is in, and the process is no more."""

        with monkeypatch.context() as patch:
            patch.setattr(ds_sub_wake.Waker, "stream_grew", died)
            api.append("p/old", 1)
            api.stream("p/new", 1)
        assert code_of(api.ask("POST", "pull/claim", {"worker": "w"})) == (409, "NO_PENDING_WORK")
    with serving(**settings) as server:
        api = Api(server.url)
        api.wakes(1)
        pending = {s["path"] for s in api.claim("pull")["streams"] if s["has_pending"]}
        assert pending == {"p/old", "p/new"}


def test_two_processes_wake_claim_and_call_as_one(store: str, tmp_path: Path) -> None:
    flags = ["--store", store, "--durable-streams", "readwrite", "--no-access-log"]
    flags += ["--durable-streams-webhooks", "127.0.0.1:*"]
    receiver = Receiver()
    receiver.body = b'{"done":true}'
    with ExitStack() as stack:
        servers = [stack.enter_context(process_support.serving(tmp_path, *flags)) for _ in range(2)]
        a, b = (Api(server.url) for server in servers)
        a.stream("wake")
        a.subscribe("pull", pattern="p/*", lease_ttl_ms=600_000)
        b.ask("PUT", "hook", hook(receiver))
        assert b.ask("PUT", "hook", hook(receiver)).status_code == 200
        signing = [x.state("hook")["webhook"]["signing"]["kid"] for x in (a, b)]
        assert signing[0] == signing[1]
        for turn in range(10):
            writer = (a, b)[turn % 2]
            if turn == 0:
                tail = writer.stream("p/a", turn)
            else:
                tail = writer.append("p/a", turn)
            with ThreadPoolExecutor(4) as pool:
                claims = list(
                    pool.map(
                        lambda n: (a, b)[n % 2].ask("POST", "pull/claim", {"worker": f"w{n}"}),
                        range(4),
                    )
                )
            assert sorted(claim.status_code for claim in claims) == [200, 409, 409, 409]
            claimed = next(claim.json() for claim in claims if claim.status_code == 200)
            assert claimed["generation"] == turn + 1
            acks = [{"stream": "p/a", "offset": tail}]
            other = (b, a)[turn % 2]
            assert other.ack("pull", claimed, acks=acks, done=True).json()["next_wake"] is False
        # Appends at both at once: every generation is called once, and in the end all is acked.
        for x in (a, b):
            x.stream(f"h/{id(x)}", "begin")

        def write(x: Api) -> str:
            return [x.append(f"h/{id(x)}", n) for n in range(15)][-1]

        with ThreadPoolExecutor(2) as pool:
            tails = list(pool.map(write, (a, b)))
        wanted = {f"h/{id(x)}": tail for x, tail in zip((a, b), tails, strict=True)}
        until(lambda: a.cursors("hook") == wanted)
        generations = [json.loads(raw)["generation"] for _, _, raw in receiver.requests]
        assert sorted(generations) == list(range(1, len(generations) + 1))
        for _, headers, raw in receiver.requests:
            keys = a.client.get("/__ds/jwks.json").json()
            assert verified(keys, headers["webhook-signature"], raw)
    receiver.close()


def test_a_call_that_its_process_could_not_finish_is_made_by_the_other(
    store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, receiver: Receiver
) -> None:
    monkeypatch.setattr(ds_sub_wake, "_LOOK_SECONDS", 0.2)
    flags = ["--store", store, "--durable-streams", "readwrite", "--no-access-log"]
    flags += ["--durable-streams-webhooks", "127.0.0.1:*"]
    receiver.hold.clear()
    receiver.body = b'{"done":true}'
    with process_support.serving(tmp_path, *flags) as dying:
        api = Api(dying.url)
        api.ask("PUT", "hook", hook(receiver))
        tail = api.stream("h/a", 1)
        until(lambda: receiver.requests)
        dying.process.kill()
    receiver.hold.set()
    moved = threading.Event()
    real = time.time

    def later() -> float:
        """The time by which telling a wake must be over."""
        return real() + (60.0 if moved.is_set() else 0.0)

    monkeypatch.setattr(ds_sub_wake.time, "time", later)
    settings: dict[str, Any] = {
        "store": store,
        "durable_streams": "readwrite",
        "durable_streams_webhooks": ["127.0.0.1:*"],
    }
    with serving(**settings) as server:
        other = Api(server.url)
        assert other.cursors("hook") == {"h/a": ZERO}
        assert len(receiver.requests) == 1, "it may still be at it"
        moved.set()
        until(lambda: other.cursors("hook") == {"h/a": tail})
        assert len(receiver.requests) == 2
