"""The inbox over HTTP, and links: a page that decides nothing, and a form that decides once."""

from __future__ import annotations

import asyncio
import base64
import html
import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from support import cli
from support.mounted import HOSTS, serving
from support.people import Person, people_server
from support.webhook import Receiver
from tokenwire.client import Client
from tokenwire.errors import ConfigError, ConflictError
from tokenwire.server import Settings, create_app
from tokenwire.server.routes.waiting.page import _json, _text
from tokenwire.server.start import ThreadedServer
from tokenwire.server.tokens.approval_links import checked_base

ASK = "scenario:approval"
PUBLIC = "https://chat.example/ai"


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with people_server() as (url, _):
        yield url


@pytest.fixture
def ann(base: str, request: pytest.FixtureRequest) -> Person:
    return Person(base, f"ann-{request.node.name}"[:100])


@pytest.fixture
def nobody(base: str) -> Iterator[httpx.Client]:
    """A browser without any login."""
    with httpx.Client(base_url=base, timeout=60) as client:
        yield client


def link(who: Person, run: str, approval: str, **body: Any) -> dict[str, Any]:
    made = who.ask("POST", f"/v1/runs/{run}/approvals/{approval}/links", body)
    assert made.status_code == 201, made.text
    return made.json()


def ended(who: Person, run: str) -> dict[str, Any]:
    """The run after its end."""
    end, shown = time.monotonic() + 60, dict[str, Any]()
    while time.monotonic() < end:
        shown = who.ask("GET", f"/v1/runs/{run}").json()
        if shown["state"] not in ("running", "waiting"):
            return shown
        time.sleep(0.02)
    raise AssertionError(shown)


def answers(who: Person, run: str) -> list[dict[str, Any]]:
    page = who.ask("GET", f"/v1/runs/{run}/events?live=no").json()
    events = [one["event"] for one in page["events"]]
    return [event for event in events if event["type"] == "approval-answer"]


def test_the_inbox_is_ones_own_in_pages_and_by_thread_and_tool(base: str, ann: Person) -> None:
    begun = [ann.waiting(ASK, thread=f"t{number % 2}")[0] for number in range(3)]
    entries = ann.ask("GET", "/v1/waiting").json()["waiting"]
    assert [one["since"] for one in entries] == sorted(one["since"] for one in entries)
    runs = [one["run"] for one in entries]
    assert sorted(runs) == sorted(begun)
    page = ann.ask("GET", "/v1/waiting?limit=2").json()
    assert [one["run"] for one in page["waiting"]] == runs[:2]
    assert page["next"]
    rest = ann.ask("GET", f"/v1/waiting?limit=2&after={page['next']}").json()
    assert ([one["run"] for one in rest["waiting"]], rest["next"]) == (runs[2:], None)
    (first, *_) = page["waiting"]
    assert first["tool"] == "delete_file"
    assert first["arguments"]["path"]
    assert first["deciders"] == [ann.client.headers["x-who"].strip('"')]
    by_thread = ann.ask("GET", "/v1/waiting?thread=t1").json()["waiting"]
    assert [one["run"] for one in by_thread] == [begun[1]]
    assert len(ann.ask("GET", "/v1/waiting?tool=delete_file").json()["waiting"]) == 3
    assert ann.ask("GET", "/v1/waiting?tool=other").json() == {"waiting": [], "next": None}
    assert Person(base, "ben").ask("GET", "/v1/waiting").json()["waiting"] == []
    for bad in ("limit=0", "limit=201", "limit=x", "x=1"):
        assert ann.ask("GET", f"/v1/waiting?{bad}").status_code == 400, bad


def test_the_inbox_is_live(base: str, ann: Person) -> None:
    before, _ = ann.waiting(ASK)
    with ann.client.stream("GET", "/v1/waiting/events?tool=delete_file", timeout=60) as stream:
        assert stream.headers["content-type"] == "text/event-stream"
        frames = events_of(stream)
        name, data = next(frames)
        assert (name, [one["run"] for one in data["waiting"]]) == ("snapshot", [before])
        run, approval = ann.waiting(ASK)
        name, data = next(frames)
        assert (name, data["run"], data["tool"]) == ("waiting-added", run, "delete_file")
        path = f"/v1/runs/{run}/approvals/{approval}"
        assert ann.ask("POST", path, {"approved": False}).status_code == 202
        name, data = next(frames)
        assert (name, data["run"], data["approval"]) == ("waiting-removed", run, approval)
        Person(base, "ben").waiting(ASK)  # nothing of others
        ann.ask("POST", f"/v1/runs/{before}/cancel", {})
        assert next(frames)[1]["run"] == before
    assert ann.ask("GET", "/v1/waiting/events?x=1").status_code == 400


