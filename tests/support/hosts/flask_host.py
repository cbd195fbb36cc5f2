"""A Flask application whose answers stream from a blocking iterator; prints its port."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

from flask import Flask, Response, request
from werkzeug.serving import make_server

from tokenwire import sync
from tokenwire.providers.registry import Registry

registry = Registry(demo_url=sys.argv[1], env={})
app = Flask(__name__)
ended = {"whole": 0, "cut": 0}
has_cut = threading.Event()


@app.post("/chat")
def chat() -> Response:
    prompt = request.get_json()["prompt"]

    def words() -> Iterator[str]:
        try:
            with sync.stream(prompt, model="demo", registry=registry) as run:
                yield from run.text()
        except GeneratorExit:  # the reader has left
            ended["cut"] += 1
            has_cut.set()
            raise
        ended["whole"] += 1

    return Response(words(), mimetype="text/plain")


@app.get("/ended")
def how_they_ended() -> dict[str, int]:
    has_cut.wait(60)
    return ended


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, app, threaded=True)
    print(f"[{server.server_port}]", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
