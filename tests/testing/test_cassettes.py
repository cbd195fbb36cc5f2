"""Cassettes: what providers send is recorded, and played to the same request, with every fault."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import anthropic
import openai
import pytest

import tokenwire
from support.recorded_upstream import upstream
from tokenwire.errors import ConfigError
from tokenwire.providers.registry import Registry
from tokenwire.simulator.faults import FAULTS, FaultPlan
from tokenwire.simulator.playback import Close, Send, Silence
from tokenwire.testing import Cassette
from tokenwire.testing.cassettes.file import read_cassette
from tokenwire.testing.cassettes.playing import keeps_all, played

KEY = "sk-proj-abcdefgh12345678"


@pytest.fixture(scope="module")
def provider():
    with upstream() as served:
        yield served


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cassettes" / "test.json"


def send(cassette, address, body=None, *, method="GET", headers=None):
    """Status, headers, body, and the error by which the body ended, if one did."""
    url = urlsplit(cassette.url(address))
    connection = http.client.HTTPConnection(url.netloc, timeout=60)
    content = None if body is None else json.dumps(body)
    sent = {"content-type": "application/json"} if body is not None else {}
    connection.request(method, url.path, content, {**sent, **(headers or {})})
    response = connection.getresponse()
    data, failure = b"", None
    try:
        while piece := response.read1():
            data += piece
    except (http.client.HTTPException, OSError) as error:
        failure = error
    connection.close()
    return response.status, dict(response.headers), data, failure


# --- clients -------------------------------------------------------------------------------------


def ask_openai(base):
    client = openai.OpenAI(base_url=base, api_key=KEY, max_retries=0)
    stream = client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "scenario:tool"}], stream=True
    )
    return [chunk.model_dump() for chunk in stream]


def ask_responses(base):
    client = openai.OpenAI(base_url=base, api_key=KEY, max_retries=0)
    return client.responses.create(model="m", input="Hello").output_text


def ask_anthropic(base):
    client = anthropic.Anthropic(base_url=base.removesuffix("/v1"), api_key=KEY, max_retries=0)
    messages = [{"role": "user", "content": "Hello"}]
    with client.messages.stream(model="m", max_tokens=60, messages=messages) as stream:
        return [event.model_dump() for event in stream]


def ask_tokenwire(base):
    async def main():
        env = {"OPENAI_BASE_URL": base, "OPENAI_API_KEY": KEY}
        registry = Registry(env=env)
        async with tokenwire.stream("Hi", model="openai:m", registry=registry) as run:
            return (await run.result()).text

    return asyncio.run(main())


@pytest.mark.parametrize("ask", [ask_openai, ask_responses, ask_anthropic, ask_tokenwire])
def test_a_client_gets_the_same_without_a_provider(provider, path, ask):
    base = provider.models + "/v1"
    with Cassette(path, mode="new") as cassette:
        expected = ask(cassette.url(base))
    assert expected
    text = path.read_text("utf-8")
    assert KEY not in text
    assert "authorization" not in text.lower()
    assert "x-api-key" not in text.lower()
    with Cassette(path) as cassette:
        assert cassette.unused == [f"POST {read_cassette(path)[0].url}"]
        assert ask(cassette.url(base)) == expected
        assert cassette.unused == []


def test_the_environment_leads_every_client_here(provider, path):
    """The same variable has /v1 at its end for tokenwire, and not for Anthropic's SDK."""
    own = provider.models
    env = {"OPENAI_BASE_URL": f"{own}/v1", "ANTHROPIC_BASE_URL": f"{own}/v1"}
    env |= {"GOOGLE_GEMINI_BASE_URL": own, "HTTPS_PROXY": "http://proxy.example:1"}

    def ask_all(variables):
        client = anthropic.Anthropic(base_url=variables["ANTHROPIC_BASE_URL"], api_key="k")
        messages = [{"role": "user", "content": "Hello"}]
        sdk = client.messages.create(model="m", max_tokens=9, messages=messages)

        async def main(model):
            registry = Registry(env=variables)
            async with tokenwire.stream("Hi", model=model, registry=registry) as run:
                return (await run.result()).text

        ours = [asyncio.run(main(model)) for model in ("anthropic:m", "openai-responses:m")]
        return [sdk.content[0].text, *ours]

    keys = {"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k"}
    with Cassette(path, mode="new") as cassette:
        changed = cassette.env(env)
        assert changed["NO_PROXY"] == "127.0.0.1"
        assert "OPENAI_API_KEY" not in changed
        assert changed["GOOGLE_GEMINI_BASE_URL"] == cassette.url(own)
        expected = ask_all({**changed, **keys})
    with Cassette(path) as cassette:
        changed = cassette.env(env)
        assert {changed[name] for name in keys} == {"replayed"}, "what the file needs has a key"
        assert "GROQ_API_KEY" not in changed
        assert ask_all(changed) == expected
        assert cassette.env({**env, **keys}).keys().isdisjoint(keys)


