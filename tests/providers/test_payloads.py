"""Which framing the first bytes are, whatever the content type says, and however they are cut."""

from __future__ import annotations

import json

import pytest

from tokenwire.errors import FramingError
from tokenwire.framing.aws_eventstream import encode_message
from tokenwire.providers.decoding import payloads
from tokenwire.providers.decoding.payloads import PayloadReader

ONE, TWO = {"a": [1, {"b": "}"}]}, {"c": "ä\n"}
TEXTS = [json.dumps(v).encode() for v in (ONE, TWO)]
CHUNK = {":event-type": "chunk", ":message-type": "event"}
BOM = b"\xef\xbb\xbf"
FORMS = {
    "sse": b"event: x\r\ndata: " + TEXTS[0] + b"\r\n\r\ndata: " + TEXTS[1] + b"\n\n",
    "sse with a mark": BOM + b"data: " + TEXTS[0] + b"\n\ndata: " + TEXTS[1] + b"\n\n",
    "comments first": b": hello\n\ndata: " + TEXTS[0] + b"\n\ndata:" + TEXTS[1] + b"\n\n",
    "lines": TEXTS[0] + b"\n" + TEXTS[1] + b"\n",
    "lines without a last end": b"\n\n" + TEXTS[0] + b"\n" + TEXTS[1],
    "array": json.dumps([ONE, TWO], indent=2).encode(),
    "many lines": json.dumps(ONE, indent=2).encode() + b"\n" + json.dumps(TWO, indent=1).encode(),
    "binary": b"".join(encode_message(CHUNK, t) for t in TEXTS),
}


def read(data: bytes, size: int, content_type: str | None = None) -> list[object]:
    reader = PayloadReader(content_type)
    frames = [f for i in range(0, len(data), size) for f in reader.feed(data[i : i + size])]
    return [json.loads(f.data) for f in frames + reader.finish()]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 2, 3, 11, 10_000])
def test_every_framing_is_known_by_its_first_bytes(form: str, size: int) -> None:
    assert read(FORMS[form], size) == [ONE, TWO]
    wrong = "text/event-stream" if not form.startswith("sse") else "application/json"
    assert read(FORMS[form], size, wrong) == [ONE, TWO]


def test_one_body_without_any_line_end() -> None:
    assert read(TEXTS[0], 3) == [ONE]


def test_an_event_stream_by_its_content_type() -> None:
    assert read(FORMS["binary"], 5, "application/vnd.amazon.eventstream; x=y") == [ONE, TWO]


def test_base64_inside_a_chunk() -> None:
    inner = {"bytes": "eyJhIjoxfQ==", "p": "abc"}
    data = encode_message(CHUNK, json.dumps(inner).encode())
    assert read(data, 4) == [{"a": 1}]
    broken = encode_message(CHUNK, b'{"bytes": "*"}')
    with pytest.raises(FramingError):
        PayloadReader().feed(broken)


def test_an_exception_keeps_its_name() -> None:
    headers = {":message-type": "exception", ":exception-type": "throttlingException"}
    (frame,) = PayloadReader().feed(encode_message(headers, b'{"message":"slow"}'))
    assert frame.event == "exception:throttlingException"


def test_a_web_page_is_no_answer() -> None:
    reader = PayloadReader("text/event-stream")
    assert reader.feed(b"  <!doctype html>") == []
    assert reader.kind == "html"
    assert reader.feed(b"data: {}\n\n") == []


def test_a_first_line_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payloads, "MOST_PAYLOAD_BYTES", 100)
    reader = PayloadReader()
    with pytest.raises(FramingError):
        for _ in range(30):
            reader.feed(b'{"a":"aaaaaaaa')
