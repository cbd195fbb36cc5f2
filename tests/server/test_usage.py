"""``/v1/usage``: who reads which sums, over HTTP; and nothing lost where a server is killed."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import httpx

from support.people import Person, people_server
from support.process import serving
from support.server import AS_A, AS_B, KEYS, site
from support.usage import settled, until
from tokenwire import RunContext, agent
from tokenwire.server.settings import Settings


def test_a_principal_reads_its_own_sums() -> None:
    with site(usage=True, api_keys=KEYS, runs_per_principal=50) as here:
        get = here.client.get
        runs = [here.start(thread="talk", headers=AS_A) for _ in range(2)]
        bills = [settled(lambda path: get(path, headers=AS_A), run) for run in runs]
        until(
            lambda: get("/v1/usage", headers=AS_A).json(), lambda report: report["day"]["runs"] == 2
        )
        report = get("/v1/usage", headers=AS_A).json()
        assert report["prices"].startswith("genai-prices ")
        assert report["zone"] == "UTC"
        day = report["day"]
        assert report["month"]["period"] == day["period"][:7]
        assert day["output_tokens"] == sum(bill["total"]["output_tokens"] for bill in bills) > 0
        assert report["month"]["output_tokens"] == day["output_tokens"]
        # The demo has no price: what it cost is not known, and is not nothing.
        assert (day["cost"], day["known_cost"]) == (None, 0.0)
        assert day["unpriced_tokens"] == day["input_tokens"] + day["output_tokens"]
        assert set(day["models"]) == {"demo/demo"}
        assert get("/v1/threads/talk/usage", headers=AS_A).json()["total"]["runs"] == 2
        # Another day, and other people.
        past = get("/v1/usage?day=2020-01-31", headers=AS_A).json()
        assert (past["day"]["period"], past["day"]["runs"], past["day"]["cost"]) == (
            "2020-01-31",
            0,
            0.0,
        )
        for wrong in ("today", "2026-02-29", "0000-01-01", "2026-13-01", "20261129"):
            assert get(f"/v1/usage?day={wrong}", headers=AS_A).status_code == 400
        assert get("/v1/usage", headers=AS_B).json()["day"]["runs"] == 0
        assert get(f"/v1/runs/{runs[0]}/usage", headers=AS_B).status_code == 404
        assert get("/v1/threads/talk/usage", headers=AS_B).json()["total"]["runs"] == 0
        # What was erased stays in the sums of who paid for it, and in nobody's conversation.
        assert here.client.delete(f"/v1/runs/{runs[0]}", headers=AS_A).status_code == 204
        assert here.client.delete("/v1/threads/talk", headers=AS_A).status_code == 204
        report = get("/v1/usage", headers=AS_A).json()
        assert (report["day"]["runs"], report["day"]["output_tokens"]) == (2, day["output_tokens"])
        assert get("/v1/threads/talk/usage", headers=AS_A).json()["total"]["runs"] == 0
        # Told by whoever settled them, which may be a moment after the sums can be read.
        unpriced = 'tokenwire_unpriced_tokens_total{model="demo/demo"}'
        until(lambda: get("/metrics", headers=AS_A).text, lambda text: unpriced in text)


def test_a_run_that_is_erased_before_its_end_is_counted() -> None:
    with site(usage=True) as here:
        run = here.start("scenario:approval", thread="t")
        until(lambda: here.client.get(f"/v1/runs/{run}").json()["state"], "waiting".__eq__)
        so_far = here.client.get(f"/v1/runs/{run}/usage").json()
        assert (so_far["is_settled"], so_far["total"]["calls"]) == (False, 1)
        assert here.client.get("/v1/usage").json()["day"]["runs"] == 0
        assert here.client.delete(f"/v1/runs/{run}").status_code == 204
        day = here.client.get("/v1/usage").json()["day"]
        assert (day["runs"], day["calls"]) == (1, 1)
        assert day["output_tokens"] > 0


def test_without_the_setting_nothing_is_counted() -> None:
    with site() as here:
        run = here.start()
        for path in ("/v1/usage", f"/v1/runs/{run}/usage", "/v1/threads/t/usage"):
            answer = here.client.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "usage_off")


@agent
async def writer(ctx: RunContext):
    async with ctx.stream("scenario:text", model="demo", visible=False) as answer:
        await answer.result()
    async with ctx.stream("scenario:text", model="demo") as answer:
        await answer.result()


def test_tenants_and_the_inner_calls_of_agents() -> None:
    settings = Settings(usage=True, starts_per_minute=60_000, runs_per_principal=100)
    with people_server(settings=settings, agents=[writer]) as (url, _):
        ann = Person(url, "ann", tenant="acme")
        boss = Person(url, "boss", tenant="acme", roles=["admin"])
        other = Person(url, "boss", tenant="globex", roles=["admin"])
        run = ann.start("x", model="writer")
        bill = settled(lambda path: ann.ask("GET", path), run)
        assert bill["total"]["calls"] == 2
        assert bill["total"]["output_tokens"] > 0
        until(
            lambda: boss.ask("GET", "/v1/usage").json(),
            lambda report: report["tenant"]["day"]["runs"] == 1,
        )
        report = boss.ask("GET", "/v1/usage").json()
        assert (report["day"]["runs"], report["tenant"]["month"]["calls"]) == (0, 2)
        assert "tenant" not in ann.ask("GET", "/v1/usage").json()
        assert other.ask("GET", "/v1/usage").json()["tenant"]["day"]["runs"] == 0


def test_members_read_the_usage_of_their_conversation() -> None:
    settings = Settings(usage=True, starts_per_minute=60_000, runs_per_principal=100)
    with people_server(settings=settings) as (url, _):
        ann, ben, eve = (Person(url, name) for name in ("ann", "ben", "eve"))
        run = ann.start("scenario:text", thread="ours")
        ann.ask("PUT", "/v1/threads/ours/members/ben", {"role": "read"})
        shared = ann.ask("GET", "/v1/threads/ours/members").json()["id"]
        settled(lambda path: ann.ask("GET", path), run)
        until(
            lambda: ben.ask("GET", f"/v1/threads/{shared}/usage").json(),
            lambda usage: usage["total"]["runs"] == 1,
        )
        assert ben.ask("GET", f"/v1/runs/{run}/usage").status_code == 200
        assert eve.ask("GET", f"/v1/threads/{shared}/usage").status_code == 404
        assert ben.ask("GET", "/v1/usage").json()["day"]["runs"] == 0  # they are ann's


def test_a_killed_server_loses_and_repeats_nothing(tmp_path: Path) -> None:
    flags = ("--usage", "--store", f"sqlite:{tmp_path}/runs.db", "--model", "demo")
    started, runs = 0, set[str]()
    with serving(tmp_path, *flags) as server:
        for _ in range(6):
            made = httpx.post(f"{server.url}/v1/runs", json={"prompt": "Say one word."})
            runs.add(made.json()["id"])
            started += 1
        newest = made.json()["id"]
        until(
            lambda url=server.url, run=newest: httpx.get(f"{url}/v1/runs/{run}").json()["state"],
            lambda state: state != "running",
        )
        server.stop(signal.SIGKILL)
    with serving(tmp_path, *flags) as server:
        ask = lambda path: httpx.get(server.url + path, timeout=30)  # noqa: E731
        bills = [settled(ask, run) for run in runs]
        until(lambda: ask("/v1/usage").json()["day"], lambda day: day["runs"] == started)
        time.sleep(0.5)
        day = ask("/v1/usage").json()["day"]
        assert day["runs"] == started == len(runs)
        assert day["output_tokens"] == sum(bill["total"]["output_tokens"] for bill in bills)
        assert day["calls"] == sum(bill["total"]["calls"] for bill in bills)


def test_a_run_that_reports_nonsense_is_no_obstacle_to_the_others() -> None:
    """What a producer, or a broken provider, says of tokens and times."""
    reports: list[dict[str, Any]] = [
        {"input_tokens": 10**30, "output_tokens": 1},
        {"input_tokens": 2**63, "output_tokens": 2**63},
        {"input_tokens": 1, "output_tokens": 1, "cached_input_tokens": 10**20},
        {"input_tokens": -(10**30), "output_tokens": -1},
        {"total_tokens": 10**25},
        {"input_tokens": 1, "t": 10**18},
        {"input_tokens": 1, "t": -(10**18)},
        {"input_tokens": 1, "raw": {"cache_creation": {"ephemeral_1h_input_tokens": 10**30}}},
    ]
    ends = [
        {"type": "step-end", "step": 1, "status": "complete", "terminal_seen": True},
        {"type": "run-end", "outcome": "complete"},
    ]
    with site(usage=True, starts_per_minute=6000) as here:
        post, get, runs = here.client.post, here.client.get, list[str]()
        for report in reports:
            made = post("/v1/producers", json={"prompt": "x"}).json()
            runs.append(made["run"])
            step = {"type": "step-start", "step": 1, "provider": "openai", "model": "gpt-4o"}
            body = {"epoch": made["epoch"], "first": made["next"]}
            body["events"] = [step, {"type": "usage", **report}, *ends]
            answer = post(f"/v1/producers/{made['run']}/events", json=body)
            assert answer.status_code == 200, (report, answer.text)
        runs.append(here.start())
        bills = [settled(get, run) for run in runs]
        assert bills[0]["total"]["cost"] is None
        assert bills[0]["total"]["unreported_calls"] == 1
        day = until(lambda: get("/v1/usage").json()["day"], lambda day: day["runs"] == len(runs))
        assert day["cost"] is None
        assert 0 < day["input_tokens"] < 10**6