# --- recording -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "status", "content", "end"),
    [
        ("/gzip", 200, b"a secret [redacted]", "complete"),
        ("/deflate", 200, b"text", "complete"),
        ("/image", 200, bytes(range(256)), "complete"),
        ("/nothing", 204, b"", "complete"),
        ("/busy", 429, b'{"error": {"message": "Rate limit of [redacted]"}}', "complete"),
        ("/cut", 200, b"data: 1\n\n", "cut"),
        ("/reset", 200, b"data: 1\n\n", "reset"),
    ],
)
def test_whatever_comes_is_recorded_and_played(provider, path, place, status, content, end):
    with Cassette(path, mode="new") as cassette:
        first = send(cassette, provider.odd + place)
    (exchange,) = read_cassette(path)
    assert (exchange.status, exchange.content, exchange.end) == (status, content, end)
    with Cassette(path) as cassette:
        again = send(cassette, provider.odd + place)
    assert (again[0], again[2]) == (status, content)
    assert (again[3] is None) == (first[3] is None) == (end == "complete")
    assert again[1].get("retry-after") == first[1].get("retry-after")
    assert "content-encoding" not in again[1]
    assert "acme" not in path.read_text("utf-8")


def test_only_headers_that_matter_are_kept_and_more_on_demand(provider, path):
    sent = {"authorization": f"Bearer {KEY}", "cookie": "a=cookie-of-mine"}
    with Cassette(path, mode="new", headers=["X-Request-Id"]) as cassette:
        _, headers, _, _ = send(cassette, provider.odd + "/a", {"a": 1}, headers=sent)
    method, target, seen, body = provider.requests[-1]
    assert (method, target, json.loads(body)) == ("GET", "/a", {"a": 1})
    assert seen["authorization"] == f"Bearer {KEY}"
    assert seen["accept-encoding"] == "identity"
    assert seen["host"] == provider.odd.removeprefix("http://")
    (exchange,) = read_cassette(path)
    assert exchange.headers == {"content-type": "application/json"}
    assert exchange.response_headers == {"content-type": "text/plain", "x-request-id": "req-1"}
    assert headers["x-request-id"] == "req-1"
    text = path.read_text("utf-8")
    assert not [one for one in ("cookie", KEY, "session") if one in text]


def test_a_response_whose_client_left_is_recorded_to_its_end(provider, path):
    provider.release.clear()
    with Cassette(path, mode="new") as cassette:
        url = urlsplit(cassette.url(provider.odd + "/held"))
        connection = http.client.HTTPConnection(url.netloc, timeout=60)
        connection.request("GET", url.path)
        assert connection.getresponse().read1() == b"first "
        connection.close()
        provider.release.set()
    (exchange,) = read_cassette(path)
    assert (exchange.content, exchange.end) == (b"first second", "complete")
    first, last = exchange.chunks
    assert exchange.wait <= first.at <= last.at


def test_a_response_that_never_ends_is_recorded_as_open(provider, path):
    with Cassette(path, mode="new", drain=0.01) as cassette:
        url = urlsplit(cassette.url(provider.odd + "/stalled"))
        connection = http.client.HTTPConnection(url.netloc, timeout=60)
        connection.request("GET", url.path)
        assert connection.getresponse().read1() == b"first"
    connection.close()
    (exchange,) = read_cassette(path)
    assert (exchange.content, exchange.end) == (b"first", "open")
    assert list(played(exchange, 1.0, FaultPlan(), 1, "/").actions)[-1] == Silence()


