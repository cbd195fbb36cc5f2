"""The parts of a cassette: its file, what a request means, what is redacted or refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwire.errors import ConfigError
from tokenwire.testing.cassettes.file import (
    Body,
    Chunk,
    Exchange,
    read_cassette,
    write_cassette,
)
from tokenwire.testing.cassettes.matching import REDACTED, differences, meaning
from tokenwire.testing.cassettes.redaction import Redactor, credentials_of

ROOT = Path(__file__).resolve().parents[2]
CASES = json.loads((ROOT / "conformance/cassettes/matching.json").read_text("utf-8"))["cases"]


def exchange(**more) -> Exchange:
    values = {
        "method": "POST",
        "url": "https://api.example/v1/chat",
        "headers": {},
        "body": Body("json", {"model": "m"}),
        "status": 200,
        "response_headers": {"content-type": "text/event-stream"},
        "wait": 0.25,
        "chunks": [Chunk(0.25, b"data: 1\n\n")],
    }
    return Exchange(**{**values, **more})


# --- meaning -------------------------------------------------------------------------------------


def request_of(side, ignore):
    kind = next((kind for kind in ("json", "text") if kind in side), "")
    return meaning(side["method"], side["url"], Body(kind, side.get(kind)), ignore)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_what_a_request_means(case):
    requested, recorded = (
        request_of(case[side], case.get("ignore", ())) for side in ("requested", "recorded")
    )
    assert [one.path for one in differences(requested, recorded)] == case["differences"]
    assert differences(requested, requested) == []


# --- file ----------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    chunks=st.lists(st.one_of(st.binary(), st.text().map(lambda t: t.encode("utf-8", "replace")))),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=6,
    ),
    data=st.binary(),
)
def test_a_file_is_read_back_the_same(tmp_path_factory, chunks, value, data):
    path = tmp_path_factory.mktemp("cassette") / "deep" / "x.json"
    timed = [Chunk(float(at), chunk) for at, chunk in enumerate(chunks)]
    bodies = [Body("json", value), Body("base64", data), Body("text", "x\u202e\ud800"), Body()]
    exchanges = [exchange(body=body, chunks=timed) for body in bodies]
    write_cassette(path, exchanges)
    assert read_cassette(path) == exchanges
    text = path.read_text("utf-8")
    assert "\u202e" not in text, "what turns the direction of a line is escaped"
    assert [one.name for one in path.parent.iterdir()] == ["x.json"]


def test_a_file_is_laid_out_for_a_diff(tmp_path):
    path = tmp_path / "x.json"
    stream = [Chunk(0.2504, b"data: 1\n\n"), Chunk(1.0, b"event: a\ndata: 2\n\ndata: 3\n\n" * 3)]
    write_cassette(path, [exchange(chunks=stream, end="cut")])
    lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    assert '"json": {"model": "m"}' in lines
    assert '[0.25, "data: 1\\n\\n"],' in lines
    assert lines.count('"event: a\\ndata: 2\\n\\n",') == 3
    assert '"end": "cut"' in lines
    assert max(map(len, lines)) <= 100


def test_the_cassette_that_both_languages_play_is_as_it_would_be_written(tmp_path):
    path = ROOT / "conformance/cassettes/chat.json"
    write_cassette(tmp_path / "x.json", read_cassette(path))
    assert (tmp_path / "x.json").read_text("utf-8") == path.read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read: Expecting"),
        ("<<<<<<< HEAD", "cannot be read"),
        ("[]", "is not a cassette"),
        ('{"format": "vcr"}', "is not a cassette"),
        ('{"format": "tokenwire-cassette", "version": 2}', "version 2; this tokenwire reads"),
        ('{"format": "tokenwire-cassette", "version": 1}', "exchange 1 .* KeyError: 'exchanges'"),
        (
            '{"format": "tokenwire-cassette", "version": 1, "exchanges": [{"request": {}}]}',
            "exchange 1 .* is not valid",
        ),
    ],
)
def test_what_is_no_cassette_is_said(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_cassette(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"end": "gone"}, "end is one of"), ({"chunks": [[0, {"base64": "%"}]]}, "not base64")],
)
def test_a_damaged_exchange_is_named(tmp_path, change, message):
    path = tmp_path / "x.json"
    write_cassette(path, [exchange(), exchange()])
    document = json.loads(path.read_text("utf-8"))
    document["exchanges"][1]["response"].update(change)
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=f"exchange 2 .*{message}"):
        read_cassette(path)


# --- redaction -----------------------------------------------------------------------------------

SECRETS = [
    ('{"error":{"message":"Incorrect API key provided: ', "sk-proj-****************wxyz", '."}}'),
    ('{"text":"it is:\\n', "sk-abcdefgh1234", '\\n"}'),
    ("Rate limit reached in organization ", "org-AbCdEfGh1234", " on tokens"),
    ('{"organization": "', "Acme Inc", '", "x": 1}'),
    ('{"model": "ft:gpt-4o-mini:', "acme", '::8a"}'),
    ("Authorization: Bearer ", "abcdefgh.12345", "\n"),
    ("call me ", "Zoë", " or anything"),
    ('{"text":"', "Zo\\u00eb", '"}'),
    ('{"arguments":"{\\"name\\":\\"', "Zo\\\\u00eb", '\\"}"}'),
    ("customer ", "C-0042", " of ours"),
    ("key ", "the-key-of-the-request", " is wrong"),
]
OWN = ["Zoë", re.compile(r"customer (?P<s>C-\d+)")]


@pytest.mark.parametrize(("before", "secret", "after"), SECRETS)
def test_a_secret_is_redacted_wherever_the_bytes_were_cut(before, secret, after):
    data = (before + secret + after).encode()
    headers = {"authorization": "Bearer the-key-of-the-request"}
    expected = (before + REDACTED + after).encode()
    for first in range(0, len(data), 3):
        for size in (1, 7, len(data)):
            pieces = [data[:first], data[first : first + size], data[first + size :]]
            one = exchange(chunks=[Chunk(float(at), piece) for at, piece in enumerate(pieces)])
            leaks = Redactor(OWN).redact(one, credentials_of(headers, one.url))
            assert (one.content, leaks) == (expected, [])
            assert [chunk.at for chunk in one.chunks] == [0, 1, 2]
            # What stands before or behind the secret is in the piece that it was in.
            start, end = len(before.encode()), len(data) - len(after.encode())
            if first <= start:
                assert one.chunks[0].data == data[:first]
            if first + size >= end:
                assert one.chunks[2].data == data[first + size :]


def test_requests_are_redacted_by_field_text_and_address():
    body = {"api_key": "abc", "messages": [{"content": "Zoë: sk-abcdefgh1234"}], "n": 1}
    one = exchange(
        url="https://Zoë.example/v1/chat?key=sesame1&alt=sse",
        body=Body("json", body),
        response_headers={"x": "org-AbCdEfGh1234"},
    )
    assert Redactor(OWN).redact(one, credentials_of({}, one.url)) == []
    assert one.url == f"https://{REDACTED}.example/v1/chat?alt=sse"
    content = f"{REDACTED}: {REDACTED}"
    assert one.body.value == {"api_key": REDACTED, "messages": [{"content": content}], "n": 1}
    assert one.response_headers == {"x": REDACTED}


def test_every_credential_of_a_request_is_known():
    headers = {
        "authorization": "Bearer token-of-mine",
        "x-api-key": "key-of-mine",
        "cookie": "session=cookie-of-mine; a=b",
        "openai-organization": "org-of-mine",
        "content-type": "application/json",
        "accept": "text/event-stream",
    }
    found = credentials_of(headers, "https://a.example/?key=query-of-mine&alt=eventstream")
    names = {"token-of-mine", "key-of-mine", "cookie-of-mine", "org-of-mine", "query-of-mine"}
    assert names <= found
    assert not {"application/json", "text/event-stream", "eventstream"} & found
    assert not credentials_of({"authorization": "Bearer ollama"}, "https://a.example/") & {"ollama"}


def deltas(*texts):
    frames = [json.dumps({"delta": {"text": text}}) for text in texts]
    return [Chunk(0.0, f"data: {frame}\n\n".encode()) for frame in frames]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("-----BEGIN RSA PRIVATE KEY-----", "a private key"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.x", "a JSON Web Token"),
        ("AKIAIOSFODNN7EXAMPLE", "an AWS access key"),
        ("ghp_" + "a1" * 18, "a GitHub token"),
        ("xoxb-1234567890-abc", "a Slack token"),
        ("postgres://me:hunter22@db.example/x", "a password in an address"),
        ("password = 'correct-horse-9'", "a password"),
        ("value-of-a-variable", "the value of $MY_SECRET"),
    ],
)
def test_what_looks_like_a_secret_is_refused_by_name(text, what):
    env = {"MY_SECRET": "value-of-a-variable", "HOME": "/home/value-of-a-home", "KEY": "short"}
    redactor = Redactor(env=env)
    in_request = exchange(body=Body("json", {"content": text}))
    assert f"{what} in its body" in redactor.redact(in_request)
    in_response = exchange(chunks=[Chunk(0.0, text.encode())])
    leaks = redactor.redact(in_response)
    assert f"{what} in the response's body" in leaks
    assert text not in "".join(leaks)
    half = len(text) // 2
    spread = exchange(chunks=deltas("Here: ", text[:half], text[half:], "."))
    assert f"{what}, spread over several events of the response" in redactor.redact(spread)
    assert Redactor(env=env, allow=[text]).redact(in_response) == []
    escaped = exchange(chunks=deltas(f"It is:\n{text}"))
    assert f"{what} in the response's body" in redactor.redact(escaped)


def test_a_redacted_name_that_is_spread_over_events_is_refused():
    one = exchange(chunks=deltas("I am Zo", "ë, hello"))
    assert Redactor(OWN).redact(one) == [
        "a redacted text, spread over several events of the response"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "import sklearn as sk-learn-ing",
        "password = getpass.getpass()",
        "api_key=os.environ['OPENAI_API_KEY']",
        "Set your password: at least eight characters.",
        "https://user@example.org/ and http://a.example:80/x@y",
        "sk_ip the org-anization",
        "/home/value-of-a-home",
    ],
)
def test_what_only_looks_a_little_like_one_stays(text):
    one = exchange(body=Body("json", {"content": text}), chunks=[Chunk(0.0, text.encode())])
    assert Redactor(env={"HOME": "/home/value-of-a-home"}).redact(one) == []
    assert (one.body.value["content"], one.content) == (text, text.encode())
