"""Conversations on the server: named by their first question or a person, listed, forgotten."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.server import AS_A, AS_B, KEYS, Site, site
from tokenwire.relay.documents.names import forget_stale_names


@pytest.fixture
def here() -> Iterator[Site]:
    with site() as found:
        yield found


def titles(here: Site, **more: Any) -> dict[str, str | None]:
    listed = here.client.get("/v1/threads", **more).json()["threads"]
    return {one["thread"]: one.get("title") for one in listed}


def asked(here: Site, thread: str, content: Any) -> None:
    body = {"messages": [{"role": "user", "content": content}], "thread": thread}
    assert here.client.post("/v1/runs", json=body).status_code == 201


def test_the_list_tells_how_long_a_conversation_is_kept() -> None:
    with site(retention=7200.0) as here:
        page = here.client.get("/v1/threads").json()
    assert (page["retention"], page["durability"]) == (7200.0, "memory")


def test_a_thread_is_named_by_its_first_question(here: Site) -> None:
    here.start("  What is\ta cursor? \nAnd more", thread="one")
    here.start("Another question", thread="one")
    asked(here, "files", [{"type": "file", "name": "report.pdf", "data": "AAAA"}])
    asked(here, "long", "w" * 200)
    asked(here, "empty", " \n ")
    found = titles(here)
    assert found["one"] == "What is a cursor?"
    assert found["files"] == "report.pdf"
    assert found["long"] == "w" * 79 + "…"
    assert found["empty"] is None
    assert here.client.get("/v1/threads/one").json()["title"] == "What is a cursor?"


def test_a_persons_title_stays_and_can_be_taken_back(here: Site) -> None:
    here.start("First question", thread="one")
    told = here.client.put("/v1/threads/one", json={"title": " Mine "}).json()
    assert told["title"] == "Mine"
    here.start("Second question", thread="one")
    assert titles(here) == {"one": "Mine"}
    told = here.client.put("/v1/threads/one", json={"title": ""}).json()
    assert told["title"] == "First question"
    assert titles(here) == {"one": "First question"}


def test_a_title_given_while_runs_start_is_not_lost(here: Site) -> None:
    """A run that starts and a person who names write at the same time."""
    starting = threading.Thread(
        target=lambda: [here.start("Question", thread="one") for _ in range(30)]
    )
    starting.start()
    for number in range(30):
        here.client.put("/v1/threads/one", json={"title": f"Title {number}"})
    starting.join()
    assert titles(here) == {"one": "Title 29"}


def test_titles_are_their_principals_own() -> None:
    with site(api_keys=KEYS) as here:
        body = {"prompt": "A's question", "thread": "same"}
        assert here.client.post("/v1/runs", json=body, headers=AS_A).status_code == 201
        assert here.client.put("/v1/threads/same", json={"title": "B's"}, headers=AS_B).is_success
        assert titles(here, headers=AS_A) == {"same": "A's question"}
        assert titles(here, headers=AS_B) == {"same": "B's"}
        pages = [here.client.get("/v1/threads", headers=who).json() for who in (AS_A, AS_B, AS_A)]
        readers = [page["reader"] for page in pages]
        assert readers[0] == readers[2] != readers[1]
        assert here.client.delete("/v1/threads/same", headers=AS_B).status_code == 204
        assert titles(here, headers=AS_A) == {"same": "A's question"}


def test_erasing_a_thread_erases_its_title(here: Site) -> None:
    here.start("Question", thread="one")
    here.client.put("/v1/threads/one", json={"title": "Mine"})
    assert here.client.delete("/v1/threads/one").status_code == 204
    assert titles(here) == {}
    here.start("Another", thread="one")
    assert titles(here) == {"one": "Another"}


def test_s21_what_is_kept_of_a_thread_goes_with_its_last_run(tmp_path: Path) -> None:
    with site(retention=0.5, store=f"sqlite:{tmp_path / 'runs.db'}") as here:
        run = here.start("A private question", thread="one")
        here.client.put("/v1/threads/one", json={"title": "A private title"})
        held = [here.start("scenario:stall", thread="held")]
        here.frames(f"/v1/runs/{run}/events")
        end = time.monotonic() + 60
        while "one" in titles(here):
            assert time.monotonic() < end
            time.sleep(0.05)
        held.append(here.start("scenario:stall", thread="one"))
        assert titles(here) == {"one": "scenario:stall", "held": "scenario:stall"}
        for run in held:
            here.client.post(f"/v1/runs/{run}/cancel")


def test_a_long_conversation_is_read_in_pages(here: Site) -> None:
    runs = [here.start(f"Question {number}", thread="long") for number in range(7)]
    pages: list[str] = []
    query: dict[str, Any] = {"limit": 3}
    for _ in range(3):
        page = here.client.get("/v1/threads/long", params=query).json()
        pages += [run["id"] for run in page["runs"]]
        query["before"] = page.get("next")
    assert pages == runs[::-1]
    assert query["before"] is None
    assert "next" not in here.client.get("/v1/threads/long").json()
    for wrong in ({"limit": "0"}, {"limit": "x"}, {"limit": "1001"}):
        assert here.client.get("/v1/threads/long", params=wrong).status_code == 400
    nowhere = {"before": "run_0123456789abcdef"}
    assert here.client.get("/v1/threads/long", params=nowhere).status_code == 404


def test_every_conversation_is_listed(here: Site) -> None:
    for number in range(1003):
        here.client.put(f"/v1/threads/t{number}", json={"title": f"Title {number}"})
    first = here.client.get("/v1/threads").json()
    rest = here.client.get("/v1/threads", params={"before": first["next"]}).json()
    names = [one["thread"] for one in [*first["threads"], *rest["threads"]]]
    assert len(first["threads"]) == 1000
    assert len(set(names)) == len(names) == 1003
    assert "next" not in rest
    assert all(one["title"].startswith("Title") for one in rest["threads"])


def test_a_deleted_run_leaves_no_question_behind() -> None:
    """Its question named the conversation; so it goes with it, and the next one names it."""
    with site() as here:
        secret = here.start("my secret question", thread="t1")
        other = here.start("something else", thread="t1")
        assert here.client.get("/v1/threads/t1").json()["title"] == "my secret question"
        assert here.client.delete(f"/v1/runs/{secret}").status_code == 204
        assert "secret" not in here.client.get("/v1/threads").text
        assert "secret" not in here.client.get("/v1/threads/t1").text
        here.start("a third one", thread="t1")
        assert here.client.get("/v1/threads/t1").json()["title"] == "a third one"
        assert here.client.delete(f"/v1/runs/{other}").status_code == 204  # it named nothing
        assert here.client.get("/v1/threads/t1").json()["title"] == "a third one"
        alone = here.start("alone and secret", thread="t2")
        assert here.client.delete(f"/v1/runs/{alone}").status_code == 204
        assert "secret" not in here.client.get("/v1/threads").text


def test_a_title_of_a_person_stays_when_a_run_goes() -> None:
    with site() as here:
        first = here.start("my secret question", thread="t1")
        here.start("something else", thread="t1")
        here.client.put("/v1/threads/t1", json={"title": "Mine"})
        here.client.delete(f"/v1/runs/{first}")
        assert here.client.get("/v1/threads/t1").json()["title"] == "Mine"
        here.client.put("/v1/threads/t1", json={"title": ""})
        assert "secret" not in here.client.get("/v1/threads").text


def test_names_that_clients_had_for_a_run_go_with_it() -> None:
    with site() as here:
        store = here.app.state.store
        runs = [here.start("x", thread="t1") for _ in range(3)]

        async def name(run: str, alias: str) -> None:
            await store.set_document("ag-ui-run", alias, json.dumps({"run": run}).encode())
            await store.set_document("ag-ui-names", f"{run}/{alias}", b"1")

        for number, run in enumerate(runs):
            asyncio.run(name(run, f"agui_{number}"))
        assert here.client.delete(f"/v1/runs/{runs[0]}").status_code == 204
        kept = asyncio.run(store.documents("ag-ui-run"))
        assert set(kept) == {"agui_1", "agui_2"}
        assert len(asyncio.run(store.documents("ag-ui-names"))) == 2
        # One that the retention took is noticed by the sweep.
        asyncio.run(store.delete(runs[1]))
        asyncio.run(forget_stale_names(store))
        assert set(asyncio.run(store.documents("ag-ui-run"))) == {"agui_2"}
        assert len(asyncio.run(store.documents("ag-ui-names"))) == 1
        assert here.client.delete("/v1/threads/t1").status_code == 204
        assert not asyncio.run(store.documents("ag-ui-run"))
        assert not asyncio.run(store.documents("ag-ui-names"))


def until_gone(here: Site, *runs: str) -> None:
    end = time.monotonic() + 60
    while any(here.client.get(f"/v1/runs/{run}").status_code == 200 for run in runs):
        assert time.monotonic() < end
        time.sleep(0.05)


STORES = ["memory:", "sqlite:{}/runs.db"]


@pytest.mark.parametrize("store", STORES)
def test_s21_an_old_turn_stays_in_a_living_conversation(tmp_path: Path, store: str) -> None:
    # Where the machine was too slow to use the conversation in time, all is given longer.
    for retention in (1.5, 6.0, 24.0):
        folder = tmp_path / str(retention)
        folder.mkdir()
        if stays_while_it_is_used(store.format(folder), retention):
            return
    pytest.fail("the conversation was never used in time")


def stays_while_it_is_used(store: str, retention: float) -> bool:
    """False where the machine was slower than ``retention``."""
    with site(retention=retention, store=store) as here:
        turns = [here.start("First question", thread="chat")]
        alone = here.start("scenario:text")
        left = here.start("Another question", thread="left")
        for _ in range(4):
            last = time.monotonic()
            time.sleep(0.4 * retention)
            turns.append(here.start("Next question", thread="chat"))
            if time.monotonic() - last > 0.9 * retention:
                return False
        last = time.monotonic()
        until_gone(here, alone, left)
        shown = here.client.get("/v1/threads/chat").json()
        shown_titles = titles(here)
        if time.monotonic() - last > 0.9 * retention:
            return False
        assert [run["id"] for run in shown["runs"]] == turns[::-1]
        assert shown_titles == {"chat": "First question"}
        until_gone(here, *turns)
        end = time.monotonic() + 60
        while titles(here):
            assert time.monotonic() < end
            time.sleep(0.05)
        assert here.client.get("/v1/threads/chat").json()["runs"] == []
    return True


@pytest.mark.parametrize("store", STORES)
def test_s21_a_run_that_waits_keeps_its_conversation(tmp_path: Path, store: str) -> None:
    with site(retention=2.0, store=store.format(tmp_path)) as here:
        old = here.start("First question", thread="chat")
        here.frames(f"/v1/runs/{old}/events")
        open_run = here.start("scenario:stall", thread="chat")
        alone = here.start("scenario:text")
        until_gone(here, alone)
        time.sleep(1.0)
        runs = here.client.get("/v1/threads/chat").json()["runs"]
        assert [run["id"] for run in runs] == [open_run, old]
        here.client.post(f"/v1/runs/{open_run}/cancel")
        until_gone(here, old, open_run)


def test_s21_all_that_is_kept_of_a_conversation_goes_with_it(tmp_path: Path) -> None:
    """Titles, names that clients had, idempotency keys, and the documents of agents."""
    with site(retention=0.5, store=f"sqlite:{tmp_path / 'runs.db'}") as here:
        body = {"prompt": "A secret question", "thread": "chat"}
        answer = here.client.post("/v1/runs", json=body, headers={"Idempotency-Key": "key-1"})
        run = answer.json()["id"]
        here.client.put("/v1/threads/chat", json={"title": "A secret title"})
        here.client.put("/v1/threads/unused", json={"title": "Another secret title"})
        store = here.app.state.store
        loop = here.app.state.connections._ticker.get_loop()

        def ask(coroutine: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(coroutine, loop).result(30)

        ask(store.set_document(f"of:{run}", "step", b"A secret value"))
        alias = json.dumps({"run": run}).encode()
        ask(store.set_document("ag-ui-names", f"{run}/client-run", b"1"))
        ask(store.set_document("ag-ui-run", "client-run", alias))
        until_gone(here, run)

        def left() -> list[bytes]:
            rows = store._reader._connection.execute
            found = rows(
                "SELECT kind, name, data FROM document"
                " WHERE kind NOT IN ('upkeep', 'server-secret')"
            )
            keys = rows("SELECT key FROM request_key").fetchall()
            return [*found.fetchall(), *keys]

        async def look() -> Any:
            return await store._read(lambda _: left())

        end = time.monotonic() + 60
        while (found := ask(look())) and time.monotonic() < end:
            time.sleep(0.1)
        assert found == []
