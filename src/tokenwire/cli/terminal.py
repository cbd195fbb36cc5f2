"""Safe output on a terminal, and the errors and exit codes of commands.

Always true: text from a model reaches a terminal only through `inert`, except with ``--raw``:
control sequences, changes of writing direction and invisible characters have no effect.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

import typer

from tokenwire.errors import AccessError, InputError, TokenwireError

__all__ = ["Out", "command", "fail", "inert", "no_echo_of_interrupts", "note"]

P = ParamSpec("P")
R = TypeVar("R")

#: Characters that change the direction or hide text, so that a name looks like another.
_HIDDEN: Final = (
    *(0x00AD, 0x034F, 0x061C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x200B, 0x200E, 0x200F),
    *(0x2028, 0x2029, 0x3164, 0xFEFF, 0xFFA0),
    *range(0x180B, 0x1810),
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    *range(0xFFF0, 0xFFFC),
    *range(0x1D173, 0x1D17B),
)
_INERT: Final = (
    {code: chr(0x2400 + code) for code in range(0x20) if code not in (0x09, 0x0A)}
    | {0x7F: "\u2421"}
    | {code: f"<{code:02X}>" for code in range(0x80, 0xA0)}
    | {code: f"<U+{code:04X}>" for code in _HIDDEN}
    | {code: f"<U+{code:04X}>" for code in range(0xE0000, 0xE1000)}
    | dict.fromkeys(range(0xD800, 0xE000), "\ufffd")
)


def inert(text: str) -> str:
    """The text with visible symbols for what a terminal would interpret: ESC becomes ``␛``."""
    return text.translate(_INERT)


def _is_file(stream: Any) -> bool:
    """Whether a stream is an ordinary file: what is there acts on no screen."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (AttributeError, OSError, ValueError):
        return False


class Out:
    """Standard output, and standard error beside it, for text of others. A file receives the text
    unchanged; a terminal, and a pipe, behind which may be one, receive it inert. Each of the two
    outputs is judged by itself."""

    def __init__(self, *, raw: bool = False) -> None:
        self.is_terminal = sys.stdout.isatty()
        self._safe = not raw and not _is_file(sys.stdout)
        self._safe_aside = not raw and not _is_file(sys.stderr)

    def clean(self, text: str) -> str:
        """The text, safe for standard output."""
        return inert(text) if self._safe else text.encode("utf-8", "replace").decode()

    def clean_aside(self, text: str) -> str:
        """The text, safe for standard error."""
        return inert(text) if self._safe_aside else text.encode("utf-8", "replace").decode()

    def write(self, text: str) -> None:
        """Write and flush a piece."""
        sys.stdout.write(self.clean(text))
        sys.stdout.flush()


def note(text: str) -> None:
    """A line on standard error."""
    print(inert(text), file=sys.stderr, flush=True)


def fail(text: str, code: int = 1) -> NoReturn:
    """Print an error in the one form that all commands use, and exit."""
    note(f"tokenwire: {text}")
    raise SystemExit(code)


@contextlib.contextmanager
def no_echo_of_interrupts() -> Iterator[None]:
    """Within the context the terminal does not echo ``^C`` into the output."""
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
    """A command with one-line errors, exit code 130 for Ctrl-C, and no error for a closed pipe."""

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
            fail(f"unexpected {type(error).__name__}: {error} (TOKENWIRE_DEBUG=1 shows where)")

    return wrapped


def _os_error(error: OSError) -> str:
    place = f"{error.filename}: " if error.filename else ""
    return place + (error.strerror or type(error).__name__)


def _close_output() -> None:
    """The reader has closed the pipe; the flush at exit must not raise."""
    null: Any = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