def test_a_request_that_never_gets_a_response_is_said(path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(AssertionError, match=f"GET {address}/x had no response"):
            with Cassette(path, mode="new", drain=0.01) as cassette:
                url = urlsplit(cassette.url(f"{address}/x"))
                with socket.create_connection((url.hostname, url.port)) as client:
                    client.sendall(f"GET {url.path}?key=k HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                    provider, _ = silent.accept()  # it was passed on, and waits
        provider.close()
    assert not path.exists()


@pytest.mark.parametrize(
    ("place", "message"),
    [("/br", "compressed with br"), ("/damaged", "compressed content is damaged")],
)
def test_what_cannot_be_searched_for_secrets_is_not_recorded(provider, path, place, message):
    with pytest.raises(AssertionError, match=f"{place} was not recorded: .*{message}"):
        with Cassette(path, mode="new") as cassette:
            send(cassette, provider.odd + place)
    assert not path.exists()


def test_a_request_in_an_unknown_compression_is_refused(provider, path):
    with pytest.raises(AssertionError, match="compressed with zstd"):
        with Cassette(path, mode="new") as cassette:
            status, *_ = send(cassette, provider.odd, {}, headers={"content-encoding": "zstd"})
            assert status == 400


def test_a_provider_that_is_not_there_is_said(path):
    with pytest.raises(AssertionError, match=r"GET http://127\.0\.0\.1:9/x was not recorded"):
        with Cassette(path, mode="new") as cassette:
            status, _, body, _ = send(cassette, "http://127.0.0.1:9/x")
            assert (status, json.loads(body)["error"]["code"]) == (502, "cassette_error")
    assert not path.exists()


def test_a_key_in_an_address_is_in_no_text(path):
    for base, headers in (
        ("http://127.0.0.1:9/x", {}),
        ("http://a.example", {"upgrade": "websocket"}),
    ):
        with pytest.raises(AssertionError) as failure:
            with Cassette(path, mode="new") as cassette:
                url = urlsplit(cassette.url(base))
                connection = http.client.HTTPConnection(url.netloc, timeout=60)
                connection.request("GET", f"{url.path}?key=sesame123", headers=headers)
                assert b"sesame" not in connection.getresponse().read()
                connection.close()
        assert "sesame" not in str(failure.value)


def test_a_secret_that_is_left_is_refused_and_the_file_stays(provider, path):
    with Cassette(path, mode="new") as cassette:
        send(cassette, provider.odd + "/a")
    before = path.read_bytes()
    for mode in ("new", "all"):
        with pytest.raises(AssertionError, match=r"(?s)would hold:.*/leak\): a private key in the"):
            with Cassette(path, mode=mode) as cassette:
                send(cassette, provider.odd + "/b")
                send(cassette, provider.odd + "/leak")
        assert path.read_bytes() == before
    with Cassette(path, mode="new", allow=["-----BEGIN PRIVATE KEY-----"]) as cassette:
        send(cassette, provider.odd + "/leak")
    assert len(read_cassette(path)) == 2


def test_new_adds_all_replaces_and_none_reaches_nobody(provider, path):
    a, b = f"{provider.odd}/a", f"{provider.odd}/b"
    with Cassette(path, mode="new") as cassette:
        first = send(cassette, a)[2]
    with Cassette(path, mode="new") as cassette:
        assert send(cassette, a)[2] == first
        second = send(cassette, b)[2]
    assert [one.content for one in read_cassette(path)] == [first, second]
    sent = len(provider.requests)
    with Cassette(path) as cassette:
        assert [send(cassette, one)[2] for one in (b, a)] == [second, first]
    assert len(provider.requests) == sent
    with Cassette(path, mode="all") as cassette:
        third = send(cassette, b)[2]
        assert third != second
    assert [one.content for one in read_cassette(path)] == [third]
    with Cassette(path, mode="all"):
        pass
    assert len(read_cassette(path)) == 1, "nothing was asked, so nothing is replaced"


def test_concurrent_and_equal_requests_are_told_apart(provider, path):
    with Cassette(path, mode="new") as cassette:
        with ThreadPoolExecutor(8) as pool:
            bodies = [{"n": n % 4} for n in range(12)]
            expected = list(pool.map(lambda b: send(cassette, provider.odd, b)[2], bodies))
    assert len(set(expected)) == 12
    recorded = {n: [] for n in range(4)}
    for one in read_cassette(path):
        recorded[one.body.value["n"]].append(one.content)
    with Cassette(path) as cassette:
        with ThreadPoolExecutor(8) as pool:
            again = list(pool.map(lambda b: send(cassette, provider.odd, b)[2], bodies))
        assert sorted(again) == sorted(expected)
    with Cassette(path) as cassette:  # one after another: in the recorded order
        for n, contents in recorded.items():
            assert [send(cassette, provider.odd, {"n": n})[2] for _ in contents] == contents


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "text/plain;charset=UTF-8"])
def test_json_is_data_whatever_it_is_called(provider, path, kind):
    with Cassette(path, mode="new") as cassette:
        send(cassette, provider.odd, {"a": 1, "b": 2}, headers={"content-type": kind})
    with Cassette(path) as cassette:
        send(cassette, provider.odd, {"b": 2, "a": 1})