def events_of(stream: httpx.Response) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in stream.iter_lines():
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, json.loads(line[6:])


def test_opening_a_link_decides_nothing_and_its_form_decides_once(
    ann: Person, nobody: httpx.Client
) -> None:
    run, approval = ann.waiting(ASK)
    made = link(ann, run, approval)
    assert made["url"].startswith(f"{ann.url}/v1/approval-links/")
    for _ in range(2):  # scanners of mail, previews of chats
        assert nobody.head(made["url"]).status_code == 200
        assert nobody.get(made["url"], headers={"sec-purpose": "prefetch"}).status_code == 200
    shown = nobody.get(made["url"])
    assert shown.status_code == 200
    headers = shown.headers
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert (headers["cache-control"], headers["referrer-policy"]) == ("no-store", "no-referrer")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"
    assert "delete_file" in shown.text
    assert "<script" not in shown.text
    assert run not in shown.text  # nothing of the run but the call, who asks and why
    assert ann.ask("GET", f"/v1/runs/{run}").json()["state"] == "waiting"
    # A browser that was told not to say where it comes from says this of its own form.
    said = {"origin": "null", "content-type": "application/x-www-form-urlencoded"}
    done = nobody.post(made["url"], content="decision=deny&reason=not+now", headers=said)
    assert done.status_code == 200
    assert "The call was denied" in done.text
    again = nobody.post(made["url"], data={"decision": "approve"})
    assert again.status_code == 410
    assert "used before" in again.text
    assert nobody.get(made["url"]).status_code == 410
    ended(ann, run)
    (answer,) = answers(ann, run)
    name = ann.client.headers["x-who"].strip('"')
    assert answer["by"] == f"{name} (link {made['id'][:12]})"
    assert (answer["approved"], answer["reason"]) == (False, "not now")
    (listed,) = ann.ask("GET", f"/v1/runs/{run}/approvals/{approval}/links").json()["links"]
    assert (listed["decided"], "url" in listed, listed["by"]) == ("deny", False, name)


def test_of_many_at_the_same_moment_one_decides(ann: Person, nobody: httpx.Client) -> None:
    run, approval = ann.waiting(ASK)
    urls = [link(ann, run, approval)["url"] for _ in range(2)] * 8

    def use(number: int) -> tuple[int, str]:
        choice = "approve" if number % 3 else "deny"
        with httpx.Client(timeout=60) as device:
            reply = device.post(urls[number], data={"decision": choice})
        return reply.status_code, choice

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(use, range(16)))
    winners = [choice for status, choice in results if status == 200]
    assert len(winners) == 1, results
    assert {status for status, _ in results} == {200, 410}
    ended(ann, run)
    (answer,) = answers(ann, run)
    assert answer["approved"] == (winners[0] == "approve")


def test_a_link_changed_by_a_byte_or_of_another_server_is_none(
    ann: Person, nobody: httpx.Client
) -> None:
    run, approval = ann.waiting(ASK)
    url = link(ann, run, approval)["url"]
    head, _, token = url.rpartition("/")
    other = "A" if token[40] != "A" else "B"
    bad = [token[:40] + other + token[41:], token[:-1], token + "A", "x", "access_" + token]
    with people_server() as (elsewhere, _):
        them = Person(elsewhere, "eve")
        bad.append(link(them, *them.waiting(ASK))["url"].rpartition("/")[2])
    for text in bad:
        for answer in (
            nobody.get(f"{head}/{text}"),
            nobody.post(f"{head}/{text}", data={"decision": "approve"}),
        ):
            assert answer.status_code == 404, text
            assert "does not count here" in answer.text
    # Neither does a link open anything else.
    for key in (token, "access_" + token, "attach_" + token):
        asks = nobody.get(f"/v1/runs/{run}", headers={"authorization": f"Bearer {key}"})
        assert asks.status_code == 401
    assert ann.ask("GET", f"/v1/runs/{run}").json()["state"] == "waiting"


