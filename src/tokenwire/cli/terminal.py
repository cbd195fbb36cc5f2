"""What may reach a terminal, and how errors and ends of commands look there.

Always true: text from a model reaches a terminal only through `inert`, unless somebody asked for
``--raw``: no control sequence, no change of writing direction, no invisible character of it acts.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

import typer

from tokenwire.errors import AccessError, InputError, TokenwireError

__all__ = ["Out", "command", "fail", "inert", "no_echo_of_interrupts", "note"]

P = ParamSpec("P")
R = TypeVar("R")

#: Characters that change the direction or hide text: a name could read as another.
_HIDDEN: Final = (
    *(0x061C, 0x180E, 0x200B, 0x200E, 0x200F, 0x2028, 0x2029, 0xFEFF),
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
)
_INERT: Final = (
    {code: chr(0x2400 + code) for code in range(0x20) if code not in (0x09, 0x0A)}
    | {0x7F: "\u2421"}
    | {code: f"<{code:02X}>" for code in range(0x80, 0xA0)}
    | {code: f"<U+{code:04X}>" for code in _HIDDEN}
    | {code: f"<U+{code:04X}>" for code in range(0xE0000, 0xE0080)}
    | dict.fromkeys(range(0xD800, 0xE000), "\ufffd")
)


def inert(text: str) -> str:
    """The text with everything visible that a terminal would act upon: ESC becomes ``␛``."""
    return text.translate(_INERT)


class Out:
    """Standard output for text that somebody else wrote. On a terminal it is made inert; into a
    file or a pipe it goes as it is."""

    def __init__(self, *, raw: bool = False) -> None:
        self.is_terminal = sys.stdout.isatty()
        self._safe = self.is_terminal and not raw

    def clean(self, text: str) -> str:
        """The text as it may be written here."""
        return inert(text) if self._safe else text.encode("utf-8", "replace").decode()

    def write(self, text: str) -> None:
        """Write a piece now."""
        sys.stdout.write(self.clean(text))
        sys.stdout.flush()


def note(text: str) -> None:
    """A line about what happens, beside the output."""
    print(inert(text), file=sys.stderr, flush=True)


def fail(text: str, code: int = 1) -> NoReturn:
    """Say what went wrong, in one place and one form, and leave."""
    note(f"tokenwire: {text}")
    raise SystemExit(code)


@contextlib.contextmanager
def no_echo_of_interrupts() -> Iterator[None]:
    """The terminal does not write ``^C`` into what is being drawn."""
    if sys.stdin is None or not sys.stdin.isatty() or sys.platform == "win32":
        yield
        return
    import termios

    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    quiet = [*before]
    quiet[3] &= ~termios.ECHOCTL
    termios.tcsetattr(keyboard, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSANOW, before)


def command(function: Callable[P, R]) -> Callable[P, R]:
    """A command that ends well: an error is one line, Ctrl-C is 130, a closed pipe is no error."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            result = function(*args, **kwargs)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            _close_output()
            raise SystemExit(0) from None
        except KeyboardInterrupt:
            raise SystemExit(128 + signal.SIGINT) from None
        except TokenwireError as error:
            fail(error.message, 2 if isinstance(error, InputError | AccessError) else 1)
        except (typer.Exit, typer.Abort):
            raise
        except OSError as error:
            fail(_os_error(error))
        except Exception as error:
            if os.environ.get("TOKENWIRE_DEBUG"):
                raise
            fail(f"unexpected {type(error).__name__}: {error} (set TOKENWIRE_DEBUG=1 to see where)")

    return wrapped


def _os_error(error: OSError) -> str:
    place = f"{error.filename}: " if error.filename else ""
    return place + (error.strerror or type(error).__name__)


def _close_output() -> None:
    """Whoever read us has gone; what is still buffered must not complain at exit."""
    null: Any = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