def test_a_multipart_body_matches_under_another_boundary(provider, path):
    def upload(cassette, boundary):
        url = urlsplit(cassette.url(provider.odd + "/v1/files"))
        connection = http.client.HTTPConnection(url.netloc, timeout=60)
        data = f"--{boundary}\r\n\r\n".encode() + b"\xff\x00" + f"\r\n--{boundary}--".encode()
        kind = f'multipart/form-data; boundary="{boundary}"'
        connection.request("POST", url.path, data, {"content-type": kind})
        content = connection.getresponse().read()
        connection.close()
        return content

    with Cassette(path, mode="new") as cassette:
        expected = upload(cassette, "one-1")
    with Cassette(path) as cassette:
        assert upload(cassette, "other-22") == expected


# --- what is not recorded ------------------------------------------------------------------------


def test_an_unrecorded_request_fails_with_what_was_asked_and_what_there_is(provider, path):
    url = provider.odd + "/v1/chat"
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    with Cassette(path, mode="new") as cassette:
        send(cassette, provider.odd + "/other", {"model": "m"}, method="POST")
        send(cassette, url, body, method="POST")
    sent = len(provider.requests)
    asked = {**body, "messages": [{"role": "user", "content": "Hello"}], "top_p": 1}
    with pytest.raises(AssertionError) as failure:
        with Cassette(path) as cassette:
            status, headers, answer, _ = send(cassette, url, asked, method="POST")
    assert len(provider.requests) == sent
    assert (status, headers["x-should-retry"]) == (400, "false")
    text = str(failure.value)
    assert json.loads(answer)["error"]["message"] == text
    assert text.splitlines() == [
        f"POST {url} is not in the cassette {path}",
        "  the nearest of 2 recordings is exchange 2:",
        '    messages.0.content: requested "Hello"',
        '                        recorded  "Hi"',
        "    top_p: requested 1",
        "           recorded  nothing",
        "  a field that does not matter: ignore=['the.path']",
        "  to record it: pytest --tokenwire-record (or mode='new')",
    ]
    with Cassette(path, ignore=["messages.*.content", "top_p"]) as cassette:
        assert send(cassette, url, asked, method="POST")[0] == 200


def test_a_request_that_comes_once_more_than_recorded_is_said(provider, path):
    with Cassette(path, mode="new") as cassette:
        expected = send(cassette, provider.odd + "/a")[2]
    with pytest.raises(AssertionError, match=r"is in the cassette .* once, and was sent once more"):
        with Cassette(path) as cassette:
            send(cassette, provider.odd + "/a")
            send(cassette, provider.odd + "/a")
    with Cassette(path, repeats=True) as cassette:
        assert [send(cassette, provider.odd + "/a")[2] for _ in range(3)] == [expected] * 3


def test_the_clients_error_has_the_reason_as_a_note(path):
    with pytest.raises(openai.BadRequestError) as failure:
        with Cassette(path) as cassette:
            ask_openai(cassette.url("https://api.openai.com/v1"))
    (note,) = failure.value.__notes__
    assert "https://api.openai.com/v1/chat/completions is not in the cassette" in note
    assert "there is no such file" in note


