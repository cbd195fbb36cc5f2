"""Several payloads in one read of the lane, and the reads of fast streams.

A fast stream is read on a tick (`run.call.pacing`), which finds several tokens; so does any read of
a server that has much to do. Where each of them fits the lane's template, their texts make one
delta, as `run.coalesce` joins those of a read on the ordinary way.

Always true: a read is taken whole, or nothing has happened; records, clocks and pacing are those of
the ordinary way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Protocol

import msgspec

from tokenwire.events.model import Event, PartDelta
from tokenwire.run.call.pacing import LARGE
from tokenwire.run.call.template import Template, is_text, is_written_so

__all__ = ["MOST", "Laned", "Place", "last_of", "payloads_in", "size_lines", "take_several"]

#: No number of a lane is larger, so that the twin can keep them as 64 bits. Quarters that are as
#: many have no bound, and are not counted.
MOST = 1 << 62
#: Bytes of text of one read: a record with it is within the lane's bound.
_MOST_TEXT = 4 << 10
#: The head of a chunk, in a form that every parser understands alike.
_size = re.compile(rb"([1-9a-fA-F][0-9a-fA-F]{0,3})\r\n").match
#: How payloads end, where several make an answer.
_ENDS = (b"\r\n\r\n", b"\n\n", b"\r\n", b"\n")

#: Where a payload begins, where its text does, where both end.
Place = tuple[int, int, int, int]


class _Account(Protocol):
    def wait_for_tick(self) -> None:
        """Read the socket again at the next tick."""
        ...


class Laned(Protocol):
    """A lane (`run.call.lane`), as this module sees it."""

    _base: int
    _free: int
    _lines: list[bytes]
    _mean: float
    _now: float
    _quarters: int
    _start: float
    _template: Template | None
    _wait_below: float

    @property
    def _account(self) -> _Account: ...

    def _keep(self, data: bytes, place: Place) -> None: ...

    def _append(
        self, text: bytes, size: int, t: int, now: float, mean: float, quarters: int
    ) -> bool: ...


@cache
def size_lines(form: bytes, most: int) -> list[bytes]:
    """By the length of a chunk, up to ``most``: the line with its size, written as in ``form``;
    what is longer than any read, where no chunk has this length."""
    lines = [bytes(most + 16)] * (most + 16)
    for size in range(1, most):
        line = form % size
        lines[len(line) + size + 2] = line
    return lines


def take_several(lane: Laned, data: bytes, now: float) -> bool:
    """`Lane.received` for a read of one or more payloads, of a stream of any speed."""
    template = lane._template
    if len(data) >= LARGE or template is None:
        return False
    payloads = payloads_in(data, template, lane._lines)
    if payloads is None:
        return False
    texts, size, place = payloads
    text = texts[0] if len(texts) == 1 else b"".join(texts)
    is_ascii = text.isascii()
    t = lane._base + int((now - lane._start) * 1000)
    quarters = lane._quarters
    if quarters < MOST:
        quarters -= len(text) << (not is_ascii)  # as `Lane.received`
    if (
        len(text) > _MOST_TEXT
        or size > lane._free
        or t <= 0
        or quarters < 0
        or not (is_ascii or all(map(is_text, texts)))
    ):
        return False
    gap, mean = (now - lane._now) / len(texts), lane._mean
    mean += (gap - mean) * (0.5 if gap > mean else 0.2)  # as `Pacer.read`
    if template.steps:
        lane._keep(data, place)
    if not lane._append(text, size, t, now, mean, quarters):
        return False
    if mean < lane._wait_below:
        lane._account.wait_for_tick()
    return True


def payloads_in(
    data: bytes, template: Template, lines: Sequence[bytes]
) -> tuple[list[bytes], int, Place] | None:
    """The texts of a read of whole chunks with payloads that all fit; the bytes of the payloads;
    where the last one is, if they differ in more than texts. None for any other read. ``lines``:
    the line before a chunk's payload, by the length of the chunk."""
    if not template.steps:
        texts = _alike_in(data, template, lines)
        if texts:
            around = len(template.head) + len(template.tail)
            return texts, len(texts) * around + sum(map(len, texts)), (0, 0, 0, 0)
    texts = []
    place = size = begin = first = last = 0
    bar, find = template.bar, template.first_in
    while place < len(data):
        line = _size(data, place)
        if line is None:
            return None
        start = line.end()
        end = start + int(line[1], 16)
        if not data.startswith(b"\r\n", end):
            return None
        size += end - start
        while start < end:
            payload = find(data, start)
            if payload is None:
                return None
            begin = start
            first, last, start = payload
            if first == last or data.startswith(bar, first):
                return None
            texts.append(data[first:last])
        if start != end:
            return None
        place = end + 2
    return (texts, size, (begin, first, last, place - 2)) if texts else None


def _alike_in(data: bytes, template: Template, lines: Sequence[bytes]) -> list[bytes]:
    """`payloads_in` where payloads differ in nothing but the text, and each is a chunk of its own;
    empty where they do not, or are not."""
    head, bar, end = template.head, template.bar, template.tail + b"\r\n"
    texts: list[bytes] = []
    pieces = data.split(end)
    if pieces.pop():
        return []
    for piece in pieces:
        length = len(piece) + len(end)
        line = lines[length] if length < len(lines) else data
        start = len(line) + len(head)
        if not piece.startswith(line) or not piece.startswith(head, len(line)):
            return []
        text = piece[start:]
        if not text or is_written_so(text) is None or text.startswith(bar):
            return []
        texts.append(text)
    return texts


def last_of(
    body: bytes, events: Sequence[Event]
) -> tuple[bytes | None, bytes, PartDelta, str] | None:
    """What a lane learns from, of a body that gave ``events``, deltas that may have been merged
    since: the payload before the last one, if there are several; the last one, and its delta with
    number and time of all; the text of the one before. None where payloads and deltas are no pairs.
    """
    one, last = events[0], events[-1]
    if not isinstance(one, PartDelta) or not isinstance(last, PartDelta):
        return None
    if len(events) == 1:
        return None, body, one, ""
    if len(body) >= LARGE:
        return None
    if any(type(event) is not type(one) or event.part != one.part for event in events):  # type: ignore[attr-defined]
        return None
    for end in _ENDS:
        if body.endswith(end):
            payloads = body.split(end)[:-1]
            if len(payloads) != len(events):
                return None
            delta = msgspec.structs.replace(one, text=last.text)
            before = events[-2].text  # type: ignore[attr-defined]
            if len(events) == 2:  # the first one has the text of all
                before = before[: len(before) - len(last.text)]
            return payloads[-2] + end, payloads[-1] + end, delta, before
    return None
