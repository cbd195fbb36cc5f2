"""Keys, sessions and quotas, without a server."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from tokenwire.errors import BusyError, ConfigError, NotAuthenticatedError
from tokenwire.server.edge import auth as auth_module
from tokenwire.server.edge.auth import Auth
from tokenwire.server.edge.connections import Connections
from tokenwire.server.edge.limits import Bucket, Limits
from tokenwire.server.edge.protocol import Progress, Watch
from tokenwire.server.settings import Settings

KEY = "a-key-that-is-long-enough"


def test_keys_in_all_their_forms() -> None:
    digest = hashlib.sha256(b"another-long-enough-key").hexdigest()
    assert Auth([f"sha256:{digest}"]).check_key("another-long-enough-key").startswith("key-")
    auth = Auth([KEY, "ann:anns-key-is-long-too", f"bob:sha256:{digest}"])
    assert auth.check_key(KEY).startswith("key-")
    assert auth.check_key("anns-key-is-long-too") == "ann"
    assert auth.check_key("another-long-enough-key") == "bob"
    assert KEY not in repr(vars(auth))
    for wrong in ("", KEY[:-1], KEY + "x", "ann", digest, "é", "\udcff"):
        with pytest.raises(NotAuthenticatedError):
            auth.check_key(wrong)


@pytest.mark.parametrize("key", ["xyz123", "ann:xyz123", "ann:sha256:zz", "sha256:ab"])
def test_keys_that_are_none(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Auth([key])
    assert key not in str(caught.value)


def test_the_same_key_twice_is_a_mistake() -> None:
    with pytest.raises(ConfigError):
        Auth([KEY, f"ann:{KEY}"])


def test_a_check_of_ones_own() -> None:
    auth = Auth(verify=lambda credential: "carl" if credential == "ticket-77" else None)
    assert auth.on
    assert auth.principal({b"authorization": b"Bearer ticket-77"}) == ("carl", "key")
    with pytest.raises(NotAuthenticatedError):
        auth.principal({b"authorization": b"Bearer ticket-78"})
    with pytest.raises(NotAuthenticatedError):
        auth.principal({b"authorization": b"Basic ticket-77"})


def test_sessions_end_and_cannot_be_altered_or_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    auth = Auth([f"ann:{KEY}"])
    session, seconds = auth.session("ann")
    cookie = {b"cookie": b"other=1; tokenwire_session=" + session.encode()}
    assert auth.principal(cookie) == ("ann", "session")
    assert Auth([f"ann:{KEY}"]).principal(cookie)[0] == "ann"  # another worker, same keys
    with pytest.raises(NotAuthenticatedError):
        Auth(["ann:some-other-long-key"]).principal(cookie)
    token, _ = auth.attach_token("ann", "run-1")
    assert auth.check_attach(token, "run-1") == "ann"
    for wrong in (session, token[:-2] + "zz", "", "AAAA", token + "!", "é"):
        with pytest.raises(NotAuthenticatedError):
            auth.check_attach(wrong, "run-1")
    with pytest.raises(NotAuthenticatedError):
        auth.check_attach(token, "run-2")
    now = auth_module.time.time()
    monkeypatch.setattr(auth_module.time, "time", lambda: now + seconds + 1)
    with pytest.raises(NotAuthenticatedError):
        auth.principal(cookie)


def test_a_bucket_refills() -> None:
    bucket = Bucket(rate=2.0, burst=2, now=0.0)
    assert [bucket.take(0.0) for _ in range(3)] == [0.0, 0.0, 0.5]
    assert bucket.take(0.5) == 0.0
    assert bucket.take(0.5) > 0
    assert [bucket.take(1000.0) for _ in range(3)] == [0.0, 0.0, 0.5]


def limits(clock: list[float], keys_on: bool = True, **settings: int) -> Limits:
    return Limits(Settings(**settings), keys_on=keys_on, clock=lambda: clock[0])


async def alive(run: str) -> bool:
    return True


async def dead(run: str) -> bool:
    return False


def test_places_are_reserved_and_given_back() -> None:
    async def main() -> None:
        found = limits([0.0], runs=3, runs_per_principal=2)
        first = await found.admit("a", alive)
        second = await found.admit("a", alive)
        with pytest.raises(BusyError) as caught:
            await found.admit("a", alive)
        assert caught.value.details["limit"] == "runs_per_principal"
        found.give_back("a", first)
        found.started("a", second, "run-2")
        third = await found.admit("a", alive)
        found.started("a", third, "run-3")
        await found.admit("b", alive)
        with pytest.raises(BusyError) as caught:
            await found.admit("c", alive)
        assert caught.value.details["limit"] == "runs"
        # Ended runs are noticed when their place is wanted; reserved places are kept.
        await found.admit("c", dead)
        assert found.running == 2

    asyncio.run(main())


def test_starts_in_a_minute_come_back_with_time() -> None:
    async def main() -> None:
        clock = [0.0]
        found = limits(clock, starts_per_minute=60, starts_burst=2, runs_per_principal=99)
        await found.admit("a", alive)
        await found.admit("a", alive)
        with pytest.raises(BusyError) as caught:
            await found.admit("a", alive)
        assert caught.value.details["retry_after"] >= 1
        await found.admit("b", alive)
        clock[0] = 1.0
        await found.admit("a", alive)

    asyncio.run(main())


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
