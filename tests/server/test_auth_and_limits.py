"""Keys, sessions and quotas; a check of keys that fails, on a server."""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tokenwire.errors import BusyError, ConfigError, NotAuthenticatedError
from tokenwire.relay.census import Census
from tokenwire.server.app import create_app
from tokenwire.server.configuration import load_settings
from tokenwire.server.edge.auth import _FAILED, Auth, KeyCheckError
from tokenwire.server.edge.connection.watch import Progress, Watch
from tokenwire.server.edge.connections import Connections
from tokenwire.server.edge.limits import Bucket, Limits, network_of
from tokenwire.server.settings import Settings
from tokenwire.server.start import ThreadedServer

KEY = "a-key-that-is-long-enough"


def principal_of(auth: Auth, key: str) -> str:
    return asyncio.run(auth.check_key(key)).principal


def test_keys_in_all_their_forms() -> None:
    digest = hashlib.sha256(b"another-long-enough-key").hexdigest()
    only = Auth([f"sha256:{digest}"])
    assert principal_of(only, "another-long-enough-key").startswith("key-")
    auth = Auth([KEY, "ann:anns-key-is-long-too", f"bob:sha256:{digest}"])
    assert principal_of(auth, KEY).startswith("key-")
    assert principal_of(auth, "anns-key-is-long-too") == "ann"
    assert principal_of(auth, "another-long-enough-key") == "bob"
    assert KEY not in repr(vars(auth))
    for wrong in ("", KEY[:-1], KEY + "x", "ann", digest, "é", "\udcff"):
        with pytest.raises(NotAuthenticatedError):
            principal_of(auth, wrong)


@pytest.mark.parametrize("key", ["xyz123", "ann:xyz123", "ann:sha256:zz", "sha256:ab"])
def test_keys_that_are_none(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Auth([key])
    assert key not in str(caught.value)


@pytest.mark.parametrize("between", ["\n", " ", ";", "\t", " , ", ",", '","', "','"])
@pytest.mark.parametrize("form", ["{}", "ann:{}", "ann:x{}"])
def test_several_keys_are_never_taken_for_one(between: str, form: str) -> None:
    several = form.format(KEY) + between + "bob:" + KEY
    if (between, form) == (" ", "{}"):  # a name may have a space in it
        several += " "
    with pytest.raises(ConfigError) as refused:
        Auth([several])
    assert KEY not in str(refused.value)
    assert "separate several by commas" in str(refused.value)


def test_several_keys_of_the_environment_are_separated_by_commas() -> None:
    value = f"ann:{KEY}, bob:{KEY}-2 ,{KEY}-3,"
    auth = Auth.from_settings(load_settings(environ={"TOKENWIRE_API_KEYS": value}))
    assert principal_of(auth, KEY) == "ann"
    assert principal_of(auth, f"{KEY}-2") == "bob"
    assert principal_of(auth, f"{KEY}-3").startswith("key-")
    for wrong in (value, f" {KEY}", f"{KEY},"):
        with pytest.raises(NotAuthenticatedError):
            principal_of(auth, wrong)


@pytest.mark.parametrize("name", ["\x1b[31m", "x" * 201, "a\u202eb", " ann", "\ufeffann"])
def test_the_name_of_a_key_is_a_principal(name: str) -> None:
    with pytest.raises(ConfigError, match="the name of an API key must") as refused:
        Auth([f"{name}:{KEY}"])
    assert KEY not in str(refused.value)
    assert len(str(refused.value)) < 200


def test_the_same_key_twice_is_a_mistake() -> None:
    with pytest.raises(ConfigError):
        Auth([KEY, f"ann:{KEY}"])


def ticket(credential: str) -> str | None:
    return "carl" if credential == "ticket-77" else None


async def ticket_later(credential: str) -> str | None:
    await asyncio.sleep(0)
    return ticket(credential)


class TicketOffice:
    async def __call__(self, credential: str) -> str | None:
        return await ticket_later(credential)


@pytest.mark.parametrize(
    "verify",
    [ticket, ticket_later, lambda c: ticket_later(c), TicketOffice(), partial(ticket_later)],
    ids=["plain", "coroutine", "lambda", "object", "partial"],
)
def test_a_check_of_ones_own(verify: Any) -> None:
    auth = Auth(verify=verify)
    assert auth.on
    assert principal_of(auth, "ticket-77") == "carl"
    for wrong in ("ticket-78", "", "carl"):
        with pytest.raises(NotAuthenticatedError):
            principal_of(auth, wrong)


@pytest.mark.parametrize(
    "verdict",
    [True, 1, b"carl", ["carl"], object(), {}, "", " \n", "a\nb", "x" * 100_000, "a\u202eb"],
)
def test_a_check_that_names_no_principal_refuses(verdict: Any) -> None:
    async def later(credential: str) -> Any:
        return verdict

    for verify in (lambda credential: verdict, later):
        with pytest.raises(NotAuthenticatedError):
            principal_of(Auth(verify=verify), "any-key-at-all")


@pytest.mark.parametrize("error", [RuntimeError("the database is away"), SystemExit(1)])
def test_a_check_that_fails_lets_nobody_in(error: BaseException) -> None:
    async def broken(credential: str) -> str | None:
        raise error

    with pytest.raises(KeyCheckError):
        principal_of(Auth(verify=broken), "any-key-at-all")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("x" * 5000, "x" * 64),
    ],
)
def test_one_client_is_an_address_or_a_network(address: str, network: str) -> None:
    assert network_of(address) == network


