"""A GGUF file is served by an embedded llama.cpp and read by the ordinary client and decoder."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from tokenwire.errors import ConfigError, UnknownModelError
from tokenwire.events.message import user
from tokenwire.events.request import Request
from tokenwire.providers import local
from tokenwire.providers.base import Call
from tokenwire.providers.facts import facts
from tokenwire.providers.http import HttpClient
from tokenwire.providers.registry import Registry

needs_llama = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None or importlib.util.find_spec("gguf") is None,
    reason="the extra 'local' and the package 'gguf' are not installed",
)


def model(path: Path) -> str:
    spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny_gguf.py"))
    assert spec is not None
    assert spec.loader is not None
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    return str(tiny.write(path / "tiny.gguf"))


@needs_llama
def test_a_tiny_model_answers_through_the_ordinary_client(tmp_path: Path) -> None:
    name = model(tmp_path)
    registry = Registry(env={})
    dialect, target = registry.resolve(name)
    try:
        assert target.base_url.startswith("http://127.0.0.1:")
        assert Registry(env={}).resolve(name)[1] is target  # loaded once

        async def ask(call: Call) -> tuple[int, list[Any]]:
            client = HttpClient()
            stream = await client.open(call, connect_timeout=5)
            decoder = dialect.decoder(content_type=stream.headers.get("content-type"))
            events: list[Any] = []
            while data := await stream.read():
                if stream.status == 200:
                    events += decoder.feed(data)
            events += decoder.finish()
            await stream.aclose()
            await client.aclose()
            return stream.status, events

        request = Request(messages=[user("abc")], max_tokens=6, seed=1)
        call = dialect.build(request, target)
        status, events = asyncio.run(ask(call))
        found = facts(events)
        assert status == 200
        assert found["complete"]
        assert found["finish_reason"] == "length"
        assert found["tokens"]["output"] == 6
        call.headers.pop("authorization")
        assert asyncio.run(ask(call))[0] == 401  # nobody else's business
    finally:
        local.close_all()


@pytest.mark.parametrize(
    ("content", "says"), [(None, "no file"), (b"PK\3\4....", "no GGUF"), (b"", "no GGUF")]
)
def test_a_file_that_is_no_model_is_refused(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    path = tmp_path / "x.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnknownModelError, match=says) as caught:
        Registry(env={}).resolve(str(path))
    assert str(tmp_path) not in str(caught.value)


@needs_llama
def test_a_damaged_model_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(ConfigError, match="cannot load"):
        Registry(env={}).resolve(str(path))


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + b"\0" * 100)
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(ConfigError, match=r"tokenwire\[local\]"):
        Registry(env={}).resolve(str(path))
