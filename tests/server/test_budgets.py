"""Budgets: a start beyond one is refused on every wire, and its caller hears what is left."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.client import connect

from support.every_route import ag_ui_body
from support.people import Person, people_server
from support.server import AS_A, AS_B, KEYS, Site, site
from support.usage import settled, until
from tokenwire.errors import ConfigError
from tokenwire.relay.spending.budgets import budgets_of
from tokenwire.relay.spending.prices import NANOS
from tokenwire.server.settings import Settings


def test_budgets_as_they_are_written() -> None:
    budgets = budgets_of(["principal/day=200_000", "tenant/month=$100", "thread = $0.5"])
    assert [(b.name, b.unit, b.most) for b in budgets] == [
        ("principal/day", "tokens", 200_000),
        ("tenant/month", "dollars", 100 * NANOS),
        ("thread", "dollars", NANOS // 2),
    ]
    texts = ["thread=$0.0008", "principal/day=$1200.5", "tenant/day=1200"]
    words = [budget.words for budget in budgets_of(texts)]
    assert words == ["$0.0008", "$1,200.50", "1,200 tokens"]
    both = budgets_of(["principal/day=5", "principal/day=$5"])
    assert len(both) == 2
    for wrong in (
        "principal=5",
        "thread/day=5",
        "user/day=5",
        "principal/day=-1",
        "thread=1.5",
        "",
    ):
        with pytest.raises(ConfigError, match="budget"):
            budgets_of([wrong])
    with pytest.raises(ConfigError, match="less than a billionth"):
        budgets_of(["thread=$0.0000000001"])
    with pytest.raises(ConfigError, match="is more than"):
        budgets_of(["thread=1000000000000001"])
    with pytest.raises(ConfigError, match="two budgets are for the same"):
        budgets_of(["thread=5", "thread=6"])
    with pytest.raises(ConfigError, match="budget"):
        budgets_of([f"thread={10**16}"])


@pytest.fixture(scope="module")
def spent() -> Iterator[Site]:
    """A server on which person a has used up the budget of the day."""
    with site(
        budget=["principal/day=500"], budget_slice=20, api_keys=KEYS, starts_per_minute=6000
    ) as here:
        made = here.client.post(
            "/v1/runs",
            json={"prompt": "scenario:long"},
            headers={**AS_A, "idempotency-key": "the-first"},
        )
        assert made.status_code == 201, made.text
        fields = dict(part.split("=") for part in made.headers["tokenwire-budget"].split("; ")[1:])
        assert (fields["unit"], fields["left"], fields["most"]) == ("tokens", "500", "500")
        assert 0 < int(fields["resets"]) <= 86_400
        run = made.json()["id"]
        settled(lambda path: here.client.get(path, headers=AS_A), run)
        until(
            lambda: here.client.get("/v1/usage", headers=AS_A).json(),
            lambda report: report["day"]["runs"] == 1,
        )
        here.run = run  # type: ignore[attr-defined]
        yield here


ASKED = [{"role": "user", "content": "scenario:text"}]
_HEADER = (
    r"principal/day; unit=tokens; left=\d+; most=900000; resets=\d+, "
    r"principal/month; unit=dollars; left=9; most=9; resets=\d+"
)
QUESTION = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "scenario:text"}]}
ASKED_A2A = {"message": {"messageId": "a1", "parts": [{"text": "scenario:text"}]}}
STARTS: dict[str, Any] = {
    "/v1/runs": {"prompt": "x"},
    "/v1/producers": {"prompt": "x"},
    "/v1/chat/completions": {"model": "demo", "messages": ASKED},
    "/v1/responses": {"model": "demo", "input": "x"},
    "/v1/messages": {"model": "demo", "max_tokens": 10, "messages": ASKED},
    "/api/chat": {"id": "chat-1", "messages": [QUESTION]},
    "/ag-ui": {"runId": "r1", "threadId": "t1", **ag_ui_body("x")},
    "/ds/chat": {"id": "chat-2", "messages": [QUESTION]},
    "/a2a": {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": ASKED_A2A},
    "/a2a/message:send": ASKED_A2A,
    "/a2a/demo/message:stream": ASKED_A2A,
    **{
        f"/langgraph{path}": {"input": {"messages": [{"type": "human", "content": "x"}]}}
        for path in ("/runs/wait", "/threads/t2/runs", "/threads/t2/runs/stream")
    },
}


@pytest.mark.parametrize("path", STARTS)
def test_a_start_beyond_a_budget_is_refused_on_every_wire(spent: Site, path: str) -> None:
    got = spent.client.post(path, json=STARTS[path], headers=AS_A)
    assert got.status_code == 402, got.text
    assert int(got.headers["retry-after"]) > 0
    assert "left=0" in got.headers["tokenwire-budget"]
    if path.startswith("/langgraph"):
        assert "500 tokens for today" in got.json()["detail"]
    error = got.json()["error"]
    assert "500 tokens for today" in error["message"]
    if path == "/v1/messages":
        assert error["type"] == "billing_error"
    elif path in ("/v1/chat/completions", "/v1/responses"):
        assert (error["type"], error["code"]) == ("insufficient_quota", "budget")
    elif path == "/a2a":
        assert (error["code"], error["data"][0]["reason"]) == (-32000, "BUDGET")
    elif path.startswith("/a2a/"):
        assert (error["code"], error["status"]) == (402, "RESOURCE_EXHAUSTED")
        assert error["details"][0]["reason"] == "BUDGET"
    else:
        assert (error["code"], error["limit"], error["most"]) == ("budget", "principal/day", 500)


def test_every_start_says_what_is_left() -> None:
    with site(budget=["principal/day=900000", "principal/month=$9"], unpriced="pass") as here:
        for number, (path, start) in enumerate(STARTS.items()):
            key = {"idempotency-key": f"start-{number}"}
            with here.client.stream("POST", path, json=start, headers=key) as answer:
                assert answer.is_success, (path, answer.read())
                said = answer.headers["tokenwire-budget"]
                assert re.fullmatch(_HEADER, said), (path, said)
        for path in ("/chat/stream?prompt=x", "/chat/stream?prompt=x&thread=t5"):
            with here.client.stream("GET", path) as answer:
                assert re.fullmatch(_HEADER, answer.headers["tokenwire-budget"]), path
        with here.client.stream(
            "PUT", "/ds/v1/stream/budget-x", headers={"content-type": "text/plain"}
        ) as answer:
            assert "tokenwire-budget" not in answer.headers  # it starts nothing
        with connect(f"ws://127.0.0.1:{here.port}/ws") as socket:
            socket.send(json.dumps({"op": "start", "id": 1, "request": {"prompt": "x"}}))
            answer = json.loads(socket.recv(timeout=45))
            assert answer["op"] == "started"
            assert re.fullmatch(_HEADER, answer["budget"])
        document = here.client.get("/openapi.json").json()
        for path in STARTS:
            known = path if path in document["paths"] else _described(document, path)
            responses = document["paths"][known]["post"]["responses"]
            whole = [one for status, one in responses.items() if status[0] == "2"]
            assert whole, path
            assert all("Tokenwire-Budget" in one["headers"] for one in whole), path


def _described(document: Any, path: str) -> str:
    """The pattern of the document that a path fits."""
    for pattern in document["paths"]:
        if re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", pattern), path):
            return str(pattern)
    raise AssertionError(path)


def test_sockets_say_it_too(spent: Site) -> None:
    with connect(f"ws://127.0.0.1:{spent.port}/ws", additional_headers=AS_A) as socket:
        socket.send(json.dumps({"op": "start", "id": 1, "request": {"prompt": "x"}}))
        answer = json.loads(socket.recv(timeout=45))
        assert (answer["op"], answer["error"]["code"]) == ("error", "budget")


def test_who_has_some_left_starts_and_a_repetition_gets_its_run(spent: Site) -> None:
    other = spent.client.post("/v1/runs", json={"prompt": "x"}, headers=AS_B)
    assert other.status_code == 201
    assert "left=500" in other.headers["tokenwire-budget"]
    again = spent.client.post(
        "/v1/runs",
        json={"prompt": "scenario:long"},
        headers={**AS_A, "idempotency-key": "the-first"},
    )
    assert (again.status_code, again.json()["id"]) == (200, spent.run)  # type: ignore[attr-defined]
    assert spent.client.get(f"/v1/runs/{spent.run}", headers=AS_A).status_code == 200  # type: ignore[attr-defined]
    report = spent.client.get("/v1/usage", headers=AS_A).json()
    (budget,) = report["budgets"]
    assert (budget["name"], budget["left"], budget["most"]) == ("principal/day", 0, 500)


def test_tenants_and_conversations_have_budgets() -> None:
    settings = Settings(
        budget=["tenant/month=500", "thread=500", "principal/day=$0.000001"],
        budget_slice=20,
        unpriced="pass",
        starts_per_minute=60_000,
        runs_per_principal=100,
    )
    with people_server(settings=settings) as (url, _):
        ann, ben = Person(url, "ann", tenant="acme"), Person(url, "ben", tenant="acme")
        eve = Person(url, "eve")
        run = ann.start("scenario:long")
        settled(lambda path: ann.ask("GET", path), run)
        refused = until(
            lambda: ben.ask("POST", "/v1/runs", {"prompt": "x"}), lambda got: got.status_code == 402
        )
        assert refused.json()["error"]["limit"] == "tenant/month"
        run = eve.start("scenario:long", thread="long")
        settled(lambda path: eve.ask("GET", path), run)
        body = {"prompt": "x", "thread": "long"}
        refused = until(
            lambda: eve.ask("POST", "/v1/runs", body), lambda got: got.status_code == 402
        )
        assert refused.json()["error"]["limit"] == "thread"
        assert "retry-after" not in refused.headers
        # The demo has no price, and may pass; another conversation is not used up.
        answer = eve.ask("POST", "/v1/runs", {"prompt": "x", "thread": "new"})
        assert answer.status_code == 201
        assert "principal/day; unit=dollars; left=1e-06" in answer.headers["tokenwire-budget"]


@pytest.mark.parametrize("keys", [None, KEYS])
def test_a_turn_that_waits_is_not_refused_when_it_comes_again(keys: list[str] | None) -> None:
    """Its budget is used up while it waits: the same request is the same turn, another is 402."""
    headers = AS_A if keys else {}
    path = "/v1/runs?history=thread&while_busy=queue"
    with site(
        budget=["principal/day=1000"],
        budget_slice=20,
        api_keys=keys or [],
        starts_per_minute=6000,
    ) as here:

        def say(prompt: str, key: str) -> Any:
            body = {"prompt": prompt, "thread": "talk"}
            return here.client.post(path, json=body, headers={**headers, "idempotency-key": key})

        busy = say("scenario:stall", "one")
        waits = say("scenario:text", "two")
        assert (busy.status_code, waits.status_code) == (201, 202)
        run = here.start("scenario:long", headers=headers)
        settled(lambda where: here.client.get(where, headers=headers), run)
        until(lambda: say("scenario:text", "three"), lambda got: got.status_code == 402)
        again = say("scenario:text", "two")
        assert (again.status_code, again.json()["id"]) == (202, waits.json()["id"])
        assert say("scenario:stall", "one").json()["id"] == busy.json()["id"]
        # The turn was checked when it came, and has its run, for which nothing is left.
        stop = here.client.post(f"/v1/runs/{busy.json()['id']}/cancel", headers=headers)
        assert stop.status_code < 300
        turn = f"/v1/runs/{waits.json()['id']}"
        until(
            lambda: here.client.get(turn, headers=headers).json().get("state"),
            lambda state: state == "incomplete",
        )
        assert say("scenario:text", "two").json()["id"] == waits.json()["id"]


def test_a_model_without_a_price_is_refused_where_a_budget_in_dollars_holds() -> None:
    """Unless that is set to pass, or the operator names its price, by which it is counted then."""

    def start(here: Site, prompt: str = "scenario:text", **headers: str) -> Any:
        return here.client.post("/v1/runs", json={"prompt": prompt}, headers=headers)

    with site(budget=["principal/day=$1"]) as here:
        for path in ("/v1/runs", "/v1/chat/completions", "/v1/messages"):
            refused = here.client.post(path, json=STARTS[path])
            assert refused.status_code == 402, refused.text
            assert "'demo/demo' has no price" in refused.json()["error"]["message"]
            assert "retry-after" not in refused.headers
        error = start(here).json()["error"]
        assert (error["code"], error["limit"]) == ("unpriced", "principal/day")
        metrics = here.client.get("/metrics").text
        assert 'tokenwire_budget_refused_total{budget="principal/day",unit="dollars"}' in metrics
        assert "tokenwire_budget_reserved_tokens 0" in metrics
    with site(budget=["principal/day=$0.0003"], price=["demo/demo=0.1/2"]) as here:
        made = start(here)
        assert made.status_code == 201, made.text
        used = settled(here.client.get, made.json()["id"])
        total = used["total"]
        expected = (0.1 * total["input_tokens"] + 2 * total["output_tokens"]) / 1e6
        assert (total["cost"], total.get("unpriced_tokens", 0)) == (pytest.approx(expected), 0)
        assert used["prices"].endswith(" and own prices")
        refused = until(lambda: start(here), lambda got: got.status_code == 402)
        assert refused.json()["error"]["code"] == "budget"


def test_a_request_may_have_a_budget_of_its_own() -> None:
    with site() as here:

        def start(prompt: str, budget: Any) -> Any:
            return here.client.post("/v1/runs", json={"prompt": prompt, "budget": budget})

        run = start("scenario:tool", {"tokens": 430}).json()["id"]
        lines = here.client.get(f"/v1/runs/{run}/events").text.splitlines()
        events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        kinds = [event["type"] for event in events]
        # The tool that was called is finished; the model is not called again.
        assert kinds[-3:] == ["tool-result", "budget", "run-end"]
        assert (events[-2]["name"], events[-2]["left"]) == ("run", 0)
        assert (events[-1]["outcome"], events[-1]["reason"]) == ("incomplete", "budget")
        for wrong in ({"tokens": 0}, "5", "$-1", {"dollars": 1}):
            assert start("x", wrong).status_code == 400
        refused = start("x", "$1").json()["error"]
        assert (refused["field"], "--usage" in refused["message"]) == ("budget", True)


def test_a_budget_in_money_stops_a_run_in_its_middle() -> None:
    """The demo has a price: 2 dollars for a million tokens, so that 1,000 may be used."""
    with site(budget=["principal/day=$0.002"], price=["demo/demo=2/2"], budget_slice=20) as here:
        run = here.start("scenario:long")
        lines = here.client.get(f"/v1/runs/{run}/events").text.splitlines()
        events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        assert "text-delta" in [event["type"] for event in events]
        over = [event for event in events if event["type"] == "budget"][-1]
        assert (over["name"], over["unit"]) == ("principal/day", "dollars")
        assert (over["left"], over["most"]) == (0, 0.002)
        (step,) = [event for event in events if event["type"] == "step-end"]
        assert (step["status"], step.get("terminal_seen", False)) == ("incomplete", False)
        assert (events[-1]["outcome"], events[-1]["reason"]) == ("incomplete", "budget")
        total = settled(here.client.get, run)["total"]
        assert total["estimated_cost"] == pytest.approx(total["estimated_tokens"] * 2e-6)
        assert total["estimated_cost"] >= 0.0019
        refused = here.client.post("/v1/runs", json={"prompt": "x"})
        assert refused.status_code == 402, refused.text
