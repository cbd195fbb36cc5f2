"""What holds for every test: servers that are not told a store keep nothing in the user's files,
no property test has a clock, no HTTP client is impatient, and several workers begin with what
takes longest."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import websockets.asyncio.client
import websockets.sync.client
from hypothesis import settings

from tokenwire.run.call import recover
from tokenwire.server import settings as server_settings

os.environ.setdefault("TOKENWIRE_STORE", "memory:")
# A server that a busy machine holds up refuses new runs: right for people, and no test's matter but
# of those that say so.
os.environ.setdefault("TOKENWIRE_MAX_LAG", "0")
server_settings.Settings.__init__.__kwdefaults__["max_lag"] = 0.0

# A busy machine makes any example slow; what is slow of itself is measured by the benchmarks.
settings.register_profile("house", deadline=None)
# What decides about a change draws the same examples each time; `make test` looks further.
settings.register_profile("gate", settings.get_profile("house"), derandomize=True)
settings.load_profile("gate" if os.environ.get("CI") else "house")


# httpx gives up after 5 s of silence: a time that a busy machine may stand still. One object is the
# default of all of its functions and clients.
for _name in ("connect", "read", "write", "pool"):
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, _name, 60.0)


# And a WebSocket's handshake after 10 s, a silent peer after 20.
for _waits in (
    websockets.sync.client.connect.__kwdefaults__,
    websockets.asyncio.client.connect.__init__.__kwdefaults__,
):
    assert {"open_timeout", "ping_timeout"} <= _waits.keys()
    _waits.update(open_timeout=60, ping_timeout=60)


#: Files that take more than fifteen seconds, by far the most of them waiting, the longest first.
#: When one of these comes last, all wait for one worker; the order matters for nothing else.
LONGEST = [
    "agents/test_frameworks.py",
    "test_docs.py",
    "node/test_durable_suite.py",
    "cli/test_commands.py",
    "browser/test_axe.py",
    "server/test_process.py",
    "browser/test_cuts.py",
    "faults/test_sweep.py",
    "node/test_ai_sdk.py",
    "run/test_lane_pulled.py",
    "server/test_mounted_clients.py",
    "node/test_mounted.py",
    "server/test_mounted.py",
    "browser/test_everyones_page.py",
    "node/test_ai_schemas.py",
    "cli/test_chat.py",
    "browser/test_use_chat.py",
    "browser/test_pressed.py",
    "scripts/test_speedups.py",
    "test_examples.py",
    "server/test_real_hosts.py",
    "browser/test_app_example.py",
    "client/test_cuts.py",
    "node/test_tanstack_ways.py",
    "browser/test_conversations.py",
    "browser/test_devices.py",
    "log/test_log_contract.py",
    "server/test_leaving.py",
    "browser/test_page.py",
    "run/test_lane_sqlite.py",
    "run/test_silent_providers.py",
    "node/test_our_transport.py",
    "browser/test_shared_thread.py",
    "browser/test_waiting.py",
    "faults/test_faults.py",
    "cli/test_doctor_url.py",
    "log/test_log_stateful.py",
    "test_linear.py",
    "server/test_slow_anywhere.py",
    "server/test_openapi.py",
    "relay/test_ends.py",
    "browser/test_two_people.py",
    "providers/test_decoder_fuzz.py",
    "browser/test_hostile.py",
    "waiting/test_expired_once.py",
    "agents/test_prepare.py",
    "wire/test_arbitrary_runs.py",
    "server/test_producers.py",
    "durable/test_subscriptions.py",
    "server/test_takeover.py",
    "relay/test_takeover.py",
    "node/test_anthropic_npm.py",
    "server/test_recheck.py",
    "server/test_behind_proxies.py",
    "server/test_garbage.py",
    "log/test_postgres_faults.py",
    "agents/test_a2a.py",
    "browser/test_under_a_prefix.py",
    "browser/test_unsent.py",
    "log/test_sqlite_journal.py",
]


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """What is collected stays to the end: the garbage collector need not look at it, neither while
    it grows nor at each of its later rounds."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker, put the files of `LONGEST` first; each file's own order stays."""
    if hasattr(config, "workerinput"):
        tests = Path(__file__).parent
        place = {tests / name: at for at, name in enumerate(LONGEST)}
        items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(autouse=True)
def _retries_of_other_tests_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process has one budget of retries per target; each test gets its own."""
    monkeypatch.setattr(recover, "BUDGETS", recover.RetryBudgets())


@pytest.fixture(autouse=True)
def _other_tests_silence_no_logger() -> None:
    """A server of an earlier test that says only what is critical, or a command that ran here,
    leaves loggers behind that keep their lines: `caplog` would find none, the wrong ones neither.
    """
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "tokenwire"):
        logger = logging.getLogger(name)
        logger.propagate, logger.disabled = True, False
        logger.setLevel(logging.NOTSET)
