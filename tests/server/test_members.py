"""Several people in one conversation: who may do what, on every door, and what ends with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.people import Person, people_server
from tokenwire.server import Live


@pytest.fixture(scope="module")
def here() -> Iterator[tuple[str, Live]]:
    with people_server() as running:
        yield running


@pytest.fixture(scope="module")
def url(here: tuple[str, Live]) -> str:
    return here[0]


def _share(owner: Person, thread: str, **roles: str) -> str:
    """A conversation with a run, and members by role; its id."""
    owner.start("scenario:text", thread=thread)
    shared = ""
    for name, role in roles.items():
        added = owner.ask("PUT", f"/v1/threads/{thread}/members/{name}", {"role": role})
        assert added.status_code == 200, added.text
        shared = added.json()["id"]
    return shared


def _finish(person: Person, run: str) -> None:
    assert "run-end" in person.ask("GET", f"/v1/runs/{run}/events").text


def _code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# --- what it is called ---------------------------------------------------------------------------


def test_equal_names_stay_apart_and_the_id_reaches_the_shared_one(url: str) -> None:
    ann, bob = Person(url, "ann"), Person(url, "bob")
    own = bob.start("of bob", thread="trip")
    run = ann.start("of ann", thread="trip")
    shared = ann.ask("PUT", "/v1/threads/trip/members/bob", {"role": "write"}).json()["id"]
    assert [r["id"] for r in bob.ask("GET", "/v1/threads/trip").json()["runs"]] == [own]
    page = bob.ask("GET", f"/v1/threads/{shared}").json()
    assert [r["id"] for r in page["runs"]] == [run]
    assert (page["id"], page["role"], page["runs"][0]["by"]) == (shared, "write", "ann")
    mine = bob.start("from bob", thread=shared)
    _finish(bob, mine)
    turns = ann.ask("GET", "/v1/threads/trip/turns").json()["turns"]
    assert [(turn["messages"][0]["content"], turn["by"]) for turn in turns] == [
        ("of ann", "ann"),
        ("from bob", "bob"),
    ]
    assert ann.ask("GET", f"/v1/runs/{mine}").json()["thread"] == "trip"
    assert bob.ask("GET", f"/v1/runs/{run}").json()["thread"] == shared
    assert ann.ask("GET", f"/v1/runs/{mine}").json()["principal"] == "bob"
    # A new name of one's own is never somebody else's, whatever they call theirs.
    ann.start("a plan", thread="plan")
    ann.ask("PUT", "/v1/threads/plan/members/bob", {"role": "own"})
    fresh = bob.start("mine", thread="plan")
    assert [r["id"] for r in bob.ask("GET", "/v1/threads/plan").json()["runs"]] == [fresh]


def test_the_list_has_own_and_joined_ones_with_their_roles(url: str) -> None:
    eve, dan = Person(url, "eve"), Person(url, "dan")
    shared = _share(eve, "talk", dan="approve")
    eve.start("alone", thread="alone")
    listed = {t["thread"]: t for t in dan.ask("GET", "/v1/threads").json()["threads"]}
    assert {name: (t["id"], t["role"], t["members"]) for name, t in listed.items()} == {
        shared: (shared, "approve", 2)
    }
    assert listed[shared]["title"] == "scenario:text"
    listed = {t["thread"]: t for t in eve.ask("GET", "/v1/threads").json()["threads"]}
    assert (listed["talk"]["id"], listed["talk"]["role"]) == (shared, "own")
    assert "role" not in listed["alone"]
