"""The bytes around the text of a delta: learned from a stream's own reads, proven by its decoder.

Always true: a template is made of two reads that differ in the text alone (and in fields that the
decoder declares to pass), and its decoder has given another text in the gap as that text; a text
passes only in the one form in which a record writes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TypeVar

import msgspec

from tokenwire.events.codec import encode
from tokenwire.events.model import PartDelta, ToolCallDelta
from tokenwire.providers.base import SteadyDecoder

__all__ = ["Template", "is_plain", "is_text", "is_written_so", "passes", "shared", "written"]

#: A JSON string in the form in which a record writes it: no escape that is not needed. What is not
#: ASCII is looked at apart.
_STRING = re.compile(rb'[^"\\\x00-\x1f]*+(?:\\["\\nrtbf][^"\\\x00-\x1f]*+)*+')
is_written_so = _STRING.fullmatch
#: Most texts: those of printable ASCII without an escape, which `passes` lets pass for every
#: template.
is_plain = re.compile(rb"[ !#-\[\]-z|}~]++").fullmatch
#: Fields that may differ as well, if the decoder says that their values pass; their numbers and
#: texts, in a form that is certainly valid.
_FIELD = re.compile(rb'"([A-Za-z_]{1,24})": ?([0-9]{1,16}|"[ !#-\[\]-~]{0,256}")')
_NUMBER = re.compile(rb"(?:0|[1-9][0-9]{0,14})(?![0-9.eE])").match
_COUNT = re.compile(rb"[1-9][0-9]{0,14}(?![0-9.eE])").match
_WORD = re.compile(rb'"[ !#-\[\]-~]{0,256}"').match
_TEXT = _STRING.match
#: What may stand before the last brace of a payload: some servers vary it.
_BLANKS = re.compile(rb" *+").match
_END = re.compile(rb"(?<=[\"\]}]) *+(?=}[\r\n]*+\Z)")
_QUOTE, _ZERO = 0x22, 0x30
#: What stands in the gap when a template is proven.
_PROBE = 'a probe: "quoted", \\ {[0]}\n<é, 中, 𝄞>'
#: Places that a text may have in one payload, before the look for the gap is given up.
_MOST_PLACES = 8

_string = msgspec.json.Encoder().encode

V = TypeVar("V", bytes, int)

#: Fixed bytes, and what matches the gap after them.
_Match = Callable[[bytes, int], re.Match[bytes] | None]
_Step = tuple[bytes, _Match]


def written(text: str) -> bytes:
    """A text as a record writes it, without its quotes."""
    return _string(text)[1:-1]


def shared(value: V) -> V:
    """The same ``value``, as one object for all streams, which is in the cache of the processor at
    every token, where a stream's own would be read from memory."""
    return _shared(value)


@lru_cache(1024, typed=True)
def _shared(value: V) -> V:
    return value


