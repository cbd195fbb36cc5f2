"""Files as data URLs: every legal form is read, and one that is not read harms nothing else."""

from __future__ import annotations

import base64

import pytest

from tokenwire.events.message import FilePart, TextPart
from tokenwire.wire.ai_sdk.request import parse_ui_request
from tokenwire.wire.fields import media_part

FORMS = [
    ("data:image/png;base64,aGk=", "image/png", b"hi"),
    ("DATA:Image/PNG;BASE64,aGk", "image/png", b"hi"),
    ("data:text/plain;charset=utf-8;base64,aGk%3D", "text/plain", b"hi"),
    ('data:text/plain;name="a b.txt";base64,aGk=\n', "text/plain", b"hi"),
    ("data:application/pdf;base64,-_-_", "application/pdf", b"\xfb\xff\xbf"),
    ("data:,hi%20there", "text/plain", b"hi there"),
    ("data:text/csv;charset=utf-8,a%2Cb", "text/csv", b"a,b"),
    ("data:image/svg+xml,%3Csvg/%3E#part", "image/svg+xml", b"<svg/>"),
    ("data:;base64,aGk=", "application/octet-stream", b"hi"),
    ("data:;charset=utf-8,%ff", "text/plain", b"\xff"),
]


@pytest.mark.parametrize(("url", "kind", "data"), FORMS)
def test_a_legal_form_is_read(url: str, kind: str, data: bytes) -> None:
    part = media_part(url)
    assert isinstance(part, FilePart)
    assert (part.media_type, part.url) == (kind, None)
    assert base64.b64decode(part.data or "") == data


@pytest.mark.parametrize("url", ["data:image/png;base64,a", "data:image/png;base64,%%%", "data:x"])
def test_one_that_cannot_be_read_says_so_in_its_place(url: str) -> None:
    assert media_part(url, "image/png", "cat.png") == TextPart(
        text="[The file cat.png could not be read.]"
    )
    file = {"type": "file", "url": url, "mediaType": "image/png"}
    texts = [{"type": "text", "text": "Look"}, file]
    first = {"id": "u1", "role": "user", "parts": texts}
    second = {"id": "u2", "role": "user", "parts": [{"type": "text", "text": "And now?"}]}
    request = parse_ui_request({"id": "chat", "messages": [first, second]}).request
    assert [message.text for message in request.messages][1] == "And now?"
    assert len(request.messages[0].parts) == 2


def test_an_address_is_passed_on() -> None:
    part = media_part("https://a.test/x.png")
    assert isinstance(part, FilePart)
    assert part.url == "https://a.test/x.png"
