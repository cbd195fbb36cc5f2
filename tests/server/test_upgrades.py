"""Requests for an upgrade: to a WebSocket, to what is not spoken here; and frames that break the
rules of WebSockets. On plain sockets, as an attacker would."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import struct
from collections.abc import Iterator

import pytest

from support.raw_client import ask, frame, plain, rest_of, until, until_true, upgrade
from support.server import KEY_A, KEYS, Site, site, status_of

BODY = b'{"prompt":"scenario:text"}'
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


@pytest.fixture(scope="module")
def keyed() -> Iterator[Site]:
    with site(api_keys=KEYS) as here:
        yield here


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site() as open_site:
        yield open_site


def post(kind: bytes, framing: bytes, version: bytes = b"1.1", more: bytes = b"") -> bytes:
    return (
        b"POST /v1/runs HTTP/" + version + b"\r\nHost: localhost\r\n"
        b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
        b"Upgrade: " + kind + b"\r\nContent-Type: application/json\r\n" + more + framing
    )


# --- to what is not spoken here ----------------------------------------------------------------


@pytest.mark.parametrize("kind", [b"h2c", b"foo", b"TLS/1.0", b"websocket, h2c", b"h2c, websocket"])
@pytest.mark.parametrize(
    ("version", "framing"),
    [
        (b"1.1", b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)),
        (b"1.1", b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED),
        (b"1.0", b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)),  # it knows no chunks
    ],
    ids=["1.1 length", "1.1 chunked", "1.0 length"],
)
def test_an_unknown_upgrade_is_ignored_and_its_body_is_read(
    here: Site, kind: bytes, version: bytes, framing: bytes
) -> None:
    runs = here.runs_started
    with plain(here) as connection:
        connection.sendall(post(kind, framing, version))
        answer = until(connection, b'"id"')
    assert status_of(answer) == 201
    assert b"upgrade" not in answer.partition(b"\r\n\r\n")[0].lower()
    assert here.runs_started == runs + 1


def test_a_request_to_upgrade_keeps_its_connection_and_what_follows_it(here: Site) -> None:
    one = post(b"h2c", b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY))
    last = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = ask(here, one * 3 + last)
    assert answer.count(b"HTTP/1.1 201") == 3
    assert answer.count(b"HTTP/1.1 404") == 1
    with plain(here) as connection:  # in pieces, and a WebSocket behind it
        for start in range(0, len(one), 50):
            connection.sendall(one[start : start + 50])
        assert status_of(until(connection, b'"id"')) == 201
        connection.sendall(upgrade())
        assert b" 101 " in until(connection, b"\r\n\r\n")


def test_a_body_beside_an_unknown_upgrade_has_its_bounds(keyed: Site) -> None:
    key = b"Authorization: Bearer " + KEY_A.encode() + b"\r\n"
    large = post(b"h2c", b"Content-Length: 90000000\r\n\r\n", more=key)
    assert status_of(ask(keyed, large)) == 413
    both = post(b"h2c", b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello")
    assert status_of(ask(keyed, both)) == 400
    trailers = post(b"h2c", b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED[:-2] + key + b"\r\n")
    with plain(keyed) as connection:
        connection.sendall(trailers)
        assert status_of(until(connection, b"\r\n\r\n")) == 401, "a key in a trailer does not count"


def test_many_unknown_upgrades_at_once_are_a_pipeline_like_any(here: Site) -> None:
    one = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    answer = ask(here, one * 1000)
    assert 1 <= answer.count(b"HTTP/1.1 404") <= 33


def test_connect_is_refused(here: Site) -> None:
    answer = ask(here, b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert status_of(answer) == 400
    assert b"CONNECT" in answer


# --- to a WebSocket ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        b"Content-Length: 5\r\n\r\n",
        b"Content-Length: 5\r\n\r\nhe",
        b"Content-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_an_upgrade_with_a_body_is_refused_at_once(keyed: Site, more: bytes) -> None:
    answer = ask(keyed, upgrade()[:-2] + more)
    assert status_of(answer) == 400
    assert answer.count(b"HTTP/1.1") == 1


def test_an_upgrade_without_a_body_is_none_with_length_zero(keyed: Site) -> None:
    with plain(keyed) as connection:
        connection.sendall(upgrade(more=b"Content-Length: 0\r\n"))
        assert b"101" in until(connection, b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (upgrade(more=b"Authorization: Bearer no-such-key-at-all\r\n"), 401, "not_authenticated"),
        (upgrade(more=b"Origin: https://evil.test\r\n"), 403, "forbidden"),
        (upgrade().replace(b"Host: localhost", b"Host: evil.test"), 421, "wrong_host"),
        (upgrade(b"/nowhere"), 404, "not_found"),
        (upgrade(b"/v1/runs"), 404, "not_found"),
        (upgrade(b"/%ff"), 404, "not_found"),
        (upgrade().replace(b"Version: 13", b"Version: 12"), 400, "bad_request"),
        (upgrade().replace(b"Sec-WebSocket-Key", b"X-Key"), 400, "bad_request"),
        (upgrade(more=b"Sec-WebSocket-Key: zz\r\n"), 400, "bad_request"),
        (upgrade(more=b"Sec-WebSocket-Protocol: \xff\r\n"), 400, "bad_request"),
        (upgrade(more=b"Sec-WebSocket-Protocol: " + b"a," * 5000 + b"\r\n"), 400, "bad_request"),
        (upgrade(more=b"Upgrade: websocket\r\n"), 426, "bad_request"),
        (upgrade().replace(b"GET", b"POST"), 405, "method_not_allowed"),
    ],
)
def test_a_refused_upgrade_says_why(
    keyed: Site, request_bytes: bytes, status: int, code: str
) -> None:
    answer = ask(keyed, request_bytes)  # returns when the server closes
    head, _, body = answer.partition(b"\r\n\r\n")
    assert status_of(answer) == status
    assert json.loads(body)["error"]["code"] == code
    assert b"x-content-type-options: nosniff" in head.lower()
    assert b"no-such-key" not in answer


def test_wrong_keys_of_upgrades_are_slowed() -> None:
    with site(api_keys=KEYS, wrong_keys_per_minute=3) as here:
        wrong = upgrade(more=b"X-Api-Key: no-such-key-at-all\r\n")
        statuses = [status_of(ask(here, wrong)) for _ in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        assert b"retry-after" in ask(here, wrong).lower()


@pytest.mark.parametrize(
    "request_bytes",
    [
        upgrade(more=b"Cookie: a=" + b"x" * 12_000 + b"\r\n"),
        upgrade(b"/ws?" + b"x" * 12_000),
        upgrade(b"http://localhost/ws"),
        upgrade(more=b"X-Name: \xe9\xff\r\n"),
    ],
    ids=["cookie", "query", "absolute", "latin"],
)
def test_the_head_of_an_upgrade_has_the_bounds_of_any_other(
    here: Site, request_bytes: bytes
) -> None:
    with plain(here) as connection:
        connection.sendall(request_bytes)
        assert b" 101 " in until(connection, b"\r\n\r\n")
        connection.sendall(frame(1, b'{"op":"ping"}'))
        assert b"pong" in until(connection, b"}")


def test_http_1_0_knows_no_upgrade(here: Site) -> None:
    assert status_of(ask(here, upgrade().replace(b"HTTP/1.1", b"HTTP/1.0"))) == 404


def test_frames_that_come_with_the_upgrade_are_answered_behind_it(here: Site) -> None:
    with plain(here) as connection:
        connection.sendall(upgrade() + frame(9, b"x") + frame(1, b'{"op":"ping"}'))
        answer = until(connection, b'{"op":"pong"}')
    head, _, frames = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert frames.startswith(b"\x8a\x01x")


# --- frames ------------------------------------------------------------------------------------


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(8, struct.pack("!H", code) + reason)


@pytest.mark.parametrize("path", [b"/ws", b"/ag-ui", b"/api/chat/ws"])
@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (frame(1, b"\xff\xfe"), 1007),
        (frame(1, b"\xff", is_last=False) + frame(0, b"\xfe"), 1007),
        (frame(1, "\u20ac".encode()[:2]), 1007),
        (frame(1, b"\xed\xa0\x80"), 1007),
        (close(1000, b"\xff"), 1007),
        (frame(1, b"{}", reserved=4), 1002),
        (frame(1, b"{}", reserved=1), 1002),
        (frame(3, b"x"), 1002),
        (frame(11, b"x"), 1002),
        (frame(9, b"x", is_last=False), 1002),
        (frame(8, b"", is_last=False), 1002),
        (frame(9, b"x" * 126), 1002),
        (frame(8, b"\x03"), 1002),
        (close(999), 1002),
        (close(1005), 1002),
        (close(1006), 1002),
        (close(1015), 1002),
        (close(65535), 1002),
        (frame(0, b"x"), 1002),
        (frame(1, b"a", is_last=False) + frame(1, b"b"), 1002),
        (frame(1, b"a", is_last=False) + frame(8), 1002),
        (b"\x81\x02{}", 1002),
        (b"GET / HTTP/1.1\r\n\r\n", 1002),
        (b"\x81\xff" + struct.pack("!Q", 1 << 63) + b"aaaa", 1009),
        (b"\x81\xff" + struct.pack("!Q", 2 << 20) + b"aaaa", 1009),
        (frame(1, b"", is_last=False) + frame(0, b"", is_last=False) * 70, 1009),
        (close(1000), 1000),
        (close(3000, b"bye"), 3000),
    ],
)
def test_a_frame_that_breaks_the_rules_closes_with_its_code(
    here: Site, caplog: pytest.LogCaptureFixture, path: bytes, frames: bytes, code: int
) -> None:
    with plain(here) as connection, caplog.at_level(logging.WARNING):
        connection.sendall(upgrade(path))
        assert b" 101 " in until(connection, b"\r\n\r\n")
        connection.sendall(frames)
        answer = connection.recv(4, socket.MSG_WAITALL)
        with contextlib.suppress(OSError):  # it may have closed by now
            connection.shutdown(socket.SHUT_WR)  # else it waits some seconds for our close
        rest_of(connection)
    assert answer[:1] == b"\x88"
    assert struct.unpack("!H", answer[2:4])[0] == code
    assert not caplog.records


def test_a_broken_frame_beside_a_stream_is_no_error_of_the_server(
    here: Site, caplog: pytest.LogCaptureFixture
) -> None:
    start = b'{"op":"start","request":{"prompt":"scenario:slow"}}'
    with plain(here) as connection, caplog.at_level(logging.WARNING):
        connection.sendall(upgrade() + frame(1, start))
        until(connection, b"text-delta")
        connection.sendall(frame(1, b"\xff\xfe"))
        answer = rest_of(connection)
    at = answer.rindex(b"\x88")
    assert struct.unpack("!H", answer[at + 2 : at + 4])[0] == 1007
    assert not caplog.records


# --- the log -----------------------------------------------------------------------------------


def test_malformed_requests_do_not_flood_the_log(
    here: Site, caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> list[int]:
        """Of how many malformed requests each line tells."""
        lines = [r.getMessage() for r in caplog.records if "malformed HTTP" in r.getMessage()]
        more = "more of them"
        return [int(x.rpartition("(")[2].split()[0]) if more in x else 1 for x in lines]

    with caplog.at_level(logging.INFO):
        for _ in range(100):
            assert status_of(ask(here, b"\x16\x03\x01 no HTTP\r\n\r\n")) == 400
        with plain(here):  # the loop turns until the count has been said
            until_true(lambda: sum(told()) == 100)
    assert len(told()) < 50
