"""Several people in one conversation: who may do what, on every door, and what ends with it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from websockets.asyncio.client import connect

from support.people import Person, people_server
from tokenwire.relay.conversation.scope import principal_of
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


# --- invitations ----------------------------------------------------------------------------------


def test_an_invitation_admits_and_says_the_id(url: str) -> None:
    fay, gil = Person(url, "fay", tenant="acme"), Person(url, "gil", tenant="acme")
    fay.start("scenario:text", thread="party")
    made = fay.ask("POST", "/v1/threads/party/invites", {"role": "write", "ttl": 60, "uses": 1})
    assert made.status_code == 201
    token, shared = made.json()["token"], made.json()["thread"]
    listed = fay.ask("GET", "/v1/threads/party/invites").json()["invites"]
    assert [(one["invite"], one["by"], one["uses"]) for one in listed] == [
        (made.json()["invite"], "fay", 1)
    ]
    assert token not in json.dumps(listed)
    other_tenant = Person(url, "gil", tenant="globex")
    forged = token[:20] + ("x" if token[20] != "x" else "y") + token[21:]
    refusals = [
        other_tenant.ask("POST", "/v1/invites/accept", {"token": token}),
        gil.ask("POST", "/v1/invites/accept", {"token": forged}),
        gil.ask("POST", "/v1/invites/accept", {"token": "invite_"}),
        gil.ask("POST", "/v1/invites/accept", {"token": token.replace("invite_", "access_")}),
        gil.ask("POST", "/v1/invites/accept", {"token": "invite_" + "A" * 1900}),
    ]
    joined = gil.ask("POST", "/v1/invites/accept", {"token": token})
    assert joined.status_code == 200, joined.text
    assert (joined.json()["thread"], joined.json()["role"]) == (shared, "write")
    refusals.append(
        Person(url, "hal", tenant="acme").ask("POST", "/v1/invites/accept", {"token": token})
    )
    assert {(*_code(one), one.json()["error"]["message"]) for one in refusals} == {
        (404, "unknown_run", "this invitation does not count, or does not any more")
    }
    again = gil.ask("POST", "/v1/invites/accept", {"token": token})
    assert again.json() == joined.json()  # sent again, should the answer have been lost
    _finish(gil, gil.start("from gil", thread=shared))
    assert fay.ask("GET", "/v1/threads/party/invites").json() == {"invites": []}
    # An open one of a conversation that is erased meanwhile.
    open_one = fay.ask("POST", "/v1/threads/party/invites", {}).json()["token"]
    assert fay.ask("DELETE", "/v1/threads/party").status_code == 204
    late = Person(url, "ida", tenant="acme").ask("POST", "/v1/invites/accept", {"token": open_one})
    assert late.status_code == 404
    assert gil.ask("GET", f"/v1/threads/{shared}").status_code == 404


def test_an_invitation_of_another_server_does_not_count(url: str) -> None:
    with people_server() as (elsewhere, _):
        made = Person(elsewhere, "ann").ask("POST", "/v1/threads/there/invites", {})
        assert made.status_code == 201
        refused = Person(url, "kim").ask(
            "POST", "/v1/invites/accept", {"token": made.json()["token"]}
        )
    assert _code(refused) == (404, "unknown_run")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"role": "own"}, "role"),
        ({"role": "admin"}, "role"),
        ({"uses": 0}, "uses"),
        ({"uses": 101}, "uses"),
        ({"ttl": 0}, "ttl"),
        ({"ttl": 31 * 86_400}, "ttl"),
        ({"for": "bob"}, "for"),
    ],
)
def test_what_no_invitation_may_say(url: str, body: dict[str, Any], field: str) -> None:
    refused = Person(url, "ann").ask("POST", "/v1/threads/invalid/invites", body)
    assert refused.status_code == 400
    assert field in refused.text
    assert Person(url, "ann").ask("GET", "/v1/threads/invalid/members").json()["members"] == [
        {"principal": "ann", "role": "own", "since": 0.0}
    ]


@pytest.mark.parametrize(
    "name", ["", " ", "a\nb", "\x1e", "acme\x1eann", "x" * 201, "b\u200bb", " bob", "bob "]
)
def test_who_cannot_be_a_member(url: str, name: str) -> None:
    path = f"/v1/threads/odd/members/{quote(name, safe='')}"
    refused = Person(url, "ann").ask("PUT", path, {"role": "read"})
    assert refused.status_code in (400, 404), refused.text
    assert len(Person(url, "ann").ask("GET", "/v1/threads/odd/members").json()["members"]) == 1


@pytest.mark.parametrize(
    "name", ["team/bob", "\u0430nn", "Ann", "a%b", "x" * 200, "jos\u00e9", ".."]
)
def test_a_member_is_exactly_who_was_named(url: str, name: str) -> None:
    ann = Person(url, "ann")
    thread = f"exact-{abs(hash(name)) % 10**9}"
    ann.start("scenario:text", thread=thread)
    path = f"/v1/threads/{thread}/members/{quote(name, safe='')}"
    added = ann.ask("PUT", path, {"role": "read"})
    if name == "..":  # an address that says another path is no request of this one
        assert added.status_code in (200, 400, 404, 405)
        return
    shared = added.json()["id"]
    assert Person(url, name).ask("GET", f"/v1/threads/{shared}").status_code == 200
    for other in (name.upper(), name.lower(), name + "x", name.replace("/", "%2F")):
        if other != name and other != "ann" and len(other) <= 200:
            assert Person(url, other).ask("GET", f"/v1/threads/{shared}").status_code == 404
    assert ann.ask("DELETE", path).status_code == 204
    assert Person(url, name).ask("GET", f"/v1/threads/{shared}").status_code == 404


# --- tokens ---------------------------------------------------------------------------------------


def _bearer(url: str, token: str) -> Person:
    person = Person(url, "unused")
    person.client.headers.clear()
    person.client.headers["authorization"] = f"Bearer {token}"
    return person


def test_a_members_token_is_no_more_than_the_membership(url: str) -> None:
    lea, max_ = Person(url, "lea"), Person(url, "max")
    shared = _share(lea, "tokens", max="write")
    run = lea.ask("GET", "/v1/threads/tokens").json()["runs"][0]["id"]
    _finish(lea, run)
    for path in (f"/v1/threads/{shared}/attach-tokens", f"/v1/runs/{run}/attach-tokens"):
        refused = max_.ask("POST", path, {"scopes": ["read", "approve"]})
        assert _code(refused) == (403, "role_required"), path
        assert refused.json()["error"]["role"] == "approve"
    tokens = [
        max_.ask("POST", f"/v1/threads/{shared}/attach-tokens", {"scopes": ["write"]}),
        max_.ask("POST", f"/v1/runs/{run}/attach-tokens", {"scopes": ["read"]}),
        max_.ask("POST", f"/v1/runs/{run}/attach-tokens"),
    ]
    assert {one.status_code for one in tokens} == {201}
    holders = [_bearer(url, one.json()["token"]) for one in tokens]
    events = f"/v1/runs/{run}/events?live=no"
    assert [one.ask("GET", events).status_code for one in holders] == [200, 200, 200]
    assert holders[0].ask("GET", f"/v1/threads/{shared}/members").status_code == 200
    assert holders[0].ask("POST", "/v1/runs", {"prompt": "scenario:text"}).status_code == 201
    # The role is what it is now, whatever the token says.
    lea.ask("PUT", "/v1/threads/tokens/members/max", {"role": "read"})
    refused = holders[0].ask("POST", "/v1/runs", {"prompt": "scenario:text"})
    assert _code(refused) == (403, "role_required")
    assert holders[0].ask("GET", events).status_code == 200
    # They end with the membership, and do not come back with another one.
    assert lea.ask("DELETE", "/v1/threads/tokens/members/max").status_code == 204
    assert [one.ask("GET", events).status_code for one in holders] == [401, 401, 401]
    lea.ask("PUT", "/v1/threads/tokens/members/max", {"role": "own"})
    assert [one.ask("GET", events).status_code for one in holders] == [401, 401, 401]
    assert max_.ask("GET", events).status_code == 200


def test_tokens_change_no_members(url: str) -> None:
    ann = Person(url, "ann")
    _share(ann, "by-token", bob="read")
    token = ann.ask("POST", "/v1/threads/by-token/attach-tokens", {"scopes": ["write"]})
    holder = _bearer(url, token.json()["token"])
    for method, path, body in (
        ("PUT", "/v1/threads/by-token/members/eve", {"role": "own"}),
        ("DELETE", "/v1/threads/by-token/members/bob", None),
        ("POST", "/v1/threads/by-token/invites", {}),
        ("GET", "/v1/threads/by-token/invites", None),
        ("POST", "/v1/invites/accept", {"token": "x"}),
    ):
        assert _code(holder.ask(method, path, body))[0] == 403, (method, path)
    assert holder.ask("GET", "/v1/threads/by-token/members").status_code == 200


# --- the end of a membership ----------------------------------------------------------------------


class Reading(threading.Thread):
    """Reads a response of a person to its end; ``begun`` when its first bytes are there."""

    def __init__(self, person: Person, path: str) -> None:
        super().__init__(daemon=True)
        self.person, self.path = person, path
        self.begun, self.text, self.status = threading.Event(), "", 0
        self.start()

    def run(self) -> None:
        try:
            with self.person.client.stream("GET", self.path, timeout=60) as answer:
                self.status = answer.status_code
                for piece in answer.iter_text():
                    self.text += piece
                    self.begun.set()
        except Exception as error:
            self.text += f"<{type(error).__name__}>"
        self.begun.set()


def test_a_removal_ends_what_is_open_on_every_wire(here: tuple[str, Live]) -> None:
    url, _ = here
    ned, oda = Person(url, "ned"), Person(url, "oda")
    run = ned.start("scenario:stall", thread="open")
    shared = ned.ask("PUT", "/v1/threads/open/members/oda", {"role": "write"}).json()["id"]
    paths = [
        f"/v1/runs/{run}/events",
        f"/v1/threads/{shared}/events",
        f"/v1/threads/{shared}/events?runs=full",
        f"/v1/runs/{run}/wires/ui-6",
        f"/v1/runs/{run}/wires/openai-responses",
        f"/ag-ui?runId={run}&offset=-1",
        f"/ds/v1/stream/runs/{run}?offset=-1&live=sse",
        f"/ds/v1/stream/runs/{run}.ui?offset=-1&live=sse",
    ]
    still_run, _ = ned.waiting("scenario:approval", thread="open")
    tail = ned.ask("GET", f"/v1/runs/{still_run}/info").json()["tail"]
    readings = [Reading(oda, path) for path in paths]
    polls = [
        Reading(oda, f"/v1/runs/{still_run}/events?live=long-poll&after={tail}"),
        Reading(oda, f"/ds/v1/stream/runs/{still_run}?live=long-poll&offset={0:016d}_{tail:016d}"),
    ]
    still = Reading(ned, f"/v1/runs/{run}/events")
    for reading in [*readings, still]:
        assert reading.begun.wait(45), reading.path
        assert reading.status == 200, (reading.path, reading.text)

    async def socket() -> tuple[Any, Any]:
        address = url.replace("http", "ws", 1) + "/ws"
        async with (
            asyncio.timeout(45),
            connect(address, additional_headers=oda.headers, proxy=None) as wire,
        ):
            await wire.send(json.dumps({"op": "follow", "run": run}))
            while json.loads(await wire.recv())["op"] != "events":
                pass
            removed = await asyncio.to_thread(ned.ask, "DELETE", "/v1/threads/open/members/oda")
            assert removed.status_code == 204
            while (said := json.loads(await wire.recv()))["op"] == "events":
                pass
            await wire.send(json.dumps({"op": "follow", "run": run}))
            return said, json.loads(await wire.recv())

    said, refused = asyncio.run(socket())
    assert (said["op"], said["run"]) == ("error", run)
    assert (refused["op"], refused["error"]["code"]) == ("error", "unknown_run")
    for reading in [*readings, *polls]:
        reading.join(45)
        assert not reading.is_alive(), reading.path
        assert '"run-end"' not in reading.text
    assert [poll.status for poll in polls] == [404, 404]
    assert still.is_alive()
    assert ned.ask("POST", f"/v1/runs/{run}/cancel", {}).status_code == 202
    still.join(45)
    assert '"outcome":"cancelled"' in still.text.replace(" ", "")


def test_who_comes_while_they_are_removed_gets_nothing_on_any_wire(
    here: tuple[str, Live], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their right was looked up before; the reading begins after the removal was done."""
    url, live = here
    ned, oda = Person(url, "ned"), Person(url, "oda")
    run = ned.start("scenario:text", thread="during")
    _finish(ned, run)
    paths = [
        f"/v1/runs/{run}/events",
        f"/v1/runs/{run}/events?live=long-poll",
        "/v1/threads/{id}/events",
        "/v1/threads/{id}/events?runs=full",
        f"/v1/runs/{run}/wires/ui-6",
        f"/v1/runs/{run}/wires/openai-responses",
        f"/ag-ui?runId={run}&offset=-1",
        f"/ds/v1/stream/runs/{run}?offset=-1&live=sse",
        f"/ds/v1/stream/runs/{run}?offset=-1&live=long-poll",
        f"/ds/v1/stream/runs/{run}.ui?offset=-1&live=sse",
    ]
    members = live.runs.members
    in_scope = members.in_scope

    async def removed(scope: str, principal: str) -> Any:
        access = await in_scope(scope, principal)
        if principal.startswith("oda") and access is not None and not done:
            done.append(principal)
            owner = await in_scope(scope, principal_of(scope))
            await members.remove(owner, principal)  # type: ignore[arg-type]
        return access

    for path in paths:
        added = ned.ask("PUT", "/v1/threads/during/members/oda", {"role": "write"})
        assert added.status_code == 200, added.text
        full = path.format(id=added.json()["id"])
        whole = Reading(oda, full) if "/threads/" not in full else None
        if whole is not None:
            whole.join(45)
        done: list[str] = []
        with monkeypatch.context() as patch:
            patch.setattr(members, "in_scope", removed)
            late = Reading(oda, full)
            late.join(45)
        assert done, path
        assert not late.is_alive(), path
        for word in ("delta", '"turns"', "run-end"):
            assert word not in late.text, (path, late.text)
        if whole is not None:
            assert len(late.text) < len(whole.text) / 2, (path, late.text)


