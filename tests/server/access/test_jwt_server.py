"""A server that takes an issuer's tokens: on every way in, beside API keys, and until they end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from support.issuer import AUDIENCE, Issuer, issuer, signing_key
from support.process import refused, serving
from support.server import simulator
from tokenwire import Principal
from tokenwire.errors import ConfigError
from tokenwire.log.memory import MemoryStore
from tokenwire.providers.registry import Registry
from tokenwire.server import Auth, JwtIssuer, Live
from tokenwire.server.app import create_app
from tokenwire.server.edge import auth as auth_module
from tokenwire.server.settings import Settings
from tokenwire.server.start import ThreadedServer

KEY = "an-api-key-that-is-long-enough"
SLOW = "scenario:slow?rate=2"
CLAIMS = {"tenant": "org", "roles": "roles"}


@pytest.fixture(scope="module")
def provider() -> Iterator[Issuer]:
    with issuer() as made:
        yield made


@contextmanager
def server(auth: Auth, **settings: Any) -> Iterator[str]:
    app = create_app(
        Settings(port=0, graceful_stop=2.0, access_log=False, **settings),
        registry=Registry(demo_url=simulator().server.url + "/v1", env={}),
        store=MemoryStore(),
        auth=auth,
    )
    app.state.recheck._every = 0.05
    with ThreadedServer(app) as running:
        yield running.url


@pytest.fixture(scope="module")
def here(provider: Issuer) -> Iterator[str]:
    jwt = JwtIssuer(provider.url, audience=AUDIENCE, claims=CLAIMS)
    with server(Auth([f"ops:{KEY}"], jwt=jwt)) as url:
        yield url


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_a_token_opens_every_way_in(provider: Issuer, here: str) -> None:
    token = provider.token(org="acme", roles=["write"])
    with httpx.Client(base_url=here, timeout=20, trust_env=False) as client:
        made = client.post("/v1/runs", json={"prompt": "scenario:text"}, headers=bearer(token))
        assert made.status_code == 201
        run = made.json()["id"]
        assert client.get(f"/v1/runs/{run}", headers={"x-api-key": token}).status_code == 200
        shown = client.get(f"/v1/runs/{run}", headers=bearer(token)).json()
        assert shown["principal"] == "ann"
        # The chat page: a token that is pasted as a key.
        session = client.post("/v1/session", json={"key": token})
        assert session.json()["principal"] == "ann"
        assert session.json()["tenant"] == "acme"
        assert 3000 < session.json()["expires_in"] <= 3660
        assert client.get(f"/v1/runs/{run}").status_code == 200
        origin = {"origin": here}
        assert client.delete(f"/v1/runs/{run}", headers=origin).status_code == 403
        again = client.post("/v1/runs", json={"prompt": "scenario:text"}, headers=origin)
        assert again.status_code == 201
        attach = client.post(
            f"/v1/runs/{run}/attach-tokens", json={}, headers=bearer(token)
        ).json()["token"]
    reads = httpx.get(f"{here}/v1/runs/{run}/events", headers=bearer(attach))
    assert reads.status_code == 200
    address = here.replace("http", "ws", 1)
    for headers, first in ((bearer(token), False), ({}, True)):
        with connect(f"{address}/ws", proxy=None, additional_headers=headers) as wire:
            if first:
                wire.send(json.dumps({"op": "auth", "key": token}))
                assert json.loads(wire.recv(timeout=20))["op"] == "ok"
            wire.send(json.dumps({"op": "follow", "run": run}))
            assert json.loads(wire.recv(timeout=20))["op"] in ("ok", "events")
            wire.send(json.dumps({"op": "approve", "run": run, "approval_id": "x", "approved": 1}))
            said = ""
            while '"error"' not in said:
                said = str(wire.recv(timeout=20))
            assert "role_required" in said


def test_keys_and_tokens_are_beside_each_other(provider: Issuer, here: str) -> None:
    with httpx.Client(base_url=here, timeout=20, trust_env=False) as client:
        made = client.post("/v1/runs", json={"prompt": "scenario:text"}, headers=bearer(KEY))
        run = made.json()["id"]
        assert client.get(f"/v1/runs/{run}", headers=bearer(KEY)).status_code == 200
        for org in ("acme", "globex"):
            token = provider.token("ops", org=org, roles=["admin"])
            assert client.get(f"/v1/runs/{run}", headers=bearer(token)).status_code == 404
        for wrong in ("x", "a.b.c", KEY[:-1], provider.token(org="acme", seconds=-999)):
            got = client.get("/v1/models", headers=bearer(wrong))
            assert got.status_code == 401
            assert got.json()["error"]["code"] in ("not_authenticated", "invalid_api_key")
            assert wrong == "x" or wrong not in got.text
        assert client.get("/v1/models").status_code == 401


def test_roles_of_a_token_hold(provider: Issuer, here: str) -> None:
    with httpx.Client(base_url=here, timeout=20, trust_env=False) as client:
        for roles, expected in (["read"], 403), (["write"], 201), (["admin"], 201), (None, 403):
            more = {} if roles is None else {"roles": roles}
            token = provider.token("eve", org="acme", **more)
            made = client.post("/v1/runs", json={"prompt": "scenario:text"}, headers=bearer(token))
            assert made.status_code == expected
            listed = client.get("/v1/threads", headers=bearer(token))
            assert listed.status_code == (403 if roles is None else 200)
        unknown = client.post("/v1/session", json={"key": provider.token("eve")})
        assert unknown.status_code == 401  # no tenant


def test_many_wrong_tokens_of_an_address_are_slowed(provider: Issuer, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(provider.key_set()))
    jwt = JwtIssuer(provider.url, audience=AUDIENCE, jwks=str(path))
    with (
        server(Auth(jwt=jwt), wrong_keys_per_minute=5) as url,
        httpx.Client(base_url=url) as client,
    ):
        wrong = provider.token(key=signing_key("RS256", "another"))
        statuses = [client.get("/v1/models", headers=bearer(wrong)).status_code for _ in range(7)]
        assert statuses[:5] == [401] * 5
        assert statuses[-1] == 429
        right = client.get("/v1/models", headers=bearer(provider.token()))
        assert right.status_code == 200


# --- the end of a token ---------------------------------------------------------------------------

SOCKETS: dict[str, Any] = {
    "/ws": {"op": "start", "request": {"prompt": SLOW}},
    "/ag-ui": {
        "threadId": "t1",
        "runId": "r1",
        "messages": [{"id": "m", "role": "user", "content": SLOW}],
        "tools": [],
        "context": [],
        "state": {},
        "forwardedProps": {},
    },
    "/api/chat/ws": {
        "type": "send",
        "requestId": "r1",
        "trigger": "submit-message",
        "id": "c",
        "messages": [{"id": "u", "role": "user", "parts": [{"type": "text", "text": SLOW}]}],
    },
}


def _expire(jwt: JwtIssuer, path: Path) -> None:
    jwt._clock = lambda: time.time() + 4000


def _replace_keys(jwt: JwtIssuer, path: Path) -> None:
    path.write_text(json.dumps({"keys": [signing_key("ES256", "next").entry]}))


@pytest.mark.parametrize("end", [_expire, _replace_keys], ids=["expired", "key taken back"])
def test_streams_sockets_and_sessions_end_with_their_token(
    provider: Issuer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: Callable[[JwtIssuer, Path], None],
) -> None:
    """The answers take far longer than the test waits: only the token's end ends them."""
    monkeypatch.setattr(auth_module, "RECHECK_SECONDS", 0.2)
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(provider.key_set()))
    jwt = JwtIssuer(provider.url, audience=AUDIENCE, jwks=str(path))
    token = provider.token()
    with (
        server(Auth([f"ops:{KEY}"], jwt=jwt)) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as page,
        ExitStack() as opened,
    ):
        client.headers.update(bearer(token))
        assert page.post("/v1/session", json={"key": token}).status_code == 200
        run = client.post("/v1/runs", json={"prompt": SLOW}).json()["id"]
        kept = httpx.post(f"{url}/v1/runs", json={"prompt": SLOW}, headers=bearer(KEY)).json()["id"]
        wires = []
        for place, first in SOCKETS.items():
            address = url.replace("http", "ws", 1) + place
            wire = opened.enter_context(
                connect(address, proxy=None, additional_headers=bearer(token))
            )
            wires.append(wire)
            wire.send(json.dumps(first))
            wire.recv(timeout=30)
        with (
            client.stream("GET", f"/v1/runs/{run}/events") as native,
            page.stream("GET", f"/v1/runs/{run}/events") as by_session,
            httpx.stream(
                "GET", f"{url}/v1/runs/{kept}/events", headers=bearer(KEY), timeout=30
            ) as others,
        ):
            pieces = [answer.iter_bytes() for answer in (native, by_session)]
            data = [next(piece) for piece in pieces]
            end(jwt, path)
            data = [begun + b"".join(rest) for begun, rest in zip(data, pieces, strict=True)]
            for text in data:
                assert b'"reason":"revoked"' in text
                assert b"run-end" not in text
            for wire in wires:
                with pytest.raises(ConnectionClosed) as closed:
                    while True:
                        wire.recv(timeout=30)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1008
            assert next(others.iter_bytes())  # a key is not concerned
        for who in (client, page):
            assert who.get(f"/v1/runs/{run}").status_code in (200, 401)
        assert page.get(f"/v1/runs/{run}").status_code == 401


