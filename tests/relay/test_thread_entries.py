"""The entry of a conversation when several requests change it at the same time."""

from __future__ import annotations

from typing import Any

import pytest

from support.conversation import HeldModel, device
from support.spine import run_async
from tokenwire.events.message import user
from tokenwire.log.base import Store
from tokenwire.log.memory import MemoryStore
from tokenwire.log.open import open_store
from tokenwire.relay.thread_list.entries import ENTRY
from tokenwire.relay.threads import Threads


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Any) -> Store:
    return MemoryStore() if request.param == "memory" else open_store(f"sqlite:{tmp_path}/log.db")


def before_the_next_swap(store: Store, monkeypatch: pytest.MonkeyPatch, others: Any) -> None:
    """Lets ``others`` do its work between the next read of an entry and the change of it."""
    swap = store.swap_document

    async def late(kind: str, name: str, old: bytes | None, new: bytes | None) -> bool:
        if kind == ENTRY:
            monkeypatch.setattr(store, "swap_document", swap)
            await others()
        return await swap(kind, name, old, new)

    monkeypatch.setattr(store, "swap_document", late)


def test_of_two_first_questions_at_once_one_names_the_conversation(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with device(store, HeldModel()) as here:
            threads = Threads(here.runs)

            async def other() -> None:
                await threads.touch("", "trip", [user("To Faro?")], "run-b")

            before_the_next_swap(here.runs.store, monkeypatch, other)
            await threads.touch("", "trip", [user("To Porto?")], "run-a")
            assert await threads.title("", "trip") == "To Faro?"
            await threads.touch("", "trip", [user("And then?")], "run-c")
            assert await threads.title("", "trip") == "To Faro?"

    run_async(main())


def test_a_conversation_that_is_named_and_asked_at_once_has_both(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with device(store, HeldModel()) as here:
            threads = Threads(here.runs)

            async def other() -> None:
                await threads.touch("", "trip", [user("To Faro?")], "run-b")

            before_the_next_swap(here.runs.store, monkeypatch, other)
            await threads.rename("", "trip", "Holidays")
            assert await threads.title("", "trip") == "Holidays"
            await threads.rename("", "trip", "")
            assert await threads.title("", "trip") == "To Faro?"

    run_async(main())