def test_a_bucket_refills() -> None:
    bucket = Bucket(rate=2.0, burst=2, now=0.0)
    assert [bucket.take(0.0) for _ in range(3)] == [0.0, 0.0, 0.5]
    assert bucket.take(0.5) == 0.0
    assert bucket.take(0.5) > 0
    assert [bucket.take(1000.0) for _ in range(3)] == [0.0, 0.0, 0.5]


def limits(clock: list[float], keys_on: bool = True, **settings: int) -> Limits:
    return Limits(Settings(**settings), keys_on=keys_on, clock=lambda: clock[0])


class Own:
    def __init__(self, state: str = "running") -> None:
        self.state = state


def test_places_are_reserved_and_runs_count_until_they_are_over() -> None:
    census = Census()
    found = limits([0.0], runs=3, runs_per_principal=2)

    def refused(principal: str) -> str:
        with pytest.raises(BusyError) as caught:
            found.admit(principal, census)
        return caught.value.details["limit"]

    found.admit("a", census)
    found.admit("a", census)
    assert refused("a") == "runs_per_principal", "both places are reserved"
    run = Own()
    census.add("a", "run-1", run)
    found.give_back("a")
    found.give_back("a")  # this one failed to start
    found.admit("a", census)
    assert refused("a") == "runs_per_principal"
    found.admit("b", census)
    assert refused("c") == "runs"
    census.add("a", "run-1", Own())  # adopted again, as after a takeover from ourselves
    census.remove("a", "run-1", run)
    assert census.of("a") == (1, 0), "the older one is over, not the newer"
    found.give_back("a")
    found.give_back("b")
    assert not found._reserved


def test_runs_that_wait_have_bounds_of_their_own() -> None:
    census = Census()
    found = limits([0.0], runs=2, runs_per_principal=1, waiting_runs_per_principal=3)
    runs = [Own("waiting") for _ in range(3)]
    for number, run in enumerate(runs):
        found.admit("a", census)
        census.add("a", f"run-{number}", run)
        found.give_back("a")
    with pytest.raises(BusyError, match="answer or cancel") as caught:
        found.admit("a", census)
    assert caught.value.details["limit"] == "waiting_runs_per_principal"
    found.admit("b", census)  # others may start as before
    runs[0].state = "running"  # somebody has answered
    with pytest.raises(BusyError) as caught:
        found.admit("a", census)
    assert caught.value.details["limit"] == "runs_per_principal"
    found.waiting_runs = 2
    found.give_back("b")
    with pytest.raises(BusyError) as caught:
        found.admit("c", census)
    assert caught.value.details["limit"] == "waiting_runs"


