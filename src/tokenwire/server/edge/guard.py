"""What every request passes before a route sees it: host, origin, key, size, shape.

Always true: decisions are taken on ``scope["path"]`` and the parsed host, never on a rebuilt URL;
a refused request reaches no handler; a body is bounded in bytes, time and depth before it is
parsed; every response carries the security headers; the access log holds no query string.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import jiter
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tokenwire.errors import ForbiddenError, InputError, LimitError
from tokenwire.events.validation import quoted
from tokenwire.observe.facts import RequestDone
from tokenwire.observe.hooks import report
from tokenwire.observe.tracing import caller_of
from tokenwire.server.budget import Account
from tokenwire.server.edge.auth import Identity
from tokenwire.server.edge.identify import check_reader
from tokenwire.server.edge.limits import network_of
from tokenwire.server.edge.problems import HTTPProblem, error_response
from tokenwire.server.edge.request_info import RequestInfo, request_info
from tokenwire.server.edge.transport import Transport, transport_of
from tokenwire.server.hosted import refusal_of, user_of
from tokenwire.server.metered import MeteredSend
from tokenwire.server.settings import Settings, is_loopback
from tokenwire.server.spending.notice import collected
from tokenwire.server.tokens.carried import take_token
from tokenwire.server.tokens.grant import within

if TYPE_CHECKING:
    from tokenwire.server.state import State

__all__ = [
    "SAME_ORIGIN",
    "Guard",
    "HostCheck",
    "OriginCheck",
    "RequestInfo",
    "parse_json",
    "request_info",
    "with_common_headers",
]

_access = logging.getLogger("tokenwire.access")
#: What a body of JSON is called; both are types that no form of a page can send.
_JSON = (b"application/json", b"application/a2a+json")
_SAFE = ("GET", "HEAD", "OPTIONS")
#: A header's name in a preflight, and how many of a family are answered.
_NAME, _MOST_NAMES = re.compile(r"[a-z0-9-]{1,60}"), 30
#: A string of a JSON text. One without an end reaches to the text's end: were it no match, each of
#: its quotes would be tried as the beginning of another one.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
#: A file inside a JSON body: a long run of what base64 is made of, which a parser skips over.
# Looked for at the beginning of a run only, so that many short ones take no longer.
_INLINE = re.compile(rb"(?<![A-Za-z0-9+/=\\_-])[A-Za-z0-9+/=\\_-]{4096,}")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

_HEADERS: list[tuple[bytes, bytes]] = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store, no-transform"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]
#: Of an answer that pages of no other origin may read.
SAME_ORIGIN: list[tuple[bytes, bytes]] = [(b"cross-origin-resource-policy", b"same-origin")]


class HostCheck:
    """Which ``Host`` values are ours: loopback names, the bound address, and the configured."""

    def __init__(self, settings: Settings) -> None:
        self._names = {"localhost", "127.0.0.1", "::1"}
        self._names |= {name.lower().rstrip(".") for name in settings.allow_host}
        if settings.host not in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
            self._names.add(settings.host.lower().strip("[]"))
        # A page of another site cannot have an address as its name, so addresses are no rebinding.
        self._addresses = not settings.loopback

    def allows(self, value: bytes | None) -> bool:
        """Whether a ``Host`` header names us. The host is parsed and compared whole."""
        match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?", _text(value))
        if match is None:
            return False
        name = match[1].lower().strip("[]")
        if name in self._names or (name.startswith("127.") and is_loopback(name) and _is_ip(name)):
            return True
        return self._addresses and _is_ip(name)


class OriginCheck:
    """Origins whose pages may send requests: our own, and exactly the configured ones."""

    def __init__(self, settings: Settings) -> None:
        self.origins = frozenset(origin.rstrip("/") for origin in settings.cors_origin)

    def check(self, headers: dict[bytes, bytes], how: str) -> None:
        """Raise `ForbiddenError` for a cross-site request."""
        origin = headers.get(b"origin")
        site = headers.get(b"sec-fetch-site")
        if origin is not None:
            if self.is_ours(_text(origin), headers) or _text(origin) in self.origins:
                return
            raise ForbiddenError("origin not allowed; add it with --cors-origin")
        if site is not None and site not in (b"same-origin", b"none"):
            raise ForbiddenError("cross-site requests are not allowed")
        if how == "session" and site is None:
            raise ForbiddenError("a session cookie needs an Origin header")

    def is_ours(self, origin: str, headers: dict[bytes, bytes]) -> bool:
        """Whether ``origin`` is the page that this server serves (the host was checked)."""
        scheme, _, rest = origin.partition("://")
        return scheme in ("http", "https") and rest == _text(headers.get(b"host"))


class Guard:
    """Pure ASGI, around the whole application."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self.app = app
        self.state = state
        #: Which hosts are ours; None where an application around this one knows.
        self.hosts = HostCheck(state.settings) if state.hosted is None else None
        self.origins = OriginCheck(state.settings)
        self._checks_origin = state.hosted is None or state.hosted.check_origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        info = self._info(scope)
        began_at = time.perf_counter()
        transport = transport_of(scope)
        account = self.state.budget.account(network_of(info.client))
        metered = MeteredSend(send, account, transport.abort)
        dressed = self._with_headers(scope, info, metered, account)
        transport.send, transport.account = metered.stream, account
        try:
            if not await self._preflight(scope, info, dressed) and not await _refused(
                scope, receive, dressed
            ):
                await self._admit(scope, info)
                self._name_account(info, account, transport)
                if scope["method"] not in _SAFE:
                    receive = await self._read(scope, info, receive, account)
                with within(info.identity.grant), collected(info.noted), caller_of(info.headers):
                    await self.app(scope, receive, dressed)
        except Exception as error:
            if info.status:  # the response has begun: it can only be broken off
                raise
            account.close()
            response = error_response(error, info.id, self.state.form_for(info.path))
            statuses = self.state.error_statuses.get(info.path, {})
            response.status_code = statuses.get(response.status_code, response.status_code)
            await response(scope, receive, dressed)
        finally:
            if transport.rest is None:
                transport.forget()
                self._done(scope, info, account, began_at).report()
            else:
                transport.when_over = self._done(scope, info, account, began_at).report

    def _with_headers(
        self, scope: Scope, info: RequestInfo, metered: MeteredSend, account: Account
    ) -> Send:
        """``send`` with our headers, flow control, and what closes a connection in time."""
        cors, transport = self.cors(info.headers), transport_of(scope)
        is_shared = info.path in self.state.public_paths or info.path.startswith("/assets/")

        async def send_with_headers(message: Message) -> None:
            if message["type"] != "http.response.start":
                await metered.body(message)
                return
            headers = with_common_headers(message.get("headers", ()), info.id, cors)
            name = self.state.request_id_names.get(info.path)
            if name is not None:
                headers.append((name, info.id.encode("ascii")))
            headers += info.noted
            if transport.unread is not None and transport.unread():
                headers = [pair for pair in headers if pair[0] != b"connection"]
                headers.append((b"connection", b"close"))
            # The request has been understood: its body waits no longer.
            info.body, info.json = b"", None
            account.close()
            # A file of the page is held once, however many read it.
            size = 0 if is_shared or scope["method"] == "HEAD" else _length(headers)
            await metered.begin({**message, "headers": headers}, size)
            info.status = message["status"]

        return send_with_headers

    def _name_account(self, info: RequestInfo, account: Account, transport: Transport) -> None:
        if info.how in ("key", "session", "attach", "host"):
            account.rename(f"principal {info.principal}")
        if transport.rename is not None:
            transport.rename(account.name)

    async def _admit(self, scope: Scope, info: RequestInfo) -> None:
        headers, path = info.headers, info.path
        self._check_host(scope, info)
        if path.startswith(self.state.link_paths):
            info.identity = Identity(how="token")
            return  # who knows the path has the right to it, whatever page sends the request
        if any(pattern.fullmatch(path) for pattern in self.state.own_tokens):
            info.identity = Identity(how="token")
        elif path not in self.state.public_paths and not path.startswith("/assets/"):
            info.identity = await self.state.identify.of_request(info, scope)
            check_reader(info)
            self.state.roles.check(info.identity, scope["method"], path)
        if scope["method"] not in _SAFE or path in self.state.costly_paths:
            self._check_origin(headers, info.how)

    def _check_host(self, scope: Scope, info: RequestInfo) -> None:
        if self.hosts is None:
            return
        if not self.hosts.allows(info.headers.get(b"host")) or _repeated(scope, b"host"):
            raise HTTPProblem(
                421, "wrong_host", "unknown Host header; add the name with --allow-host"
            )

    def _check_origin(self, headers: dict[bytes, bytes], how: str) -> None:
        if self._checks_origin:
            self.origins.check(headers, how)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        info = self._info(scope)
        has_answer = False

        async def send_noted(message: Message) -> None:
            nonlocal has_answer
            if message["type"] == "websocket.close" and not has_answer:
                raise HTTPException(404)  # no WebSocket has this path
            if message["type"] == "websocket.http.response.start":
                headers = with_common_headers(
                    message.get("headers", ()), info.id, self.cors(info.headers)
                )
                message = {**message, "headers": headers}
            has_answer = True
            await send(message)

        try:
            if await _refused(scope, receive, send_noted):
                return
            self._check_host(scope, info)
            self._check_origin(info.headers, "open")
            info.identity = await self.state.identify.of_socket(info, scope)
            check_reader(info)
            info.identity.require("read")
            account = self.state.budget.account(network_of(info.client))
            self._name_account(info, account, transport_of(scope))
            with caller_of(info.headers):
                await self.app(scope, receive, send_noted)
        except Exception as error:
            if has_answer:
                raise
            response = error_response(error, info.id, self.state.form_for(info.path))
            await response(scope, receive, send_noted)

    def _info(self, scope: Scope) -> RequestInfo:
        headers = dict(scope["headers"])
        client = (scope.get("client") or ("",))[0]
        secure = scope.get("scheme") in ("https", "wss")
        trusted = self.state.settings.trust_proxy
        if client in trusted:
            secure = headers.get(b"x-forwarded-proto", b"") == b"https"
            hops = [hop.strip() for hop in _text(headers.get(b"x-forwarded-for")).split(",")]
            client = next((hop for hop in reversed(hops) if hop and hop not in trusted), client)
        mount = scope.get("root_path", "").rstrip("/")
        path = _below(mount, scope["path"])
        info = scope["tokenwire"] = RequestInfo(headers, client, secure, mount, path)
        info.user, info.token = user_of(scope), take_token(scope)
        return info

    async def _preflight(self, scope: Scope, info: RequestInfo, send: Send) -> bool:
        is_preflight = b"access-control-request-method" in info.headers
        origin = _text(info.headers.get(b"origin"))
        if scope["method"] != "OPTIONS" or not is_preflight or origin not in self.origins.origins:
            return False
        requested = _text(info.headers.get(b"access-control-request-headers")).lower().split(",")
        families = tuple(self.state.cors_families)
        more = [name for name in map(str.strip, requested) if name.startswith(families)]
        names = ", ".join([self.state.cors_headers, *filter(_NAME.fullmatch, more[:_MOST_NAMES])])
        headers = [
            (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            (b"access-control-allow-headers", names.encode("latin-1")),
            (b"access-control-max-age", b"600"),
        ]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return True

    def cors(self, headers: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """Which pages of other origins may read an answer to a request with ``headers``."""
        origin = headers.get(b"origin")
        if not self._checks_origin:
            return []  # the application's own middleware says who may read
        if origin is None or _text(origin) not in self.origins.origins:
            return SAME_ORIGIN
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-expose-headers", self.state.cors_exposed.encode("latin-1")),
            (b"vary", b"Origin"),
            (b"cross-origin-resource-policy", b"cross-origin"),
        ]

    async def _read(
        self, scope: Scope, info: RequestInfo, receive: Receive, account: Account
    ) -> Receive:
        """The whole body, bounded; the parsed JSON unless the path takes other types."""
        raw_limit = self.state.raw_limit(info.path)
        plain = self.state.body_limit(info.path) if raw_limit is None else raw_limit
        most = plain + (self.state.media_limit(info.path) if raw_limit is None else 0)
        if info.headers.get(b"content-encoding", b"identity") != b"identity":
            raise HTTPProblem(
                415,
                "unsupported_media_type",
                "compressed bodies are not supported; send it uncompressed",
            )
        declared = info.headers.get(b"content-length")
        if declared is not None and (not declared.isdigit() or int(declared) > most):
            raise LimitError(f"the body may have at most {most} bytes", limit="body", most=most)
        try:
            async with asyncio.timeout(self.state.settings.body_deadline):
                info.body = await _receive_all(receive, most, account)
        except TimeoutError:
            raise HTTPProblem(408, "timeout", "request body not received in time") from None
        if len(info.body) > plain and len(info.body) - _inline(info.body) > plain:
            raise LimitError(
                f"without its files the body may have at most {plain} bytes",
                limit="body",
                most=plain,
            )
        if raw_limit is None and (info.body or scope["method"] in ("PUT", "PATCH")):
            kind = info.headers.get(b"content-type", b"").split(b";")[0].strip().lower()
            if kind not in _JSON:
                raise HTTPProblem(
                    415, "unsupported_media_type", "send the body as Content-Type: application/json"
                )
            info.json = parse_json(info.body, self.state.settings.json_depth)
        return _replay(info, receive)

    def _done(self, scope: Scope, info: RequestInfo, account: Account, began_at: float) -> _Done:
        route = getattr(scope.get("route"), "path", None) or "other"
        path: bytes | None = None
        if self.state.settings.access_log:
            whole: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "replace")
            path = whole.split(b"?")[0]
        return _Done(scope["method"], route, path, info.status, info.id, account, began_at)


