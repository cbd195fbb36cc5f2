"""Tokens for browsers: each reaches one run or one conversation on every wire, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from support.server import AS_A, AS_B, KEYS, Site, site, text_of
from tokenwire.errors import NotAuthenticatedError, RoleError
from tokenwire.events.principal import Principal
from tokenwire.log.memory import MemoryStore
from tokenwire.server.edge import auth as auth_module
from tokenwire.server.edge.auth import Auth, Identity
from tokenwire.server.edge.sessions import Sessions
from tokenwire.server.tokens import tokens as tokens_module
from tokenwire.server.tokens.tokens import Target, Tokens

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site(
        api_keys=KEYS,
        runs_per_principal=1000,
        starts_per_minute=10_000,
        starts_burst=1000,
        bad_attach_per_minute=10_000,
        readers_per_principal=100,
        durable_streams="read",
        model=["demo"],
    ) as found:
        yield found


def issued(here: Site, path: str, headers: dict[str, str] = AS_A, **body: Any) -> dict[str, Any]:
    answer = here.client.post(f"{path}/attach-tokens", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.json()


def run_token(here: Site, run: str, *scopes: str, **more: Any) -> dict[str, str]:
    return bearer(issued(here, f"/v1/runs/{run}", scopes=scopes or ("read",), **more)["token"])


def thread_token(here: Site, thread: str, *scopes: str, **more: Any) -> dict[str, str]:
    found = issued(here, f"/v1/threads/{thread}", scopes=scopes or ("read",), **more)
    return bearer(found["token"])


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def waiting(here: Site, **fields: Any) -> tuple[str, str]:
    """A run that waits for an approval, and the approval's id."""
    run = here.start("scenario:approval", headers=AS_A, **fields)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = here.client.get(f"/v1/runs/{run}", headers=AS_A).json()
        if found.get("waiting"):
            return run, found["waiting"][0]
        time.sleep(0.02)
    raise AssertionError(found)


# --- what a token opens ---------------------------------------------------------------------------


def test_a_read_token_reads_its_run_on_every_wire(here: Site) -> None:
    run = here.start("scenario:slow", headers=AS_A, thread="all-wires")
    whole = text_of(here.frames(f"/v1/runs/{run}/events", headers=AS_A))
    for token in (run_token(here, run), thread_token(here, "all-wires")):
        assert text_of(here.frames(f"/v1/runs/{run}/events", headers=token)) == whole
        for path in (
            f"/v1/runs/{run}",
            f"/v1/runs/{run}/info",
            f"/v1/runs/{run}/wires/ui-7",
            f"/v1/runs/{run}/wires/ag-ui",
            f"/v1/responses/resp_{run}",
            f"/v1/responses/resp_{run}?stream=true",
            f"/ds/v1/stream/runs/{run}",
            f"/ds/v1/stream/runs/{run}.ui",
            f"/v1/runs/{run}/events?live=long-poll",
        ):
            answer = here.client.get(path, headers=token)
            assert answer.status_code == 200, (path, answer.text)
            assert "90" in answer.text or path.endswith("info"), path
    # An unmodified `useChat` resumes by its chat's id: nothing is under way.
    chat = here.client.get("/api/chat/all-wires/stream", headers=token)
    assert chat.status_code == 204


def test_a_thread_token_starts_reads_and_stops_on_every_wire(here: Site) -> None:
    token = thread_token(here, "page", "write")
    started = here.client.post("/v1/runs", json={"prompt": "scenario:text"}, headers=token)
    assert started.status_code == 201
    assert started.json()["thread"] == "page", "a wire that names no conversation gets the token's"
    completion = {"model": "demo", "messages": [{"role": "user", "content": "scenario:text"}]}
    ui = {
        "id": "page",
        "messages": [
            {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "scenario:text"}]}
        ],
    }
    agui = {"threadId": "page", "runId": "r-1", "messages": [], "tools": [], "context": []}
    agui |= {"state": {}, "forwardedProps": {}}
    agui["messages"] = [{"id": "1", "role": "user", "content": "scenario:text"}]
    for path, body in (
        ("/v1/chat/completions", completion),
        ("/v1/messages", {**completion, "max_tokens": 100}),
        ("/v1/responses", {"model": "demo", "input": "scenario:text"}),
        ("/api/chat", ui),
        ("/ag-ui", agui),
        ("/ds/chat", ui),
    ):
        answer = here.client.post(path, json=body, headers=token)
        assert answer.status_code in (200, 201), (path, answer.text)
        run = answer.headers["tokenwire-run"]
        assert here.client.get(f"/v1/runs/{run}/info", headers=token).json()["thread"] == "page"
    shown = here.client.get("/v1/threads/page", headers=token).json()
    assert len(shown["runs"]) == 7
    run = here.start("scenario:stall", headers=token)
    assert here.client.post(f"/v1/runs/{run}/cancel", headers=token).status_code == 202
    assert here.frames(f"/v1/runs/{run}/events", headers=token)[-1].data.find(b"cancelled") > 0


