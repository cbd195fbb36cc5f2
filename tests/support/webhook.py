"""A webhook on a real socket, and how it checks a signature."""

from __future__ import annotations

import base64
import http.server
import ssl
import threading
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519

__all__ = ["Receiver", "verified"]


class Receiver:
    """A webhook on a free loopback port; ``requests`` are path, headers (lower case) and body."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        #: What it answers; status 0 hangs up. It waits for ``hold`` before.
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body = b"{}"
        self.hold = threading.Event()
        self.hold.set()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                size = int(self.headers.get("content-length", 0))
                told = {k.lower(): v for k, v in self.headers.items()}
                receiver.requests.append((self.path, told, self.rfile.read(size)))
                receiver.hold.wait(60)
                if not receiver.status:  # hang up
                    self.close_connection = True
                    return
                self.send_response(receiver.status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(receiver.body)))
                self.end_headers()
                self.wfile.write(receiver.body)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def verified(keys: dict[str, Any], header: str, body: bytes) -> bool:
    """As a webhook would do it."""
    parts = dict(part.split("=", 1) for part in header.split(","))
    key = next(key for key in keys["keys"] if key["kid"] == parts["kid"])
    raw = base64.urlsafe_b64decode(key["x"] + "=")
    signature = base64.urlsafe_b64decode(parts["ed25519"] + "==")
    ed25519.Ed25519PublicKey.from_public_bytes(raw).verify(
        signature, parts["t"].encode() + b"." + body
    )
    return True