class _Done(NamedTuple):
    """What is reported of a request at its end, and nothing else of it. ``path``: for the access
    log; None without one."""

    method: str
    route: str
    path: bytes | None
    status: int
    id: str
    account: Account
    began_at: float

    def report(self) -> None:
        self.account.close()
        seconds = time.perf_counter() - self.began_at
        report(RequestDone(self.method, self.route, self.status, seconds))
        if self.path is not None:
            path = self.path.decode("ascii", "backslashreplace")[:200]
            _access.info(
                "%s %s %d %.0f ms %s", self.method, path, self.status, seconds * 1000, self.id
            )


async def _refused(scope: Scope, receive: Receive, send: Send) -> bool:
    """Send the answer of an application around this one that refuses a request, or raise its
    error."""
    refusal = refusal_of(scope)
    if isinstance(refusal, Response):
        await refusal(scope, receive, send)
    elif refusal is not None:
        raise refusal
    return refusal is not None


def parse_json(data: bytes, depth: int) -> Any:
    """JSON of at most ``depth`` levels, without duplicate keys, NaN or infinities."""
    if data.count(b"[") + data.count(b"{") > depth:
        level = 0
        for byte in _STRING.sub(b"", data).translate(None, _NOT_BRACKETS):
            level += 1 if byte in b"[{" else -1
            if level > depth:
                raise InputError(
                    f"the JSON is nested deeper than {depth} levels", limit="json_depth"
                )
    try:
        return jiter.from_json(data, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError as error:
        raise InputError(f"the body is not valid JSON: {quoted(str(error), 160)}") from error


async def _receive_all(receive: Receive, most: int, account: Account) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HTTPException(400)
        piece = message.get("body", b"")
        size += len(piece)
        if size > most:
            raise LimitError(f"the body may have at most {most} bytes", limit="body", most=most)
        account.take(len(piece))
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)