def test_a_run_goes_on_when_who_began_it_is_removed(url: str) -> None:
    pia, quin = Person(url, "pia"), Person(url, "quin")
    shared = _share(pia, "goes-on", quin="approve")
    run, approval = quin.waiting("scenario:approval", thread=shared)
    assert pia.ask("DELETE", "/v1/threads/goes-on/members/quin").status_code == 204
    decision = {"approved": True}
    refused = quin.ask("POST", f"/v1/runs/{run}/approvals/{approval}", decision)
    assert _code(refused) == (404, "unknown_run")
    assert _code(quin.ask("POST", f"/v1/runs/{run}/cancel", {})) == (404, "unknown_run")
    assert _code(quin.ask("POST", "/v1/runs", {"prompt": "x", "thread": shared}))[0] == 404
    assert pia.ask("POST", f"/v1/runs/{run}/approvals/{approval}", decision).status_code == 202
    _finish(pia, run)
    log = pia.ask("GET", f"/v1/runs/{run}/events?live=no").json()["events"]
    answer = next(e["event"] for e in log if e["event"]["type"] == "approval-answer")
    assert answer["by"] == "pia"
    (turn,) = [
        turn
        for turn in pia.ask("GET", "/v1/threads/goes-on/turns").json()["turns"]
        if turn["run"] == run
    ]
    assert turn["by"] == "quin"