def test_links_of_who_was_removed_are_dead_also_when_they_join_again(
    base: str, ann: Person, nobody: httpx.Client
) -> None:
    run, approval = ann.waiting(ASK, thread="trip")
    anns = link(ann, run, approval)  # from before the conversation was shared
    ben = Person(base, f"ben-{ann.client.headers['x-who']}"[:100].replace('"', ""))
    name = ben.client.headers["x-who"].strip('"')
    path, body = f"/v1/threads/trip/members/{name}", {"role": "approve"}
    assert ann.ask("PUT", path, body).status_code < 300
    old = link(ben, run, approval)
    assert ann.ask("PUT", path, {"role": "own"}).status_code < 300
    assert nobody.get(old["url"]).status_code == 200  # another role is the same membership
    assert ann.ask("DELETE", path).status_code == 204
    assert nobody.get(old["url"]).status_code == 410
    assert ann.ask("PUT", path, body).status_code < 300
    assert nobody.get(old["url"]).status_code == 410
    assert nobody.post(old["url"], data={"decision": "approve"}).status_code == 410
    assert ann.ask("GET", f"/v1/runs/{run}").json()["state"] == "waiting"
    assert nobody.get(anns["url"]).status_code == 200
    new = link(ben, run, approval)
    assert nobody.post(new["url"], data={"decision": "deny"}).status_code == 200
    ended(ann, run)
    (answer,) = answers(ann, run)
    assert (answer["approved"], answer["by"]) == (False, f"{name} (link {new['id'][:12]})")


@pytest.mark.parametrize("how", ["revoked", "expired", "decided", "cancelled", "erased"])
def test_a_dead_link_says_why(ann: Person, nobody: httpx.Client, how: str) -> None:
    run, approval = ann.waiting(ASK)
    path = f"/v1/runs/{run}/approvals/{approval}"
    made = link(ann, run, approval, **({"ttl": 1} if how == "expired" else {}))
    if how == "revoked":
        assert ann.ask("DELETE", f"{path}/links/{made['id']}").status_code == 204
        assert ann.ask("DELETE", f"{path}/links/nothing").status_code == 404
    elif how == "decided":
        assert ann.ask("POST", path, {"approved": True}).status_code == 202
    elif how == "cancelled":
        ann.ask("POST", f"/v1/runs/{run}/cancel", {})
        ended(ann, run)
    elif how == "erased":
        assert ann.ask("DELETE", f"/v1/runs/{run}").status_code == 204
    else:
        while time.time() <= made["expires"]:
            time.sleep(0.05)
    words = {
        "revoked": "was revoked",
        "expired": "time to decide is over",
        "decided": "was decided already. The call was approved.",
        "cancelled": "run has ended",
        "erased": "does not count here",
    }
    for answer in (nobody.get(made["url"]), nobody.post(made["url"], data={"decision": "deny"})):
        assert answer.status_code == (404 if how == "erased" else 410)
        assert words[how] in answer.text
    if how == "decided":
        ended(ann, run)
        assert [one["approved"] for one in answers(ann, run)] == [True]


def test_a_link_for_one_decision_offers_no_other(ann: Person, nobody: httpx.Client) -> None:
    run, approval = ann.waiting(ASK)
    url = link(ann, run, approval, decision="deny")["url"]
    page = nobody.get(url).text
    assert 'value="deny"' in page
    assert 'value="approve"' not in page
    assert nobody.post(url, data={"decision": "approve"}).status_code == 400
    as_json = nobody.post(url, json={}, headers={"accept": "application/json"})
    assert (as_json.status_code, as_json.json()["state"]) == (200, "done")
    ended(ann, run)
    assert [one["approved"] for one in answers(ann, run)] == [False]


