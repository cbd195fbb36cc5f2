"""The newest records of watched streams: what is served from memory, when the store is asked."""

from __future__ import annotations

from tokenwire.log.tail import MOST_RECORDS, Tails


def records(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last + 1)]


def test_nothing_is_kept_for_streams_that_nobody_watches() -> None:
    tails = Tails()
    tails.accepted("s", records(1, 3), 3, None)
    assert tails.page("s", 0, 10, 1000) is None
    assert not tails


def test_pages_from_what_was_written_since_the_subscription() -> None:
    tails = Tails()
    end = tails.subscribe("s", lambda: None)
    tails.accepted("s", records(4, 6), 6, None)
    tails.accepted("s", records(7, 7), 7, "complete")
    assert tails.page("s", 2, 10, 1000) is None
    page = tails.page("s", 3, 3, 1000)
    assert page is not None
    assert (page.records, page.first, page.tail, page.closed) == (records(4, 6), 4, 7, None)
    page = tails.page("s", 6, 3, 1000)
    assert page is not None
    assert (page.records, page.closed) == (records(7, 7), "complete")
    page = tails.page("s", 7, 3, 1000)
    assert page is not None
    assert (page.records, page.tail, page.closed) == ([], 7, "complete")
    assert tails.page("s", 8, 3, 1000) is None
    assert end()
    assert tails.page("s", 6, 3, 1000) is None


def test_partly_repeated_appends_and_holes() -> None:
    tails = Tails()
    tails.subscribe("s", lambda: None)
    tails.accepted("s", records(1, 3), 3, None)
    tails.accepted("s", records(2, 5), 5, None)
    page = tails.page("s", 0, 10, 1000)
    assert page is not None
    assert page.records == records(1, 5)
    tails.accepted("s", records(9, 9), 9, None)
    assert tails.page("s", 5, 10, 1000) is None
    page = tails.page("s", 8, 10, 1000)
    assert page is not None
    assert page.records == records(9, 9)


def test_it_is_bounded_and_forgets() -> None:
    tails = Tails()
    tails.subscribe("s", lambda: None)
    for number in range(1, 3 * MOST_RECORDS):
        tails.accepted("s", records(number, number), number, None)
    assert tails.page("s", 0, 10, 1000) is None
    last = 3 * MOST_RECORDS - 1
    page = tails.page("s", last - 5, 10, 1000)
    assert page is not None
    assert page.records == records(last - 4, last)
    tails.accepted("s", [b"x" * 100_000], last + 1, None)
    tails.forget("s")
    assert tails.page("s", last, 10, 1000) is None


def test_waking_calls_everyone_once_and_survives_leaving() -> None:
    tails = Tails()
    called: list[str] = []
    end = tails.subscribe("s", lambda: (called.append("a"), end())[0])
    tails.subscribe("s", lambda: called.append("b"))
    tails.wake("s")
    tails.wake("s")
    tails.wake("other")
    assert called == ["a", "b", "b"]
    assert "s" in tails
    assert tails.logs() == ["s"]
