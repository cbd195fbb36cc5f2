"""The checker can fail: a history that breaks one invariant gets that very complaint."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from faults import graph
from faults.checker import Case, Client, Dump, Evidence, check
from faults.graph_nodes import nodes
from tokenwire.events import model as m
from tokenwire.relay.record import Chain, cursor_of, json_of

RUN = "r" * 22
KEY, MODEL = "key", "model-key"


def story() -> list[m.Event]:
    """A run whose worker was lost in its second step; another finished it."""
    return [
        m.RunStart(run=RUN),
        m.StepStart(step=1),
        m.ToolCallStart(part=0, step=1, name="send_order", call_id="c1"),
        m.ToolCallEnd(part=0, arguments={}),
        m.Finish(reason="tool_calls"),
        m.Usage(input_tokens=5, output_tokens=2),
        m.StepEnd(step=1, status="complete", terminal_seen=True),
        m.ToolStart(call_id="c1", name="send_order", step=1),
        m.ToolResult(call_id="c1", content="done", name="send_order"),
        m.StepStart(step=2),
        m.TextStart(part=1, step=2),
        m.TextDelta(part=1, text="It is or"),
        m.RunClaim(epoch=2),
        m.StepReset(step=2, attempt=2, discard_parts=[1]),
        m.StepStart(step=2, attempt=2),
        m.TextStart(part=2, step=2),
        m.TextDelta(part=2, text="It is ordered."),
        m.TextEnd(part=2),
        m.Usage(input_tokens=9, output_tokens=3),
        m.StepEnd(step=2, status="complete", terminal_seen=True),
        end("complete"),
    ]


def end(outcome: m.RunOutcome, **fields: Any) -> m.RunEnd:
    """An end as it must be after `story`: its first try of the second step was not counted."""
    fields = {"usage": {"input_tokens": 14, "output_tokens": 5}, "usage_unknown": True, **fields}
    return m.RunEnd(outcome=outcome, **fields)


def at(events: list[m.Event], kind: type[m.Event], nth: int = 0) -> int:
    return [n for n, event in enumerate(events) if isinstance(event, kind)][nth]


@dataclass
class History:
    """All that the checker is given; a test breaks it before or after it is sealed."""

    events: list[m.Event]
    case: Case
    kept: Dump
    evidence: Evidence

    def complaints(self) -> list[str]:
        return check(self.case, [self.kept], self.evidence).broken


def sealed(events: list[m.Event]) -> History:
    chain = Chain(RUN)
    for number, event in enumerate(events, 1):
        event.seq = event.seq or number
    records = [chain.seal(event) for event in events]
    claims = [n for n, event in enumerate(events) if isinstance(event, m.RunClaim)]
    border = claims[0] if claims else len(events)
    ends = [e.outcome for e in events if isinstance(e, m.RunEnd)]
    items = [(cursor_of(n, r), json_of(r)) for n, r in enumerate(records, 1)]
    case = Case(KEY, "scenario:tool", MODEL, "It is ordered.", {RUN})
    case.clients = [Client(list(items), 2, True), Client(list(items), 1, True)]
    lines = [
        {"what": "own", "run": RUN, "epoch": 1, "tail": 0, "who": "a"},
        {"what": "call", "model": MODEL, "who": "a"},
        {"what": "tool", "key": KEY, "call": "c1", "name": "send_order", "who": "a"},
        {"what": "call", "model": MODEL, "who": "a"},
        appended(1, 1, border, "a"),
        {"what": "own", "run": RUN, "epoch": 2, "tail": border, "who": "b"},
        appended(2, border + 1, len(events) - border, "b"),
        {"what": "call", "model": MODEL, "who": "b"},
        appended(1, border + 1, 1, "a", "fenced"),
    ]
    kept = Dump(RUN, records, 2, ends[-1] if ends else None)
    return History(events, case, kept, Evidence(lines, requests=3))


def appended(epoch: int, first: int, count: int, who: str, status: str = "ok") -> dict:
    fields = {"run": RUN, "epoch": epoch, "first": first, "count": count, "who": who}
    return {"what": "append", "status": status, **fields}


def test_a_history_in_which_all_holds_gets_no_complaint():
    history = sealed(story())
    assert history.complaints() == []
    verdict = check(history.case, [history.kept], history.evidence)
    assert (verdict.outcome, verdict.claims, verdict.resets) == ("complete", 1, 1)


# --- histories that are wrong in what the log says ------------------------------------------------


def epochs_fall(events: list[m.Event]) -> None:
    where = at(events, m.RunClaim)
    events[where] = m.RunClaim(epoch=3)
    events.insert(where + 1, m.RunClaim(epoch=2))


def two_ends(events: list[m.Event]) -> None:
    events.append(end("complete"))


def no_end(events: list[m.Event]) -> None:
    events.pop()


def a_reset_keeps_a_part(events: list[m.Event]) -> None:
    events[at(events, m.StepReset)] = m.StepReset(step=2, attempt=2, discard_parts=[9])


def another_text(events: list[m.Event]) -> None:
    events[at(events, m.TextDelta, 1)] = m.TextDelta(part=2, text="It is not ordered.")


def two_results(events: list[m.Event]) -> None:
    where = at(events, m.ToolResult)
    events.insert(where + 1, m.ToolResult(call_id="c1", content="again", name="send_order"))


def started_twice(events: list[m.Event]) -> None:
    where = at(events, m.ToolStart)
    events.insert(where + 1, m.ToolStart(call_id="c1", name="send_order", step=1))


def no_start(events: list[m.Event]) -> None:
    del events[at(events, m.ToolStart)]


def a_doubt_ignored(events: list[m.Event]) -> None:
    claim = events.pop(at(events, m.RunClaim))
    del events[at(events, m.StepReset)], events[at(events, m.StepStart, 2)]
    del events[at(events, m.TextStart, 1)]
    events[at(events, m.TextDelta)] = m.TextDelta(part=1, text="It is ")
    events[at(events, m.TextDelta, 1)] = m.TextDelta(part=1, text="ordered.")
    events[at(events, m.TextEnd)] = m.TextEnd(part=1)
    events.insert(at(events, m.ToolResult), claim)


def told_too_little(events: list[m.Event]) -> None:
    events[-1] = end("complete", usage={"input_tokens": 9, "output_tokens": 3})


def the_lost_attempt_unsaid(events: list[m.Event]) -> None:
    events[-1] = end("complete", usage_unknown=False)


def attempts_without_end(events: list[m.Event]) -> None:
    where = at(events, m.StepReset)
    again = [m.StepReset(step=2, attempt=2), m.StepStart(step=2, attempt=2)]
    events[where : where + 2] = [*again, m.StepReset(step=2, attempt=3)]
    events.insert(where + 3, m.StepStart(step=2, attempt=3))


def a_step_after_the_cancel(events: list[m.Event]) -> None:
    events.insert(at(events, m.StepReset), m.Control(command="cancel"))
    events[-1] = end("cancelled")


def a_cancel_that_ends_otherwise(events: list[m.Event]) -> None:
    events.insert(len(events) - 1, m.Control(command="cancel"))
    events[-1] = end("interrupted")


@pytest.mark.parametrize(
    ("breaks", "complaint"),
    [
        (epochs_fall, "I1: epochs along the log"),
        (two_ends, "I3: ends at [21, 22] of 22"),
        (no_end, "I3: ends at [] of 20"),
        (a_reset_keeps_a_part, "I5: the reset of step 2 keeps parts"),
        (another_text, "I5: the text is not what the model said"),
        (two_results, "I6: call c1 has 2 results"),
        (started_twice, "I6: call c1 was started 2 times"),
        (no_start, "I6: call c1 ran and its start is not in the log"),
        (a_doubt_ignored, "I6: a call is in doubt"),
        (told_too_little, "I8: {'input_tokens': 14, 'output_tokens': 5} was spent"),
        (the_lost_attempt_unsaid, "I8: usage_unknown is False"),
        (attempts_without_end, "I8: step 2 was tried 3 times"),
        (a_step_after_the_cancel, "I9: a step began after the cancel"),
        (a_cancel_that_ends_otherwise, "I9: a cancelled run ended as interrupted"),
    ],
)
def test_a_log_that_breaks_a_rule(breaks: Callable[[list[m.Event]], None], complaint: str):
    events = story()
    breaks(events)
    assert_named(sealed(events), complaint)


# --- histories that are wrong in what was stored, read, or done -----------------------------------


def another_byte(history: History) -> None:
    record = history.kept.records[11]
    history.kept.records[11] = record.replace(b"It is", b"It as")


def a_hole(history: History) -> None:
    del history.kept.records[5]


def renumbered(history: History) -> None:
    events = copy.deepcopy(history.events)
    events[4].seq = 40
    history.kept = sealed(events).kept


def out_of_order(history: History) -> None:
    events = story()
    events.insert(2, m.TextDelta(part=7, text="nobody began me"))
    history.kept = sealed(events).kept


def an_epoch_beyond_the_store(history: History) -> None:
    history.kept.epoch = 1


def two_owners(history: History) -> None:
    history.evidence.lines.append(appended(2, 21, 1, "c"))


def an_older_epoch_later(history: History) -> None:
    history.evidence.lines.append(appended(1, 21, 1, "a"))


def closed_otherwise(history: History) -> None:
    history.kept.closed = "error"


def an_error_that_nothing_explains(history: History) -> None:
    events = story()
    events[-1:] = [
        m.Error(scope="internal", code="internal", message="it broke"),
        m.RunEnd(outcome="error"),
    ]
    history.kept = sealed(events).kept


def a_phantom(history: History) -> None:
    history.case.clients[0].items.insert(3, ("4-" + "0" * 16, b'{"type":"text-delta"}'))


def one_missing(history: History) -> None:
    del history.case.clients[1].items[7]


def one_twice(history: History) -> None:
    items = history.case.clients[1].items
    items.insert(7, items[7])


def another_cursor(history: History) -> None:
    cursor, data = history.case.clients[0].items[2]
    history.case.clients[0].items[2] = (cursor[:-1] + "x", data)


def no_end_heard(history: History) -> None:
    history.case.clients[0].ended = False


def a_second_effect(history: History) -> None:
    line = {"what": "tool", "key": KEY, "call": "c1", "name": "send_order", "who": "b"}
    history.evidence.lines.append(line)


def no_effect(history: History) -> None:
    history.evidence.lines = [x for x in history.evidence.lines if x["what"] != "tool"]


def a_fenced_append_accepted(history: History) -> None:
    history.evidence.lines[8]["status"] = "ok"


def goes_on(what: str) -> Callable[[History], None]:
    def breaks(history: History) -> None:
        more = {"run": RUN, "key": KEY, "model": MODEL, "call": "c1"}
        line = {**appended(1, 13, 1, "a", "fenced"), **more, "what": what}
        history.evidence.lines.append(line)
        if what == "call":
            history.evidence.lines.remove(
                next(x for x in history.evidence.lines if x["what"] == "call")
            )

    return breaks


def more_requests(history: History) -> None:
    history.evidence.requests = 4


def more_calls(history: History) -> None:
    history.evidence.lines.insert(1, {"what": "call", "model": MODEL, "who": "a"})


def cancelled_before_the_takeover(history: History) -> None:
    history.evidence.lines.insert(5, {"what": "cancel", "run": RUN})


@pytest.mark.parametrize(
    ("breaks", "complaint"),
    [
        (another_byte, "I2: record 12 fails its check"),
        (a_hole, "I2: record 6 fails its check"),
        (renumbered, "I2: record 5 says that it is 40"),
        (out_of_order, "I2: record 3: "),
        (an_epoch_beyond_the_store, "I1: epochs along the log are [2], the store's is 1"),
        (two_owners, "I1: epoch 2 had 2 owners"),
        (an_older_epoch_later, "I1: record 21 is of epoch 1, after 2"),
        (closed_otherwise, "I3: the last event is"),
        (an_error_that_nothing_explains, "I11: the run ended as error"),
        (a_phantom, "I4: client 1 got 22 events, the log has 21; they differ from event 4"),
        (one_missing, "I4: client 2 got 20 events, the log has 21; they differ from event 8"),
        (one_twice, "I4: client 2 got 22 events, the log has 21; they differ from event 9"),
        (another_cursor, "I4: client 1 got 21 events, the log has 21; they differ from event 3"),
        (no_end_heard, "I4: client 1 got no end"),
        (a_second_effect, "I6: call c1 was started 1 times, 2 effects"),
        (no_effect, "I6: call c1 has a result and never ran"),
        (a_fenced_append_accepted, "I7: record 13 of epoch 1 was accepted though epoch 2 began"),
        (goes_on("call"), "I7: a was fenced, and then: call"),
        (goes_on("tool"), "I7: a was fenced, and then: tool"),
        (goes_on("append"), "I7: a was fenced, and then: append"),
        (more_requests, "I8: 4 provider calls, 3 attempts recorded"),
        (more_calls, "I8: 4 provider calls, 3 attempts recorded"),
        (cancelled_before_the_takeover, "I9: a worker that took over after the cancel began"),
    ],
)
def test_a_store_a_client_or_a_worker_that_breaks_a_rule(
    breaks: Callable[[History], None], complaint: str
):
    history = sealed(story())
    breaks(history)
    assert_named(history, complaint)


def test_two_runs_of_one_key():
    history = sealed(story())
    two = [history.kept, history.kept]
    assert check(history.case, two, history.evidence).broken == [
        "I10: 2 runs of one idempotency key"
    ]


def test_the_attempts_of_a_step_are_numbered():
    events = story()
    events[at(events, m.StepStart, 2)] = m.StepStart(step=2, attempt=1)
    assert_named(sealed(events), "I8: the attempts of step 2 are numbered [1, 1]")


def assert_named(history: History, complaint: str) -> None:
    found = history.complaints()
    assert any(text.startswith(complaint) for text in found), found


# --- an agent's run -------------------------------------------------------------------------------


def agent_history() -> History:
    """Two steps, the second may be done again; its worker was lost in it."""
    events: list[m.Event] = [
        m.RunStart(run=RUN),
        m.StepStart(step=1, kind="task", name="send_order", operation=1),
        m.StepEnd(step=1, status="complete", terminal_seen=True),
        m.Data(name="receipt", payload=1),
        m.StepStart(step=2, kind="task", name="read_stock", operation=2),
        m.RunClaim(epoch=2),
        m.StepReset(step=2, attempt=2, reason="restart"),
        m.StepStart(step=2, kind="task", name="read_stock", attempt=2, operation=2),
        m.StepEnd(step=2, status="complete", terminal_seen=True),
        m.RunEnd(outcome="complete"),
    ]
    return of_agent(events)


def of_agent(events: list[m.Event]) -> History:
    for event in events:
        event.seq = 0
    history = sealed(events)
    history.case.agent, history.case.expected = "clerk", ""
    history.case.data = frozenset({"receipt"})
    lines = [line for line in history.evidence.lines if line["what"] in ("own", "append")]
    lines.insert(1, did("send_order", "a"))
    lines += [did("read_stock", "b")]
    history.evidence.lines, history.evidence.requests = lines, 0
    return history


def did(name: str, who: str) -> dict[str, Any]:
    return {"what": "step", "key": KEY, "name": name, "who": who}


def test_an_agents_history_in_which_all_holds_gets_no_complaint():
    assert agent_history().complaints() == []


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (did("send_order", "a"), "I6: step send_order was started 1 times, 2 effects"),
        (did("send_order", "b"), "I6: step send_order was done by a worker that recorded no start"),
        (did("delete_file", "a"), "I6: step delete_file ran and its start is not in the log"),
    ],
)
def test_an_effect_too_many(more: dict[str, Any], complaint: str):
    history = agent_history()
    history.evidence.lines.insert(2, more)
    assert_named(history, complaint)


def test_a_step_that_may_be_done_again_has_more_effects():
    history = agent_history()
    history.evidence.lines.insert(2, did("read_stock", "a"))
    assert history.complaints() == []


def test_a_step_that_is_done_and_never_ran():
    history = agent_history()
    history.evidence.lines = [x for x in history.evidence.lines if x.get("name") != "send_order"]
    assert_named(history, "I6: step send_order is done and never ran")


def test_a_worker_that_was_fenced_begins_a_step():
    history = agent_history()
    history.evidence.lines.append(did("read_stock", "a"))
    assert_named(history, "I7: a was fenced, and then: step")


def test_data_comes_once_in_a_complete_run():
    events = agent_history().events
    assert_named(of_agent(events[:3] + events[4:]), "I5: the run is complete, with the data []")
    twice = [*events[:4], m.Data(name="receipt", payload=1), *events[4:]]
    assert_named(of_agent(twice), "I5: data receipt was sent 2 times")


def test_a_step_that_may_not_be_done_again_is_begun_again():
    events = agent_history().events
    start = m.StepStart(step=1, kind="task", name="send_order", attempt=2, operation=1)
    reset = m.StepReset(step=1, attempt=2, reason="restart")
    again = [*events[:2], reset, start, *events[2:]]
    assert_named(of_agent(again), "I6: step send_order was started 2 times, 1 effects")


def graphs(*lines: tuple[str, str, Any]) -> list[str]:
    """What is complained about a graph whose workers did ``lines``: worker, what, and of what."""
    evidence = Evidence()
    for who, what, value in lines:
        fields = {"name": value[0], "step": value[1]} if what == "node" else {"step": value}
        evidence.lines.append({"what": what, "who": who, **fields})
    case = Case(KEY, "scenario:graph", MODEL, None, {RUN}, agent=graph.NAME)
    return list(nodes(case, [], evidence))


def test_a_node_that_a_checkpoint_has_as_done():
    first = [("a", "own", 0), ("a", "node", ("look", 1)), ("a", "checkpoint", 1)]
    assert graphs(*first, ("b", "own", 0), ("b", "node", ("call", 2))) == []
    assert graphs(*first, ("b", "own", 0), ("b", "node", ("look", 1))) == [
        "I6: node look ran again, and checkpoint 1 had it as done"
    ]
    # Nobody knows of a checkpoint that a worker stores which was lost before.
    late = [("b", "own", 0), ("a", "checkpoint", 1), ("b", "node", ("look", 1))]
    assert graphs(*first[:2], *late) == []


def test_a_worker_that_runs_a_node_twice():
    twice = [("a", "node", ("look", 1))] * 2
    assert graphs(("a", "own", 0), *twice) == ["I6: one worker ran node look 2 times"]


def test_a_complete_graph_without_one_of_its_nodes():
    case = Case(KEY, "scenario:graph", MODEL, None, {RUN}, agent=graph.NAME)
    [complaint] = nodes(case, [end("complete")], Evidence())
    assert "its nodes" in complaint