def test_bodies_that_are_none(ann: Person, nobody: httpx.Client) -> None:
    run, approval = ann.waiting(ASK)
    url = link(ann, run, approval)["url"]
    form = {"content-type": "application/x-www-form-urlencoded"}
    for content, headers in (
        (b"decision=maybe", form),
        (b"", form),
        (b"\xff\xfe", form),
        (b"&".join(b"a%d=1" % n for n in range(99)), form),
        (b"decision=approve", {"content-type": "text/plain"}),
        (b"[]", {"content-type": "application/json"}),
        (b"{", {"content-type": "application/json"}),
        (b"[" * 8000, {"content-type": "application/json"}),
        (b"decision=deny&reason=expired", form),
        (b"decision=deny&reason=" + b"x" * 2001, form),
        (b"decision=approve&decision=deny", form),
        (b"decision=deny&decision=deny", form),
        (b"decision=&decision=approve", form),
        (b"decision=approve&decision", form),
        (b"decision=deny&reason=a&reason=b", form),
        (b'{"decision":"approve","decision":"deny"}', {"content-type": "application/json"}),
        (b'{"decision":"approve","reason":"a","reason":"b"}', {"content-type": "application/json"}),
    ):
        assert nobody.post(url, content=content, headers=headers).status_code == 400, content
    big = nobody.post(url, content=b"decision=approve&x=" + b"x" * 9000, headers=form)
    assert big.status_code == 413
    assert ann.ask("GET", f"/v1/runs/{run}").json()["state"] == "waiting"


def test_who_may_not_approve_makes_no_link_and_tokens_open_none_of_it(
    base: str, ann: Person, nobody: httpx.Client
) -> None:
    run, approval = ann.waiting(ASK)
    path = f"/v1/runs/{run}/approvals/{approval}/links"
    name = json.loads(ann.client.headers["x-who"])
    reader = Person(base, name, roles=["read", "write"])
    for method in ("POST", "GET", "DELETE"):
        assert reader.ask(method, path, {} if method == "POST" else None).status_code == 403
        assert Person(base, "ben").ask(method, path).status_code == 404, method
    assert ann.ask("POST", f"/v1/runs/{run}/approvals/ap_none/links", {}).status_code == 404
    assert ann.ask("POST", path, {"ttl": 0}).status_code == 400
    assert ann.ask("POST", path, {"ttl": 8 * 86400}).status_code == 400
    assert ann.ask("POST", path, {"decision": "yes"}).status_code == 400
    body = {"scopes": ["read", "write", "approve"]}
    token = ann.ask("POST", f"/v1/runs/{run}/attach-tokens", body).json()["token"]
    bearer = {"authorization": f"Bearer {token}"}
    assert nobody.get("/v1/waiting", headers=bearer).status_code == 403
    assert nobody.post(path, json={}, headers=bearer).status_code == 403
    assert nobody.get("/v1/waiting").status_code == 401


@pytest.mark.parametrize("host", ["fastapi", "fastapi, prefix in prefix", "starlette", "wrapped"])
def test_a_link_works_without_the_hosts_login_below_its_prefix(host: str) -> None:
    make, prefix = HOSTS[host]
    with serving(make()) as url, httpx.Client(base_url=url, timeout=60) as client:
        ann = Person(url + prefix, "ann")
        ann.client.cookies.set("login", "ann")
        run, approval = ann.waiting(ASK)
        made = link(ann, run, approval)["url"]
        assert made.startswith(f"{url}{'/behind' if 'in' in host else ''}{prefix}/v1/approval-li")
        path = made.replace("/behind", "")
        assert client.get(path).status_code == 200
        done = client.post(path, data={"decision": "deny"})
        assert done.status_code == 200, done.text
        ended(ann, run)
        assert client.get(path).status_code == 410


def test_what_a_model_wrote_is_text() -> None:
    evil = "</pre><script>alert(1)</script>\u202e\u2066gnp.exe\u200b\x00\x1b[2J\U000e0041\ud800 \n"
    shown = _text(_json({"a": evil, "<img>": ["é 漢 😀"]}), is_json=True)
    assert "<script" not in shown
    assert "<img" not in shown
    assert not re.search(r"[\u202a-\u202e\u2066-\u2069\u200b-\u200f\x00-\x09\x0b-\x1f\x7f]", shown)
    assert json.loads(html.unescape(shown)) == {"a": evil, "<img>": ["é 漢 😀"]}
    assert _text("a\nb") == "a\\u000ab"
    long = "x" * 300_000
    assert long in _text(_json({"a": long}), is_json=True)  # nothing is left out


def test_where_links_lead_is_the_servers_own_setting() -> None:
    assert checked_base("https://chat.example/ai/") == "https://chat.example/ai"
    for bad in ("chat.example", "ftp://x", "https://", "https://a?b", "https://u@h", "https://a b"):
        with pytest.raises(ConfigError):
            checked_base(bad)
        with pytest.raises(ConfigError):
            create_app(Settings(public_url=bad))
    with pytest.raises(ConfigError):
        create_app(Settings(webhook_links=True))


