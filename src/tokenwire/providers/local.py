"""A GGUF file as a model: an embedded llama.cpp with its own HTTP server on loopback.

Always true: one file is loaded once in a process; its server listens on loopback only and answers
only who has the key that was made for it here; what it sends is read by the ordinary decoder.
"""

from __future__ import annotations

import atexit
import secrets
import threading
from http.client import HTTPConnection, HTTPException
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from tokenwire.errors import ConfigError, UnknownModelError
from tokenwire.providers.base import Target

__all__ = ["close_all", "is_gguf", "target"]

_MAGIC = b"GGUF"
#: Quiet: errors only. What a person needs to know is said by our own errors.
_VERBOSITY = 0
#: The model is loaded when its server listens; what it says of itself takes no time.
_PROPS_SECONDS = 30

_lock = threading.Lock()
_running: dict[Path, tuple[Any, Target]] = {}


def target(name: str) -> Target:
    """Where the model of this file listens; the first call loads it, which takes its time.

    Raises `UnknownModelError` when there is no such file or it is no GGUF, and `ConfigError` when
    the extra ``local`` is not installed or the model cannot be loaded.
    """
    path = _checked(Path(name))
    with _lock:
        running = _running.get(path)
        if running is None:
            running = _running[path] = _start(path)
        return running[1]


def is_gguf(path: Path) -> bool:
    """Whether the file begins as a GGUF file does."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def close_all() -> None:
    """Stop every server that was started here and free its model."""
    with _lock:
        _running.clear()  # a server stops when its object goes


atexit.register(close_all)


def _checked(path: Path) -> Path:
    try:
        if not path.is_file():
            raise UnknownModelError(
                f"file '{path.name}' does not exist; pass the path of a GGUF file"
            )
        if not is_gguf(path):
            raise UnknownModelError(
                f"'{path.name}' is not a GGUF file: it does not begin with 'GGUF'"
            )
    except OSError as error:
        raise UnknownModelError(f"'{path.name}' cannot be read: {error.strerror}") from error
    return path.resolve()


def _start(path: Path) -> tuple[Any, Target]:
    try:
        llama: Any = import_module("xllamacpp")
    except ImportError as error:
        raise ConfigError(
            "local models need the extra 'local': pip install 'tokenwire[local]'"
        ) from error
    key = secrets.token_hex(16)
    params = llama.CommonParams()
    params.model.path = str(path)
    params.model_alias = {path.stem}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [key]
    params.verbosity = _VERBOSITY
    params.ui = False
    params.endpoint_slots = False
    params.use_jinja = True
    try:
        server = llama.Server(params)
    except RuntimeError as error:
        raise ConfigError(
            f"llama.cpp cannot load '{path.name}': the file is damaged, too large for the memory, "
            "or of a kind that this version does not know"
        ) from error
    address = server.listening_address.rstrip("/")
    quirks = {"call_by_schema"}
    if not _template_knows_tools(address, key):
        quirks.add("tools_in_prompt")
    local = Target(
        provider="local",
        dialect="openai-chat",
        model=path.stem,
        base_url=f"{address}/v1",
        api_key=key,
        quirks=frozenset(quirks),
    )
    return server, local


def _template_knows_tools(address: str, key: str) -> bool:
    """Whether the model's own chat template lists the tools. llama.cpp leaves tools out, without
    a word, where it does not."""
    connection = HTTPConnection(address.removeprefix("http://"), timeout=_PROPS_SECONDS)
    try:
        connection.request("GET", "/props", headers={"authorization": f"Bearer {key}"})
        props = msgspec.json.decode(connection.getresponse().read(), type=dict[str, Any])
    except (OSError, HTTPException, msgspec.MsgspecError) as error:
        raise ConfigError(f"the embedded llama.cpp does not answer: {error}") from error
    finally:
        connection.close()
    return bool((props.get("chat_template_caps") or {}).get("supports_tools", True))
