"""The table of performance goals, with figures as given; and that `make bench` ends."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))

import crowd  # noqa: E402
import goal_table  # noqa: E402
import harness  # noqa: E402
import token_cost  # noqa: E402
import workers  # noqa: E402
from goal_table import GOALS, Missing, Ratio, ratio, table  # noqa: E402
from token_cost import compiled  # noqa: E402


def row(lines, text):
    [line] = [line for line in lines if line.startswith(GOALS[text].text)]
    return line[len(GOALS[text].text) :].split(maxsplit=6)


def test_a_value_is_met_at_its_goal_and_not_beyond():
    lines = table({"bare-400": 1.4, "bare-800": 1.41, "replay": 5.004}, with_twin=False)
    assert row(lines, "bare-400") == ["1.40", "x", "<=", "1.40", "x", "yes"]
    assert row(lines, "bare-800") == ["1.41", "x", "<=", "1.40", "x", "NO"]
    assert row(lines, "replay") == ["5.00", "ms", "<=", "5.00", "ms", "yes"]  # as it is shown
    assert lines[-1] == f"2 of 3 met, {len(GOALS) - 3} not measured"


def test_streams_are_to_be_reached():
    lines = table({"held-memory": 700, "held-sqlite": 499, "held-redis": 0}, with_twin=False)
    assert row(lines, "held-memory") == ["700", ">=", "700", "yes"]
    assert row(lines, "held-sqlite") == ["499", ">=", "500", "NO"]
    assert row(lines, "held-redis") == ["0", ">=", "500", "NO"]


def test_with_the_twin_the_goals_are_the_twins():
    figures = {name: goal.twin for name, goal in GOALS.items()}
    assert table(figures, with_twin=True)[-1] == f"{len(GOALS)} of {len(GOALS)} met"
    lines = table(figures, with_twin=False)
    assert row(lines, "sqlite")[-1] == "NO"  # a cheaper memory log makes the ratio larger
    assert row(lines, "bare-400")[-1] == "yes"


def test_what_cannot_be_had_says_why():
    lines = table({"redis": Missing("redis-server is not installed")}, with_twin=False)
    assert "-" in row(lines, "redis")
    assert lines[6].endswith("redis-server is not installed")
    assert lines[-1] == f"0 of 0 met, {len(GOALS)} not measured"
    assert len(table({}, {"redis", "replay"}, with_twin=False)) == 4
    assert all("yes" not in line and "NO" not in line for line in lines)


def test_a_figure_of_a_busy_machine_is_neither_met_nor_missed():
    doubts = {"sqlite": "too busy", "replay": "too busy"}
    figures = {"sqlite": 1.0, "replay": Missing("the time is up"), "wires": 1.0}
    lines = table(figures, {"sqlite", "replay", "wires"}, doubts, with_twin=False)
    assert row(lines, "sqlite") == ["1.00", "x", "<=", "1.60", "x", "?", "too busy"]
    assert row(lines, "wires")[-1] == "yes"
    assert lines[-1] == "1 of 1 met, 2 not measured"


def test_a_ratio_is_that_of_all_rounds():
    # One round was measured under twice the load of the others: both sides cost twice as much.
    assert ratio([30, 62, 28], [20, 40, 20]).value == 1.5
    assert ratio([30, 31], [20]).value == 1.5  # a round that was cut off
    assert ratio([5, 30], [0, 20]).value == 1.5  # a window too short for a tick of the clock
    with pytest.raises(ValueError, match="no round"):
        ratio([], [])


def test_half_of_the_pairs_stand_beside_a_ratio():
    # What a server does in one round of five counts, and half of the pairs know nothing of it.
    assert ratio([13, 10, 11, 16, 12], [10] * 5) == Ratio(1.24, 1.1, 1.3)
    assert ratio([3.0], [2.0]) == Ratio(1.5, 1.5, 1.5)
    assert str(Ratio(1.2, 1.1, 1.304)) == "1.20 (1.10-1.30)"
    assert max(Ratio(1.1, 1.0, 1.9), Ratio(1.2, 1.1, 1.3)).value == 1.2
    lines = table({"wires": Ratio(1.15, 1.1, 1.3), "written": 1.0}, with_twin=False)
    assert row(lines, "wires") == ["1.15", "x", "1.10-1.30", "<=", "1.15", "x", "yes"]
    assert row(lines, "written") == ["1.00", "kB", "<=", "2.00", "kB", "yes"]


@pytest.fixture
def programs(tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    return {name: compiled(name, str(tmp_path)) for name in ("load", "proxy", "fan", "crowd")}


@pytest.mark.parametrize("loop", ["closed", "open"])
def test_servers_take_turns_and_each_has_rows_of_its_own(programs, loop):
    port = harness.free_port()
    with (
        token_cost.running_proxy(programs["proxy"], port) as one,
        token_cost.running_proxy(programs["proxy"], port) as other,
    ):
        other = other._replace(beside=(one.pid,))
        servers = {"one": one, "other": other}
        rows = token_cost.windows(programs["load"], servers, port, 3, 50.0, 0.2, 2, loop)
    assert {name: len(found) for name, found in rows.items()} == {"one": 2, "other": 2}
    assert all(row.held > 0 and row.cost > 0 for found in rows.values() for row in found)
    assert all(row.beside == 0 for row in rows["one"])
    # While the other's streams have tokens this one's are silent: it does next to nothing.
    assert all(row.beside < row.cost for row in rows["other"])


def test_a_load_without_a_request_for_each_server_is_refused(programs):
    words = [programs["load"], "1", "1", "50", "0", "0.1", "1", "closed", "2", "3", "4", "5"]
    done = subprocess.run(words, input=b"GET\0", capture_output=True, timeout=30)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"ended by a zero byte" in done.stderr


def test_readers_of_one_block_are_counted_with_the_cpu_they_cost(programs):
    port = harness.free_port()
    with harness.process(
        programs["fan"], "send", str(port), "50", core=harness.server_core()
    ) as sender:
        harness.wait_for(port, sender)
        words = [programs["fan"], "read", str(port), str(sender.pid), "5", "0.1", "0.5"]
        done = subprocess.run(
            words, input=b"GET / HTTP/1.1\r\n\r\n", capture_output=True, timeout=60
        )
    blocks, used = map(int, done.stdout.split())
    assert blocks > 0
    assert 0 < used < 500_000


def test_a_crowd_is_served_and_described(programs):
    given = crowd.arguments(["--seconds", "0.5"])
    line = crowd.crowd(programs["crowd"], crowd.ROOT, given, 4)
    assert line.split()[:3] == ["0", "(", "0)"]
    assert line.split()[3] == "4"  # each has a first token


def test_readers_here_and_elsewhere_take_turns(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "READINGS", ((2, 2),))
    costs = workers.reading_costs(f"sqlite://{tmp_path}/%s.db", 2, 0.3)
    assert {name: len(found) for name, found in costs[2, 2].items()} == {"here": 2, "elsewhere": 2}
    assert min(costs[2, 2]["here"] + costs[2, 2]["elsewhere"]) > 0


def test_every_goal_is_measured_by_one_part():
    import goals

    names = [name for part in goals.PARTS.values() for name in part]
    assert sorted(names) == sorted(GOALS)
    assert goals.WITHOUT_C.issubset(GOALS)
    assert goal_table.Missing is goals.Missing


def test_make_bench_goes_on_after_a_benchmark_that_does_not_end(tmp_path):
    (tmp_path / "all.py").write_bytes((FOLDER / "all.py").read_bytes())
    child = "import subprocess, sys, time; subprocess.run([sys.executable, '-c', CODE])"
    code = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(__import__('os').getpid())); "
    code += "__import__('time').sleep(600)"
    (tmp_path / "endless.py").write_text(child.replace("CODE", repr(code)))
    (tmp_path / "next.py").write_text("print('next ran')")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "all.py"), "--limit", "5", "endless", "next", "missing"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "endless: stopped after 5 s" in done.stdout
    assert "next ran" in done.stdout
    assert "missing: there is no such benchmark" in done.stdout
    assert done.returncode == 1
    begun = tmp_path / "pid"
    if begun.exists():  # on a slow machine it is stopped before its child begins
        command = ["ps", "-o", "stat=", "-p", begun.read_text()]
        state = subprocess.run(command, capture_output=True, text=True).stdout
        assert state[:1] in ("", "Z")  # gone, or nobody has asked for its exit code


def test_what_is_measured_is_what_the_table_says():
    """The twins are in use in every process with ``--native``, and in none without."""
    script = (
        "import sys; sys.argv = ['goals.py', *sys.argv[1:]]; import goals, harness;"
        "from tokenwire.run.call import lane;"
        "print(harness.ENVIRONMENT['TOKENWIRE_SPEEDUPS'], lane.twin.received is not None)"
    )
    is_there = importlib.util.find_spec("tokenwire_speedups") is not None
    for options, variable, expected in (
        ([], "1", "0 False"),
        (["--native"], "0", f"1 {is_there}"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", script, *options],
            cwd=FOLDER,
            env={**os.environ, "TOKENWIRE_SPEEDUPS": variable},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout.strip() == expected, done.stderr
