"""A text where a list is expected is one item, or refused; never a list of letters."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import tokenwire
from support.server import make_app
from tokenwire.agents.load import agents_of
from tokenwire.errors import ConfigError, InputError
from tokenwire.events.request import Request
from tokenwire.log.memory import MemoryStore
from tokenwire.relay.runs import Runs
from tokenwire.server import Live
from tokenwire.server.app import create_app
from tokenwire.server.edge.auth import Auth
from tokenwire.server.settings import Settings
from tokenwire.tools.load import open_tools
from tokenwire.tools.registry import ToolSet

NAME = f"{Path(__file__)}:parrot"
KEY = "a-key-that-is-long-enough"


@tokenwire.agent
async def parrot(prompt: str) -> str:
    return prompt


def test_live_takes_one_model() -> None:
    assert Live(models="demo").models == ["demo"]
    assert Live(models=("demo", "openai:gpt-5")).models == ["demo", "openai:gpt-5"]
    with pytest.raises(TypeError, match="models"):
        Live(models=[1])  # type: ignore[list-item]


@pytest.mark.parametrize("agents", [parrot, [parrot], (parrot,), NAME, [NAME]])
def test_live_and_the_server_take_one_agent(agents: Any) -> None:
    assert Live(agents=agents).models == ["parrot"]
    assert list(agents_of(agents)) == ["parrot"]
    assert list(create_app(agents=agents).state.agents) == ["parrot"]


@pytest.mark.parametrize(
    "name",
    [
        "model", "agent", "tools", "durable_streams_webhooks", "api_keys", "allow_host",
        "cors_origin", "trust_proxy",
    ],
)  # fmt: skip
def test_settings_take_one_item(name: str) -> None:
    wrong: Any = [1]
    assert getattr(Settings(**{name: "one"}), name) == ["one"]
    assert getattr(Settings(**{name: ("one", "two")}), name) == ["one", "two"]
    with pytest.raises(ConfigError, match=name):
        Settings(**{name: wrong})


def test_a_proxy_in_python_is_no_part_of_its_address() -> None:
    """A text would be searched for the client's address: ``"10.0.0.1" in "110.0.0.12"``."""
    assert "10.0.0.1" not in make_app(trust_proxy="110.0.0.12").state.settings.trust_proxy


def test_keys_take_one_key() -> None:
    identity = asyncio.run(Auth(f"ann:{KEY}").check_key(KEY))
    assert identity.principal == "ann"


def test_runs_take_one_model_and_one_fallback() -> None:
    runs = Runs(MemoryStore(), models="demo", fallbacks={"demo": "other"})  # type: ignore[dict-item]
    assert runs.worker._models == {"demo"}
    assert runs.worker._fallbacks == {"demo": ["other"]}


def test_tools_take_one_name() -> None:
    async def main() -> list[str]:
        async with open_tools("demo") as tools:
            return tools.names

    assert len(asyncio.run(main())) > 1


@pytest.mark.parametrize("tools", ["demo", "", print, 5])
def test_tools_of_a_run_are_a_list(tools: Any) -> None:
    with pytest.raises(ConfigError, match="tools must be a list"):
        ToolSet(tools)
    if tools:
        with pytest.raises(ConfigError, match="tools must be a list"):
            tokenwire.stream("Hello", model="demo", tools=tools)


def test_a_request_in_python_takes_one_text() -> None:
    request = Request(messages="Hello", stop="END")  # type: ignore[arg-type]
    assert [part.text for part in request.messages[0].parts] == ["Hello"]  # type: ignore[union-attr]
    assert request.stop == ["END"]
    with pytest.raises(InputError, match="tools"):
        Request(messages=[], tools="demo")  # type: ignore[arg-type]
