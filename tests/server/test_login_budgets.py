"""Budgets that authentication names for a principal or its tenant: they hold, before all others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.people import Person, people_server
from support.usage import settled, until
from tokenwire.server.settings import Settings


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    settings = Settings(
        budget=["principal/day=1000000", "tenant/month=900000"],
        budget_slice=20,
        starts_per_minute=60_000,
        starts_burst=1000,
        runs_per_principal=100,
        waiting_runs_per_principal=100,
    )
    with people_server(settings=settings) as (address, _):
        yield address


def events_of(person: Person, run: str) -> list[dict[str, Any]]:
    lines = person.ask("GET", f"/v1/runs/{run}/events").text.splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def in_force(person: Person) -> dict[str, int]:
    """The budgets of a start, which is answered, by name."""
    made = person.ask("POST", "/v1/runs", {"prompt": "scenario:text"})
    assert made.status_code == 201, made.text
    found: dict[str, int] = {}
    for entry in filter(None, made.headers.get("tokenwire-budget", "").split(", ")):
        name, *fields = entry.split("; ")
        found[name] = int(dict(field.split("=") for field in fields)["most"])
    return found


def stopped(person: Person, name: str, most: int) -> None:
    """A run is stopped in its middle by this budget, and no other starts."""
    run = person.start("scenario:long")
    events = events_of(person, run)
    kinds = [event["type"] for event in events]
    assert "text-delta" in kinds
    assert kinds[-1] == "run-end"
    assert (events[-1]["outcome"], events[-1]["reason"]) == ("incomplete", "budget")
    last = [event for event in events if event["type"] == "budget"][-1]
    assert (last["name"], last["left"], last["most"]) == (name, 0, most)
    used = settled(lambda path: person.ask("GET", path), run)["total"]
    assert used["estimated_tokens"] >= most - 20
    refused(person, name, most)


def refused(person: Person, name: str, most: int) -> None:
    answer = until(
        lambda: person.ask("POST", "/v1/runs", {"prompt": "x"}), lambda got: got.status_code == 402
    )
    error = answer.json()["error"]
    assert (error["code"], error["limit"], error["most"]) == ("budget", name, most)


def test_a_principals_own_stops_its_run_and_refuses_the_next(url: str) -> None:
    stopped(Person(url, "ann", limits={"budgets": ["day=500"]}), "principal/day", 500)
    assert in_force(Person(url, "eve")) == {"principal/day": 1_000_000}


def test_a_tenants_own_is_one_of_all_its_principals(url: str) -> None:
    limits = {"tenant": "acme", "tenant_limits": {"budgets": ["month=600"]}}
    stopped(Person(url, "ann", **limits), "tenant/month", 600)
    refused(Person(url, "ben", **limits), "tenant/month", 600)
    other = {**limits, "tenant": "globex", "tenant_limits": {"budgets": ["month=80"]}}
    ben = in_force(Person(url, "ben", **other))
    assert ben == {"principal/day": 1_000_000, "tenant/month": 80}


def put(url: str, path: str, **most: int | None) -> None:
    """What an operator sets, by period, in tokens."""
    budgets = [{"period": name, "unit": "tokens", "most": value} for name, value in most.items()]
    op = Person(url, "op", roles=["admin"])
    answer = op.ask("PUT", f"/v1/budgets/{path}", {"budgets": budgets})
    assert answer.status_code == 200, answer.text


def test_they_count_before_operators_for_the_same_and_beside_the_rest(url: str) -> None:
    put(url, "principal/zoe", day=5000, month=6000)
    put(url, "tenant/zoo", month=7000)
    set_by_operators = {"principal/day": 5000, "principal/month": 6000}
    assert in_force(Person(url, "zoe")) == set_by_operators
    for most in (400_000, 3000):  # more or less
        own = Person(url, "zoe", limits={"budgets": [f"day={most}"]})
        assert in_force(own) == {**set_by_operators, "principal/day": most}
    assert in_force(Person(url, "zoe", limits={"runs": 50})) == set_by_operators
    of_zoo = Person(url, "kim", tenant="zoo", tenant_limits={"budgets": ["month=8000"]})
    assert in_force(of_zoo) == {"principal/day": 1_000_000, "tenant/month": 8000}
    # Nor does an operator lift them.
    put(url, "principal/zoe", day=None)
    assert in_force(Person(url, "zoe")) == {}
    assert in_force(own) == {"principal/day": 3000}


def test_a_run_keeps_those_that_were_in_force_when_it_began(url: str) -> None:
    someone = Person(url, "max", limits={"budgets": ["day=5000"]})
    run, approval = someone.waiting("scenario:approval")
    kim = Person(url, "kim")
    other, second = kim.waiting("scenario:approval")
    put(url, "principal/kim", day=1)
    # Also where the login says something else by then, or an operator does.
    less = Person(url, "max", limits={"budgets": ["day=1"]})
    for person, name, asked in ((less, run, approval), (kim, other, second)):
        said = person.ask("POST", f"/v1/runs/{name}/approvals/{asked}", {"approved": True})
        assert said.status_code < 300, said.text
        assert events_of(person, name)[-1]["outcome"] == "complete"
        refused(person, "principal/day", 1)