def _inline(body: bytes) -> int:
    """Bytes of the files inside a JSON body, read without parsing it."""
    return sum(match.end() - match.start() for match in _INLINE.finditer(body))


def _replay(info: RequestInfo, receive: Receive) -> Receive:
    replayed = False

    async def again() -> Message:
        nonlocal replayed
        if not replayed:
            replayed = True
            return {"type": "http.request", "body": info.body, "more_body": False}
        return await receive()

    return again


def with_common_headers(
    headers: Iterable[tuple[bytes, bytes]], request_id: str, cors: list[tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]]:
    """``headers`` of a response, with those that every response has, and ``cors``."""
    response_headers = list(headers)
    present = {name for name, _ in response_headers}
    response_headers += [pair for pair in _HEADERS if pair[0] not in present]
    response_headers += [pair for pair in cors if pair[0] == b"vary" or pair[0] not in present]
    response_headers.append((b"x-request-id", request_id.encode("ascii")))
    return response_headers


def _length(headers: list[tuple[bytes, bytes]]) -> int:
    """The declared bytes of an answer's body; 0 for a stream."""
    for name, value in headers:
        if name == b"content-length":
            return int(value)
    return 0


def _below(mount: str, path: str) -> str:
    """``path`` below ``mount``: what routes and rules are written for."""
    return path[len(mount) :] if mount and path.startswith(f"{mount}/") else path


def _text(value: bytes | None) -> str:
    return (value or b"").decode("latin-1")


def _repeated(scope: Scope, name: bytes) -> bool:
    return sum(1 for key, _ in scope["headers"] if key == name) > 1


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
