"""What ``block.py`` of the guide makes, asked once without its login and once with it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import httpx
from starlette.testclient import TestClient


def load() -> Any:
    spec = importlib.util.spec_from_file_location("block", Path("block.py"))
    assert spec is not None
    assert spec.loader is not None
    block = importlib.util.module_from_spec(spec)
    sys.modules["block"] = block
    spec.loader.exec_module(block)
    return block


def check(app: Any) -> None:
    with TestClient(app) as client:
        assert client.get("/ai/v1/models").status_code == 401
        assert client.post("/login", params={"name": "ann"}).status_code < 300
        assert client.get("/ai/v1/models").json()["data"][0]["id"] == "demo"


if __name__ == "__main__":
    framework = sys.argv[1]
    if framework == "Flask":
        http = httpx.Client(transport=httpx.WSGITransport(app=load().app), timeout=60)
        answer = http.post("http://host/chat", json={"prompt": "scenario:text"})
        assert len(answer.text) > 10, answer.text
    elif framework == "Django":
        block = load()
        from support.hosts.django_host import make_users

        make_users()
        check(block.application)
    else:
        check(load().app)
