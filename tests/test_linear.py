"""No text of outside costs more than its length: every pattern, and every parser's way in."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from support.script_patterns import PACKAGES, literals, script_patterns
from support.worst_cases import (
    Found,
    codes,
    growth,
    is_superlinear,
    nodes_of,
    patterns,
    shapes,
)
from tokenwire.cli.render import Blocks
from tokenwire.cli.terminal import inert
from tokenwire.client.sse import SSEDecoder
from tokenwire.durable.subscriptions.config import matches
from tokenwire.errors import InputError
from tokenwire.events.names import names_of, principal_fault
from tokenwire.events.validation import input_error, quoted, whole_number
from tokenwire.framing.json_array import JSONValueDecoder
from tokenwire.framing.jsonl import LineDecoder
from tokenwire.framing.retry_after import http_date, seconds_after
from tokenwire.observe.redact import keep_secret, redact
from tokenwire.providers import failures
from tokenwire.providers.decoding import values
from tokenwire.providers.decoding.faults import fault_in
from tokenwire.providers.decoding.pages import is_page_clear, page_error, words_error
from tokenwire.providers.openai.think_tags import ThinkSplitter
from tokenwire.relay.webhooks.post import Targets
from tokenwire.server.edge.auth import credential_of
from tokenwire.server.edge.bodies import CreateRun, read_body
from tokenwire.server.edge.guard import HostCheck, parse_json
from tokenwire.server.edge.limits import network_of
from tokenwire.server.edge.problems import error_response, message_of
from tokenwire.server.edge.sessions import cookie_of
from tokenwire.server.settings import Settings
from tokenwire.simulator.files import files_in_text, without_files
from tokenwire.tools.calls.arguments import depth_of
from tokenwire.tools.calls.arguments import parse_json as parse_arguments
from tokenwire.tools.calls.outcome import error_text
from tokenwire.tools.calls.partial import PartialValue
from tokenwire.tools.structured import structured
from tokenwire.wire.durable import flatten, media_type, position_of
from tokenwire.wire.fields import Fields, media_part
from tokenwire.wire.place import split_cursor


def test_no_pattern_takes_a_line_break_for_the_end() -> None:
    """``$`` also matches before a last line break: a name with one would pass for a name."""
    for found in patterns():
        text, flags = found.pattern.pattern, found.pattern.flags
        source = text if isinstance(text, str) else text.decode("latin-1")
        nodes = nodes_of(source, flags if isinstance(text, str) else flags & ~re.UNICODE)
        assert flags & re.MULTILINE or (codes.AT, codes.AT_END) not in nodes, found.where


@pytest.mark.parametrize("found", patterns(), ids=lambda found: found.where[:60])
def test_every_pattern_is_linear(found: Found) -> None:
    for shape in shapes(found.pattern):
        assert not is_superlinear(found.work, shape), f"{found.pattern.pattern!r} on {shape!r}"


@pytest.mark.parametrize("found", script_patterns(), ids=lambda found: found.where[:80])
def test_every_pattern_of_the_typescript_packages_is_linear(found: Found) -> None:
    for shape in shapes(found.pattern):
        assert not is_superlinear(found.work, shape), f"{found.where} on {shape!r}"


def test_the_patterns_of_the_typescript_packages_are_told_from_divisions() -> None:
    text = """
        const half = size / 2 / 3; // no /comment/ and "no /string/"
        const word = /a\\/b[/"]c/gi.exec(name); return /^x$/.test(y) ? [/z/u] : `no ${t}/x/`;
        done(a) / 2; list[0] / 4;
    """
    assert list(literals(text)) == [('a\\/b[/"]c', "gi"), ("^x$", ""), ("z", "u")]
    assert len(script_patterns()) > 100
    made = {path.name for path in PACKAGES.glob("*/src/**/*.ts*") if "RegExp(" in path.read_text()}
    assert made == {"hidden.ts", "hold.ts", "syntax.ts"}, (
        "a pattern made at run time is not in the list"
    )


def test_the_list_holds_the_patterns_of_the_package() -> None:
    places = {found.where for found in patterns()}
    assert len(places) > 60
    for name in ("server.edge.guard._STRING", "observe.redact._PATTERNS", "relay.record._CURSOR"):
        assert f"tokenwire.{name}" in places


@pytest.mark.parametrize(
    "pattern", [r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', r"([a-z][a-z0-9]*://)x@", r"\s*\n"]
)
def test_the_measure_sees_what_is_superlinear(pattern: str) -> None:
    bad = Found("here", re.compile(pattern), frozenset())
    assert any(is_superlinear(bad.work, shape) for shape in shapes(bad.pattern))


def in_pieces(feed: Callable[[Any], Any], text: Any, size: int = 64) -> None:
    """As a connection brings it."""
    for start in range(0, len(text), size):
        feed(text[start : start + size])


def everything(text: str) -> Any:
    partial = PartialValue()
    in_pieces(partial.push, text, 512)
    return partial.value


def error_of(body: str) -> None:
    try:
        read_body(msgspec.json.decode(body), CreateRun)
    except InputError as error:
        error_response(error, "id")


def thinking(text: str) -> None:
    splitter = ThinkSplitter()
    in_pieces(splitter.feed, text, 7)
    splitter.finish()


def blocks(text: str) -> None:
    cut = Blocks()
    in_pieces(cut.push, text, 7)
    cut.finish()


ENTRIES: dict[str, Callable[[str], Any]] = {
    "body": lambda text: parse_json(text.encode(), 64),
    "body in a string": lambda text: parse_json(b'{"key":"' + text.encode(), 64),
    "body of a run": lambda text: error_of('{"prompt":"x","' + text.replace('"', "") + '":1}'),
    "arguments": parse_arguments,
    "arguments in a string": lambda text: parse_arguments('{"a":"' + text),
    "depth": depth_of,
    "partial": lambda text: everything('{"a":"' + text),
    "partial bare": everything,
    "structured": lambda text: structured({"type": "object"}).read(text),
    "structured in prose": lambda text: structured({"type": "object"}).read("So: " + text),
    "structured in a fence": lambda text: structured({"type": "object"}).read("```json\n" + text),
    "redact": redact,
    "redact a message": lambda text: message_of(InputError(text)),
    "redact in a url": lambda text: redact("https://" + text),
    "redact of providers": failures.redact,
    "error of a tool": lambda text: error_text(ValueError(text)),
    "error of a field": lambda text: input_error(
        msgspec.ValidationError(f"Object contains unknown field `{text}` - at `$.{text}`")
    ),
    "sse": lambda text: in_pieces(SSEDecoder().feed, text.encode()),
    "sse data": lambda text: in_pieces(SSEDecoder().feed, b"data: " + text.encode() + b"\n\n"),
    "lines": lambda text: in_pieces(LineDecoder().feed, text.encode()),
    "json values": lambda text: in_pieces(JSONValueDecoder().feed, b"[" + text.encode()),
    "thinking": thinking,
    "blocks": blocks,
    "inert": inert,
    "glob": lambda text: matches(text[: len(text) // 2], text),
    "flatten": lambda text: flatten(text.encode(), empty=False),
    "offset": position_of,
    "cursor": split_cursor,
    "media type": media_type,
    "data url": media_part,
    "data url of a type": lambda text: media_part("data:image/png;" + text + ";base64,AA"),
    "fields": lambda text: Fields(text).only([]),
    "host": lambda text: HostCheck(Settings()).allows(text.encode()),
    "address": network_of,
    "cookie": lambda text: cookie_of({b"cookie": text.encode("utf-8", "surrogatepass")}, "name"),
    "credential": lambda text: credential_of(
        {b"authorization": b"Bearer " + text.encode("utf-8", "surrogatepass")}
    ),
    "names": lambda text: names_of(text, "keys"),
    "webhook": lambda text: Targets(["example.com"]).check("https://" + text),
    "retry after": seconds_after,
    "http date": http_date,
    "page": lambda text: page_error(text.encode()),
    "page in a title": lambda text: page_error(b"<title>" + text.encode()),
    "page clear": lambda text: is_page_clear(text.encode()),
    "words": words_error,
    "failure of a response": lambda text: failures.from_response(
        500, {"retry-after": text, "content-type": text}, text.encode()
    ),
    "failure in an object": lambda text: fault_in({"error": text, "message": text, text: text}),
    "value of a provider": lambda text: values.read('{"a":"' + text),
    "arguments of a provider": values.parse_arguments,
    "whole number": whole_number,
    "principal": principal_fault,
    "files": files_in_text,
    "without files": without_files,
}
#: What a text repeats to make a parser try the same again and again.
PUMPS = [
    "a", " ", "\n", '"', '\\"', "\\", "[", "{", '{"a":', '[{"', "]", ",", "0", "-", ".", "e",
    "://", "a://", "a@", "//a", "*", "**", "*/", "a*", "`", "```", "```\n", "\n```", "<", "<think>",
    "</think>", '<file name="a" type="a">\n', "data: a\n", "data:", "\r", "\r\n\r\n", "> ",
    ";a=b", "Bearer ", "api_key: ", "sk-", "/home/a", "C:\\a", "%", "\ud7ff", "\u202e", ": ",
    "|", "(", "((",
]  # fmt: skip


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_way_in_is_linear(entry: str) -> None:
    work = ENTRIES[entry]
    for pump in PUMPS:
        for after in ("", "\x00", '"}'):
            shape = ("", pump, after)
            assert not is_superlinear(work, shape), f"{entry} on {shape!r}: {growth(work, shape)}"


def test_an_error_quotes_eighty_characters_and_no_half_secret() -> None:
    keep_secret("swordfish-and-more")
    long = "x" * 100_000
    with contextlib.suppress(InputError):
        read_body({"prompt": "x", long: 1}, CreateRun)
    for message in (long, f"'{long}' is wrong", "a " * 50_000, "swordfish-and-more" * 10_000):
        assert len(message_of(InputError(message))) <= 500
    for place in range(1980, 2010):  # wherever the cut goes through it
        text = (
            "y" * 40 + " " + "://u:p@h " * ((place - 41) // 9) + "swordfish-and-more " + "z" * 9000
        )
        assert "swordf" not in message_of(InputError(text))
    body = error_response(InputError("x", field=long), "id").body
    assert len(body) < 1000
    assert len(quoted(long)) == 80
    try:
        read_body({"prompt": "x", long: 1}, CreateRun)
    except InputError as error:
        assert error.message.count("x") <= 82
