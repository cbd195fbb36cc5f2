"""Sessions of the page and tokens that read a run: their secret, their key, their end."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from tests.support.server import Site, make_app, site
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tokenwire.cli.secret import run_rotate
from tokenwire.errors import ConfigError, InputError, NotAuthenticatedError
from tokenwire.log.base import Store
from tokenwire.log.memory import MemoryStore
from tokenwire.log.open import open_store
from tokenwire.server.app import create_app
from tokenwire.server.edge import auth as auth_module
from tokenwire.server.edge import sessions as sessions_module
from tokenwire.server.edge.auth import Auth, Identity, KeyCheckError
from tokenwire.server.edge.sessions import Sessions
from tokenwire.server.start import ThreadedServer

KEY, OTHER = "a-key-that-is-long-enough", "some-other-long-enough-key"
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()


async def opened(log: Store, *keys: str, verify: Any = None) -> tuple[Auth, Sessions]:
    auth = Auth(list(keys), verify=verify)
    sessions = Sessions(auth)
    await sessions.open(log)
    return auth, sessions


async def refuses(check: Any) -> bool:
    try:
        await check
    except NotAuthenticatedError:
        return True
    return False


def test_workers_of_one_store_share_sessions_and_others_do_not() -> None:
    async def main() -> None:
        log = MemoryStore()
        auth, one = await opened(log, f"ann:{KEY}")
        _, two = await opened(log, f"ann:{KEY}")
        session, _ = await one.sign_in(await auth.check_key(KEY))
        assert (await two.check(session)).principal == "ann"
        assert (await two.check(session)).how == "session"
        _, elsewhere = await opened(MemoryStore(), f"ann:{KEY}")
        assert await refuses(elsewhere.check(session))

    asyncio.run(main())


def test_who_knows_the_digests_cannot_sign() -> None:
    """Lines such as ``ann:sha256:HEX`` may be read by more people than the keys."""

    async def main() -> None:
        _, sessions = await opened(MemoryStore(), f"ann:sha256:{DIGEST}")
        digest, now = bytes.fromhex(DIGEST), int(time.time())
        old = b"%d:ann" % (now + 3600)
        claims = ("session", "00" * 16, now, now + 3600, "ann", digest)
        for secret in (hashlib.sha256(b"tokenwire session" + digest).digest(), digest, b""):
            for body in (old, msgspec.msgpack.encode(claims)):
                for purpose in (b"session\0", b"tokenwire session\0"):
                    mac = hmac.new(secret, purpose + body, hashlib.sha256).digest()
                    forged = base64.urlsafe_b64encode(mac + body).decode().rstrip("=")
                    assert await refuses(sessions.check(forged))
                    assert await refuses(sessions.check_attach(forged, "run-1"))

    asyncio.run(main())


def test_a_session_ends_with_its_key() -> None:
    async def main() -> None:
        log = MemoryStore()
        auth, sessions = await opened(log, f"ann:{KEY}", f"bob:{OTHER}")
        identity = await auth.check_key(KEY)
        session, _ = await sessions.sign_in(identity)
        token, _ = await sessions.attach_token(identity, "run-1")
        for keys in ([f"bob:{OTHER}"], [f"ann:{OTHER}"], [f"eve:{KEY}"]):
            _, later = await opened(log, *keys)
            assert await refuses(later.check(session)), keys
            assert await refuses(later.check_attach(token, "run-1")), keys
        _, again = await opened(log, f"ann:{KEY}")
        assert (await again.check(session)).principal == "ann"
        assert (await again.check_attach(token, "run-1")).principal == "ann"

    asyncio.run(main())


def test_sessions_have_an_age_and_cannot_be_altered_or_swapped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        auth, sessions = await opened(MemoryStore(), f"ann:{KEY}")
        identity = await auth.check_key(KEY)
        session, seconds = await sessions.sign_in(identity)
        token, _ = await sessions.attach_token(identity, "run-1")
        assert await refuses(sessions.check_attach(token, "run-2"))
        assert await refuses(sessions.check(token))
        assert await refuses(sessions.check_attach(session, "run-1"))
        raw = bytearray(base64.urlsafe_b64decode(session + "=="))
        for place in range(0, len(raw), 7):
            altered = bytearray(raw)
            altered[place] ^= 1
            text = base64.urlsafe_b64encode(altered).decode().rstrip("=")
            assert await refuses(sessions.check(text))
        for wrong in ("", "AAAA", session + "!", "é", "A" * 100_000, session[:40]):
            assert await refuses(sessions.check(wrong))
        now = time.time()
        monkeypatch.setattr(sessions_module.time, "time", lambda: now + seconds + 1)
        assert await refuses(sessions.check(session))
        monkeypatch.setattr(sessions_module.time, "time", lambda: now - 3600)
        assert await refuses(sessions.check(session)), "made in the future"

    asyncio.run(main())


def test_no_session_lasts_longer_than_its_greatest_age() -> None:
    """Even one with a right signature: it was made by another version, or by who had the secret."""

    async def main() -> None:
        auth, sessions = await opened(MemoryStore(), f"ann:{KEY}")
        identity = await auth.check_key(KEY)
        endless = await sessions._sign("session", identity, 10**9)
        assert await refuses(sessions.check(endless))

    asyncio.run(main())


def test_an_ended_session_counts_nowhere_and_others_go_on() -> None:
    async def main() -> None:
        log = MemoryStore()
        auth, one = await opened(log, f"ann:{KEY}")
        _, two = await opened(log, f"ann:{KEY}")
        identity = await auth.check_key(KEY)
        first, _ = await one.sign_in(identity)
        second, _ = await one.sign_in(identity)
        await one.end(first)
        await one.end("not a session")
        assert await refuses(one.check(first))
        assert await refuses(two.check(first))
        assert (await two.check(second)).principal == "ann"

    asyncio.run(main())


def test_ended_sessions_are_forgotten_when_they_would_be_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        log = MemoryStore()
        auth, sessions = await opened(log, f"ann:{KEY}")
        session, seconds = await sessions.sign_in(await auth.check_key(KEY))
        await sessions.end(session)
        await sessions.sweep()
        assert len(await log.documents("session-ended")) == 1
        now = time.time()
        monkeypatch.setattr(sessions_module.time, "time", lambda: now + seconds + 3600)
        await sessions.sweep()
        assert not await log.documents("session-ended")

    asyncio.run(main())


def test_with_a_check_of_ones_own_the_secret_is_the_stores_too() -> None:
    async def main() -> None:
        log = MemoryStore()
        auth, one = await opened(log, verify=lambda key: "carl" if key == KEY else None)
        _, two = await opened(log, verify=lambda key: "carl" if key == KEY else None)
        session, _ = await one.sign_in(await auth.check_key(KEY))
        assert (await two.check(session)).principal == "carl"
        await two.end(session)
        assert await refuses(one.check(session))
        keyless, _ = await one.sign_in(Identity())
        assert await refuses(one.check(keyless)), "from a time without keys"

    asyncio.run(main())


def test_a_session_ends_with_the_key_that_ones_own_check_revoked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    principals: dict[str, str | None] = {KEY: "carl", OTHER: "dora"}
    asked: list[str] = []

    async def verify(key: str) -> str | None:
        asked.append(key)
        return principals[key]

    async def main() -> None:
        log, now = MemoryStore(), [1000.0]
        auth, one = await opened(log, verify=verify)
        _, two = await opened(log, verify=verify)
        monkeypatch.setattr(auth_module.time, "monotonic", lambda: now[0])
        monkeypatch.setattr(sessions_module, "_REREAD_SECONDS", -1e9)
        identity = await auth.check_key(KEY)
        assert KEY not in repr(identity)
        session, _ = await one.sign_in(identity)
        token, _ = await one.attach_token(identity, "run-1")
        raw = base64.urlsafe_b64decode(session + "==")
        assert KEY.encode() not in raw
        again, _ = await one.sign_in(identity)
        sealed = msgspec.msgpack.decode(raw[32:])[6]
        assert sealed != msgspec.msgpack.decode(base64.urlsafe_b64decode(again + "==")[32:])[6]
        for _ in range(5):
            assert (await one.check(session)).credential == KEY
        assert asked == [KEY], "within a minute it is not asked again"
        assert (await two.check(session)).principal == "carl"
        assert asked == [KEY, KEY], "another worker asks for itself"
        principals[KEY] = None
        assert (await one.check(session)).principal == "carl"
        now[0] += auth_module.RECHECK_SECONDS
        for sessions in (one, two):
            assert await refuses(sessions.check(session))
            assert await refuses(sessions.check_attach(token, "run-1"))
        principals[KEY] = "dora"
        now[0] += auth_module.RECHECK_SECONDS
        assert await refuses(one.check(session)), "it is the key of somebody else now"
        del principals[KEY]
        now[0] += auth_module.RECHECK_SECONDS
        with pytest.raises(KeyCheckError):  # it fails, and says neither yes nor no
            await one.check(session)
        principals[KEY] = "carl"
        assert (await one.check(session)).principal == "carl"

    asyncio.run(main())


def test_a_credential_that_no_cookie_holds_is_refused_and_forged_ones_too() -> None:
    async def main() -> None:
        auth, sessions = await opened(MemoryStore(), verify=lambda key: "carl")
        with pytest.raises(InputError, match="too long for a session"):
            await sessions.sign_in(await auth.check_key("x" * 1201))
        session, _ = await sessions.sign_in(await auth.check_key("x" * 1000))
        assert len(session) < 3600
        assert (await sessions.check(session)).principal == "carl"
        raw = bytearray(base64.urlsafe_b64decode(session + "=="))
        for place in range(0, len(raw), 97):
            forged = bytes(raw[:place]) + bytes([raw[place] ^ 1]) + bytes(raw[place + 1 :])
            assert await refuses(sessions.check(base64.urlsafe_b64encode(forged).decode()))

    asyncio.run(main())


def test_a_websocket_ends_with_its_revoked_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth_module, "RECHECK_SECONDS", 0.0)
    principals: dict[str, str | None] = {KEY: "carl"}
    app = create_app(auth=Auth(verify=principals.get))
    with ThreadedServer(app) as server:
        url = server.url.replace("http", "ws", 1)
        for path in ("/ws", "/ag-ui", "/api/chat/ws"):
            principals[KEY] = "carl"
            key = {"authorization": f"Bearer {KEY}"}
            with connect(url + path, proxy=None, additional_headers=key) as socket:
                socket.send("no JSON")
                assert "JSON" in str(socket.recv(timeout=30))
                principals[KEY] = None
                socket.send("no JSON")
                with pytest.raises(ConnectionClosed) as closed:
                    socket.recv(timeout=30)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008


def test_the_secret_is_rotated_by_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sessions_module, "_REREAD_SECONDS", 0.0)
    url = f"sqlite:{tmp_path / 'runs.db'}"

    async def main() -> None:
        log = open_store(url)
        await log.start()
        try:
            auth, sessions = await opened(log, f"ann:{KEY}")
            identity = await auth.check_key(KEY)
            name = sessions.cookie_name(secure=False, mount="")
            session, _ = await sessions.sign_in(identity)
            token, _ = await sessions.attach_token(identity, "run-1")
            assert await asyncio.to_thread(run_rotate, url) == 0
            assert await refuses(sessions.check(session))
            assert await refuses(sessions.check_attach(token, "run-1"))
            assert sessions.cookie_name(secure=False, mount="") == name
            new, _ = await sessions.sign_in(identity)
            assert (await sessions.check(new)).principal == "ann"
        finally:
            await log.close()

    asyncio.run(main())
    assert "sign in again" in capsys.readouterr().out
    with pytest.raises(ConfigError):
        run_rotate("memory:")


# --- over HTTP ---------------------------------------------------------------------------------


def signed_in(here: Site, **headers: str) -> tuple[str, dict[str, str]]:
    answer = here.client.post("/v1/session", json={"key": KEY}, headers=headers)
    assert answer.status_code == 200, answer.text
    here.client.cookies.clear()
    cookie = answer.headers["set-cookie"]
    return cookie, {"cookie": cookie.partition(";")[0], **headers}


def test_sign_out_ends_the_session_and_not_only_its_cookie() -> None:
    with site(api_keys=[f"ann:{KEY}"]) as here:
        _, session = signed_in(here)
        _, other = signed_in(here)
        assert here.client.get("/v1/runs/x", headers=session).status_code == 404
        out = here.client.delete("/v1/session", headers={**session, "origin": here.url})
        assert out.status_code == 204
        assert "Max-Age=0" in out.headers["set-cookie"]
        assert here.client.get("/v1/runs/x", headers=session).status_code == 401
        assert here.client.get("/v1/runs/x", headers=other).status_code == 404


def test_what_was_written_for_one_person_is_not_done_as_another() -> None:
    """A page sends later than it was written: meanwhile the browser's cookie may be another's."""
    with site(api_keys=[f"ann:{KEY}", f"bob:{OTHER}"]) as here:
        ann, bob = {"authorization": f"Bearer {KEY}"}, {"authorization": f"Bearer {OTHER}"}

        def ask(method: str, path: str, who: dict[str, str], body: Any = None) -> httpx.Response:
            return here.client.request(method, path, headers=who, json=body)

        for_ann = {"tokenwire-reader": ask("GET", "/v1/threads", ann).json()["reader"]}
        start = {"prompt": "scenario:approval?rate=0&ttft=0", "thread": "both"}
        run = ask("POST", "/v1/runs", {**ann, **for_ann}, start)
        assert run.status_code == 201
        # He belongs to it as well, so that he may do all of this as himself.
        assert ask("PUT", "/v1/threads/both/members/bob", ann, {"role": "own"}).is_success
        (shared,) = (entry["thread"] for entry in ask("GET", "/v1/threads", bob).json()["threads"])
        one, sent_as_bob = f"/v1/runs/{run.json()['id']}", {**bob, **for_ann}
        for method, path, body in (
            ("POST", "/v1/runs", {"prompt": "of Ann"}),
            ("POST", "/v1/runs", {"prompt": "of Ann", "thread": shared}),
            ("POST", f"{one}/cancel", None),
            ("POST", f"{one}/approvals/any", {"approved": True}),
            ("PUT", f"/v1/threads/{shared}", {"title": "of Ann"}),
            ("DELETE", f"/v1/threads/{shared}", None),
            ("DELETE", one, None),
            ("POST", "/api/chat", {"id": "x", "messages": []}),
            ("POST", "/v1/chat/completions", {}),
            ("GET", "/chat/stream?prompt=of+Ann", None),
            ("GET", "/v1/threads", None),
        ):
            answer = ask(method, path, sent_as_bob, body)
            assert answer.status_code == 412, (path, answer.text)
            error = answer.json()["error"]
            assert isinstance(error, str) or "other_reader" in error.values(), error
        for reader in ("", "of nobody", for_ann["tokenwire-reader"].upper()):
            answer = ask("GET", one, {**ann, "tokenwire-reader": reader})
            assert answer.status_code == 412, reader
        assert len(ask("GET", "/v1/threads", bob).json()["threads"]) == 1
        told = ask("GET", "/v1/threads/both", {**ann, **for_ann}).json()
        assert [entry["state"] for entry in told["runs"]] == ["waiting"]
        # Who is not known at all hears that, and signing in is nobody's.
        assert ask("POST", "/v1/runs", for_ann, start).status_code == 401
        assert ask("POST", "/v1/session", for_ann, {"key": OTHER}).is_success


def test_a_tab_of_one_person_does_not_sign_out_another() -> None:
    with site(api_keys=[f"ann:{KEY}", f"bob:{OTHER}"]) as here:
        ann = {"authorization": f"Bearer {KEY}"}
        for_ann = here.client.get("/v1/threads", headers=ann).json()["reader"]
        answer = here.client.post("/v1/session", json={"key": OTHER})
        here.client.cookies.clear()
        bob = {"cookie": answer.headers["set-cookie"].partition(";")[0]}
        for_bob = here.client.get("/v1/threads", headers=bob).json()["reader"]
        for reader in (for_ann, "", "of nobody"):
            out = here.client.delete("/v1/session", headers={**bob, "tokenwire-reader": reader})
            assert (out.status_code, out.json()["error"]["code"]) == (412, "other_reader")
            assert "set-cookie" not in out.headers
            assert here.client.get("/v1/threads", headers=bob).status_code == 200
        out = here.client.delete("/v1/session", headers={**bob, "tokenwire-reader": for_bob})
        assert out.status_code == 204
        assert here.client.get("/v1/threads", headers=bob).status_code == 401
        # Nothing is left to end, whoever's it was: the cookie goes.
        again = here.client.delete("/v1/session", headers={**bob, "tokenwire-reader": for_ann})
        assert (again.status_code, "Max-Age=0" in again.headers["set-cookie"]) == (204, True)


def test_over_tls_the_cookie_is_bound_to_its_host() -> None:
    with site(api_keys=[f"ann:{KEY}"], trust_proxy=["127.0.0.1"]) as here:
        plain, plain_session = signed_in(here)
        assert plain.startswith("tokenwire_session_")
        assert "Secure" not in plain
        secure, session = signed_in(here, **{"x-forwarded-proto": "https"})
        assert secure.startswith("__Host-tokenwire_session_")
        assert "; Secure" in secure
        assert "Path=/" in secure
        assert "omain" not in secure
        assert here.client.get("/v1/runs/x", headers=session).status_code == 404
        # A cookie that any host of the domain could have set does not count there.
        planted = {**plain_session, "x-forwarded-proto": "https"}
        assert here.client.get("/v1/runs/x", headers=planted).status_code == 401


def test_each_mount_has_a_cookie_of_its_own() -> None:
    async def main() -> None:
        inner = [make_app(api_keys=[f"ann:{KEY}"], host="127.0.0.1") for _ in range(2)]
        for app in inner:
            await app.startup()
        outer = Starlette(routes=[Mount("/a", inner[0]), Mount("/b", inner[1])])
        transport = httpx.ASGITransport(app=outer)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            names = []
            for mount in ("/a", "/b"):
                assert (await client.get(f"{mount}/healthz")).status_code == 200
                assert (await client.get(f"{mount}/v1/runs/x")).status_code == 401
                answer = await client.post(f"{mount}/v1/session", json={"key": KEY})
                assert answer.status_code == 200
                names.append(answer.headers["set-cookie"].partition("=")[0])
            assert len(set(names)) == 2
            for mount in ("/a", "/b"):  # the second sign-in has not put out the first
                assert (await client.get(f"{mount}/v1/runs/x")).status_code == 404
        for app in inner:
            await app.shutdown()

    asyncio.run(main())


def test_wrong_keys_are_slowed_and_right_ones_never_refused() -> None:
    keys = {"api_keys": [f"ann:{KEY}"], "wrong_keys_per_minute": 3}
    with site(**keys, trust_proxy=["127.0.0.1"]) as here:

        def ask(key: str, address: str) -> int:
            headers = {"authorization": f"Bearer {key}", "x-forwarded-for": address}
            return here.client.get("/v1/runs/x", headers=headers).status_code

        guesses = [ask(f"wrong-key-number-{n}", "192.0.2.7") for n in range(5)]
        assert guesses == [401, 401, 401, 429, 429]
        assert ask(KEY, "192.0.2.7") == 404
        assert ask("wrong-key-number-9", "192.0.2.8") == 401
        # One network of IPv6 is one client, however many addresses it has.
        guesses = [ask(f"wrong-key-number-{n}", f"2001:db8::{n + 1:x}") for n in range(5)]
        assert guesses == [401, 401, 401, 429, 429]
        assert ask(KEY, "2001:db8::1") == 404
        assert ask("wrong-key-number-9", "2001:db8:0:1::1") == 401
        # A client cannot choose what it is counted under.
        assert ask("wrong-key-number-9", "203.0.113.1, 192.0.2.7") == 429
        for _ in range(2):  # signing in counts too
            sign_in = here.client.post(
                "/v1/session",
                json={"key": "wrong-key-number-1"},
                headers={"x-forwarded-for": "192.0.2.7"},
            )
            assert sign_in.status_code == 429
            assert int(sign_in.headers["retry-after"]) >= 1
