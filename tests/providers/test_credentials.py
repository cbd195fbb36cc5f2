"""Keys that change: files and functions against servers of the test."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

import tokenwire
from support.endpoints import (
    model_server,
    said,
)
from support.spine import run_async
from tokenwire.errors import AuthenticationError, ConfigError
from tokenwire.providers.base import Target
from tokenwire.providers.compatible import Provider
from tokenwire.providers.credentials.credential import KeyCredential, Token
from tokenwire.providers.registry import Registry

TARGET = Target(provider="p", dialect="openai-chat", model="m", base_url="http://127.0.0.1:9")


def mine(url: str, **more: Any) -> Provider:
    return Provider(name="mine", title="Mine", base_url=url, keys=("MINE_KEY",), **more)


# --- functions -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_a_key_comes_from_a_function_and_a_401_asks_once_more(kind: str) -> None:
    accepted, given = ["k1"], iter(["k1", "k1", "k2", "bad", "worse", "never"])

    def key() -> str:
        return next(given)

    async def key_async() -> str:
        return key()

    async def main() -> None:
        with model_server(accepted) as server:
            function = key if kind == "plain" else key_async
            registry = Registry(providers=[mine(server.url)], env={}, keys={"mine": function})
            assert await said(registry, "mine:m") == "Hi"
            accepted[:] = ["k2"]
            assert await said(registry, "mine:m") == "Hi", "one refresh, one retry"
            assert len(server.requests) == 3
            with pytest.raises(AuthenticationError):
                await said(registry, "mine:m")
            assert len(server.requests) == 5, "and not a second one"
            assert next(given) == "never"

    run_async(main())


def test_one_refresh_at_a_time_for_all_runs() -> None:
    async def main() -> None:
        calls = 0
        release = asyncio.Event()

        async def fetch() -> Token:
            nonlocal calls
            calls += 1
            await release.wait()
            return Token(f"k{calls}", 1e12)

        credential = KeyCredential("the source", fetch, timeout=60)
        tasks = [asyncio.create_task(credential.ready(TARGET)) for _ in range(20)]
        while not calls:
            await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.wait([tasks[0]])
        release.set()
        targets = await asyncio.gather(*tasks[1:])
        assert {target.api_key for target in targets} == {"k1"}
        stale = targets[0]
        again = await asyncio.gather(*(credential.ready(stale, rejected=True) for _ in range(5)))
        assert {target.api_key for target in again} == {"k2"}
        assert (await credential.ready(stale, rejected=True)).api_key == "k2"
        assert calls == 2, "somebody has replaced the rejected one already"

    run_async(main())


def test_a_token_is_replaced_before_it_expires_and_a_failure_then_hurts_nobody() -> None:
    async def main() -> None:
        now, fails, calls = 0.0, False, 0

        async def fetch() -> Token:
            nonlocal calls
            calls += 1
            if fails:
                raise OSError("down")
            return Token(f"k{calls}", now + 3600)

        credential = KeyCredential("the source", fetch, clock=lambda: now)
        assert (await credential.ready(TARGET)).api_key == "k1"
        now = 3200.0
        assert (await credential.ready(TARGET)).api_key == "k1"
        assert calls == 1
        now, fails = 3400.0, True
        assert (await credential.ready(TARGET)).api_key == "k1"
        while credential._under_way():
            await asyncio.sleep(0)
        assert calls == 2
        fails = False
        assert (await credential.ready(TARGET)).api_key == "k1"
        while credential._under_way():
            await asyncio.sleep(0)
        assert (await credential.ready(TARGET)).api_key == "k3"
        now, fails = 1e6, True
        with pytest.raises(AuthenticationError, match="the source failed"):
            await credential.ready(TARGET)

    run_async(main())


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "is empty"),
        ("sk-secret\nx", "line break"),
        ("sk-secret x", "space"),
        ("sk-sécret", "beyond ASCII"),
        ("s" * 20_000, "more than"),
        (7, "is a int"),
        (ValueError("sk-secret"), r"failed \(ValueError\)"),
        (None, "is a NoneType"),
        ("hangs", "did not answer within"),
    ],
)
def test_a_source_that_gives_no_key_is_named_and_the_key_is_not(
    value: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def fetch() -> Token:
        if isinstance(value, Exception):
            raise value
        if value == "hangs":
            await asyncio.sleep(3600)
        return Token(value)

    async def main() -> None:
        seconds = 0.1 if value == "hangs" else 60
        credential = KeyCredential("the vault", fetch, timeout=seconds)
        with pytest.raises(AuthenticationError, match=f"the vault .*{words}") as caught:
            await credential.ready(TARGET)
        assert "secret" not in str(caught.value) + caplog.text
        assert "sss" not in str(caught.value)

    run_async(main())
    assert "sk-" not in repr(Token("sk-secret"))


def test_a_cancel_ends_the_wait_for_a_key() -> None:
    async def main() -> None:
        waits = asyncio.Event()

        async def key() -> str:
            waits.set()
            await asyncio.sleep(3600)
            return "k"

        registry = Registry(providers=[mine("http://127.0.0.1:9")], env={}, keys={"mine": key})
        async with tokenwire.stream("Hello", model="mine:m", registry=registry) as run:
            reader = asyncio.create_task(_outcome(run))
            await asyncio.wait_for(waits.wait(), 60)
            run.cancel()
            assert await asyncio.wait_for(reader, 60) == "cancelled"

    run_async(main())


async def _outcome(run: Any) -> str:
    async for _ in run:
        pass
    return run.state.outcome


# --- files -----------------------------------------------------------------------------------


def test_a_file_is_read_again_when_it_changes(tmp_path: Any) -> None:
    """As a mounted secret changes: a link to a folder is replaced."""
    for name, key in (("one", "k1\n"), ("two", "k2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text(key)
    link = tmp_path / "data"
    link.symlink_to(tmp_path / "one")

    async def main() -> None:
        accepted = ["k1"]
        with model_server(accepted) as server:
            env = {"MINE_KEY_FILE": str(link / "key")}
            registry = Registry(providers=[mine(server.url)], env=env)
            assert registry.reads("MINE_KEY_FILE")
            assert await said(registry, "mine:m") == "Hi"
            new = tmp_path / "new"
            new.symlink_to(tmp_path / "two")
            os.replace(new, link)
            accepted[:] = ["k2"]
            assert await said(registry, "mine:m") == "Hi"
            assert len(server.requests) == 2
            link.unlink()
            with pytest.raises(AuthenticationError, match="the file of MINE_KEY_FILE cannot be"):
                await said(registry, "mine:m")
            static = Registry(providers=[mine(server.url)], env={**env, "MINE_KEY": "k2"})
            assert await said(static, "mine:m") == "Hi", "a static key counts first"

    run_async(main())


def test_without_a_library_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tokenwire.providers.credentials import clouds

    monkeypatch.setattr(clouds, "_is_installed", lambda module: False)
    for model, words in [
        ("vertex:m", r"set GOOGLE_ACCESS_TOKEN, or pip install 'tokenwire\[vertex\]'"),
        ("bedrock:m", r"pip install 'tokenwire\[bedrock\]'"),
        ("azure:m", r"pip install 'tokenwire\[azure\]'"),
    ]:
        env = {"VERTEX_BASE_URL": "http://127.0.0.1:9", "AZURE_BASE_URL": "http://127.0.0.1:9"}
        with pytest.raises(ConfigError, match=words):
            Registry(env=env).resolve(model)
    static = Registry(
        env={"BEDROCK_BASE_URL": "http://127.0.0.1:9", "AWS_BEARER_TOKEN_BEDROCK": "k"}
    )
    assert static.resolve("bedrock:m")[1].api_key == "k"