# --- in an application ----------------------------------------------------------------------------


def test_an_application_takes_tokens_too(provider: Issuer) -> None:
    jwt = JwtIssuer(provider.url, audience=AUDIENCE, claims=CLAIMS)
    live = Live("memory:", models=["demo"])
    app = FastAPI(lifespan=live.lifespan)
    app.include_router(live.router(prefix="/ai", user=Depends(Auth(jwt=jwt))))
    with TestClient(app) as client:
        assert client.get("/ai/v1/models").status_code == 401
        token = provider.token(org="acme", roles=["read"])
        assert client.get("/ai/v1/models", headers=bearer(token)).status_code == 200
        made = client.post("/ai/v1/runs", json={"prompt": "x"}, headers=bearer(token))
        assert made.json()["error"]["code"] == "role_required"


def test_verify_may_return_a_principal(provider: Issuer) -> None:
    people: dict[str, Any] = {
        "ann": Principal("ann", tenant="acme", roles=["write"]),
        "bob": Principal("ann", tenant="globex"),
        "cat": "ann",
    }

    def verify(key: str) -> Any:
        if key == "bad":
            raise ValueError(Principal("", tenant="x"))
        return people.get(key)

    with server(Auth(verify=verify)) as url, httpx.Client(base_url=url, timeout=20) as client:
        runs = {
            key: client.post("/v1/runs", json={"prompt": "x"}, headers=bearer(key)).json()["id"]
            for key in people
        }
        for key in people:
            for owner, run in runs.items():
                got = client.get(f"/v1/runs/{run}", headers=bearer(key))
                assert got.status_code == (200 if owner == key else 404)
        deleted = client.delete(f"/v1/runs/{runs['ann']}", headers=bearer("ann"))
        assert deleted.json()["error"]["code"] == "role_required"
        assert client.post("/v1/session", json={"key": "ann"}).status_code == 200
        origin = {"origin": url}
        assert client.delete(f"/v1/runs/{runs['ann']}", headers=origin).status_code == 403
        assert client.get(f"/v1/runs/{runs['ann']}").status_code == 200
        assert client.get("/v1/models", headers=bearer("bad")).status_code == 500


