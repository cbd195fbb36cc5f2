"""What every request passes first: host, origin, key, media type, size, depth, headers.

The numbers (S2, S3, ...) are those of the checklist in docs/guide/operate.md.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from support.server import AS_A, AS_B, KEY_A, KEYS, Reading, Site, site, status_of
from tokenwire.errors import InputError
from tokenwire.server.edge.guard import parse_json

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site(cors_origin=["https://app.example"], allow_host=["chat.example"]) as found:
        yield found


@pytest.fixture(scope="module")
def keyed() -> Iterator[Site]:
    with site(api_keys=KEYS, runs_per_principal=50, starts_burst=100) as found:
        yield found


@pytest.mark.parametrize(
    "host",
    [
        "evil.test",
        "localhost.evil.test",
        "evil.test:8765",
        "127.0.0.1.evil.test",
        "a/?x=localhost",
        "localhost@evil.test",
        "[::1].evil.test",
        "192.168.0.1",
        "localhost:1:2",
        "",
    ],
)
def test_s2_a_foreign_host_reaches_no_handler(here: Site, host: str) -> None:
    before = here.runs_started
    body = b'{"prompt":"x"}'
    answer = here.raw(
        b"POST /v1/runs HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (host.encode(), len(body), body)
    )
    assert status_of(answer) in (400, 421)
    assert here.runs_started == before


def test_s2_two_hosts_are_one_too_many(here: Site) -> None:
    answer = here.raw(
        b"GET / HTTP/1.1\r\nHost: evil.test\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    assert status_of(answer) in (400, 421)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:99", "127.0.0.1", "[::1]:80", "chat.example"]
)
def test_s2_our_own_hosts_are_served(here: Site, host: str) -> None:
    assert here.client.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://app.example.evil.test",
        "https://evil-app.example",
        "http://app.example",
        "https://app.example:444",
        "https://APP.example",
    ],
)
def test_s3_other_origins_get_no_cors_and_may_not_post(here: Site, origin: str) -> None:
    before = here.runs_started
    answer = here.client.get("/healthz", headers={"origin": origin})
    assert "access-control-allow-origin" not in answer.headers
    posted = here.client.post("/v1/runs", json={"prompt": "x"}, headers={"origin": origin})
    assert posted.status_code == 403
    assert posted.json()["error"]["code"] == "forbidden"
    assert here.runs_started == before


def test_s3_a_configured_origin_may_ask_and_read(here: Site) -> None:
    headers = {"origin": "https://app.example"}
    answer = here.client.post("/v1/runs", json={"prompt": "scenario:text"}, headers=headers)
    assert answer.status_code == 201
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "Origin" in answer.headers["vary"]
    asked = {**headers, "access-control-request-method": "POST"}
    preflight = here.client.options("/v1/runs", headers=asked)
    assert preflight.status_code == 204
    assert "Idempotency-Key" in preflight.headers["access-control-allow-headers"]
    # The SDKs of OpenAI and Anthropic send families of headers; nothing else is let in with them.
    families = "X-Stainless-Lang,anthropic-version, openai-beta,x-evil,x-stainless-a b"
    asked["access-control-request-headers"] = families
    preflight = here.client.options("/v1/runs", headers=asked)
    let_in = preflight.headers["access-control-allow-headers"].split(", ")
    assert {"Idempotency-Key", "x-stainless-lang", "anthropic-version", "openai-beta"} <= {*let_in}
    assert "x-evil" not in let_in
    assert "x-stainless-a b" not in let_in
    exposed = answer.headers["access-control-expose-headers"]
    assert {
        "Location",
        "Content-Location",
        "X-Vercel-AI-UI-Message-Stream",
        "Request-Id",
        "ETag",
    } <= {*exposed.split(", ")}
    assert "If-Match" in let_in  # versions of what operators set
    other = {**asked, "origin": "https://evil.test"}
    assert (
        "access-control-allow-origin" not in here.client.options("/v1/runs", headers=other).headers
    )


@pytest.mark.parametrize("site_header", ["cross-site", "same-site"])
def test_s4_a_page_of_another_site_costs_nothing(here: Site, site_header: str) -> None:
    before = here.runs_started
    headers = {"sec-fetch-site": site_header}
    assert here.client.get("/chat/stream?prompt=x", headers=headers).status_code == 403
    assert here.client.post("/v1/runs", json={"prompt": "x"}, headers=headers).status_code == 403
    assert here.runs_started == before


def test_s4_our_own_page_may_ask(here: Site) -> None:
    headers = {"origin": here.url, "sec-fetch-site": "same-origin"}
    answer = here.client.post("/v1/runs", json={"prompt": "scenario:text"}, headers=headers)
    assert answer.status_code == 201


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_s5_only_json_is_taken(here: Site, kind: str) -> None:
    answer = here.client.post("/v1/runs", content=b'{"prompt":"x"}', headers={"content-type": kind})
    assert answer.status_code == 415


def test_s5_compressed_bodies_are_refused(here: Site) -> None:
    headers = {**JSON, "content-encoding": "gzip"}
    assert here.client.post("/v1/runs", content=b"\x1f\x8b", headers=headers).status_code == 415


def test_s7_without_a_key_nothing_is_told(keyed: Site) -> None:
    for path in ("/v1/models", "/v1/runs/x", "/metrics", "/v1/threads/x", "/chat/stream?prompt=x"):
        answer = keyed.client.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
    for wrong in ("nope", KEY_A[:-1], KEY_A + "x", "Bearer"):
        headers = {"authorization": f"Bearer {wrong}"}
        assert keyed.client.get("/v1/models", headers=headers).status_code == 401
    assert keyed.client.get("/healthz").status_code == 200
    assert keyed.client.get("/v1/models", headers={"x-api-key": KEY_A}).status_code == 200


def test_s7_another_persons_run_is_an_unknown_run(keyed: Site) -> None:
    run = keyed.start("scenario:stall", headers=AS_A)
    unknown = "A" * len(run)
    for method, path, body in (
        ("GET", "", None),
        ("GET", "/events", None),
        ("GET", "/events?after=1", None),
        ("GET", "/events?live=long-poll", None),
        ("POST", "/cancel", {}),
        ("POST", "/approvals/x", {"approved": True}),
        ("POST", "/tools/x", {"content": 1}),
        ("POST", "/attach-tokens", {}),
        ("DELETE", "", None),
    ):
        answers = [
            keyed.client.request(method, f"/v1/runs/{which}{path}", json=body, headers=AS_B)
            for which in (run, unknown)
        ]
        for answer in answers:
            assert answer.status_code == 404, (method, path)
        bodies = [re.sub(r'"request_id":"\w+"', "", answer.text) for answer in answers]
        assert bodies[0] == bodies[1]
    mine = keyed.client.get(f"/v1/runs/{run}", headers=AS_A)
    assert mine.json()["state"] == "running"
    keyed.client.post(f"/v1/runs/{run}/cancel", headers=AS_A)


def test_s7_threads_and_idempotency_keys_are_apart(keyed: Site) -> None:
    body = {"prompt": "scenario:text", "thread": "same"}
    runs = {
        keyed.client.post(
            "/v1/runs", json=body, headers={**who, "idempotency-key": "same-key"}
        ).json()["id"]
        for who in (AS_A, AS_B)
    }
    assert len(runs) == 2
    seen = keyed.client.get("/v1/threads/same", headers=AS_A).json()["runs"]
    assert len(seen) == 1


def test_s7_guessing_run_ids_is_slowed_down() -> None:
    with site(api_keys=KEYS, bad_attach_per_minute=5) as here:
        answers = [
            here.client.get(f"/v1/runs/{number:022d}/events", headers=AS_A).status_code
            for number in range(6)
        ]
        assert answers == [404] * 5 + [429]


def test_s8_an_attach_token_reads_one_run_and_does_nothing_else(keyed: Site) -> None:
    run, other = keyed.start(headers=AS_A), keyed.start(headers=AS_A)
    made = keyed.client.post(f"/v1/runs/{run}/attach-tokens", headers=AS_A)
    assert made.json()["expires_in"] == 600
    token = {"authorization": f"Bearer {made.json()['token']}"}
    assert keyed.frames(f"/v1/runs/{run}/events", headers=token)
    assert keyed.client.get(f"/v1/runs/{other}/events", headers=token).status_code == 401
    assert keyed.client.get(f"/v1/runs/{run}", headers=token).status_code == 401
    assert keyed.client.post(f"/v1/runs/{run}/cancel", headers=token).status_code == 401
    assert keyed.client.post("/v1/runs", json={"prompt": "x"}, headers=token).status_code == 401
    forged = {"authorization": f"Bearer {made.json()['token'][:-3]}AAA"}
    assert keyed.client.get(f"/v1/runs/{run}/events", headers=forged).status_code == 401


def test_the_session_cookie_of_the_page(keyed: Site) -> None:
    wrong = keyed.client.post("/v1/session", json={"key": "not-a-key-at-all"})
    assert wrong.status_code == 401
    assert "not-a-key" not in wrong.text
    answer = keyed.client.post("/v1/session", json={"key": KEY_A})
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    session = {"cookie": cookie.partition(";")[0]}
    keyed.client.cookies.clear()
    assert keyed.client.get("/v1/models", headers=session).status_code == 200
    body = {"prompt": "scenario:text"}
    alone = keyed.client.post("/v1/runs", json=body, headers=session)
    assert alone.status_code == 403  # no Origin: it could be any page's form
    ours = {**session, "origin": keyed.url}
    assert keyed.client.post("/v1/runs", json=body, headers=ours).status_code == 201
    altered = {"cookie": session["cookie"][:-4] + "AAAA"}
    assert keyed.client.get("/v1/models", headers=altered).status_code == 401


@pytest.mark.parametrize(("size", "status"), [(1999, 400), (2000, 400), (2001, 413)])
def test_s11_the_body_limit(size: int, status: int) -> None:
    with site(body_limit=2000) as here:
        body = b'{"unknown":"' + b"x" * (size - 14) + b'"}'
        assert len(body) == size
        assert here.client.post("/v1/runs", content=body, headers=JSON).status_code == status

        def pieces() -> Iterator[bytes]:  # no Content-Length: counted as it comes
            yield body[:1000]
            yield body[1000:]

        assert here.client.post("/v1/runs", content=pieces(), headers=JSON).status_code == status


def test_s11_a_declared_gigabyte_is_refused_unread(here: Site) -> None:
    answer = here.raw(
        b"POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 1000000000\r\n\r\n{"
    )
    assert status_of(answer) == 413
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize(("depth", "fine"), [(63, True), (64, True), (65, False)])
def test_s11_json_depth(here: Site, depth: int, fine: bool) -> None:
    inner = b"[" * (depth - 1) + b"]" * (depth - 1)
    answer = here.client.post("/v1/runs", content=b'{"x":' + inner + b"}", headers=JSON)
    assert answer.status_code == 400
    assert ("nested" in answer.json()["error"]["message"]) is not fine


def test_s11_a_hundred_thousand_levels_and_brackets_in_texts() -> None:
    for opening in (b"[", b'{"a":'):
        with pytest.raises(InputError, match="nested"):
            parse_json(opening * 100_000, 64)
    assert parse_json(b'["' + b"[" * 1000 + b'\\"' + b"{" * 1000 + b'"]', 64)
    assert parse_json(b"[" + b"[]," * 1000 + b"[]]", 64)


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt":"a","prompt":"b"}',
        b'{"prompt":"a","metadata":{"k":1,"k":2}}',
        b'{"prompt":NaN}',
        b'{"prompt":"a"',
        b"",
        b"[]",
        b'"text"',
        b'{"prompt":"\xff"}',
        b"{'prompt':'a'}",
    ],
)
def test_s11_what_is_no_json_object_is_refused(here: Site, body: bytes) -> None:
    before = here.runs_started
    answer = here.client.post("/v1/runs", content=body, headers=JSON)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "bad_request"
    assert here.runs_started == before


@pytest.mark.parametrize(("messages", "status"), [(2, 201), (3, 201), (4, 413)])
def test_s11_the_message_limit(messages: int, status: int) -> None:
    with site(message_limit=3) as here:
        body = {"messages": [{"role": "user", "content": "x"}] * messages}
        assert here.client.post("/v1/runs", json=body).status_code == status


@pytest.mark.parametrize(("size", "status"), [(99, 201), (100, 201), (101, 413)])
def test_s11_the_prompt_limit_counts_bytes(size: int, status: int) -> None:
    with site(prompt_limit=100) as here:
        prompt = "é" * (size // 2) + "x" * (size % 2)
        assert here.client.post("/v1/runs", json={"prompt": prompt}).status_code == status


@pytest.mark.parametrize(("fields", "status"), [(19, 200), (20, 200), (21, 431)])
def test_s11_the_number_of_header_fields(fields: int, status: int) -> None:
    with site(header_fields=20) as here:
        lines = [b"Host: localhost", b"Connection: close"]
        lines += [b"X-%d: 1" % number for number in range(fields - 2)]
        answer = here.raw(b"GET /healthz HTTP/1.1\r\n" + b"\r\n".join(lines) + b"\r\n\r\n")
        assert status_of(answer) == status


def test_s11_headers_that_are_too_large_or_never_end() -> None:
    with site(header_limit=4096) as here:
        whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: %b\r\n\r\n" % (b"a" * 5000)
        assert status_of(here.raw(whole)) == 431
        endless = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 5000
        assert status_of(here.raw(endless)) == 431
        path = b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"a" * 5000)
        assert status_of(here.raw(path)) == 431


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"], ids=["endless", "whole"])
@pytest.mark.parametrize("size", [5000, 40_000])
def test_s11_headers_that_are_too_large_are_refused_behind_an_open_stream(
    size: int, end: bytes
) -> None:
    """In one piece with the request before, or after it; never inside of its answer, and never as
    late ones: that comes too early."""
    with site(header_limit=4096) as here:
        run = here.start("scenario:text?chunks=5&rate=20")
        first = b"GET /v1/runs/%b/events HTTP/1.1\r\nHost: localhost\r\n\r\n" % run.encode()
        large = b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * size + end
        for pieces in ([first + large], [first, large]):
            with socket.create_connection(("127.0.0.1", here.port), timeout=60) as wire:
                answer = b""
                for piece in pieces:
                    wire.sendall(piece)
                    if piece is not pieces[-1]:  # its answer has begun
                        while b"run-start" not in answer:
                            answer += wire.recv(65536)
                while data := wire.recv(65536):
                    answer += data
            assert b"run-end" in answer
            assert answer.count(b"HTTP/1.1 431 ") == 1
            assert answer.count(b"HTTP/1.1 ") == 2
            before, _, refusal = answer.partition(b"HTTP/1.1 431 ")
            assert before.endswith(b"0\r\n\r\n")
            assert b"headers_too_large" in refusal


def test_s11_many_small_requests_in_one_piece_are_no_large_headers() -> None:
    with site(header_limit=4096) as here:
        one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 500 + b"\r\n\r\n"
        half = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: "
        with socket.create_connection(("127.0.0.1", here.port), timeout=60) as wire:
            wire.sendall(one * 20 + half)
            answer = b""
            while answer.count(b"HTTP/1.1 200 ") < 20:
                answer += wire.recv(65536)
            wire.sendall(b"b\r\n\r\n")
            while data := wire.recv(65536):
                answer += data
        assert answer.count(b"HTTP/1.1 200 ") == 21


def test_s12_slow_headers_and_bodies_are_cut_while_others_go_on() -> None:
    with site(header_deadline=0.4, body_deadline=0.4) as here:
        silent = Reading(here.port, b"")
        trickle = Reading(here.port, b"GET /healthz HTTP/1.1\r\nHost: loc")
        body = Reading(
            here.port,
            b"POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b'Content-Length: 50\r\n\r\n{"pro',
        )
        assert here.client.get("/healthz").status_code == 200
        for reading in (silent, trickle, body):
            assert status_of(reading.rest()) == 408
        assert here.client.get("/healthz").status_code == 200


@pytest.mark.parametrize(("wanted", "most"), [(1, 2), (2, 2), (3, 2)])
def test_s13_runs_of_one_principal(wanted: int, most: int) -> None:
    with site(api_keys=KEYS, runs_per_principal=most, starts_burst=100) as here:
        answers = [
            here.client.post("/v1/runs", json={"prompt": "scenario:stall"}, headers=AS_A)
            for _ in range(wanted)
        ]
        expected = [201] * min(wanted, most) + [429] * max(0, wanted - most)
        assert [answer.status_code for answer in answers] == expected
        if wanted > most:
            assert int(answers[-1].headers["retry-after"]) >= 1
            assert answers[-1].json()["error"]["code"] == "busy"
        other = here.client.post("/v1/runs", json={"prompt": "scenario:text"}, headers=AS_B)
        assert other.status_code == 201
        first = answers[0].json()["id"]
        here.client.delete(f"/v1/runs/{first}", headers=AS_A)
        again = here.client.post("/v1/runs", json={"prompt": "scenario:text"}, headers=AS_A)
        assert again.status_code == 201


def test_s13_starts_in_a_minute() -> None:
    with site(api_keys=KEYS, starts_per_minute=60, starts_burst=3, runs_per_principal=99) as here:
        body = {"prompt": "scenario:text"}
        answers = [here.client.post("/v1/runs", json=body, headers=AS_A) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [201, 201, 201, 429]


@pytest.mark.parametrize(("wanted", "most"), [(1, 2), (2, 2), (3, 2)])
def test_s13_readers_of_one_run(wanted: int, most: int) -> None:
    with site(readers_per_run=most) as here:
        run = here.start("scenario:stall")
        readers = [Reading.get(here.port, f"/v1/runs/{run}/events") for _ in range(wanted)]
        for reader in readers[:most]:
            assert status_of(reader.until(b"\r\n\r\n")) == 200
        for reader in readers[most:]:
            assert status_of(reader.until(b"\r\n\r\n")) == 429


def test_s14_errors_hold_no_secrets_and_a_request_id(here: Site) -> None:
    answer = here.client.post("/v1/runs", json={"prompt": "x", "model": "sk-abcdefghijklmnop"})
    assert "sk-abcdefghijklmnop" not in answer.text
    error = answer.json()["error"]
    assert error["request_id"] == answer.headers["x-request-id"]
    assert set(error) <= {"code", "message", "request_id", "field"}


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/v1/models", "/none", "/metrics", "/chat/stream", "/v1/runs/x"]
)
def test_s18_security_headers_are_on_every_response(here: Site, path: str) -> None:
    headers = here.client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["referrer-policy"] == "no-referrer"
    assert "no-transform" in headers["cache-control"]
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "server" not in headers


def test_s20_forwarded_addresses_count_only_from_trusted_proxies() -> None:
    settings = {"api_keys": KEYS, "bad_attach_per_minute": 1}
    spoofed = [{**AS_A, "x-forwarded-for": f"10.0.0.{n}"} for n in (1, 2)]
    path = "/v1/runs/" + "a" * 22
    with site(**settings) as here:
        codes = [here.client.get(path, headers=headers).status_code for headers in spoofed]
        assert codes == [404, 429]
    with site(**settings, trust_proxy=["127.0.0.1"]) as here:
        codes = [here.client.get(path, headers=headers).status_code for headers in spoofed]
        assert codes == [404, 404]


def test_pipelined_rubbish_and_half_requests_leave_the_server_well(here: Site) -> None:
    for rubbish in (b"\x16\x03\x01", b"GET\r\n\r\n", b"G" * 100, b"POST / HTTP/9.9\r\n\r\n"):
        reading = Reading(here.port, rubbish + b"\r\n\r\n")
        reading.rest()
    assert here.client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "number", ["²", "½", "🄀", "٣", "-1", "+1", " 1", "1e3", "9" * 5000, "0" * 9 + "1" + "9" * 7]
)
@pytest.mark.parametrize(
    "path",
    [
        "/v1/threads?limit=",
        "/v1/threads/t?limit=",
        "/v1/threads/t?as=ui-messages&limit=",
        "/v1/threads/t?as=ui-messages&before=",
        "/v1/responses/resp_aaaaaaaaaaaaaaaaaaaa?stream=true&starting_after=",
    ],
)
def test_what_only_looks_like_a_number_is_refused(here: Site, path: str, number: str) -> None:
    answer = here.client.get(path + quote(number))
    assert answer.status_code == 400, answer.text
    assert "whole number" in answer.text


@pytest.mark.parametrize(
    "name", ["a\nb", "a\n", "\0", "\x1b[31m", "\u202e", "x" * 129, "a b", "é", "a\x1fb"]
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_s15_no_thread_has_such_a_name(here: Site, method: str, name: str) -> None:
    body = {"json": {"title": "x"}} if method == "PUT" else {}
    answer = here.client.request(method, f"/v1/threads/{quote(name)}", **body)
    assert answer.status_code == 400
    assert "a thread has 1 to 128" in answer.text
