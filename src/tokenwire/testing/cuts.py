"""Cut an application's stream after each of its events, come back, and compare.

Always true: a comparison is of whole events (name, data, id) with those of the same run; what is
wrong is raised as an `AssertionError` that says where and what.
"""

from __future__ import annotations

import json as json_codec
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from tokenwire.framing.sse import Frame
from tokenwire.testing.difference import difference, ending_of, is_end, short, without_names
from tokenwire.testing.scripted import ScriptedModel, Steps
from tokenwire.testing.serving import Reader, request, serving

__all__ = ["cut_everywhere"]


def cut_everywhere(
    app: Any,
    path: str = "/v1/runs",
    *,
    method: str = "POST",
    json: Any = None,
    headers: Mapping[str, str] | None = None,
    resume: str | None = None,
    model: ScriptedModel | None = None,
    every: Literal["event", "byte"] = "event",
    end: Callable[[str, str], bool] | None = None,
    reopens: bool = False,
    timeout: float = 30.0,
) -> None:
    """Assert that the streams of ``app`` resume: whoever is cut off anywhere, and comes back with
    ``Last-Event-ID``, has exactly the events of a reader that was never cut.

    One run is read whole, then again after each of its events, also after the last one. A second
    run is cut after every event while it is written; it must end as the first one did.

    ``app``: an ASGI application, which is served on a free port meanwhile, with its lifespan; or
    the address of a server. ``path``, ``method``, ``json``, ``headers``: the request that starts a
    run, and is answered with an event stream, or with 201 and its address (``events`` in JSON, or
    ``Location``); default ``{"prompt": "Hello"}`` to ``POST /v1/runs``. A ``POST`` has an
    ``Idempotency-Key``, one for each run. ``resume``: the path to come back to (``GET``), with
    ``{run}`` for the header ``Tokenwire-Run``; default the address of the stream, or the same
    request again. ``model``: the one that ``app`` asks: it then says its next text only when a
    reader has the last one, so that a stream that is buffered is noticed, and cuts are in the
    middle of a run. ``every``: ``byte`` cuts the connection at each byte as well. ``end``: whether
    the event with this name and data is the last one; default those of tokenwire's wires.
    ``reopens``: for wires that open their parts again; events without an id at the beginning of a
    resumed stream are not compared, and neither are the names of parts (``id``, ``messageId``).
    ``timeout``: seconds for one stream.
    """
    body = {"prompt": "Hello"} if json is None and method != "GET" else json
    steps = Steps() if model is not None else None
    if model is not None:
        model.steps = steps
    try:
        with serving(app) as base:
            check = _Check(base, path, method, body, dict(headers or {}), resume, timeout)
            check.steps, check.model, check.reopens = steps, model, reopens
            check.is_end = end or is_end
            check.resumed_after_each(*check.whole())
            check.cut_while_written()
            if every == "byte":
                check.cut_at_each_byte()
    finally:
        if model is not None:
            model.steps = None


