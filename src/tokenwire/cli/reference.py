"""Generates docs/reference/cli.md from the commands: ``python -m tokenwire.cli.reference``."""

from __future__ import annotations

import inspect
from typing import Any, Final

import typer.main

from tokenwire.cli.main import app

__all__ = ["cli_reference"]

_HEAD: Final = """\
# The command `tokenwire`

Generated from the code by `python -m tokenwire.cli.reference`; do not edit.

Every command has `--help`. On a terminal, control characters in a model's text become visible
symbols without effect, except with `--raw`; only a file receives the text unchanged. Errors
are one line on standard error.

| exit code | meaning |
|---|---|
| 0 | success (also when a reader closes the pipe) |
| 1 | failure of the provider, the network, the run or a file |
| 2 | wrong usage: an option, a name, a missing key |
| 130 | Ctrl-C |

`TOKENWIRE_DEBUG=1` prints the traceback of an unexpected error.
"""


def cli_reference() -> str:
    """The whole page."""
    root: Any = typer.main.get_command(app)
    return "\n".join([_HEAD, *(_section(name, c) for name, c in root.commands.items())])


def _section(name: str, command: Any) -> str:
    lines = [f"## tokenwire {name}", "", inspect.cleandoc(command.help or ""), ""]
    if name == "serve":
        lines += ["All settings, as options, variables and file: [settings](settings.md).", ""]
        return "\n".join(lines)
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    if arguments:
        lines += ["| argument | |", "|---|---|"]
        lines += [f"| `{_argument(p)}` | {p.help or ''} |" for p in arguments]
        lines += [""]
    if options:
        lines += ["| option | default | |", "|---|---|---|"]
        lines += [f"| {_names(p)} | {_default(p)} | {_help(p)} |" for p in options]
        lines += [""]
    return "\n".join(lines)


def _argument(parameter: Any) -> str:
    word = parameter.name.upper()
    word = f"{word}..." if parameter.nargs == -1 else word
    return word if parameter.required else f"[{word}]"


def _names(parameter: Any) -> str:
    return ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])


def _default(parameter: Any) -> str:
    value = parameter.default
    if callable(value) or value is None or value in ("", [], ()):
        return ""
    if isinstance(value, bool):
        return "on" if value else ""
    return f"`{value}`"


def _help(parameter: Any) -> str:
    text = (parameter.help or "").replace("|", "\\|")
    return f"{text} Variable: `{parameter.envvar}`." if parameter.envvar else text


if __name__ == "__main__":
    print(cli_reference(), end="")
