"""uvicorn's HTTP protocol with the clocks and bounds it lacks, swept by the shared ticker.

Always true: a connection that does not finish its headers, does not read its answer, or comes above
the connection limits is closed on time; keeping watch costs no timer a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context, copy_context
from typing import Any, ClassVar, cast

import httptools
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from tokenwire.server.edge.connection.arriving import ArrivingProtocol
from tokenwire.server.edge.connection.body import ChunkedBody, socket_of
from tokenwire.server.edge.connection.framing import framing_problem, has_body
from tokenwire.server.edge.connection.light import (
    NOBODY_WAITS,
    SPENT_SCOPE,
    Flow,
    Pipeline,
)
from tokenwire.server.edge.connection.refusal import MALFORMED, refusal
from tokenwire.server.edge.connection.rest import RestOfRequest, end_of
from tokenwire.server.edge.connection.watch import Progress, Watch, has_left
from tokenwire.server.edge.connection.websocket import GuardedWebSocket
from tokenwire.server.edge.limits import network_of
from tokenwire.server.edge.transport import Transport, transport_of
from tokenwire.turns import REQUEST, UPGRADE, turns

__all__ = ["GuardedProtocol"]

#: Seconds after the body's deadline until the connection is closed without an answer.
_BODY_GRACE = 2.0
#: Bytes that the size, extensions and line ends of a chunk may have, on average.
_FRAMING = 32
#: Requests that may wait behind the one that is answered.
_MOST_PIPELINED = 32


class GuardedProtocol(ArrivingProtocol):
    """One connection. ``watch`` is set by the subclass of one server.

    One clock runs from the first byte of a message to its last: for the headers, then for the body.
    It stands still while the server itself does not read, or still writes the answer before.
    """

    #: uvicorn's own attributes are in a dictionary whose keys all connections share, as long as
    #: there are fewer than thirty.
    __slots__ = (
        "_address",
        "_before",
        "_body_bytes",
        "_checked_at",
        "_chunks",
        "_cycles",
        "_early",
        "_fd",
        "_header_bytes",
        "_in_headers",
        "_later",
        "_message_bytes",
        "_owns",
        "_progress",
        "_refused",
        "_trailer_bytes",
        "_until",
        "account",
    )

    watch: ClassVar[Watch]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection; the clock for its headers starts."""
        super().connection_made(transport)
        self.flow, self.pipeline = Flow(transport), Pipeline()  # type: ignore[assignment]
        settings = self.watch.settings
        now = self.loop.time()
        self._address = self.client[0] if self.client else ""
        self.account = network_of(self._address)
        self._until = now + settings.header_deadline
        self._checked_at = now
        self._in_headers = True
        self._header_bytes = 0
        #: Of the message that is being received: its bytes, and those that were its body.
        self._message_bytes = self._body_bytes = self._chunks = 0
        self._trailer_bytes = 0
        #: Of what is being read, bytes that are not of the newest head; a refusal that follows the
        #: answers under way.
        self._before, self._later = 0, b""
        self._progress = Progress(now)
        self._fd = socket_of(transport)
        self._refused = False
        #: The requests that are not answered yet, and what the application has of each.
        self._cycles: list[RequestResponseCycle] = []
        self._owns: list[Transport] = []
        #: A request that may be refused once its body is there, and its application.
        self._early: tuple[RequestResponseCycle, Any] | None = None
        if not self.watch.enter(self, self._address):
            self._refuse(503, "too many connections")

    def connection_lost(self, exc: Exception | None) -> None:
        """Give its place back; every request that is not answered hears of it."""
        self.parse()
        self.watch.leave(self, self._address)
        for body in self._bodies():
            body.close()
        for cycle in self._cycles:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        owns = list(self._owns)
        self._cycles.clear()
        self._owns.clear()
        for own in owns:
            own.is_gone = True
            if own.on_gone is not None:
                turns().take(own.lost)
        super().connection_lost(exc)

    def begins_request(self) -> bool:
        """See `ArrivingProtocol`."""
        return self._in_headers or not self._until

    def received(self, data: bytes) -> None:
        """Bytes of requests; those of headers and around bodies are counted."""
        if self._refused:
            self.flow.pause_reading()
            return
        in_body, self._before = self._until and not self._in_headers, 0
        self._feed(data)
        if self._early is not None:  # its body takes longer than it may wait
            self._begin(*self._early)
        if self._refused or self.transport.is_closing():
            return
        settings = self.watch.settings
        if self._in_headers and self._until:
            self._header_bytes += len(data) - self._before
            if self._header_bytes > settings.header_limit:
                self._refuse(431, "request line and headers too large")
        elif in_body and self._until and not self._in_headers:
            self._message_bytes += len(data)
            around = self._message_bytes - self._body_bytes
            if around > settings.header_limit + _FRAMING * self._chunks:
                self._refuse(400, "too many bytes around the body")

    def _feed(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if not self.parser:  # it was let go while an answer went on
            self.parser = _parser_of(self)
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                rest = data[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                if not self._refused:  # a refusal may itself have ended the parsing
                    MALFORMED.log("malformed HTTP request: %s", type(error).__name__)
                self.send_400_response("")
                return
            if self._refused:
                return
            if self._should_upgrade():
                self._upgrade(rest)
                return
            data = self._head_without_upgrade() + rest

    def _should_upgrade(self) -> bool:
        return self.parser.get_http_version() != "1.0" and super()._should_upgrade()

    def _head_without_upgrade(self) -> bytes:
        """The head again, for a parser of its own: a server may ignore an upgrade (RFC 9110), but
        the parser takes no body after it."""
        version = self.parser.get_http_version().encode("ascii")
        head = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                options = [option.strip() for option in value.split(b",")]
                options = [option for option in options if option.lower() not in (b"", b"upgrade")]
                if options:
                    head.append(b"connection: " + b", ".join(options))
            elif name != b"upgrade":
                head.append(b"%b: %b" % (name, value))
        self.parser = _parser_of(self)
        return b"\r\n".join(head) + b"\r\n\r\n"

    def on_message_begin(self) -> None:
        """A request begins; so does its clock, unless the connection's own is still running."""
        super().on_message_begin()
        own = transport_of(cast(dict[str, Any], self.scope))
        own.unsent, own.abort = self.transport.get_write_buffer_size, self._abort
        own.cut = self._cut
        own.rename = self._rename
        self._header_bytes = self._message_bytes = self._body_bytes = 0
        self._chunks = self._trailer_bytes = 0
        self._in_headers = True
        if not self._until:
            self._until = self.loop.time() + self.watch.settings.header_deadline

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header. A trailer, which comes after the body, changes nothing and is not kept."""
        if self._in_headers:
            super().on_header(name, value)
            return
        self._trailer_bytes += len(name) + len(value) + 4
        if self._trailer_bytes > self.watch.settings.header_limit and not self._refused:
            self._refuse(431, "trailers too large")

    def on_chunk_header(self) -> None:
        """Another chunk of a body."""
        self._chunks += 1

    def on_headers_complete(self) -> None:
        """Headers are there: refuse too many or too large ones before anything sees them."""
        self._in_headers = False
        settings = self.watch.settings
        self._until = self.loop.time() + settings.body_deadline + _BODY_GRACE
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        self._before += size
        if self._refused:
            return
        if size > settings.header_limit or len(self.headers) > settings.header_fields:
            self._refuse(431, "request line and headers too large")
            return
        if problem := framing_problem(self.headers, self.parser.get_http_version(), self.url):
            self._refuse(400, problem)
            return
        if self.parser.should_upgrade():  # the parser takes no body after one, whatever it is to
            if self.parser.get_method() == b"CONNECT":
                self._refuse(400, "CONNECT is not supported")
            elif self._should_upgrade() and has_body(self.headers):
                self._refuse(400, "an upgrade to a WebSocket with a body is not accepted")
            return  # what follows is decided at the end of the head
        if len(self.pipeline) >= _MOST_PIPELINED:
            self._close_after_answers()
            return
        super().on_headers_complete()
        cycle = self.cycle
        own = transport_of(cast(dict[str, Any], self.scope))
        own.body = ChunkedBody(cycle, self.loop, self._fd)
        own.unread = lambda: cycle.more_body
        own.takes_rest = True
        self._forget_answered()
        self._cycles.append(cycle)
        self._owns.append(own)

    def _forget_answered(self) -> None:
        pairs = zip(self._cycles, self._owns, strict=True)
        pairs = [pair for pair in pairs if not pair[0].response_complete]
        self._cycles, self._owns = [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    # --- answers ---------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        watch = self.watch
        is_late = watch.early is not None and watch.connections.overload.is_on
        if is_late and not self._is_answering():
            self._early = cycle, app
        else:
            self._begin(cycle, app)

    def _begin(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._early = None
        own = transport_of(cast(dict[str, Any], cycle.scope))
        context = copy_context()
        turns().take(lambda: self.spawn(self._answer(cycle, app, own, context), context), REQUEST)

    def spawn(self, work: Coroutine[Any, Any, None], context: Context) -> None:
        """Work in a task of this connection."""
        task = self.loop.create_task(work, context=context)
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    async def _answer(
        self, cycle: RequestResponseCycle, app: Any, own: Transport, context: Context
    ) -> None:
        """Run the application; what is left of its response afterwards goes on without it."""
        failure: BaseException | None = None
        try:
            await app(cycle.scope, cycle.receive, cycle.send)
        except BaseException as error:
            failure = error
        rest = own.rest
        if rest is None:
            await end_of(cycle, failure)
            return
        self._let_go(cycle, own)
        if failure is not None:  # after it had left a rest, which ends as if its peer had gone
            self._abort()
        rest.go_on(RestOfRequest(self, cycle, own, context, failure))

    def _let_go(self, cycle: RequestResponseCycle, own: Transport) -> None:
        """Drop what only the request needed."""
        own.unread = own.rename = None
        if self.scope is cycle.scope:
            self.scope = self.headers = None  # type: ignore[assignment]
            # Between two messages of a connection that is kept, a parser knows nothing.
            if not self._until and cycle.keep_alive and not self._refused:
                self.parser = cast(Any, None)
        cycle.scope, cycle.message_event = SPENT_SCOPE, NOBODY_WAITS

    def on_body(self, body: bytes) -> None:
        """Part of a body, unless the request was refused."""
        self._body_bytes += len(body)
        self._before += len(body)
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End of a request, unless it was refused."""
        self._until = 0.0
        if not self._refused and not self.parser.should_upgrade():
            super().on_message_complete()
            if self._early is not None:
                self._refuse_early(*self._early)

    def _refuse_early(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Answer a whole request without an application, if that is all that it would get."""
        early = self.watch.early
        method = self.parser.get_method()
        answer = early(method, self.url, self.headers, bytes(cycle.body)) if early else None
        if answer is None:
            self._begin(cycle, app)
            return
        self._early = None
        self._cycles.clear()
        self._owns.clear()
        self._refused = True
        self.transport.write(answer)
        self.transport.close()

    def on_response_complete(self) -> None:
        """An answer is written: whatever is written next comes after all of it."""
        for body in self._bodies():
            body.release()
        super().on_response_complete()
        if self._later and not self._is_answering() and not self.transport.is_closing():
            self.transport.write(self._later)
            self.transport.close()

    def _upgrade(self, rest: bytes) -> None:
        """The WebSocket protocol has clocks of its own. An answer that is under way comes first."""
        if self._is_answering():
            self._close_after_answers()
            return
        turns().parse(UPGRADE)
        self.watch.leave(self, self._address)
        self.connections.discard(self)
        make = cast(type[GuardedWebSocket], self.ws_protocol_class)
        protocol = make(self.config, self.server_state, self.app_state)
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        protocol.open(self.parser.get_method(), self.url, self.headers, rest)

    def send_400_response(self, msg: str) -> None:
        """What came was not HTTP."""
        self._refuse(400, "malformed HTTP request")

    def pause_writing(self) -> None:
        """The peer does not read: nothing more is read from it."""
        self._close_ports()
        super().pause_writing()
        self.transport.pause_reading()

    def _close_ports(self) -> None:
        for body in self._bodies():
            body.port.is_open = False

    def _bodies(self) -> list[ChunkedBody]:
        return [own.body for own in self._owns if isinstance(own.body, ChunkedBody)]

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if not self.flow.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def held(self) -> int:
        """Bytes that wait here."""
        unread = (
            self._header_bytes + len(self.unparsed) + sum(len(cycle.body) for cycle in self._cycles)
        )
        return self.transport.get_write_buffer_size() + unread

    def drop(self) -> None:
        """Close at once."""
        self.watch.leave(self, self._address)
        self._abort()

    def _abort(self) -> None:
        """Drop what waits: nothing that would follow it may go past the transport."""
        self.unparsed = b""
        for body in self._bodies():
            body.close()
        self.transport.abort()

    def _cut(self) -> None:
        """End a response without its end: nothing of it has failed, and what was written goes."""
        for body in self._bodies():
            body.release()
            body.close()
        for cycle in self._cycles:
            cycle.disconnected = True  # so that uvicorn lets its application return
        self.transport.close()

    def check(self, now: float) -> None:
        """Close what is late. Called by the ticker."""
        since, self._checked_at = now - self._checked_at, now
        if self._until:
            if self.unparsed or self.flow.read_paused or self.flow.write_paused:
                self._until += since
            elif self._in_headers and self._is_answering():
                self._until = now + self.watch.settings.header_deadline
            elif now > self._until:
                self._until = 0.0
                self._late()
        if self.flow.read_paused and self._is_answering() and has_left(self.transport):
            self.transport.close()  # a further request, or a body, stands before its end
            return
        stuck = self._progress.stuck(self.transport.get_write_buffer_size(), now)
        if stuck > self.watch.settings.write_deadline:
            for own in self._owns:
                own.is_slow = True
            self.drop()

    def _late(self) -> None:
        if self._in_headers:
            # Nothing of a first request ever came, or its headers trickle.
            self._refuse(408, "request headers not received in time")
            return
        receiving = self._receiving()
        if any(not c.response_complete for c in self._cycles if c is not receiving):
            self._close_after_answers()
        else:  # the application has had its time to say so
            self.drop()

    def _is_answering(self) -> bool:
        return any(not cycle.response_complete for cycle in self._cycles)

    def _rename(self, account: str) -> None:
        self.account = account

    def _close_after_answers(self, later: bytes = b"") -> None:
        """Read nothing more; close once what was asked before is answered, with ``later`` behind
        it. Nothing may be written between: it would stand inside an answer."""
        self._refused, self._later = True, later
        self._until = 0.0
        self.flow.pause_reading()
        cycle = self._receiving()
        if cycle is not None and cycle.response_started:
            cycle.more_body = False
            cycle.message_event.set()
        elif cycle is not None:  # it waits behind others, and cannot become whole any more
            waiting = [item for item in self.pipeline if item[0] is not cycle]
            self.pipeline = Pipeline(waiting)  # type: ignore[assignment]
            self._owns.pop(self._cycles.index(cycle))
            self._cycles.remove(cycle)
        unanswered = [cycle for cycle in self._cycles if not cycle.response_complete]
        if unanswered:
            unanswered[-1].keep_alive &= bool(later)
        else:
            self.transport.close()

    def _receiving(self) -> RequestResponseCycle | None:
        """The request whose body is being received."""
        latest = self._cycles[-1] if self._cycles else None
        return latest if latest is not None and latest.more_body and not self._in_headers else None

    def _refuse(self, status: int, message: str) -> None:
        """Answer without an application, and close."""
        receiving = self._receiving()
        if receiving is not None and receiving.response_complete:
            receiving = None
        if any(not c.response_complete for c in self._cycles if c is not receiving) or (
            receiving is not None and receiving.response_started
        ):
            # A request whose own answer has begun gets no second one.
            begun = receiving is not None and receiving.response_started
            self._close_after_answers(b"" if begun else refusal(status, message))
            return
        if receiving is not None:
            receiving.disconnected = True
            receiving.message_event.set()
        self._refused = True
        if self.transport.is_closing():
            return
        self.transport.write(refusal(status, message))
        self.transport.close()


def _parser_of(protocol: GuardedProtocol) -> Any:
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser
