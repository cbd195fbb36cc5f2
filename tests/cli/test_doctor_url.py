"""``tokenwire doctor URL`` through Debian's nginx, HAProxy and Caddy, set wrongly on purpose."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from support.cli import run
from support.reverse_proxy import proxy_with
from support.server import AS_A, KEY_A, KEYS
from tokenwire.cli.finding import Finding
from tokenwire.cli.path.advice import advice_for, kind_of
from tokenwire.cli.path.assess import assess_burst, assess_first, assess_long
from tokenwire.cli.path.measure import Piece, Stream
from tokenwire.cli.path.run import path_findings
from tokenwire.server.app import create_app
from tokenwire.server.probe.routes import MOST_BURST
from tokenwire.server.settings import Settings
from tokenwire.server.start import ThreadedServer

HEARTBEAT = 3.0
_HEADERS = """
proxy_set_header Host $http_host; proxy_set_header Connection $kind;
proxy_set_header Upgrade $http_upgrade;
"""
_MAP = 'set $kind ""; if ($http_upgrade) { set $kind upgrade; }'


def nginx(lines: str = "", headers: str = _HEADERS) -> str:
    place = f"location / {{ proxy_pass http://127.0.0.1:UPSTREAM; {headers} {lines} }}"
    return f"{_MAP} {place}"


def caddy(lines: str = "", site: str = "") -> str:
    return f"{site}\n reverse_proxy 127.0.0.1:UPSTREAM {{\n {lines}\n }}"


V11 = "proxy_http_version 1.1;"
#: Name -> the proxy, its lines, and what must be broken then, with a word of the advice.
CASES: dict[str, tuple[str, str, dict[str, str]]] = {
    "nginx": ("nginx", nginx(V11), {}),
    # Even so it passes on what it has at once.
    "nginx-buffers": ("nginx", nginx(f"{V11} proxy_ignore_headers X-Accel-Buffering;"), {}),
    "nginx-1.0": (
        "nginx",
        nginx("proxy_http_version 1.0;"),
        {"protocol": "proxy_http_version 1.1", "WebSocket": "Upgrade $http_upgrade"},
    ),
    "nginx-packs": (
        "nginx",
        nginx(f"{V11} gzip_types text/event-stream; gzip_min_length 0;"),
        {"compression": "gzip_types"},
    ),
    "nginx-impatient": (
        "nginx",
        nginx(f"{V11} proxy_read_timeout 1500ms;"),
        {"long stream": "proxy_read_timeout"},
    ),
    "nginx-no-upgrade": (
        "nginx",
        nginx(V11, "proxy_set_header Host $http_host;"),
        {"WebSocket": "Upgrade $http_upgrade"},
    ),
    "nginx-forgets": (
        "nginx",
        nginx(f'{V11} proxy_set_header Last-Event-ID "";'),
        {"Last-Event-ID": "Last-Event-ID"},
    ),
    "nginx-no-key": (
        "nginx",
        nginx(f'{V11} proxy_set_header Authorization "";'),
        {"server": "Authorization"},
    ),
    "nginx-other-host": (
        "nginx",
        nginx(V11, "proxy_set_header Host chat.example;"),
        {"server": "--allow-host"},
    ),
    "haproxy": ("haproxy", "", {}),
    "haproxy-impatient": (
        "haproxy",
        "timeout server 1500",
        {"long stream": "timeout server"},
    ),
    "haproxy-forgets": (
        "haproxy",
        "http-request del-header Last-Event-ID",
        {"Last-Event-ID": "Last-Event-ID"},
    ),
    "caddy": ("caddy", caddy(), {}),
    # Both obey the server's no-transform, which nginx does not.
    "haproxy-packs": ("haproxy", "compression algo gzip\n compression type text/event-stream", {}),
    "caddy-packs": (
        "caddy",
        caddy(site="encode {\n gzip\n minimum_length 0\n match header Content-Type text/*\n }"),
        {},
    ),
    "caddy-buffers": (
        "caddy",
        caddy("buffer_responses"),
        {"buffering": "buffer_responses", "WebSocket": "Upgrade"},
    ),
    "caddy-impatient": (
        "caddy",
        caddy("transport http {\n read_timeout 1500ms\n }"),
        {"long stream": "read_timeout"},
    ),
    "caddy-forgets": (
        "caddy",
        caddy("header_up -Last-Event-ID"),
        {"Last-Event-ID": "Last-Event-ID"},
    ),
}


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadedServer]:
    with ThreadedServer(create_app(Settings(port=0, api_keys=KEYS, heartbeat=HEARTBEAT))) as server:
        yield server


@pytest.fixture(scope="module")
def findings(server: ThreadedServer) -> Iterator[dict[str, list[Finding]]]:
    """The findings of all cases, looked for at once."""

    async def look(url: str) -> list[Finding]:
        return [each async for each in path_findings(url, KEY_A, seconds=4.0, ticking=2.0)]

    async def all_of(urls: dict[str, str]) -> dict[str, list[Finding]]:
        return dict(zip(urls, await asyncio.gather(*map(look, urls.values())), strict=True))

    with ExitStack() as stack:
        urls = {}
        for name, (kind, lines, _) in CASES.items():
            body = lines.replace("UPSTREAM", str(server.port))
            urls[name] = stack.enter_context(proxy_with(kind, body, server.port)).url
        yield asyncio.run(all_of(urls))


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_setting_is_found_with_its_remedy(
    findings: dict[str, list[Finding]], name: str
) -> None:
    _, _, wrong = CASES[name]
    broken = {each.what: each.advice for each in findings[name] if each.state == "broken"}
    if not name.endswith("impatient"):  # such a proxy cuts what a slow machine sends, too
        assert set(broken) == set(wrong), findings[name]
    for what, word in wrong.items():
        assert word in broken.get(what, "")
    if "server" not in wrong:
        assert {"order under load", "long stream"} <= {each.what for each in findings[name]}


def test_the_command_prints_findings_and_its_exit_code_tells(server: ThreadedServer) -> None:
    done = run("doctor", server.url, "--seconds", "0", "--json", TOKENWIRE_API_KEY=KEY_A)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"ok"} == {each["state"] for each in json.loads(done.stdout)}
    done = run("doctor", server.url, "--api-key", "wrong-key-of-somebody")
    assert done.returncode == 1
    assert done.stdout.startswith("BROKEN")
    assert "key" in done.stdout
    assert "wrong-key-of-somebody" not in done.stdout + done.stderr


def test_an_address_that_is_none_is_told_in_one_line() -> None:
    done = run("doctor", "chat.example")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "http://" in done.stderr


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("seconds=0", "seconds"),
        ("seconds=301", "seconds"),
        ("seconds=nan", "seconds"),
        ("interval=0.01", "interval"),
        ("interval=inf", "interval"),
        (f"burst={MOST_BURST + 1}", "burst"),
        ("burst=-1", "burst"),
        ("speed=1", "speed"),
    ],
)
def test_a_probe_is_bounded(server: ThreadedServer, query: str, field: str) -> None:
    answer = httpx.get(f"{server.url}/v1/probe?{query}", headers=AS_A)
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, field)


def test_a_probe_needs_a_key_and_repeats_none(server: ThreadedServer) -> None:
    assert httpx.get(f"{server.url}/v1/probe").status_code == 401
    answer = httpx.get(f"{server.url}/v1/probe?seconds=0.1&interval=0.05", headers=AS_A)
    assert KEY_A not in answer.text
    assert '"authorization":true' in answer.text
    assert httpx.head(f"{server.url}/v1/probe", headers=AS_A).content == b""


def stream(*events: dict, comments: int = 0, ended: float = 1.0) -> Stream:
    pieces = [Piece(event.pop("arrived", event["at"]), [event], 0) for event in events]
    if comments:
        pieces.append(Piece(ended, [], comments))
    return Stream(status=200, headers={}, pieces=pieces, ended=ended)


SEEN = {"type": "seen", "at": 0.0, "http_version": "1.1", "last_event_id": "doctor-1"}


def tick(at: float, arrived: float) -> dict:
    return {"type": "tick", "at": at, "arrived": arrived}


def test_a_slow_line_is_not_a_buffer() -> None:
    """Each event comes seconds late, and each by itself."""
    late = [tick(n / 10, n / 10 + 2 + n % 3 * 0.3) for n in range(20)]
    found = {each.what: each.state for each in assess_first(stream(SEEN, *late), has_key=False)}
    assert found["buffering"] == "ok"
    assert found["server"] == "ok"


def test_one_pause_of_the_reader_is_not_a_buffer() -> None:
    """Some events together after a pause, as on a machine that slept, and others by themselves."""
    ticks = [tick(n / 10, max(n / 10, 1.2)) for n in range(5)]
    whole = stream(SEEN, *ticks, *(tick(n / 10, n / 10) for n in range(12, 30)))
    assert {e.what: e.state for e in assess_first(whole, has_key=False)}["buffering"] == "ok"


def test_the_age_that_ends_a_stream_is_told_from_silence() -> None:
    def advice(whole: Stream) -> str:
        (finding,) = assess_long(whole, seconds=70, heartbeat=15)
        assert finding.state == "broken"
        return finding.advice

    age, silence = "max-age", "heartbeat"
    after_comments = stream(SEEN, {"type": "other", "at": 30.0}, ended=37.0)
    after_comments.pieces[1].comments = 2
    assert age in advice(after_comments)
    assert silence not in advice(after_comments)
    at_once = stream(SEEN, ended=10.0)
    assert age in advice(at_once)
    assert silence in advice(at_once)
    swallowed = stream(SEEN, ended=60.0)
    assert age not in advice(swallowed)
    assert silence in advice(swallowed)


def test_heartbeats_that_do_not_arrive_are_missed() -> None:
    end = {"type": "end", "at": 35.0, "comments": 2, "left": None}
    whole = [*assess_long(stream(SEEN, end, comments=2), seconds=35, heartbeat=15)]
    assert [each.state for each in whole] == ["ok", "ok"]
    less = [*assess_long(stream(SEEN, {**end}, comments=1), seconds=35, heartbeat=15)]
    assert [each.state for each in less] == ["ok", "broken"]


def test_a_changed_burst_is_broken() -> None:
    burst = [{"type": "burst", "n": n, "at": 0.0} for n in range(3)]
    end = {"type": "burst-end", "sha256": "", "at": 0.0}
    assert assess_burst(stream(SEEN, *burst, end), 3).state == "ok"
    assert assess_burst(stream(SEEN, *burst[:2], end), 3).state == "broken"
    assert assess_burst(stream(SEEN, *burst), 3).state == "broken"
    assert assess_burst(stream(SEEN, *burst, {**end, "sha256": "other"}), 3).state == "broken"


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"server": "nginx/1.22.1"}, "nginx"),
        ({"via": "1.1 Caddy"}, "caddy"),
        ({"server": "cloudflare", "cf-ray": "8f-FRA"}, "cloudflare"),
        ({"server": "tokenwire"}, ""),
        ({}, ""),
    ],
)
def test_proxies_are_known_by_their_headers(headers: dict[str, str], kind: str) -> None:
    assert kind_of(headers) == kind
    assert advice_for("buffered", kind)
