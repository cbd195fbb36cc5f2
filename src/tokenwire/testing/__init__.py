"""For tests: a model that answers from a script, and checks of an application that streams.

::

    from tokenwire.testing import ScriptedModel, call, error

    model = ScriptedModel(["Hello", ", ", "world"], [call("clock", {"zone": "UTC"})], ["Noon."])
    async with tokenwire.stream("Hi", model=model) as run:
        assert (await run.result()).text == "Hello, world"

`Cassette` records what a provider sends, and plays it without a network. `cut_everywhere` proves
that an application's streams resume, `eventually_ends` and `wait_for_ends` that its runs end,
`check_wire` that a wire of one's own does what a wire must. In pytest the fixtures of
`tokenwire.pytest_plugin` are the same functions.
"""

from __future__ import annotations

from tokenwire.testing.cassettes import Cassette
from tokenwire.testing.cuts import cut_everywhere
from tokenwire.testing.ends import eventually_ends, wait_for_ends
from tokenwire.testing.scripted import ScriptedModel, call, cut, error
from tokenwire.testing.wires import check_wire

__all__ = [
    "Cassette",
    "ScriptedModel",
    "call",
    "check_wire",
    "cut",
    "cut_everywhere",
    "error",
    "eventually_ends",
    "wait_for_ends",
]
