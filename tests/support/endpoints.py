"""HTTP servers of a test's own, in place of a provider or of what gives credentials for one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import tokenwire
from tokenwire.providers.registry import Registry

OPENAI = [
    {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
]
CLAUDE: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"usage": {"input_tokens": 1, "output_tokens": 0}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
    {"type": "message_stop"},
]
GEMINI = [{"candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}]}]


class Endpoint:
    """An HTTP server: ``answer(handler)`` gives status, content type and body."""

    def __init__(self, answer: Any) -> None:
        self.requests: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                size = int(self.headers.get("content-length") or 0)
                posted = self.rfile.read(size).decode("latin-1")
                seen = {k.lower(): v for k, v in self.headers.items()}
                seen |= {":path": self.path, ":method": self.command, ":body": posted}
                outer.requests.append(seen)
                status, kind, body = answer(seen)
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("metadata-flavor", "Google")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = _serve  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Endpoint:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()


def streamed(chunks: list[Any]) -> tuple[int, str, bytes]:
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
    return 200, "text/event-stream", (body + "data: [DONE]\n\n").encode()


def refused(status: int = 401) -> tuple[int, str, bytes]:
    return status, "application/json", b'{"error": {"message": "no", "code": "invalid_api_key"}}'


@contextmanager
def model_server(keys: list[str], chunks: list[Any] = OPENAI) -> Iterator[Endpoint]:
    """A provider that accepts these keys, which the test may change."""

    def answer(request: dict[str, str]) -> Any:
        key = request.get("authorization", "").removeprefix("Bearer ")
        return streamed(chunks) if key in keys else refused()

    with Endpoint(answer) as endpoint:
        yield endpoint


async def said(registry: Registry, model: str) -> str:
    async with tokenwire.stream("Hello", model=model, registry=registry) as run:
        return (await run.result()).text
