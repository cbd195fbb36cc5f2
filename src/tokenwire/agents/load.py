"""Agents from what a host gives: objects, and names such as ``support=my_app:support``.

Always true: only modules that whoever runs the program named are imported; an object is known by
its type, and no framework is imported to find out.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import re
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

from tokenwire.agents.functions import function_agent
from tokenwire.agents.spec import Agent
from tokenwire.errors import ConfigError

_LLAMA_INDEX = "tokenwire.agents.frameworks.llama_index:llama_index_agent"
_log = logging.getLogger("tokenwire.agents")
#: A remote agent; its address may hold an equals sign.
_REMOTE = re.compile(r"(?:(?P<title>[^=:/]+)=)?(?P<place>a2a:[A-Za-z][A-Za-z0-9+.-]*://.*)")

#: Package, class and adapter; the first that fits, so that a graph is not any runnable.
_FRAMEWORKS = (
    ("pydantic_ai", "AbstractAgent", "tokenwire.agents.frameworks.pydantic_ai:pydantic_agent"),
    ("agents", "AgentBase", "tokenwire.agents.frameworks.openai_agents:openai_agent"),
    ("langgraph", "PregelProtocol", "tokenwire.agents.frameworks.langgraph:langgraph_agent"),
    ("strands", "Agent", "tokenwire.agents.frameworks.strands:strands_agent"),
    ("google", "BaseAgent", "tokenwire.agents.frameworks.google_adk:adk_agent"),
    (
        "claude_agent_sdk",
        "ClaudeAgentOptions",
        "tokenwire.agents.frameworks.claude:claude_agent",
    ),
    ("llama_index", "BaseWorkflowAgent", _LLAMA_INDEX),
    ("llama_index", "AgentWorkflow", _LLAMA_INDEX),
    ("workflows", "Workflow", _LLAMA_INDEX),
    ("langchain_core", "Runnable", "tokenwire.agents.frameworks.langgraph:runnable_agent"),
)

__all__ = ["agent_of", "agents_of", "listed", "load_agent", "load_object"]


def agent_of(value: object, name: str | None = None) -> Agent | None:
    """The agent that an object is; None when it is none. ``name``: in place of its own."""
    if isinstance(value, Agent):
        return value.renamed(name) if name else value
    if inspect.isroutine(value):
        return function_agent(value, name)
    for module, class_name, adapter in _FRAMEWORKS:
        if any(
            cls.__name__ == class_name and cls.__module__.split(".")[0] == module
            for cls in type(value).__mro__
        ):
            place, _, function = adapter.partition(":")
            make: Callable[..., Agent] = getattr(importlib.import_module(place), function)
            return make(value, name)
    return _from_entry_points(value, name)


def _from_entry_points(value: object, name: str | None) -> Agent | None:
    """Adapters of other packages: each takes an object and a name, and returns an `Agent` for what
    it knows, else None. A broken one is named in the log, and the others are asked all the same;
    its `ConfigError` is about the object, and raised."""
    for point in entry_points(group="tokenwire.agents"):
        try:
            agent = point.load()(value, name)
            if agent is not None and not isinstance(agent, Agent):
                raise TypeError(f"it returned {type(agent).__name__}, not an Agent or None")
        except ConfigError:
            raise
        except Exception as error:  # a package that somebody installed, at fault
            reason = f"{type(error).__name__}: {error}"
            _log.error("the agent plugin '%s' (%s) is broken: %s", point.name, point.value, reason)
            continue
        if agent is not None:
            return agent
    return None


def agents_of(values: object) -> dict[str, Agent]:
    """Agents by name, from agents, functions, objects of frameworks and names to import; a name or
    an agent alone is one. Raises `ConfigError`."""
    agents: dict[str, Agent] = {}
    for value in listed(values):
        agent = load_agent(value) if isinstance(value, str) else agent_of(value)
        if agent is None:
            raise ConfigError(
                f"{type(value).__module__}.{type(value).__qualname__} is not an agent that is "
                "known here: pass a function made by tokenwire.agent, or an object of a supported "
                "framework"
            )
        if agent.name in agents:
            raise ConfigError(f"two agents are called '{agent.name}'; give one another name")
        agents[agent.name] = agent
    return agents


def listed(values: object) -> Iterable[object]:
    """The values of an argument ``agents``: a name or an object alone is one of them."""
    is_many = isinstance(values, Iterable) and not isinstance(values, str)
    return cast(Iterable[object], values) if is_many else [values]


def load_agent(text: str) -> Agent:
    """The agent of ``MODULE:NAME``, ``FILE.py:NAME`` or ``a2a:URL``, or ``TITLE=`` in front of
    these. Raises `ConfigError`."""
    remote = _REMOTE.fullmatch(text)
    if remote is not None:
        from tokenwire.agents.a2a.agent import remote_agent

        return remote_agent(remote["place"], remote["title"])
    title, equals, place = text.rpartition("=")
    if equals and not title:
        raise ConfigError(f"{text!r} names no agent: use MODULE:NAME or TITLE=MODULE:NAME")
    value = load_object(place, "agent")
    agent = agent_of(value, title or None)
    if agent is None:
        raise ConfigError(f"{place!r} is not an agent, but {type(value).__name__}")
    return agent


def load_object(place: str, what: str) -> Any:
    """The object of ``MODULE:NAME`` or ``FILE.py:NAME``, which is to be ``what``: ``agent``,
    ``function``. Raises `ConfigError`."""
    module, colon, attribute = place.rpartition(":")
    if not colon or not module or not attribute:
        raise ConfigError(f"{place!r} names no {what}: use MODULE:NAME or FILE.py:NAME")
    try:
        value: Any = _module(module)
        for step in attribute.split("."):
            value = getattr(value, step)
    except Exception as error:  # the module's own code runs here, and may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"the {what} {place!r} cannot be loaded: {reason}") from error
    return value


def _module(name: str) -> Any:
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module
