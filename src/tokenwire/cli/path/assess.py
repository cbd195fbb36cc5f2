"""What measured streams say about the way between here and the server; pure.

Always true: a finding is ``broken`` only where a reader of answers would notice it; times are
compared with those that the server wrote into the stream, so that a far server is not a slow one.
"""

from __future__ import annotations

from collections.abc import Iterator

from tokenwire.cli.finding import Finding
from tokenwire.cli.path.advice import Problem, advice_for, kind_of
from tokenwire.cli.path.measure import Socket, Stream

__all__ = ["MARK", "assess_burst", "assess_first", "assess_long", "assess_socket"]

#: What a probe sends as Last-Event-ID.
MARK = "doctor-1"
#: Seconds that an event may be later than the quickest one before it counts as held back, and the
#: least part of the events that must have arrived in pieces of their own.
_HELD, _APART = 0.5, 0.5
#: Seconds after which the first byte is late.
_LATE = 1.0


def _broken(what: str, detail: str, problem: Problem, stream: Stream) -> Finding:
    return Finding(what, "broken", detail, advice_for(problem, kind_of(stream.headers)))


def assess_first(stream: Stream, *, has_key: bool) -> Iterator[Finding]:
    """A short stream of ticks. The first finding is broken where there is none to look at."""
    arrival = stream.of("seen")
    if stream.status != 200 or (arrival is None and "content-encoding" not in stream.headers):
        yield _unreachable(stream, has_key=has_key)
        return
    kind = kind_of(stream.headers)
    yield Finding("server", "ok", "answers" + (f"; behind {kind}" if kind else ""))
    coding = stream.headers.get("content-encoding", "identity")
    if coding != "identity":
        yield _broken(
            "compression", f"the stream is packed with {coding[:20]}", "compressed", stream
        )
    else:
        yield Finding("compression", "ok", "none")
    if arrival is None:
        return
    version = str(arrival.get("http_version"))
    if version.startswith("1.0"):
        yield _broken("protocol", "the server is asked by HTTP/1.0", "http10", stream)
    else:
        yield Finding("protocol", "ok", f"HTTP/{version} at the server")
    yield from _headers(stream, arrival, has_key=has_key)
    yield _buffering(stream)
    yield _first_byte(stream)


def _unreachable(stream: Stream, *, has_key: bool) -> Finding:
    advice = ""
    if stream.status == 401:
        advice = "name a key of the server (--api-key, TOKENWIRE_API_KEY)"
        if has_key:
            advice = "check the key; if it is right: " + advice_for(
                "authorization", kind_of(stream.headers)
            )
    elif stream.status == 404:
        advice = "check the path of the URL; older servers have no /v1/probe"
    elif stream.status == 421:
        advice = "name the public host with --allow-host"
    elif stream.status in (502, 503, 504):
        advice = "what stands before the server does not reach it, or it stops"
    elif not stream.status:
        advice = "check the URL, and that the server runs"
    elif stream.status == 200:
        return Finding(
            "server", "broken", "answers, but not with a probe's stream", "check the URL"
        )
    return Finding("server", "broken", stream.error or f"status {stream.status}", advice)


def _headers(stream: Stream, arrival: dict[str, object], *, has_key: bool) -> Iterator[Finding]:
    if arrival.get("last_event_id") == MARK:
        yield Finding("Last-Event-ID", "ok", "arrives")
    else:
        yield _broken("Last-Event-ID", "does not arrive", "last_event_id", stream)
    if has_key:
        if arrival.get("authorization"):
            yield Finding("Authorization", "ok", "arrives")
        else:
            yield _broken("Authorization", "does not arrive", "authorization", stream)
    names = arrival.get("forwarded")
    if isinstance(names, list) and "x-forwarded-for" in names and not arrival.get("trusts_proxy"):
        yield Finding(
            "addresses",
            "note",
            f"all clients count as {str(arrival.get('client'))[:60]}",
            "name the proxy with --trust-proxy",
        )


def _buffering(stream: Stream) -> Finding:
    late = [
        (index, piece.at - float(event["at"]))
        for index, piece in enumerate(stream.pieces)
        for event in piece.events
        if event.get("type") == "tick"
    ]
    if len(late) < 3:
        return Finding("buffering", "note", "too few events arrived to tell", "try again")
    delay = max(value for _, value in late) - min(value for _, value in late)
    pieces = len({index for index, _ in late})
    if delay > _HELD and pieces < _APART * len(late):
        detail = f"{len(late)} events came in {pieces} pieces, up to {delay:.1f} s late"
        return _broken("buffering", detail, "buffered", stream)
    return Finding("buffering", "ok", f"none; events at most {max(delay, 0):.2f} s late")


def _first_byte(stream: Stream) -> Finding:
    first = stream.pieces[0]
    detail = f"after {first.at:.2f} s (headers after {stream.head:.2f} s)"
    if first.at > _LATE:
        where = (
            "between the server and here" if stream.head < first.at / 2 else "before the headers"
        )
        return Finding("first byte", "note", detail, f"the time passes {where}")
    return Finding("first byte", "ok", detail)


def assess_burst(stream: Stream, count: int) -> Finding:
    """Many events at once: all of them, once, in order."""
    end = stream.of("burst-end")
    numbers = [event.get("n") for event in stream.events if event.get("type") == "burst"]
    if end is None:
        return Finding(
            "order under load", "broken", stream.error or "the burst was cut", "try again"
        )
    if numbers != list(range(count)) or end.get("sha256") != stream.burst:
        return Finding(
            "order under load",
            "broken",
            f"{len(numbers)} of {count} events, not as they were sent",
            "what stands between changes the bytes of streams: turn that off",
        )
    return Finding("order under load", "ok", f"{count} events, each once and in order")


def assess_socket(socket: Socket, stream: Stream) -> Finding:
    """The upgrade of ``/ws``."""
    if socket.is_open:
        return Finding("WebSocket", "ok", "opens and answers")
    return _broken("WebSocket", f"does not open: {socket.error}", "socket", stream)


def _cut(stream: Stream, heartbeat: float) -> Finding:
    """A stream that broke off. Where not one comment came, silence or age may have ended it."""
    silence = stream.ended - stream.pieces[-1].at
    detail = f"cut after {stream.ended:.1f} s, {silence:.1f} s after the last byte"
    if silence > 1.5 * heartbeat:
        return _broken("long stream", detail, "silence", stream)
    finding = _broken("long stream", detail, "cut", stream)
    if not any(piece.comments for piece in stream.pieces):
        kind = kind_of(stream.headers)
        finding.advice = f"{advice_for('silence', kind)}; or {finding.advice}"
    return finding


def assess_long(stream: Stream, *, seconds: float, heartbeat: float) -> Iterator[Finding]:
    """A stream without events, of comments every ``heartbeat`` seconds only."""
    end = stream.of("end")
    if stream.of("seen") is None:
        yield Finding("long stream", "broken", stream.error or "no stream", "try again")
        return
    if end is None:
        yield _cut(stream, heartbeat)
        return
    if end.get("left"):
        yield Finding("long stream", "note", f"the server ended it: {end['left']}", "try again")
        return
    yield Finding("long stream", "ok", f"not cut in {seconds:.0f} s")
    total = int(end.get("comments") or 0)
    here = sum(piece.comments for piece in stream.pieces)
    if here < total:
        yield Finding(
            "heartbeats",
            "broken",
            f"{here} of {total} comments arrived",
            "what stands between drops SSE comments: turn that off; until then clients reconnect",
        )
    elif total:
        yield Finding("heartbeats", "ok", f"{total} arrived")
