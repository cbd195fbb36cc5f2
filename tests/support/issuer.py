"""An OpenID provider on loopback, which rotates its keys, goes away, comes back, and misbehaves."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

__all__ = ["AUDIENCE", "Issuer", "SigningKey", "issuer", "signing_key"]

AUDIENCE = "tokenwire-tests"
_DOCUMENT, _KEYS = "/.well-known/openid-configuration", "/keys"


class SigningKey:
    """A private key, and the entry of a set that is its public one."""

    def __init__(self, kind: str, id: str, bits: int = 2048) -> None:  # noqa: A002
        self.id, self.kind = id, kind
        if kind.startswith(("RS", "PS")):
            self.private: Any = rsa.generate_private_key(65537, bits)
            text = jwt.algorithms.RSAAlgorithm.to_jwk(self.private.public_key())
        elif kind.startswith("ES"):
            curve = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}[kind]()
            self.private = ec.generate_private_key(curve)
            text = jwt.algorithms.ECAlgorithm.to_jwk(self.private.public_key())
        else:
            self.private = ed25519.Ed25519PrivateKey.generate()
            text = jwt.algorithms.OKPAlgorithm.to_jwk(self.private.public_key())
        self.entry: dict[str, Any] = {**json.loads(text), "kid": id, "use": "sig", "alg": kind}
        self.entry.pop("key_ops", None)


@lru_cache
def signing_key(kind: str, id: str, bits: int = 2048) -> SigningKey:  # noqa: A002
    """A key, made once for all tests of a process."""
    return SigningKey(kind, id, bits)


class Issuer:
    """The provider. ``entries``: its key set; ``misbehave``: path -> what answers instead."""

    def __init__(self) -> None:
        self.keys = [signing_key("RS256", "one")]
        self.entries: list[Any] | None = None
        self.requests: Counter[str] = Counter()
        self.misbehave: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.document: dict[str, Any] = {}
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def keys_url(self) -> str:
        return self.url + _KEYS

    def key_set(self) -> dict[str, Any]:
        """What it publishes now."""
        if self.entries is not None:
            return {"keys": self.entries}
        return {"keys": [key.entry for key in self.keys]}

    def start(self) -> None:
        """Be there, at the address of before."""
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                issuer.requests[path] += 1
                if path in issuer.misbehave:
                    issuer.misbehave[path](self)
                    return
                body: Any = {}
                if path == _DOCUMENT:
                    body = {"issuer": issuer.url, "jwks_uri": issuer.keys_url, **issuer.document}
                elif path == _KEYS:
                    body = issuer.key_set()
                answer(self, json.dumps(body).encode(), 200 if body else 404)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        """Be away: nobody listens at the address."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def token(
        self,
        sub: Any = "ann",
        *,
        key: SigningKey | None = None,
        algorithm: str | None = None,
        header: dict[str, Any] | None = None,
        seconds: float = 3600,
        without: tuple[str, ...] = (),
        **claims: Any,
    ) -> str:
        """A token of its own. ``header``: members added, and with None taken away."""
        key = key or self.keys[0]
        now = int(time.time())
        body = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": sub,
            "iat": now,
            "exp": now + seconds,
            **claims,
        }
        for name in without:
            del body[name]
        head: dict[str, Any] = {"kid": key.id, **(header or {})}
        head = {name: value for name, value in head.items() if value is not None}
        chosen = algorithm or key.kind
        raw = [_text(json.dumps(part).encode()) for part in ({"alg": chosen, **head}, body)]
        signer = jwt.get_algorithm_by_name(key.kind if algorithm is None else chosen)
        signature = signer.sign(".".join(raw).encode(), key.private)
        return ".".join([*raw, _text(signature)])


def raw_token(header: dict[str, Any] | bytes, claims: dict[str, Any] | bytes, end: bytes) -> str:
    """A token of any parts."""
    parts = [p if isinstance(p, bytes) else json.dumps(p).encode() for p in (header, claims)]
    return ".".join(_text(part) for part in (*parts, end))


def answer(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    """Send one answer."""
    handler.send_response(status)
    headers = {"content-length": str(len(body)), "content-type": "application/json", **headers}
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@contextmanager
def issuer() -> Iterator[Issuer]:
    """A provider that is there for a while."""
    made = Issuer()
    try:
        yield made
    finally:
        made.stop()
