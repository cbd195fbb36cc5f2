"""The wires of installed packages: entry points of the group ``tokenwire.wires``.

Always true: a broken package is named in the log with its error and left out, and the server starts
with the others; neither an import nor an encoder that never ends keeps it from starting.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from importlib.metadata import entry_points

from tokenwire.errors import ConfigError
from tokenwire.wire.conformance import first_fault
from tokenwire.wire.own import OwnWire, own_wire

__all__ = ["GROUP", "checked", "installed_wires", "log_broken_wire"]

GROUP = "tokenwire.wires"
#: For how many seconds a package may load, and encode the runs that it is checked with.
SECONDS = 10.0
_log = logging.getLogger("tokenwire.server")


def installed_wires() -> list[OwnWire]:
    """The wires of all packages that are not broken; the others are named in the log."""
    wires: list[OwnWire] = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            wires.append(_within(lambda point=point: checked(point.load())))
        except Exception as error:
            log_broken_wire(f"'{point.name}' ({point.value})", error)
    return wires


def checked(value: object) -> OwnWire:
    """The wire that ``value`` is, which gets through every run. Raises `ConfigError`."""
    wire = own_wire(value)
    fault = first_fault(wire.encoder, wire.name)
    if fault is not None:
        raise ConfigError(f"the encoder of the wire '{wire.name}' is broken: {fault}")
    return wire


def log_broken_wire(name: str, error: Exception) -> None:
    """Name a wire that is left out, and why."""
    reason = error.message if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
    _log.error("the wire plugin %s is broken and left out: %s", name, reason[:500])


def _within(work: Callable[[], OwnWire]) -> OwnWire:
    """What ``work`` returns, in a thread of its own that may be given up. Raises what it raises."""
    done: list[OwnWire | BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # a module may also exit
            done.append(error)

    thread = threading.Thread(target=run, name="tokenwire-wire-plugin", daemon=True)
    thread.start()
    thread.join(SECONDS)
    if not done:
        raise ConfigError(f"it did not end within {SECONDS:g} s")
    if isinstance(done[0], SystemExit | KeyboardInterrupt | GeneratorExit):
        raise ConfigError(f"it ended the process: {type(done[0]).__name__}")
    if isinstance(done[0], BaseException):
        raise done[0]
    return done[0]