def test_everybody_may_leave_but_the_last_owner(url: str) -> None:
    rob, sue = Person(url, "rob"), Person(url, "sue")
    shared = _share(rob, "leave", sue="read")
    refused = rob.ask("DELETE", "/v1/threads/leave/members/rob")
    assert _code(refused) == (409, "conflict")
    assert refused.json()["error"]["reason"] == "last_owner"
    reader = Person(url, "sue", roles=["read"])  # who may only read may leave as well
    assert reader.ask("DELETE", f"/v1/threads/{shared}/members/sue").status_code == 204
    assert sue.ask("GET", f"/v1/threads/{shared}").status_code == 404
    assert sue.ask("GET", "/v1/threads").json()["threads"] == []
    rob.ask("PUT", "/v1/threads/leave/members/sue", {"role": "own"})
    assert rob.ask("DELETE", "/v1/threads/leave/members/rob").status_code == 204
    assert sue.ask("GET", f"/v1/threads/{shared}").json()["role"] == "own"
    assert rob.ask("GET", "/v1/threads/leave").status_code == 404  # given away
    assert rob.ask("GET", "/v1/threads").json()["threads"] == []


def test_a_run_counts_for_who_began_it() -> None:
    limits = {"limits": {"waiting_runs": 1}}
    with people_server() as (url, _):
        tim, uma = Person(url, "tim"), Person(url, "uma", **limits)
        shared = _share(tim, "quota", uma="write")
        uma.waiting("scenario:approval", thread=shared)
        refused = uma.ask("POST", "/v1/runs", {"prompt": "x"})
        assert refused.status_code == 429
        assert refused.json()["error"]["limit"] == "waiting_runs_per_principal"
        tim.waiting("scenario:approval", thread="quota")
        # Whoever erases it, it is taken off the list of who began it.
        assert tim.ask("DELETE", "/v1/threads/quota").status_code == 204
        assert uma.ask("POST", "/v1/runs", {"prompt": "scenario:text"}).status_code == 201
