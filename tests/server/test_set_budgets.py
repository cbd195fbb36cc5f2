"""``/v1/budgets`` and everybody's usage: what operators set holds, and nobody else sets any."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from support.people import Person, people_server
from support.server import AS_A, AS_B, KEYS, site
from support.usage import settled, until
from tokenwire.cli.budgets.budgets import run_budgets
from tokenwire.errors import InputError
from tokenwire.server import Live
from tokenwire.server.settings import Settings

DAY_TOKENS = {"period": "day", "unit": "tokens"}


@pytest.fixture(scope="module")
def here() -> Iterator[tuple[str, Live]]:
    settings = Settings(
        budget=["principal/day=1000000", "tenant/month=$100"],
        starts_per_minute=60_000,
        runs_per_principal=100,
        operator=["olga"],
        unpriced="pass",
    )
    with people_server(settings=settings) as running:
        yield running


def operator(url: str, name: str = "op") -> Person:
    return Person(url, name, roles=["admin"])


def put(person: Person, path: str, *budgets: dict[str, Any], **headers: str) -> Any:
    body = {"budgets": list(budgets)}
    return person.ask("PUT", f"/v1/budgets/{path}", body, **headers)


def test_what_an_operator_sets_holds_and_is_on_record(
    here: tuple[str, Live], caplog: pytest.LogCaptureFixture
) -> None:
    url, _ = here
    op, ann = operator(url), Person(url, "ann/of sales")
    run = ann.start("scenario:text")
    settled(lambda path: ann.ask("GET", path), run)
    until(lambda: ann.ask("GET", "/v1/usage").json(), lambda got: got["day"]["runs"] == 1)
    path = "principal/ann%2Fof%20sales"
    before = op.ask("GET", f"/v1/budgets/{path}")
    assert (before.json()["version"], before.json()["budgets"]) == (0, [])
    (in_force,) = before.json()["in_force"]
    assert (in_force["name"], in_force["most"]) == ("principal/day", 1_000_000)
    with caplog.at_level(logging.INFO, logger="tokenwire.server"):
        made = put(op, path, {**DAY_TOKENS, "most": 10}, **{"if-match": '"0"'})
    assert made.status_code == 200, made.text
    assert "budgets of principal/ann/of sales are now 10 tokens a day, set by op" in caplog.text
    assert made.headers["etag"] == '"1"'
    refused = ann.ask("POST", "/v1/runs", {"prompt": "x"})
    assert (refused.status_code, refused.json()["error"]["most"]) == (402, 10)
    assert Person(url, "somebody else").start("scenario:text")
    late = put(op, path, {**DAY_TOKENS, "most": 20}, **{"if-match": '"0"'})
    assert (late.status_code, late.json()["error"]["code"]) == (412, "precondition_failed")
    # No limit at all, whatever the configuration says; and then the configuration again.
    unlimited = put(op, path, {**DAY_TOKENS, "most": None})
    assert unlimited.json()["in_force"] == []
    assert ann.start("scenario:text")
    cleared = op.ask("DELETE", f"/v1/budgets/{path}").json()
    assert [(c["by"], len(c["budgets"])) for c in cleared["changes"]] == [
        ("op", 1),
        ("op", 1),
        ("op", 0),
    ]
    assert cleared["in_force"][0]["most"] == 1_000_000


def test_tenants_conversations_and_all_of_a_kind(here: tuple[str, Live]) -> None:
    url, _ = here
    op, eve = operator(url), Person(url, "eve", tenant="globex")
    assert put(op, "tenant/globex", {**DAY_TOKENS, "most": 0}).status_code == 200
    assert eve.ask("POST", "/v1/runs", {"prompt": "x"}).json()["error"]["limit"] == "tenant/day"
    op.ask("DELETE", "/v1/budgets/tenant/globex")
    all_of_it = {"period": "all", "unit": "tokens", "most": 0}
    thread = "thread/talk?principal=eve&tenant=globex"
    assert put(op, thread, all_of_it).json()["principal"] == "eve"
    asked = {"prompt": "x", "thread": "talk"}
    assert eve.ask("POST", "/v1/runs", asked).json()["error"]["limit"] == "thread"
    assert eve.ask("POST", "/v1/runs", {"prompt": "x", "thread": "another"}).status_code == 201
    shared = eve.ask("PUT", "/v1/threads/talk/members/bob", {"role": "write"}).json()["id"]
    assert op.ask("GET", f"/v1/budgets/thread/{shared}").json()["owner"] == "talk"
    assert op.ask("GET", f"/v1/budgets/thread/thr_{'a' * 25}").status_code == 404
    assert put(op, "principal", {**DAY_TOKENS, "most": 7}).status_code == 200
    listed = op.ask("GET", "/v1/budgets?limit=1").json()
    assert listed["configured"] == ["principal/day=1000000", "tenant/month=$100"]
    assert (listed["budgets"][0]["whose"], listed["seen_within"]) == ("principal", 1.0)
    assert op.ask("GET", f"/v1/budgets?after={listed['next']}").json()["budgets"][0]["owner"]
    op.ask("DELETE", "/v1/budgets/principal")
    op.ask("DELETE", f"/v1/budgets/{thread}")
    assert op.ask("GET", "/v1/budgets").json()["budgets"] == []


@pytest.mark.parametrize(
    ("path", "budget", "words"),
    [
        ("principal/ann", {**DAY_TOKENS, "most": 1.5}, "whole"),
        ("principal/ann", {**DAY_TOKENS, "most": -1}, "budgets[0].most"),
        ("principal/ann", {**DAY_TOKENS, "most": 1e16}, "budgets[0].most"),
        ("principal/ann", {**DAY_TOKENS, "most": 1, "currency": "EUR"}, "currency"),
        ("principal/ann", {**DAY_TOKENS}, "most"),
        ("principal/ann", {"period": "week", "unit": "tokens", "most": 1}, "period"),
        ("principal/ann", {"period": "all", "unit": "tokens", "most": 1}, "'day' or 'month'"),
        ("thread/talk?principal=a", {**DAY_TOKENS, "most": 1}, "'all'"),
        ("thread/talk?tenant=a", {"period": "all", "unit": "tokens", "most": 1}, "principal"),
        ("tenant/acme", {"period": "day", "unit": "dollars", "most": 1e-12}, "billionth"),
        ("tenant/acme", {"period": "day", "unit": "dollars", "most": 1e10}, "at most"),
        ("principal?tenant=acme", {**DAY_TOKENS, "most": 1}, "'tenant' says nothing"),
        ("tenant/acme?tenant=acme", {**DAY_TOKENS, "most": 1}, "'tenant' says nothing"),
        ("principal/ann?principal=bob", {**DAY_TOKENS, "most": 1}, "'principal' says nothing"),
        ("principal/ann?tenant=a&tenant=b", {**DAY_TOKENS, "most": 1}, "once"),
        ("thread/talk", {"period": "all", "unit": "tokens", "most": 1}, "name the 'principal'"),
        ("principal/%20ann", {**DAY_TOKENS, "most": 1}, "space"),
        ("thread/a%20b?principal=a", {"period": "all", "unit": "tokens", "most": 1}, "thread"),
    ],
)
def test_what_is_no_budget_is_refused_by_name(
    here: tuple[str, Live], path: str, budget: dict[str, Any], words: str
) -> None:
    answer = put(operator(here[0]), path, budget)
    assert answer.status_code == 400, answer.text
    assert words in answer.text


def test_more_that_is_refused(here: tuple[str, Live]) -> None:
    op = operator(here[0])
    twice = put(op, "principal/ann", {**DAY_TOKENS, "most": 1}, {**DAY_TOKENS, "most": 2})
    assert "same period and unit" in twice.text
    assert put(op, "principal/ann").status_code == 400
    assert put(op, "user/ann", {**DAY_TOKENS, "most": 1}).status_code == 404
    for tag in ("*", 'W/"1"', "1"):
        answer = put(op, "principal/ann", {**DAY_TOKENS, "most": 1}, **{"if-match": tag})
        assert answer.status_code == 400
    for path in ("principal?tenant=acme", "tenant?tenant=acme", "thread/talk"):
        assert op.ask("GET", f"/v1/budgets/{path}").status_code == 400
        assert op.ask("DELETE", f"/v1/budgets/{path}").status_code == 400
    nobody = op.ask("DELETE", "/v1/budgets/principal/nobody").json()
    assert (nobody["version"], "changes" in nobody) == (0, False)
    for limit in ("0", "1001", "x", "²"):
        assert op.ask("GET", f"/v1/budgets?limit={limit}").status_code == 400
    assert op.ask("GET", "/v1/budgets").json()["budgets"] == []


@pytest.mark.parametrize(
    ("name", "more", "may"),
    [
        ("ann", {}, False),  # everything is permitted to it, but this
        ("ann", {"roles": ["write", "approve"]}, False),
        ("op", {"roles": ["admin"]}, True),
        ("op", {"roles": ["admin"], "tenant": "acme"}, False),
        ("olga", {}, True),
        ("olga", {"roles": ["write"]}, False),
        ("olga", {"tenant": "acme"}, False),
    ],
)
def test_who_is_an_operator(
    here: tuple[str, Live], name: str, more: dict[str, Any], may: bool
) -> None:
    person = Person(here[0], name, **more)
    for path in ("/v1/budgets", "/v1/usage/principals", "/v1/usage/tenants"):
        assert person.ask("GET", path).status_code == (200 if may else 403)
    answer = put(person, "principal/x", {**DAY_TOKENS, "most": 1})
    assert answer.status_code == (200 if may else 403)
    assert person.ask("DELETE", "/v1/budgets/principal/x").status_code == answer.status_code


@pytest.mark.parametrize(
    ("settings", "of_a"),
    [({}, 403), ({"operator": ["a"]}, 200)],
)
def test_with_keys_operators_are_named(settings: dict[str, Any], of_a: int) -> None:
    with site(usage=True, api_keys=KEYS, **settings) as here:
        assert here.client.get("/v1/budgets", headers=AS_A).status_code == of_a
        assert here.client.get("/v1/budgets", headers=AS_B).status_code == 403
        assert here.client.get("/v1/budgets").status_code == 401


@pytest.mark.parametrize(("settings", "status"), [({}, 200), ({"insecure": True}, 403)])
def test_without_keys_this_machine_is_the_operator(settings: dict[str, Any], status: int) -> None:
    with site(usage=True, **settings) as here:
        assert here.client.get("/v1/budgets").status_code == status
        if status == 200:
            run = here.start()
            settled(here.client.get, run)
            page = until(
                lambda: here.client.get("/v1/usage/principals").json(), lambda got: got["owners"]
            )
            assert page["owners"][0]["owner"] == ""


def test_where_nothing_is_counted_there_are_no_budgets() -> None:
    with site() as here:
        run = here.start()
        for method, path in (
            ("GET", "/v1/budgets"),
            ("GET", "/v1/budgets/principal/ann"),
            ("PUT", "/v1/budgets/tenant"),
            ("DELETE", "/v1/budgets/principal/ann"),
            ("GET", "/v1/usage"),
            ("GET", "/v1/usage/tenants"),
            ("GET", f"/v1/runs/{run}/usage"),
        ):
            answer = here.client.request(method, path, json={} if method == "PUT" else None)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (404, "usage_off"), path
            assert "--usage" in error["message"]


def test_operators_read_what_everybody_used(here: tuple[str, Live]) -> None:
    url, _ = here
    op, people = operator(url), [Person(url, f"p{n}", tenant="initech") for n in range(2)]
    for person in people:
        run = person.start("scenario:text")
        settled(lambda path, person=person: person.ask("GET", path), run)

    def owners(kind: str, **query: str) -> dict[Any, Any]:
        more = "&".join(f"{name}={value}" for name, value in query.items())
        page = op.ask("GET", f"/v1/usage/{kind}?{more}").json()
        assert page["next"] is None
        return {(one["owner"], one.get("tenant")): one for one in page["owners"]}

    found = until(
        lambda: owners("tenants").get(("initech", None), {"day": {"calls": 0}}),
        lambda one: one["day"]["calls"] == 2,
    )
    assert found["day"]["cost"] is None  # unknown, as the demo has no price
    assert (
        found["month"]["unpriced_tokens"]
        == found["day"]["output_tokens"] + (found["day"]["input_tokens"])
    )
    assert [(b["name"], b["left"]) for b in found["budgets"]] == [("tenant/month", 100)]
    by_principal = owners("principals")
    assert {("p0", "initech"), ("p1", "initech")} <= set(by_principal)
    used = by_principal["p0", "initech"]
    assert used["budgets"][0]["left"] == 1_000_000 - used["day"]["unpriced_tokens"]
    assert owners("tenants", day="2020-01-31") == {}
    assert op.ask("GET", "/v1/usage/tenants?after=x").status_code == 400
    assert op.ask("GET", "/v1/usage/tenants?day=x").status_code == 400


def test_the_command_lists_sets_shows_and_clears(capsys: pytest.CaptureFixture[str]) -> None:
    with site(usage=True, budget=["tenant/month=$100"]) as here:
        url = f"http://127.0.0.1:{here.port}"

        def run(*words: str, **more: Any) -> str:
            options = {"tenant": None, "principal": None, "reason": None, "as_json": False, **more}
            whose, amounts = (words[1] if words[1:] else None), list(words[2:])
            assert run_budgets(words[0], whose, amounts, url=url, **options) == 0
            return capsys.readouterr().out

        text = run("set", "principal/ann", "day=200_000", "month=$1.5", reason="a trial")
        assert "principal/ann: 200,000 tokens a day, $1.50 a month" in text
        assert "200,000 tokens of 200,000 tokens left, until" in text
        assert run("set", "principal/ann", "day=none", tenant="acme").startswith(
            "principal/ann (tenant acme): no limit of tokens a day"
        )
        listed = run("list")
        assert listed.startswith("configured: tenant/month=$100 (days of UTC)\nprincipal/ann")
        assert ": a trial" in run("show", "principal/ann")
        assert json.loads(run("show", "principal/ann", as_json=True))["version"] == 1
        assert "nothing is set" in run("clear", "principal/ann")
        small = run("set", "tenant/acme", "month=$0.0015", "day=$1_0.5", reason="a\n  b: cleared")
        assert "tenant/acme: $0.0015 a month, $10.50 a day" in small
        assert "$0.0015 of $0.0015 left" in small
        assert small.endswith("$0.0015 a month, $10.50 a day: a b: cleared\n")
        assert "talk: 5 tokens for good" in run("set", "thread/talk", "all=5")
    for words in (
        ["give", None, []],
        ["set", None, ["day=5"]],
        ["set", "principal/ann", []],
        ["set", "principal/ann", ["week=5"]],
        ["set", "principal/ann", ["day=-5"]],
        ["set", "principal/ann", ["day=_"]],
        ["set", "user/ann", ["day=5"]],
        ["set", "principal/", ["day=5"]],
        ["list", "principal/ann", []],
        ["clear", "principal/ann", ["day=5"]],
    ):
        with pytest.raises(InputError):
            run_budgets(*words, tenant=None, principal=None, reason=None, url=url, as_json=False)
