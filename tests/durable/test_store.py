"""Read-write Durable Streams outlive the server's process where its log does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from support.node import serving

TEXT = {"content-type": "text/plain"}
PRODUCER = {**TEXT, "producer-id": "p", "producer-epoch": "0"}


def at(server: Any, name: str) -> str:
    return f"{server.url}/ds/v1/stream/{name}"


def test_streams_producers_forks_and_deletes_survive_a_restart(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "store": f"sqlite:{tmp_path / 'kept.db'}",
        "durable_streams": "readwrite",
    }
    with serving(**settings) as server:
        httpx.put(at(server, "notes"), content=b"one ", headers=TEXT)
        first = httpx.post(
            at(server, "notes"), content=b"two ", headers={**PRODUCER, "producer-seq": "0"}
        )
        assert first.status_code == 200
        forked = {**TEXT, "stream-forked-from": "/v1/stream/notes"}
        assert httpx.put(at(server, "fork"), headers=forked).status_code == 201
        httpx.put(at(server, "gone"), content=b"x", headers=TEXT)
        assert httpx.delete(at(server, "gone")).status_code == 204
        json_type = {"content-type": "application/json", "stream-closed": "true"}
        httpx.put(at(server, "json"), content=b"[1,[2]]", headers=json_type)
    with serving(**settings) as server:
        again = httpx.post(
            at(server, "notes"), content=b"two ", headers={**PRODUCER, "producer-seq": "0"}
        )
        assert again.status_code == 204, "the same request counts once, also after a restart"
        httpx.post(at(server, "notes"), content=b"three", headers=TEXT)
        assert httpx.get(at(server, "notes")).text == "one two three"
        assert httpx.get(at(server, "fork")).text == "one two "
        assert httpx.get(at(server, "gone")).status_code == 404
        closed = httpx.get(at(server, "json"))
        assert closed.json() == [1, [2]]
        assert closed.headers["stream-closed"] == "true"
        assert httpx.delete(at(server, "notes")).status_code == 204
        assert httpx.get(at(server, "notes")).status_code == 410, "its fork still needs it"
    with serving(**settings) as server:
        assert httpx.get(at(server, "notes")).status_code == 410
        assert httpx.get(at(server, "fork")).text == "one two "
        assert httpx.delete(at(server, "fork")).status_code == 204
        assert httpx.get(at(server, "notes")).status_code == 404


def test_principals_do_not_see_each_others_streams() -> None:
    keys = ["ann:0123456789abcdef-ann", "bob:0123456789abcdef-bob"]
    with serving(durable_streams="readwrite", api_keys=keys) as server:
        ann = {"authorization": "Bearer 0123456789abcdef-ann"}
        bob = {"authorization": "Bearer 0123456789abcdef-bob"}
        made = httpx.put(at(server, "mine"), content=b"secret", headers={**TEXT, **ann})
        assert made.status_code == 201
        assert httpx.get(at(server, "mine"), headers=bob).status_code == 404
        forked = {**TEXT, **bob, "stream-forked-from": "/v1/stream/mine"}
        assert httpx.put(at(server, "theirs"), headers=forked).status_code == 404
        assert httpx.get(at(server, "mine")).status_code == 401