def test_an_approval_needs_its_scope(here: Site) -> None:
    run, approval = waiting(here, thread="asks")
    path, body = f"/v1/runs/{run}/approvals/{approval}", {"approved": True}
    for scopes in (("read",), ("read", "write")):
        refused = here.client.post(path, json=body, headers=run_token(here, run, *scopes))
        assert refused.status_code == 403
        assert refused.json()["error"]["code"] == "role_required"
    assert here.client.get(f"/v1/runs/{run}", headers=AS_A).json()["state"] == "waiting"
    token = thread_token(here, "asks", "approve")
    assert here.client.post(path, json=body, headers=token).status_code == 202
    frames = here.frames(f"/v1/runs/{run}/events", headers=token)
    answer = next(json.loads(f.data) for f in frames if b"approval-answer" in f.data)
    assert answer["by"] == "a", "the answer is its issuer's"


# --- what it does not open ------------------------------------------------------------------------


def test_a_read_token_changes_and_lists_nothing(here: Site) -> None:
    run = here.start("scenario:stall", headers=AS_A, thread="only-read")
    before = here.runs_started
    post, get, delete, put = "POST", "GET", "DELETE", "PUT"
    message = {"id": "m", "role": "user", "parts": [{"type": "text", "text": "scenario:text"}]}
    ui = {"id": "only-read", "messages": [message]}
    chat = {"model": "demo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}
    agui = {"threadId": "only-read", "runId": "x", "state": {}, "tools": [], "context": []}
    agui |= {"messages": [{"id": "1", "role": "user", "content": "hi"}], "forwardedProps": {}}
    refused: list[tuple[str, str, Any]] = [
        (post, f"/v1/runs/{run}/cancel", {}),
        (post, f"/v1/runs/{run}/approvals/x", {"approved": True}),
        (post, f"/v1/runs/{run}/tools/x", {"content": 1}),
        (delete, f"/v1/runs/{run}", None),
        (post, "/v1/runs", {"prompt": "scenario:text"}),
        (post, "/v1/runs", {"prompt": "scenario:text", "thread": "only-read"}),
        (post, "/api/chat", ui),
        (post, "/api/chat/only-read/stop", {}),
        (post, "/api/chat/only-read/approval", {"approvalId": "x", "approved": True}),
        (post, "/ag-ui", agui),
        (post, "/ds/chat", ui),
        (post, "/v1/chat/completions", chat),
        (post, "/v1/messages", chat),
        (post, "/v1/messages/count_tokens", chat),
        (post, "/v1/responses", {"model": "demo", "input": "hi"}),
        (post, f"/v1/responses/resp_{run}/cancel", {}),
        (delete, f"/v1/responses/resp_{run}", None),
        (put, "/v1/threads/only-read", {"title": "x"}),
        (delete, "/v1/threads/only-read", None),
        (get, "/v1/threads", None),
        (get, "/v1/models", None),
        (get, "/metrics", None),
        (get, "/no/such/path", None),
        (put, "/ds/v1/stream/mine", None),
    ]
    for token in (run_token(here, run), thread_token(here, "only-read")):
        for method, path, body in refused:
            answer = here.client.request(method, path, json=body, headers=token)
            assert answer.status_code == 403, (method, path, answer.text)
    assert here.runs_started == before
    shown = here.client.get(f"/v1/runs/{run}", headers=AS_A).json()
    assert shown["state"] == "running"
    here.client.post(f"/v1/runs/{run}/cancel", headers=AS_A)


def test_no_scope_erases_or_lists(here: Site) -> None:
    run = here.start(headers=AS_A, thread="full")
    for token in (
        run_token(here, run, "write", "approve"),
        thread_token(here, "full", "write", "approve"),
    ):
        for method, path in (
            ("DELETE", f"/v1/runs/{run}"),
            ("DELETE", f"/v1/responses/resp_{run}"),
            ("DELETE", "/v1/threads/full"),
            ("GET", "/v1/threads"),
        ):
            assert here.client.request(method, path, headers=token).status_code == 403
    assert here.client.get(f"/v1/runs/{run}/info", headers=AS_A).status_code == 200


def test_other_runs_and_conversations_are_as_unknown(here: Site) -> None:
    mine = here.start(headers=AS_A, thread="mine")
    other = here.start("scenario:stall", headers=AS_A, thread="other")
    foreign = here.start(headers=AS_B, thread="mine")
    unknown = "u" * 22
    before = here.runs_started
    scopes = ("write", "approve")
    for token in (run_token(here, mine, *scopes), thread_token(here, "mine", *scopes)):
        for path, body in (
            ("/v1/runs/{}", None),
            ("/v1/runs/{}/info", None),
            ("/v1/runs/{}/events", None),
            ("/v1/runs/{}/events?live=no", None),
            ("/v1/runs/{}/wires/ui-7", None),
            ("/v1/runs/{}/cancel", {}),
            ("/v1/runs/{}/approvals/x", {"approved": True}),
            ("/v1/runs/{}/tools/x", {"content": 1}),
            ("/v1/runs/{}/attach-tokens", {}),
            ("/v1/responses/resp_{}", None),
            ("/v1/responses/resp_{}/cancel", {}),
            ("/ds/v1/stream/runs/{}", None),
        ):
            answers = []
            for run in (other, foreign, unknown):
                method = "GET" if body is None else "POST"
                answer = here.client.request(method, path.format(run), json=body, headers=token)
                assert answer.status_code == 404, (path, answer.text)
                text = answer.text.replace(answer.headers["x-request-id"], "ID")
                answers.append(text.replace(run, "RUN"))
            assert len(set(answers)) == 1, answers
        assert here.client.get("/v1/threads/other", headers=token).status_code == 404
        assert here.client.put("/v1/threads/other", json={"title": "x"}, headers=token).is_error
        assert here.client.get("/ag-ui?threadId=other", headers=token).json()["messages"] == []
        for method, path in (("GET", "stream"), ("POST", "stop")):
            answer = here.client.request(method, f"/api/chat/other/{path}", headers=token)
            assert answer.status_code == 204, (path, answer.text)
        start = {"prompt": "scenario:text", "thread": "other"}
        assert here.client.post("/v1/runs", json=start, headers=token).status_code == 403
        answer = here.client.post(
            "/v1/responses",
            json={"model": "demo", "input": "go on", "previous_response_id": f"resp_{other}"},
            headers=token,
        )
        assert answer.status_code in (400, 403), answer.text
    assert here.runs_started == before
    assert here.client.get(f"/v1/runs/{other}", headers=AS_A).json()["state"] == "running"
    here.client.post(f"/v1/runs/{other}/cancel", headers=AS_A)


def test_a_run_token_starts_nothing(here: Site) -> None:
    run = here.start(headers=AS_A, thread="one-run")
    before = here.runs_started
    token = run_token(here, run, "write", "approve")
    for thread in ({}, {"thread": "one-run"}):
        body = {"prompt": "scenario:text", **thread}
        assert here.client.post("/v1/runs", json=body, headers=token).status_code == 403
    # Of its conversation it sees itself only.
    here.start(headers=AS_A, thread="one-run")
    assert here.client.get("/v1/threads/one-run", headers=token).status_code == 404
    assert here.runs_started == before + 1


# --- what does not count --------------------------------------------------------------------------


def test_expired_tampered_foreign_and_future_tokens(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = here.start(headers=AS_A, thread="times")
    path = f"/v1/runs/{run}/events"
    token = issued(here, f"/v1/runs/{run}", ttl=30)["token"]

    def status(text: str) -> int:
        return here.client.get(path, headers=bearer(text)).status_code

    assert status(token) == 200
    head, raw = token[:7], bytearray(base64.urlsafe_b64decode(token[7:] + "=="))
    for place in range(0, len(raw), 11):
        raw[place] ^= 1
        altered = head + base64.urlsafe_b64encode(raw).decode().rstrip("=")
        assert status(altered) == 401
        raw[place] ^= 1
    assert status("ticket_" + token[7:]) == 401
    assert status("attach_" + token[7:]) == 401
    assert status("access_") == status("access_!!") == status("access_" + "A" * 5000) == 401
    with site(api_keys=KEYS) as elsewhere:
        answer = elsewhere.client.get(path, headers=bearer(token))
        assert answer.status_code == 401, "another server has another secret"
    issued_at = msgspec.msgpack.decode(bytes(raw[32:]))[5]
    now = [float(issued_at)]
    monkeypatch.setattr(tokens_module.time, "time", lambda: now[0])
    # The clocks of two servers may differ by a minute; the end is the end.
    for shift, expected in ((-59, 200), (-61, 401), (29, 200), (30, 401)):
        now[0] = issued_at + shift
        assert status(token) == expected, shift


def test_a_key_that_was_taken_back_takes_its_tokens_with_it(here: Site) -> None:
    async def main() -> None:
        log = MemoryStore()
        await log.start()
        keep = ["a:a-key-of-sixteen-chars"]
        for keys, counts in ((keep, True), (["b:another-key-of-sixteen"], False), ([], False)):
            auth = Auth(keep)
            sessions = Sessions(auth)
            await sessions.open(log)
            tokens = Tokens(auth, sessions)
            await tokens.open(log)
            identity = await auth.check_key("a-key-of-sixteen-chars")
            text, _ = await tokens.issue(identity, Target("thread", "t"))
            later_auth = Auth(keys)
            later_sessions = Sessions(later_auth)
            await later_sessions.open(log)
            later = Tokens(later_auth, later_sessions)
            await later.open(log)
            try:
                found: str | None = (await later.check(text)).principal
            except NotAuthenticatedError:
                found = None
            assert (found == "a") is counts, keys

    asyncio.run(main())


def test_erasing_and_revoking_end_tokens(here: Site) -> None:
    run, other = here.start(headers=AS_A, thread="gone"), here.start(headers=AS_A, thread="gone")
    of_run, of_thread = run_token(here, run), thread_token(here, "gone", "write")
    one, two = run_token(here, other), run_token(here, other)

    def status(run: str, token: dict[str, str]) -> int:
        return here.client.get(f"/v1/runs/{run}/info", headers=token).status_code

    assert status(run, of_run) == status(run, of_thread) == 200
    assert here.client.delete(f"/v1/runs/{run}", headers=AS_A).status_code == 204
    assert status(run, of_run) == 401
    assert status(run, of_thread) == 404, "the conversation is still there"
    # A token ends itself, and what it was refreshed to; its issuer ends all.
    again = here.client.post(f"/v1/runs/{other}/attach-tokens", json={}, headers=one).json()
    refreshed = bearer(again["token"])
    assert status(other, refreshed) == 200
    path = f"/v1/runs/{other}/attach-tokens"
    assert here.client.delete(path, headers=one).status_code == 204
    assert (status(other, one), status(other, refreshed), status(other, two)) == (401, 401, 200)
    assert here.client.delete(path, headers=AS_B).status_code == 404
    assert status(other, two) == 200
    assert here.client.delete(path, headers=AS_A).status_code == 204
    assert status(other, two) == 401
    assert status(other, run_token(here, other)) == 200, "later ones count"
    before = here.runs_started
    assert here.client.delete("/v1/threads/gone", headers=AS_A).status_code == 204
    answer = here.client.post("/v1/runs", json={"prompt": "x"}, headers=of_thread)
    assert answer.status_code == 401
    assert here.runs_started == before
    assert here.client.get("/v1/threads/gone", headers=thread_token(here, "gone")).is_success


def test_an_ended_session_takes_its_tokens_with_it(here: Site) -> None:
    run = here.start(headers=AS_A)
    key = AS_A["authorization"].removeprefix("Bearer ")
    cookie = here.client.post("/v1/session", json={"key": key}).headers["set-cookie"]
    here.client.cookies.clear()
    session = {"cookie": cookie.partition(";")[0], "origin": here.url}
    found = issued(here, f"/v1/runs/{run}", session)
    token = bearer(found["token"])
    assert here.client.get(f"/v1/runs/{run}/info", headers=token).status_code == 200
    assert here.client.delete("/v1/session", headers=session).status_code == 204
    assert here.client.get(f"/v1/runs/{run}/info", headers=token).status_code == 401
    again = here.client.post(f"/v1/runs/{run}/attach-tokens", json={}, headers=token)
    assert again.status_code == 401


def test_a_token_has_no_role_that_its_issuer_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The application's own check is asked again, and what it takes away a token loses too."""
    roles: list[frozenset[str] | None] = [frozenset({"write"})]
    auth = Auth(verify=lambda key: Principal("ann", roles=roles[0]))

    async def counts(tokens: Tokens, text: str) -> bool:
        try:
            return (await tokens.check(text)).permits("read")
        except NotAuthenticatedError:
            return False

    async def main() -> None:
        monkeypatch.setattr(auth_module, "RECHECK_SECONDS", 0.0)
        tokens = Tokens(auth, Sessions(auth))
        issuer = await auth.check_key("a-key-of-sixteen-chars")
        reads, _ = await tokens.issue(issuer, Target("thread", "t"))
        writes, _ = await tokens.issue(issuer, Target("thread", "t"), scopes=["write"])
        with pytest.raises(RoleError):
            await tokens.issue(issuer, Target("thread", "t"), scopes=["approve"])
        for now, expected in (
            ({"write"}, [True, True]),
            ({"read"}, [True, False]),
            (set(), [False, False]),
            (None, [True, True]),
        ):
            roles[0] = None if now is None else frozenset(now)
            assert [await counts(tokens, text) for text in (reads, writes)] == expected, now

    asyncio.run(main())


# --- refreshing -----------------------------------------------------------------------------------


def test_a_token_is_refreshed_within_its_rights_and_time(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = here.start(headers=AS_A, thread="fresh")
    path = f"/v1/runs/{run}/attach-tokens"
    token = run_token(here, run, "write", ttl=600, refresh=1000)
    for scopes in (["approve"], ["write", "approve"]):
        wider = here.client.post(path, json={"scopes": scopes}, headers=token)
        assert wider.status_code == 403
    narrower = here.client.post(path, json={"scopes": ["read"], "ttl": 5}, headers=token).json()
    assert (narrower["scopes"], narrower["expires_in"] <= 5) == (["read"], True)
    again = here.client.post(path, json={"scopes": ["write"]}, headers=bearer(narrower["token"]))
    assert again.status_code == 403
    start, real = time.time(), time.time
    shift = [0.0]
    monkeypatch.setattr(tokens_module.time, "time", lambda: real() + shift[0])
    longest = here.client.post(path, json={"ttl": 43_200, "refresh": 43_200}, headers=token).json()
    assert longest["expires_in"] <= 1000, "not longer than the first could be refreshed"
    chain = bearer(longest["token"])
    shift[0] = 900.0
    assert here.client.get(f"/v1/runs/{run}/info", headers=token).status_code == 401
    newest = here.client.post(path, json={"ttl": 600, "refresh": 600}, headers=chain).json()
    assert newest["expires_in"] <= 100
    shift[0] = 1001.0 + real() - start
    for old in (chain, bearer(newest["token"])):
        assert here.client.post(path, json={}, headers=old).status_code == 401
    shift[0] = 0.0
    fixed = run_token(here, run, refresh=0)
    assert here.client.post(path, json={}, headers=fixed).status_code == 403
    of_thread = thread_token(here, "fresh")
    assert here.client.post(path, json={}, headers=of_thread).status_code == 403


def test_a_token_lasts_no_longer_than_its_session(here: Site) -> None:
    async def main() -> None:
        tokens = Tokens(here.app.state.auth, here.app.state.identify.sessions)
        soon = int(time.time()) + 120
        session = Identity("a", "session", b"k", session="s", ends=soon)
        _, grant = await tokens.issue(session, Target("thread", "t"))
        assert (grant.ends, grant.until, grant.session) == (soon, soon, "s")

    asyncio.run(main())


@pytest.mark.parametrize(
    "body",
    [
        {"scopes": ["admin"]},
        {"scopes": "read"},
        {"ttl": 0},
        {"ttl": 43_201},
        {"ttl": -1},
        {"ttl": 1.5},
        {"refresh": -1},
        {"refresh": 43_201},
        {"ticket": "yes"},
        {"more": 1},
        {"scopes": [["read"]]},
    ],
)
def test_bad_bodies_issue_nothing(here: Site, body: dict[str, Any]) -> None:
    for path in (f"/v1/runs/{here.start(headers=AS_A)}", "/v1/threads/bodies"):
        answer = here.client.post(f"{path}/attach-tokens", json=body, headers=AS_A)
        assert answer.status_code == 400, answer.text
        assert "access_" not in answer.text


def test_without_a_body_it_is_what_it_was(here: Site) -> None:
    run = here.start(headers=AS_A, thread="plain")
    found = here.client.post(f"/v1/runs/{run}/attach-tokens", headers=AS_A).json()
    assert (found["expires_in"], found["token"][:7]) == (600, "attach_")
    found = here.client.post("/v1/threads/plain/attach-tokens", headers=AS_A).json()
    assert found["expires_in"] in (599, 600)
    assert found["scopes"] == ["read"]
    token = bearer(found["token"])
    assert here.client.get(f"/v1/runs/{run}/events", headers=token).status_code == 200
    again = here.client.post("/v1/threads/plain/attach-tokens", json={}, headers=token)
    assert again.status_code == 403


# --- tickets --------------------------------------------------------------------------------------


def ticket_of(here: Site, path: str, headers: dict[str, str] = AS_A, **body: Any) -> str:
    return issued(here, path, headers, ticket=True, **body)["ticket"]


def test_a_ticket_opens_one_stream(
    here: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = here.start("scenario:slow", headers=AS_A, thread="tickets")
    whole = here.frames(f"/v1/runs/{run}/events", headers=AS_A)
    monkeypatch.setattr(here.app.state.settings, "access_log", True)
    with caplog.at_level(logging.DEBUG):
        ticket = ticket_of(here, f"/v1/runs/{run}")
        path = f"/v1/runs/{run}/events?after={whole[9].id}&ticket={ticket}"
        assert [f.id for f in here.frames(path)] == [f.id for f in whole[10:]]
        for again in (path, f"/v1/runs/{run}?ticket={ticket}"):
            assert here.client.get(again).status_code == 401
    lines = [record.getMessage() for record in caplog.records if record.name != "httpx"]
    assert any(f"/v1/runs/{run}/events" in line for line in lines)
    assert not [line for line in lines if ticket[:20] in line and "tokenwire" in line]
    wire = ticket_of(here, f"/v1/runs/{run}")
    assert here.client.get(f"/v1/runs/{run}/wires/ui-7?ticket={wire}").status_code == 200
    from_token = ticket_of(here, "/v1/threads/tickets", thread_token(here, "tickets"))
    assert here.client.get(f"/v1/runs/{run}/events?ticket={from_token}").status_code == 200


def test_a_ticket_only_opens_and_only_for_a_minute(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = here.start(headers=AS_A, thread="short")
    other = here.start(headers=AS_A)
    ticket = ticket_of(here, f"/v1/runs/{run}", scopes=["write"])
    path = f"/v1/runs/{run}/cancel?ticket={ticket}"
    assert here.client.post(path, json={}).status_code == 401
    assert here.client.head(f"/ds/v1/stream/runs/{run}?ticket={ticket}").status_code == 401
    assert here.client.get(f"/v1/runs/{run}/events", headers=bearer(ticket)).status_code == 401
    assert here.client.get(f"/v1/runs/{run}/events?ticket={ticket}").status_code == 200
    foreign = ticket_of(here, f"/v1/runs/{run}")
    assert here.client.get(f"/v1/runs/{other}/events?ticket={foreign}").status_code == 404
    long_token = issued(here, f"/v1/runs/{run}")["token"]
    answer = here.client.get(f"/v1/runs/{run}/events?ticket={long_token}")
    assert answer.status_code == 401, "no long-lived secret in an address"
    late, real = ticket_of(here, f"/v1/runs/{run}"), time.time
    monkeypatch.setattr(tokens_module.time, "time", lambda: real() + 61)
    assert here.client.get(f"/v1/runs/{run}/events?ticket={late}").status_code == 401


# --- sockets --------------------------------------------------------------------------------------


def socket_of(here: Site, path: str, **more: Any) -> Any:
    return connect(here.url.replace("http", "ws", 1) + path, proxy=None, **more)


def follow(socket: Any, run: str) -> str:
    socket.send(json.dumps({"op": "follow", "run": run}))
    text, end = "", False
    while not end:
        message = json.loads(socket.recv(timeout=30))
        assert message["op"] != "error", message
        for one in message.get("events", ()):
            text += one["event"].get("text", "") if one["event"]["type"] == "text-delta" else ""
        end = message["op"] == "end"
    return text


def test_sockets_take_tokens_and_tickets(here: Site) -> None:
    run = here.start("scenario:slow", headers=AS_A, thread="sockets")
    whole = text_of(here.frames(f"/v1/runs/{run}/events", headers=AS_A))
    token = issued(here, "/v1/threads/sockets", scopes=["write"])["token"]
    offered: Any = ["tokenwire", f"tokenwire.token.{token}"]
    with socket_of(here, "/ws", subprotocols=offered) as socket:
        assert socket.subprotocol == "tokenwire", "the token is not sent back"
        assert follow(socket, run) == whole
        request = {"prompt": "scenario:text"}
        socket.send(json.dumps({"op": "start", "id": 1, "request": request, "follow": False}))
        started = json.loads(socket.recv(timeout=30))
        assert started["run"]["thread"] == "sockets"
        other = {"prompt": "scenario:text", "thread": "not-mine"}
        for command, code in (
            ({"op": "start", "request": other}, "forbidden"),
            ({"op": "approve", "run": run, "approval_id": "x", "approved": True}, "role_required"),
            ({"op": "follow", "run": "u" * 22}, "unknown_run"),
        ):
            socket.send(json.dumps(command))
            assert json.loads(socket.recv(timeout=30))["error"]["code"] == code
    with socket_of(here, "/ws") as socket:  # a client whose first message brings it
        socket.send(json.dumps({"op": "auth", "key": token}))
        assert json.loads(socket.recv(timeout=30))["op"] == "ok"
        assert follow(socket, run) == whole
    ticket = ticket_of(here, "/v1/threads/sockets")
    with socket_of(here, f"/ws?ticket={ticket}") as socket:
        assert follow(socket, run) == whole
    for path in ("/ws", "/api/chat/ws", "/ag-ui"):
        with pytest.raises(InvalidStatus) as refused, socket_of(here, f"{path}?ticket={ticket}"):
            pass
        assert refused.value.response.status_code == 401
    with socket_of(here, "/api/chat/ws", subprotocols=offered) as socket:
        assert socket.subprotocol == "tokenwire"
        message = {"id": "m", "role": "user", "parts": [{"type": "text", "text": "scenario:text"}]}
        send = {"type": "send", "requestId": "q", "id": "sockets", "messages": [message]}
        socket.send(json.dumps(send))
        kinds = set()
        while "end" not in kinds:
            kinds.add(json.loads(socket.recv(timeout=30))["type"])
        assert "chunk" in kinds
        socket.send(json.dumps({**send, "requestId": "p", "id": "not-mine"}))
        assert json.loads(socket.recv(timeout=30))["type"] == "error"
    with socket_of(here, "/ag-ui", additional_headers=bearer(token)) as socket:
        body = {"threadId": "not-mine", "runId": "w", "state": {}, "tools": [], "context": []}
        body |= {"messages": [{"id": "1", "role": "user", "content": "hi"}], "forwardedProps": {}}
        socket.send(json.dumps(body))
        assert json.loads(socket.recv(timeout=30))["type"] == "RUN_ERROR"


def test_a_socket_ends_with_its_token(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    run = here.start(headers=AS_A, thread="revoked")
    token = issued(here, "/v1/threads/revoked", scopes=["write"])["token"]
    before = here.runs_started
    start = json.dumps({"op": "start", "request": {"prompt": "scenario:text"}})

    def closed_by(socket: Any) -> int:
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                socket.recv(timeout=60)
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code

    with socket_of(here, "/ws", additional_headers=bearer(token)) as socket:
        follow(socket, run)
        real = time.time
        with monkeypatch.context() as patch:
            patch.setattr(tokens_module.time, "time", lambda: real() + 601)
            socket.send(start)
            assert closed_by(socket) == 1008
    monkeypatch.setattr(auth_module, "RECHECK_SECONDS", 0.0)
    with socket_of(here, "/ws", additional_headers=bearer(token)) as socket:
        follow(socket, run)
        assert here.client.delete("/v1/threads/revoked", headers=AS_A).status_code == 204
        assert closed_by(socket) == 1008, "also one that says nothing"
    assert here.runs_started == before


def test_a_server_without_keys_holds_a_token_to_its_grant() -> None:
    with site() as open_site:
        run, other = open_site.start(thread="t"), open_site.start()
        answer = open_site.client.post(f"/v1/runs/{run}/attach-tokens", json={})
        token = bearer(answer.json()["token"])
        get = open_site.client.get
        assert get(f"/v1/runs/{run}", headers=token).status_code == 200
        assert get(f"/v1/runs/{other}", headers=token).status_code == 404
        assert get("/v1/threads", headers=token).status_code == 403