def test_starts_in_a_minute_come_back_with_time() -> None:
    clock, census = [0.0], Census()
    found = limits(clock, starts_per_minute=60, starts_burst=2, runs_per_principal=99)
    found.admit("a", census)
    found.admit("a", census)
    with pytest.raises(BusyError) as caught:
        found.admit("a", census)
    assert caught.value.details["retry_after"] >= 1
    found.admit("b", census)
    clock[0] = 1.0
    found.admit("a", census)


def test_an_open_loopback_server_counts_no_principals() -> None:
    found = limits([0.0], keys_on=False)
    releases = [found.attach("run", "") for _ in range(500)]
    for release in releases:
        release()
    assert not found._readers
    assert not found._reading


def test_readers_are_counted_by_run_and_by_principal() -> None:
    found = limits([0.0], readers_per_run=2, readers_per_principal=3)
    one, two = found.attach("x", "a"), found.attach("x", "b")
    with pytest.raises(BusyError):
        found.attach("x", "c")
    found.attach("y", "a")
    found.attach("z", "a")
    with pytest.raises(BusyError):
        found.attach("w", "a")
    one()
    two()
    found.attach("x", "a")


def test_misses_of_one_address() -> None:
    clock = [0.0]
    found = limits(clock, bad_attach_per_minute=3)
    for _ in range(3):
        found.missed("1.2.3.4")
    with pytest.raises(BusyError):
        found.missed("1.2.3.4")
    found.missed("5.6.7.8")
    clock[0] = 20.0
    found.missed("1.2.3.4")


class Peer:
    """As much of a connection as is counted."""


def test_connections_are_counted_by_process_and_by_address() -> None:
    settings = Settings(connections=5, connections_per_ip=2, trust_proxy=["10.0.0.9"])

    class Quiet(Connections):
        def wake(self) -> None:
            pass

    watch = Watch(settings, Quiet())
    peers: list[Any] = [Peer() for _ in range(7)]
    assert [watch.enter(peer, "10.0.0.1") for peer in peers[:3]] == [True, True, False]
    watch.leave(peers[2], "10.0.0.1")
    watch.leave(peers[2], "10.0.0.1")  # told twice, counted once
    assert watch.enter(peers[2], "10.0.0.9")
    assert watch.enter(peers[3], "10.0.0.9")
    assert watch.enter(peers[4], "127.0.0.1")
    assert not watch.enter(peers[5], "127.0.0.1")
    for peer in peers:
        for address in ("10.0.0.1", "10.0.0.9", "127.0.0.1"):
            watch.leave(peer, address)
    assert not watch.open


def test_progress_is_what_leaves_the_buffer() -> None:
    progress = Progress(0.0)
    assert progress.stuck(0, 5.0) == 0.0
    assert progress.stuck(100, 6.0) == 1.0
    assert progress.stuck(200, 7.0) == 2.0  # growing is no progress
    assert progress.stuck(150, 8.0) == 0.0
    assert progress.stuck(150, 9.5) == 1.5
    assert progress.stuck(0, 10.0) == 0.0


@pytest.mark.parametrize("wait", [False, True], ids=["plain", "coroutine"])
def test_a_check_that_raises_neither_logs_the_key_nor_drops_a_socket(
    wait: bool, caplog: pytest.LogCaptureFixture
) -> None:
    principals = {"ticket-77": "carl"}

    async def later(credential: str) -> str | None:
        return principals[credential]

    verify: Any = later if wait else principals.__getitem__
    _FAILED._due = 0.0  # one line a second in the whole process
    with ThreadedServer(create_app(auth=Auth(verify=verify))) as server:
        right = {"authorization": "Bearer ticket-77"}
        wrong = {"authorization": "Bearer a-wrong-ticket"}
        assert (
            httpx.get(f"{server.url}/v1/models", headers=right, trust_env=False).status_code == 200
        )
        answer = httpx.get(f"{server.url}/v1/models", headers=wrong, trust_env=False)
        assert answer.status_code == 500
        with connect(f"{server.url.replace('http', 'ws', 1)}/ws", proxy=None) as socket:
            socket.send('{"op":"auth","key":"a-wrong-ticket"}')
            assert "cannot be checked" in str(socket.recv(timeout=30))
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
    assert "raised KeyError" in caplog.text
    assert "a-wrong-ticket" not in caplog.text
