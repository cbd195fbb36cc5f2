"""The guide says what the code does."""

import contextlib
import io
import re
from pathlib import Path

import msgspec

from tokenwire.simulator.faults import FAULTS
from tokenwire.simulator.scenarios import SCENARIOS
from tokenwire.simulator.settings import Settings

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "simulator.md").read_text()


def rows(heading):
    section = GUIDE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([\w-]+)`", section, re.MULTILINE)


def test_every_scenario_stands_in_the_guide():
    for scenario in SCENARIOS.values():
        assert f"| `{scenario.name}` | {scenario.summary} |" in GUIDE
    options = ["ttft", "rate", "jitter", "chunk", "faults"]
    assert rows("Scenarios") == [*SCENARIOS, *options]


def test_every_fault_and_setting_stands_in_the_guide():
    assert rows("Faults") == list(FAULTS)
    for line in FAULTS.values():
        assert line.partition(": ")[2] in GUIDE
    assert rows("Settings") == [field.name for field in msgspec.structs.fields(Settings)]


def test_the_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "simulator.md", "exec"), {})
    assert "get_weather" in out.getvalue()
    assert out.getvalue().endswith("complete\n")