def test_what_is_no_address_of_a_cassette_is_said(path):
    with pytest.raises(AssertionError, match=r"/v1/models is no address .*cassette\.url"):
        with Cassette(path) as cassette:
            url = urlsplit(cassette.url("https://a.example"))
            connection = http.client.HTTPConnection(url.netloc)
            connection.request("GET", "/v1/models")
            assert connection.getresponse().status == 400
            connection.close()
    with pytest.raises(AssertionError, match="WebSockets are not recorded"):
        with Cassette(path, mode="new") as cassette:
            send(cassette, "https://a.example/v1/realtime", headers={"upgrade": "websocket"})


def test_settings_that_mean_nothing_are_refused(path):
    for settings in ({"mode": "once"}, {"speed": 0}, {"speed": -1.0}, {"faults": "no-such"}):
        with pytest.raises(ConfigError):
            Cassette(path, **settings)
    with Cassette(path) as cassette, pytest.raises(ConfigError, match="not an http"):
        cassette.url("ftp://a.example")
    with pytest.raises(RuntimeError, match="not open"):
        Cassette(path).url("https://a.example")


# --- faults --------------------------------------------------------------------------------------

CHAT = {
    "model": "m",
    "stream": True,
    "messages": [{"role": "user", "content": "scenario:text"}],
}
MESSAGE = {**CHAT, "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}
WIRES = {
    "chat": ("/v1/chat/completions", CHAT),
    "anthropic": ("/v1/messages", MESSAGE),
    "responses": ("/v1/responses", {"model": "m", "stream": True, "input": "Hello"}),
    "ollama": ("/api/chat", MESSAGE),
}


@pytest.fixture(scope="module")
def recorded(provider, tmp_path_factory):
    """A cassette with a stream of each wire, and its exchanges by wire."""
    path = tmp_path_factory.mktemp("wires") / "wires.json"
    with Cassette(path, mode="new") as cassette:
        for place, body in WIRES.values():
            send(cassette, provider.models + place, body, method="POST")
    return path, dict(zip(WIRES, read_cassette(path), strict=True))


def play(exchange, faults, count=1, speed=float("inf")):
    """Status, body, last action, and seconds until then."""
    reply = played(exchange, speed, FaultPlan.parse(faults), count, urlsplit(exchange.url).path)
    seconds, data, last = reply.wait, b"", None
    for action in reply.actions:
        if isinstance(action, Send):
            data, seconds = data + action.data, seconds + action.delay
        else:
            last = action
    return reply.status, data, last, seconds


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("kind", [kind for kind in FAULTS if kind != "seed"])
def test_every_fault_goes_over_every_recording(recorded, wire, kind):
    exchange = recorded[1][wire]
    plan = {"status": "status@418", "slow-start": "slow-start@9"}.get(kind, kind)
    status, data, last, seconds = play(exchange, plan)
    changed = (status, data, last, seconds) != play(exchange, "")
    if kind in ("bom", "crlf", "cr", "comments", "no-space", "no-last-newline", "split"):
        assert keeps_all(FaultPlan.parse(kind))
    if kind == "split":
        assert data == exchange.content
        sends = played(exchange, float("inf"), FaultPlan.parse("split@1"), 1, "/").actions
        assert {len(one.data) for one in sends if isinstance(one, Send)} == {1}
    elif kind == "no-space" and wire == "ollama":
        assert not changed, "lines of JSON have no fields"
    elif kind == "no-finish" and wire in ("responses", "ollama"):
        assert play(exchange, "no-terminal")[1] == data, "one frame is both"
    else:
        assert changed
    if kind in ("error", "error-200"):
        assert b"imulated error" in data
    if kind in ("rate-limit", "overloaded"):
        assert status in (429, 503, 529)
        assert play(exchange, kind, count=2) == play(exchange, "")
    if kind == "no-terminal":
        assert exchange.content.startswith(data.rstrip())
        assert last == Close("end")


def test_bytes_and_ends_are_cut_where_the_plan_says(recorded):
    exchange = recorded[1]["chat"]
    for kind, last in (
        ("cut-end", Close("end", early=True)),
        ("cut-fin", Close("fin", early=True)),
        ("cut-rst", Close("rst", early=True)),
        ("stall", Silence()),
    ):
        for at in (0, 1, 1000, len(exchange.content) - 1):
            assert play(exchange, f"{kind}@{at}")[1:3] == (exchange.content[:at], last)


def test_a_recording_is_played_in_its_own_time_or_another(recorded):
    exchange = recorded[1]["anthropic"]
    last = exchange.chunks[-1].at
    assert play(exchange, "", speed=1.0)[3] == pytest.approx(last)
    assert play(exchange, "", speed=4.0)[3] == pytest.approx(last / 4)
    assert play(exchange, "")[3] == 0.0
    # Events that a fault takes apart are due when their last byte was.
    assert play(exchange, "comments", speed=1.0)[3] == pytest.approx(last)


def test_a_client_that_comes_back_after_a_fault_gets_the_recording(recorded):
    path, exchanges = recorded
    url, content = exchanges["chat"].url, exchanges["chat"].content
    with Cassette(path, faults=["rate-limit", "cut-rst@700", ""]) as cassette:
        status, headers, _, _ = send(cassette, url, CHAT, method="POST")
        assert (status, headers["retry-after"]) == (429, "1")
        _, _, data, failure = send(cassette, url, CHAT, method="POST")
        assert failure is not None
        assert content.startswith(data)
        assert send(cassette, url, CHAT, method="POST")[2:] == (content, None)
        cassette.replay(faults="cut-end@10")
        url = exchanges["anthropic"].url
        assert send(cassette, url, MESSAGE, method="POST")[2] == exchanges["anthropic"].content[:10]
        sent = {"x-sim-faults": "status@503"}
        assert send(cassette, url, MESSAGE, method="POST", headers=sent)[0] == 503


def test_an_sdk_retries_what_a_fault_refused(recorded):
    path, exchanges = recorded
    base = exchanges["chat"].url.removesuffix("/chat/completions")
    with Cassette(path, faults="overloaded@1:0") as cassette:
        client = openai.OpenAI(base_url=cassette.url(base), api_key="k", max_retries=1)
        stream = client.chat.completions.create(**CHAT)
        assert list(stream)[-1].choices[0].finish_reason == "stop"


# --- pytest --------------------------------------------------------------------------------------

USER_TESTS = """
import http.client, json, os, pytest
from urllib.parse import urlsplit

@pytest.fixture(scope="session")
def cassette_config():
    return {"redact": ["Ann Smith"]}

def ask(text):
    url = urlsplit(os.environ["OPENAI_BASE_URL"])
    client = http.client.HTTPConnection(url.netloc)
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    key = {"authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
    client.request("POST", url.path + "/chat/completions", json.dumps(body), key)
    return client.getresponse().status == 200

def test_fixture(cassette):
    assert ask("I am Ann Smith")

@pytest.mark.cassette("own.json", ignore=["messages.0.content"])
def test_marker():
    assert ask("Hello " + os.environ["UPSTREAM"])

class TestMore:
    @pytest.mark.parametrize("n", ["a b", "c"])
    @pytest.mark.cassette
    def test_each(self, n):
        ask(n + os.environ.get("MORE", ""))  # a client that hides its errors

def test_none():
    assert "127.0.0.1" not in os.environ.get("GROQ_BASE_URL", "")
"""


def test_the_plugin_records_and_plays(provider, tmp_path):
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "test_user.py").write_text(USER_TESTS, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")

    def run(*more, **env):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += ["-p", "no:schemathesis", "-p", "no:valkey", "-p", "no:randomly", *more]
        known = {name: value for name, value in os.environ.items() if "_API_KEY" not in name}
        known |= {"UPSTREAM": provider.models, "OPENAI_BASE_URL": f"{provider.models}/v1"}
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=200, env={**known, **env}
        )
        return done.stdout + done.stderr

    assert "5 passed" in run("--tokenwire-record", "tests", OPENAI_API_KEY=KEY)
    files = sorted(str(one.relative_to(folder)) for one in folder.rglob("*.json"))
    own = "cassettes/test_user/test_"
    assert files == [
        *(f"{own}{name}.json" for name in ("each[a_b]", "each[c]", "fixture")),
        "own.json",
    ]
    assert "Ann" not in (folder / f"{own}fixture.json").read_text("utf-8")
    # Without a key, and with requests that are not recorded, whatever becomes of the error.
    output = run("--tokenwire-record-mode=none", MORE="!")
    assert "2 failed, 3 passed" in output
    assert 'messages.0.content: requested "c!"' in output
