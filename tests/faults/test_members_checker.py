"""The checker of shared conversations can fail: histories that break each invariant are found."""

from __future__ import annotations

from typing import Any

from faults.members_checker import Act, Change, History, Life, Reader, check_members

#: ben is in from 10 to 20, and again from 30 on.
CHANGES = [
    Change("ben", True, 9.0, 10.0, "w1", 10.0, "m1"),
    Change("ben", False, 20.0, 21.0, "w1", 20.5),
    Change("ben", True, 29.0, 30.0, "w1", 30.0, "m2"),
]


def found(**more: Any) -> str:
    history = History("ann", changes=CHANGES, **more)
    return " ".join(sorted({text[:2] for text in check_members(history)}))


def act(at: float, outcome: str, what: str = "page", who: str = "ben", **more: Any) -> Act:
    return Act(who, what, at, at + 0.1, outcome, **more)


def test_what_is_whole_passes() -> None:
    acts = [act(5, "refused"), act(12, "ok"), act(25, "refused"), act(31, "ok")]
    acts += [act(9.5, "ok"), act(20.2, "ok"), act(29.5, "refused"), act(25, "unknown")]
    acts += [act(1, "ok", who="ann"), act(25, "refused", "follow", "eve")]
    readers = [Reader("ben", "w1", 12), Reader("ben", "w2", 20.9), Reader("ben", "w2", 22)]
    readers += [
        Reader("ben", "w1", 20.4, opened=12),
        Reader("ben", "w2", 31),
        Reader("ann", "w", 1),
    ]
    runs = [Life("r1", "ben", 15), Life("r2", "ben", 20.9), Life("r3", "ann", 50)]
    looks = {"w2": [(20.5, 21.5), (21.2, 21.9)]}
    whole = {"acts": acts, "readers": readers, "runs": runs, "looks": looks}
    assert found(**whole, joined={"ben": True, "eve": False}) == ""


def test_who_is_no_member_and_is_answered() -> None:
    assert found(acts=[act(5, "ok")]) == "M1"
    assert found(acts=[act(25, "ok")]) == "M1"
    assert found(acts=[act(25, "ok", who="eve")]) == "M1"


def test_a_reader_that_goes_on() -> None:
    assert found(readers=[Reader("ben", "w1", 20.6)]) == "M2"  # the process of the removal
    looks = {"w2": [(21.5, 21.6), (22.1, 22.2)], "w3": [(21.5, 21.6)]}
    assert found(readers=[Reader("ben", "w2", 23)], looks=looks) == "M2"
    assert found(readers=[Reader("ben", "w3", 23)], looks=looks) == ""
    late = History("ann", changes=CHANGES[:2], readers=[Reader("ben", "w9", 99)])
    assert [text[:2] for text in check_members(late)] == ["M2"]  # nobody looks there


def test_a_stranger_who_reads() -> None:
    assert found(readers=[Reader("eve", "w1", 12)]) == "M3"
    assert found(readers=[Reader("ben", "w1", 5)]) == "M3"


def test_a_turn_of_who_was_removed() -> None:
    assert found(runs=[Life("r1", "ben", 22)]) == "M4"
    assert found(runs=[Life("r1", "eve", 22)]) == "M4"


def test_a_link_that_outlives_its_membership() -> None:
    link = {"what": "decide", "member": "m1", "link": "0123456789abcdef"}
    assert found(acts=[act(12, "ok", **link)]) == ""
    assert found(acts=[act(25, "ok", **link)]) == "M5"
    assert found(acts=[act(31, "ok", **link)]) == "M5"  # a member again, by another membership
    used = Life("r1", "ann", 1, links=["0123456789ab"])
    assert found(acts=[act(31, "unknown", **link)], runs=[used]) == "M5"
    assert found(acts=[act(12, "unknown", **link), act(31, "unknown", **link)], runs=[used]) == ""


def test_a_member_who_is_kept_out() -> None:
    assert found(acts=[act(12, "refused")]) == "M6"
    assert found(acts=[act(12, "refused", who="ann")]) == "M6"
    assert found(acts=[act(12, "refused", "follow")]) == ""  # its run may never have been
    assert found(readers=[Reader("ben", "w1", 13, opened=12)]) == "M6"
    assert found(joined={"ben": False}) == "M6"
    assert found(joined={"eve": True}) == "M6"


def test_an_invitation_from_before_the_removal() -> None:
    assert found(acts=[act(25, "ok", "accept", made=12)]) == "M7"
    assert found(acts=[act(25, "ok", "accept", made=23)]) == ""
    assert found(acts=[act(25, "refused", "accept", made=12)]) == ""