# --- the command ----------------------------------------------------------------------------------


def test_serve_starts_without_its_issuer_and_lets_nobody_in(tmp_path: Path) -> None:
    with issuer() as provider:
        flags = ["--jwt-issuer", provider.url, "--jwt-audience", AUDIENCE]
        flags += ["--jwt-claims", "principal=sub,tenant=org"]
        token = provider.token(org="acme")
        provider.stop()
        with serving(tmp_path, *flags, TOKENWIRE_API_KEYS=f"ops:{KEY}") as process:
            assert f"with a token of {provider.url}, or an API key only" in "".join(process.lines)
            got = httpx.get(f"{process.url}/v1/threads", headers=bearer(token))
            assert got.status_code == 503
            assert got.json()["error"]["code"] == "issuer_unavailable"
            assert got.headers["retry-after"] == "5"
            assert httpx.get(f"{process.url}/v1/threads").status_code == 401
            by_key = httpx.get(f"{process.url}/v1/threads", headers=bearer(KEY))
            assert by_key.status_code == 200
            assert httpx.get(f"{process.url}/healthz").status_code == 200
            provider.start()
            deadline = time.monotonic() + 60
            while got.status_code == 503 and time.monotonic() < deadline:
                got = httpx.get(f"{process.url}/v1/threads", headers=bearer(token))
                time.sleep(0.05)
            assert got.status_code == 200, got.text
            _, _, errors = process.stop()
        assert "cannot be fetched" in errors
        assert "answered with 503 until they can" in errors
        assert "were fetched: 1" in errors
        for secret in (token, *token.split("."), KEY):
            assert secret not in errors


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"jwt_issuer": "https://login.example"}, "tokens need an audience"),
        ({"jwt_audience": "x"}, "tokens need --jwt-issuer"),
        ({"jwt_claims": ["tenant=org"]}, "tokens need --jwt-issuer"),
        ({"jwt_issuer": "http://login.example", "jwt_audience": "x"}, "must be https"),
        (
            {"jwt_issuer": "https://x.example", "jwt_audience": "x", "jwt_claims": "org"},
            "--jwt-claims must be like principal=sub",
        ),
        (
            {"jwt_issuer": "https://x.example", "jwt_audience": "x", "jwt_leeway": 400.0},
            "the leeway of tokens must be 0 to 300 s",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Auth.from_settings(Settings(**flags))


def test_a_start_with_settings_that_cannot_work_is_refused(tmp_path: Path) -> None:
    flags = ["--jwt-issuer", "https://x.example", "--jwt-audience", "x", "--jwt-jwks", "no.json"]
    assert "cannot read the key set file no.json: No such file" in refused(tmp_path, *flags)