def is_text(data: bytes) -> bool:
    """Whether bytes are valid UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def passes(text: bytes, bar: bytes) -> bool:
    """Whether a text is one that a record may have as it is. ``bar``: see `Template`."""
    if not text or is_written_so(text) is None or text.startswith(bar):
        return False
    return text.isascii() or is_text(text)


class Template:
    """What all plain deltas of one part have in common."""

    __slots__ = ("bar", "head", "json", "kind", "part", "steps", "tail")

    def __init__(self, delta: PartDelta, head: bytes, tail: bytes) -> None:
        self.part, self.kind = delta.part, type(delta)
        #: The bytes around the text. Where `steps` are, only `tail` counts: the last fixed bytes.
        self.head, self.tail = head, tail
        #: Where fields differ: the fixed bytes before each gap, and what fits it.
        self.steps: list[_Step] = []
        #: With what no text may begin. (Servers repeat whole arguments, which decoders look for.)
        self.bar = b"{" if self.kind is ToolCallDelta else b"\0"
        #: The record's JSON, with gaps for text, number and time.
        self.json = b""

    @classmethod
    def learn(
        cls, decoder: SteadyDecoder, before: tuple[bytes, bytes], body: bytes, delta: PartDelta
    ) -> Template | None:
        """The template of ``body``, which gave ``delta`` alone, and of the bytes before it with
        their text."""
        text, json = written(delta.text), encode(delta)
        end = text + b'","seq":%d,"t":%d}' % (delta.seq, delta.t)
        if not json.endswith(end):
            return None
        for head, tail in _around(body, text):
            template = cls(delta, head, tail)
            if template.text_in(before[0]) is None:
                template._find_steps(decoder)
            if template.text_in(before[0]) is None:
                template._let_blanks_vary()
            if template.text_in(before[0]) == before[1] and template._is_proven(decoder):
                template.json = json[: -len(end)].replace(b"%", b"%%") + b'%b","seq":%d,"t":%d}'
                template._share()
                return template
        return None

    def fits(self, body: bytes, text: bytes, delta: PartDelta) -> bool:
        """Whether ``body``, which gave ``delta``, is of this template."""
        is_alike = delta.part == self.part and type(delta) is self.kind
        return is_alike and self.text_in(body) == text

    def text_in(self, body: bytes) -> bytes | None:
        """The bytes in the gap of a payload; None for one that does not fit."""
        if self.steps:
            span = self.span_in(body, 0, len(body))
            return None if span is None else body[span[0] : span[1]]
        text = body[len(self.head) : len(body) - len(self.tail)]
        return text if body == self.head + text + self.tail else None

    def span_in(self, data: bytes, start: int, end: int) -> tuple[int, int] | None:
        """Where the text is in a payload in which fields differ."""
        payload = self.first_in(data, start) if self.steps else None
        return payload[:2] if payload is not None and payload[2] == end else None

    def first_in(self, data: bytes, start: int) -> tuple[int, int, int] | None:
        """Where the text of the payload that begins at ``start`` does, where it ends, and where the
        payload does; None for one that does not fit."""
        first = last = -1
        place = start
        for fixed, match in self.steps or ((self.head, _TEXT),):
            gap = match(data, place + len(fixed)) if data.startswith(fixed, place) else None
            if gap is None:
                return None
            place = gap.end()
            if match is _TEXT:
                first, last = gap.span()
        if first < 0 or not data.startswith(self.tail, place):
            return None
        return first, last, place + len(self.tail)

    def _find_steps(self, decoder: SteadyDecoder) -> None:
        """Cut what stands around the text where fields may differ."""
        before, rest = _cut(self.head, decoder)
        after, last = _cut(self.tail, decoder)
        if before or after:
            self.steps = [*before, (rest, _TEXT), *after]
            self.tail = last

    def _let_blanks_vary(self) -> None:
        """Let the number of blanks before the last brace differ."""
        blanks = _END.search(self.tail)
        if blanks is not None:
            steps = self.steps or [(self.head, _TEXT)]
            self.steps = [*steps, (self.tail[: blanks.start()], _BLANKS)]
            self.tail = self.tail[blanks.end() :]

    def _share(self) -> None:
        """Have no bytes twice that another stream has too."""
        self.head, self.tail, self.json = shared(self.head), shared(self.tail), shared(self.json)
        self.steps = [(shared(fixed), match) for fixed, match in self.steps]

    def _is_proven(self, decoder: SteadyDecoder) -> bool:
        """Whether the decoder gives another text in the gap, and just that, whatever the fields
        that may differ say."""
        probe = written(_PROBE)
        values: dict[_Match, bytes] = {_TEXT: probe, _WORD: b'"probe"', _BLANKS: b"  "}
        values |= {_NUMBER: b"7", _COUNT: b"7"}
        data = b"".join(fixed + values[match] for fixed, match in self.steps) + self.tail
        delta = decoder.plain(data if self.steps else self.head + probe + self.tail)
        if delta is None or type(delta) is not self.kind:
            return False
        return delta.part == self.part and delta.text == _PROBE


def _around(body: bytes, text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """What stands around ``text`` wherever it is a whole string of ``body``."""
    place, quoted = -1, b'"' + text + b'"'
    for _ in range(_MOST_PLACES):
        place = body.find(quoted, place + 1)
        if place < 0:
            return
        yield body[: place + 1], body[place + 1 + len(text) :]


def _cut(data: bytes, decoder: SteadyDecoder) -> tuple[list[_Step], bytes]:
    """``data`` up to each value of a passing field, and what is after the last."""
    steps: list[_Step] = []
    start = 0
    for field in _FIELD.finditer(data):
        name, value = field.group(1), field.start(2)
        match = _WORD if data[value] == _QUOTE else _NUMBER
        if match is _NUMBER and name in decoder.counting and data[value] != _ZERO:
            match = _COUNT
        elif name not in decoder.passing:
            continue
        steps.append((data[start:value], match))
        start = field.end()
    return steps, data[start:]