def test_the_python_client_and_the_command_list_decide_and_make_links() -> None:
    async def use(url: str) -> None:
        async with Client(url) as client:
            runs = [await client.start(ASK, thread=f"c{number}") for number in range(3)]
            page = await client.waiting()
            while len(page.waiting) < 3:
                await asyncio.sleep(0.02)
                page = await client.waiting()
            first = await client.waiting(limit=2, tool="delete_file")
            rest = await client.waiting(after=first.next or "")
            assert [w.run for w in [*first.waiting, *rest.waiting]] == [w.run for w in page.waiting]
            (one,) = (await client.waiting(thread="c0")).waiting
            assert (one.run, one.tool) == (runs[0].id, "delete_file")
            made = await client.approval_link(one.run, one.approval, decision="deny", ttl=60)
            assert made.url.startswith(f"{PUBLIC}/v1/approval-links/")
            await client.revoke_links(one.run, one.approval)
            local = made.url.replace(PUBLIC, url)
            assert (await asyncio.to_thread(httpx.get, local)).status_code == 410
            await client.approve(one.run, one.approval, approved=False)
            with pytest.raises(ConflictError):
                await client.approval_link(one.run, one.approval)

    settings = Settings(port=0, public_url=PUBLIC + "/")
    with ThreadedServer(create_app(settings)) as server:
        asyncio.run(use(server.url))
        listed = cli.run("waiting", "--url", server.url, "--json")
        assert listed.returncode == 0, listed.stderr
        by_thread = {one["thread"]: one for one in map(json.loads, listed.stdout.splitlines())}
        second, third = by_thread["c1"], by_thread["c2"]
        text = cli.run("waiting", "--url", server.url, "--thread", "c1").stdout
        assert text.startswith(f"{second['run']} {second['approval']}\n  delete_file {{")
        done = cli.run("waiting", second["run"], "--deny", "--reason", "no", "--url", server.url)
        assert done.returncode == 0, done.stderr
        words = (third["run"], third["approval"], "--approve", "--url", server.url)
        assert cli.run("waiting", *words).returncode == 0
        again = cli.run("waiting", *words)
        assert (again.returncode, "already answered" in again.stderr) == (1, True)
        assert cli.run("waiting", "--approve", "--url", server.url).returncode == 2
        assert cli.run("waiting", third["run"], "--url", server.url).returncode == 2


def test_webhooks_carry_the_same_link_at_each_try_and_tell_the_decision() -> None:
    receiver = Receiver()
    receiver.status = 500
    settings = Settings(
        port=0,
        public_url=PUBLIC,
        webhook=[receiver.url],
        webhook_secrets=["whsec_" + base64.b64encode(b"k" * 32).decode()],
        webhook_links=True,
    )

    def bodies(event: str) -> list[dict[str, Any]]:
        read = [json.loads(body) for _, _, body in list(receiver.requests)]
        return [body["data"] for body in read if body["type"] == event]

    def until(condition: Any) -> None:
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, receiver.requests
            time.sleep(0.05)

    try:
        with ThreadedServer(create_app(settings)) as server, httpx.Client(timeout=60) as client:
            run = client.post(f"{server.url}/v1/runs", json={"prompt": ASK}).json()["id"]
            until(lambda: len(bodies("run.waiting")) >= 2)
            receiver.status = 200
            first, second = bodies("run.waiting")[:2]
            assert first == second
            (approval,) = first["approvals"]
            assert (first["run"], approval["name"]) == (run, "delete_file")
            url = approval["link"]
            assert url.startswith(f"{PUBLIC}/v1/approval-links/")
            local = url.replace(PUBLIC, server.url)
            assert "delete_file" in client.get(local).text
            assert client.post(local, data={"decision": "approve"}).status_code == 200
            until(lambda: bodies("approval.decided"))
            (decided,) = bodies("approval.decided")[0]["approvals"]
            assert decided["approved"] is True
            assert re.fullmatch(r"webhook \(link [0-9a-f]{12}\)", decided["by"])
            until(lambda: bodies("run.ended"))
            assert not bodies("approval.expired")
    finally:
        receiver.close()
