"""``tokenwire simulate``: the simulator as a process of its own."""

from __future__ import annotations

import asyncio
import math
import os
from typing import Any

from tokenwire.cli.terminal import note
from tokenwire.errors import ConfigError
from tokenwire.simulator.app import serve
from tokenwire.simulator.settings import Settings

__all__ = ["run_simulate"]


def run_simulate(**options: Any) -> None:
    """Serve until Ctrl-C."""
    if not 0 <= options["jitter"] <= 1:
        raise ConfigError("--jitter must be between 0 and 1")
    for name in ("ttft", "rate"):
        if not 0 <= options[name] < math.inf:  # refuses NaN as well
            raise ConfigError(f"--{name} must be a finite number of at least 0")
    if options["tokens_per_chunk"] < 1:
        raise ConfigError("--tokens-per-chunk must be at least 1")
    if not 0 <= options["port"] <= 65535:
        raise ConfigError("--port must be between 0 and 65535")
    try:
        asyncio.run(_serve(Settings(**options)))
    except ValueError as error:  # the simulator's error about a fault plan
        raise ConfigError(f"--faults: {error}") from error


async def _serve(settings: Settings) -> None:
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    ready.add_done_callback(_announce)
    try:
        await serve(settings, ready)
    except OSError as error:
        # asyncio wraps the system's message in a sentence of its own.
        code = error.errno or 0
        reason = os.strerror(code) if code > 0 else error.strerror
        raise ConfigError(
            f"cannot listen on {settings.host}:{settings.port}: {str(reason).lower()}; "
            "choose another with --port"
        ) from error


def _announce(ready: asyncio.Future[str]) -> None:
    if ready.cancelled():
        return
    url = ready.result()
    print(f"Simulated models at {url}", flush=True)
    note(f"OpenAI clients: base URL {url}/v1, any key, model 'demo'.")
    note(f"Scenarios: prompt 'scenario:NAME', names at {url}/scenarios. Ctrl-C stops.")