class _Check:
    """What the parts of the check share: the requests, and the run that was read whole."""

    steps: Steps | None
    model: ScriptedModel | None
    reopens: bool
    is_end: Callable[[str, str], bool]

    def __init__(
        self,
        base: str,
        path: str,
        method: str,
        body: Any,
        headers: dict[str, str],
        resume: str | None,
        timeout: float,
    ) -> None:
        self.base, self.path, self.method, self.resume = base, path, method, resume
        self.body = None if body is None else json_codec.dumps(body).encode()
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.timeout = timeout
        self._key = ""
        #: The run that was read whole, and where to come back to it.
        self.events: list[Frame] = []
        self.address: str | None = None

    # --- requests ------------------------------------------------------------------------------

    def start(self) -> tuple[Reader, str | None]:
        """Start a run: its stream, and the address to come back to; None: the same request."""
        if self.model is not None:
            self.model.rewind()
        if self.steps is not None:
            self.steps.restart()
        self._key = secrets.token_urlsafe()
        reader = self._send(self.method, self.path, "", self.body)
        run = reader.header("tokenwire-run")
        if reader.header("content-type").startswith("text/event-stream"):
            if self.resume is not None and "{run}" in self.resume and not run:
                raise AssertionError(
                    f"{self.method} {self.path}: no header Tokenwire-Run, which 'resume' names"
                )
            return reader, self.resume and self.resume.replace("{run}", run)
        text = reader.body()
        address = _address(text) or reader.header("location")
        if reader.status not in (200, 201, 202) or not address:
            raise AssertionError(
                f"{self.method} {self.path}: no event stream, and no address of one: status "
                f"{reader.status}, {reader.header('content-type') or 'no content type'}, "
                f"{text[:300]!r}"
            )
        address = self._below(address)
        return self._stream(self.again(address, "")), address

    def again(self, address: str | None, last: str) -> Reader:
        """Come back with ``last``."""
        if address is None:
            return self._send(self.method, self.path, last, self.body)
        return self._send("GET", address, last, None)

    def _send(self, method: str, path: str, last: str, body: bytes | None) -> Reader:
        headers = {"accept": "*/*", **self.headers}
        if method == "POST":
            # By which the same request finds its run; another run has another key.
            headers["idempotency-key"] = self._key
        if body is not None:
            headers["content-type"] = "application/json"
        if last:
            headers["last-event-id"] = last
        return request(self.base, method, path, headers=headers, body=body, timeout=self.timeout)

    def _below(self, address: str) -> str:
        """An address that an application tells without the prefix under which it is mounted."""
        if "://" in address:
            return address
        prefix = self.path.partition("/v1/")[0] if "/v1/" in self.path else ""
        prefix = urlsplit(prefix).path
        return address if not prefix or address.startswith(prefix + "/") else prefix + address

    def _stream(self, reader: Reader) -> Reader:
        kind = reader.header("content-type")
        if reader.status != 200 or not kind.startswith("text/event-stream"):
            raise AssertionError(
                f"no event stream: status {reader.status}, {kind}, {reader.body()[:300]!r}"
            )
        return reader

    # --- reading -------------------------------------------------------------------------------

    def read_to_end(self, reader: Reader, before: list[Frame], place: str) -> list[Frame]:
        """The events of ``reader`` after ``before``. Raises `AssertionError` where it never ends,
        or keeps back what the model has said."""
        deadline = time.monotonic() + self.timeout
        try:
            while reader.read(deadline):
                self.advance([*before, *_shown(reader)])
        except TimeoutError:
            self._never(reader, [*before, *_shown(reader)], place)
        finally:
            reader.close()
        return _shown(reader)

    def read_one(self, reader: Reader, before: list[Frame], place: str) -> Frame | None:
        """The next event that has an id, and the cut; None where there is none."""
        deadline = time.monotonic() + self.timeout
        try:
            while True:
                events = _shown(reader)
                events = self._without_reopening(events) if before else events
                if events:
                    return events[0]
                if not reader.read(deadline):
                    return None
        except TimeoutError:
            self._never(reader, before, place)
        finally:
            reader.close()
        return None

    def advance(self, events: list[Frame]) -> None:
        """Let the model go on, where a reader has what it said."""
        steps = self.steps
        if steps is None:
            return
        text = "\n".join(event.text for event in events)
        place = 0
        for number, piece in enumerate(list(steps.texts)):
            places = [(text.find(form, place), form) for form in _forms(piece)]
            places = [each for each in places if each[0] >= 0]
            if not places:
                return
            place = min(places)[0] + len(min(places)[1])
            if number >= steps.received:
                steps.advance()

    def _never(self, reader: Reader, events: list[Frame], place: str) -> None:
        pending = self.steps.holds if self.steps is not None else None
        if pending is not None:
            raise AssertionError(
                f"{place}: the stream is buffered, or loses text: the model said {pending!r}, and "
                f"in {self.timeout:g} s the reader did not get it; {_last(events)}"
            )
        raise AssertionError(
            f"{place}: the stream did not end in {self.timeout:g} s, after {reader.size} bytes; "
            f"{_last(events)}"
        )

    def _without_reopening(self, events: list[Frame]) -> list[Frame]:
        if not self.reopens:
            return events
        first = next((n for n, event in enumerate(events) if event.id), len(events))
        # The end of some wires has no id.
        return events[first:] or [e for e in events if self.is_end(e.event, e.text)]

    # --- the parts of the check ----------------------------------------------------------------

    def whole(self) -> tuple[list[Frame], str | None]:
        """Read a run without a cut: its events, and where to come back to."""
        reader, address = self.start()
        events = self.read_to_end(self._stream(reader), [], "uncut")
        if reader.failure:
            raise AssertionError(f"uncut: the connection broke ({reader.failure}); {_last(events)}")
        if not events:
            raise AssertionError(f"uncut: no event in {reader.size} bytes")
        if not self.is_end(events[-1].event, events[-1].text):
            raise AssertionError(
                "uncut: the stream ended without saying so: a reader cannot tell it from a cut; "
                f"{_last(events)}. Where that is the end, pass end=..."
            )
        self.events, self.address = events, address
        return events, address

    def resumed_after_each(self, events: list[Frame], address: str | None) -> None:
        """Come back after each event of a run that was read whole."""
        count = len(events)
        for number in range(0 if address is not None and self.resume is None else 1, count):
            place = f"cut after event {number} of {count}"
            last = events[number - 1].id if number else ""
            if number and not last:
                raise AssertionError(
                    f"{place}: there was no id so far, so that a reader has nothing to come back "
                    f"with; it was {short(events[number - 1])}"
                )
            reader = self._resumed(address, last, place)
            rest = self.read_to_end(reader, events[:number], place)
            self._compare(events, number, self._named(rest, last), place, reader.failure)
        self._nothing_after_the_end(events, address)

    def cut_while_written(self) -> None:
        """Cut another run after every event of it; then read it again from its first one."""
        # Every event is a new one, but an application may make them up for ever.
        deadline = time.monotonic() + 10 * self.timeout
        reader, address = self.start()
        joined: list[Frame] = []
        while not joined or ending_of(joined[-1]) != ending_of(self.events[-1]):
            place = f"cut after event {len(joined)}, while it is written"
            if time.monotonic() > deadline:
                raise AssertionError(f"{place}: the run does not end; {_last(joined)}")
            last = joined[-1].id if joined else ""
            has_end = bool(joined) and self.is_end(joined[-1].event, joined[-1].text)
            if joined:
                if not last:
                    raise AssertionError(f"{place}: there was no id so far")
                reader = self.again(address, last)
                if has_end and reader.status == 204:
                    reader.close()
                    break
                reader = self._checked(reader, last, place)
            event = self.read_one(self._stream(reader), joined, place)
            if event is None and has_end:
                break
            if event is None:
                raise AssertionError(
                    f"{place}: the stream ended and did not say so, after {_last(joined)}"
                )
            named = self._named([event], last)
            if named and named[0] in joined:
                raise AssertionError(
                    f"{place} (Last-Event-ID: {last}): a repetition of event "
                    f"{joined.index(named[0]) + 1}: {short(named[0])}"
                )
            joined += named
            self.advance(joined)
        self._same_end(joined)
        first = joined[0].id
        reader = self._resumed(address, first, "read again")
        rest = self.read_to_end(reader, joined[:1], "read again")
        whole = [*joined[:1], *self._named(rest, first)]
        place = f"cut after each of {len(joined)} events, while they were written"
        self._compare(whole, 0, joined, place, "")

    def cut_at_each_byte(self) -> None:
        """Cut each connection at each byte of its first event: what a reader did not get whole
        must come again."""
        for number in range(1, len(self.events)):
            last, size, most = self.events[number - 1].id, 0, 1 << 20
            while size < most:
                place = f"cut {size} bytes behind event {number} of {len(self.events)}"
                reader = self._resumed(self.address, last, place)
                deadline = time.monotonic() + self.timeout
                try:
                    while reader.size < size and reader.read(deadline, size - reader.size):
                        pass
                except TimeoutError:
                    self._never(reader, [], place)
                events = self._without_reopening(self._named(_shown(reader), last))
                most = size if events or reader.size < size else most
                reader.close()
                size += 1
            place = f"cut at each byte behind event {number} of {len(self.events)}"
            rest = self.read_to_end(
                self._resumed(self.address, last, place), self.events[:number], place
            )
            self._compare(self.events, number, self._named(rest, last), place, "")

    # --- comparisons ---------------------------------------------------------------------------

    def _resumed(self, address: str | None, last: str, place: str) -> Reader:
        return self._checked(self.again(address, last), last, place)

    def _checked(self, reader: Reader, last: str, place: str) -> Reader:
        try:
            return self._stream(reader)
        except AssertionError as error:
            raise AssertionError(f"{place} (Last-Event-ID: {last}): {error}") from None

    def _named(self, events: list[Frame], last: str) -> list[Frame]:
        """With the ids that a reader has, which came with ``last``."""
        events = self._without_reopening(events)
        return [Frame(event.data, event.event, event.id or last) for event in events]

    def _compare(
        self, events: list[Frame], number: int, rest: list[Frame], place: str, failure: str
    ) -> None:
        if self.reopens:
            events, rest = [*map(without_names, events)], [*map(without_names, rest)]
        text = difference(events, number, rest)
        if text:
            breakage = f"; the connection broke ({failure})" if failure else ""
            raise AssertionError(f"{place}: {text}{breakage}")

    def _same_end(self, joined: list[Frame]) -> None:
        whole, parts = ending_of(self.events[-1]), ending_of(joined[-1])
        if whole != parts:
            raise AssertionError(
                "a run that is cut while it is written ends otherwise than one that is not: "
                f"{short(joined[-1])} after {len(joined)} events, in place of "
                f"{short(self.events[-1])} after {len(self.events)}; does it stop when its reader "
                "leaves?"
            )

    def _nothing_after_the_end(self, events: list[Frame], address: str | None) -> None:
        last = events[-1].id
        if not last:
            return
        reader = self.again(address, last)
        if not reader.header("content-type").startswith("text/event-stream"):
            reader.close()
            return
        first = next(n for n, event in enumerate(events) if event.id == last)
        rest = self._named(self.read_to_end(reader, events, "after the end"), last)
        if rest and rest != events[first + 1 :]:
            raise AssertionError(
                f"after the end (Last-Event-ID: {last}): a reader that has all of it gets "
                f"{len(rest)} more events, first {short(rest[0])}"
            )


def _shown(reader: Reader) -> list[Frame]:
    """The events, other than a planned reconnect, which is about the connection."""
    return [frame for frame in reader.frames if not frame.data.startswith(b'{"type":"reconnect"')]


def _address(text: bytes) -> str:
    try:
        value = json_codec.loads(text)
    except ValueError:
        return ""
    address = value.get("events", "") if isinstance(value, dict) else ""
    return address if isinstance(address, str) else ""


def _forms(text: str) -> list[str]:
    """A text as wires write it."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    return [text, plain, *(json_codec.dumps(text, ensure_ascii=a)[1:-1] for a in (True, False))]


def _last(events: list[Frame]) -> str:
    if not events:
        return "no event came"
    return f"the last of {len(events)} events was {short(events[-1])}"
