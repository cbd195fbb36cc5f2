"""``tokenwire serve``: settings from flags, environment and file, then the server until a signal.

Always true: a failure to start is one line on standard error and exit code 2; a stop by signal is
exit code 0; the lines at the start print address, model, store and access.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import difflib
import os
import shutil
import socket
import sys
import textwrap
from collections.abc import Callable
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

from tokenwire.errors import ConfigError, TokenwireError
from tokenwire.exits import run_to_end
from tokenwire.server.configuration import CONFIG_FILE, Setting, load_settings, settings_table
from tokenwire.server.settings import Settings

__all__ = ["run_serve", "serve_parser"]

_STORES = {
    "memory": "in memory; they survive a reader's disconnect (--store sqlite:FILE: kill -9 too)",
    "sqlite": "in {store}; they survive {loss} (--store memory: writes no file)",
    "postgresql": "in PostgreSQL; they survive the loss of this machine; of PostgreSQL, {loss}",
    "redis": "in Redis; they survive the loss of this machine; of Redis, {loss}",
}
#: The worst that an accepted record survives, by the level that the open store reports.
_LOSSES = {
    "sqlite": {"process": "kill -9", "disk": "kill -9 and a power cut"},
    "postgresql": {
        "process": "a restart; a power cut may take more",
        "disk": "kill -9 and a power cut",
        "replica": "the loss of the primary",
    },
    "redis": {
        "memory": "not even a restart: its appendonly is off",
        "process": "a restart; a power cut may take the last 2 s",
        "disk": "kill -9 and a power cut",
        "replica": "the loss of a primary",
    },
}


#: Characters of choices that the help spells out.
_MOST_CHOICES = 16
_WORDS = {"on_disconnect": "POLICY", "durable_streams_webhooks": "HOST", "a2a_push": "HOST"}


def run_serve(arguments: list[str]) -> int:
    """Parse ``arguments`` and serve; the exit code."""
    try:
        flags = vars(serve_parser().parse_args(arguments))
        settings = load_settings(flags, config=flags.pop("config"))
        if flags["api_keys"]:
            _note("tokenwire: other users can see keys on the command line; use --api-key-file")
        if flags["webhook_secrets"]:
            _note("tokenwire: other users can see secrets on the command line; use the environment")
        return _serve(settings)
    except TokenwireError as error:
        _note(f"tokenwire: {error}")
        return 2
    except KeyboardInterrupt:
        return 130


def serve_parser() -> argparse.ArgumentParser:
    """The flags, made from the table of settings."""
    parser = _Parser(
        prog="tokenwire serve",
        usage="tokenwire serve [OPTIONS]",
        description=f"Serve models and the chat page. Also: TOKENWIRE_PORT=9000; {CONFIG_FILE}.",
        add_help=False,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    groups = {row.group: row for row in settings_table() if not row.is_limit}
    by_title = {title: parser.add_argument_group(title) for title in groups}
    server = next(iter(by_title.values()))
    server.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
    server.add_argument("--help-limits", action=_HelpLimits, help=argparse.SUPPRESS)
    server.add_argument("--config", metavar="FILE", help=f"Settings file ({CONFIG_FILE}).")
    server.add_argument(
        "--limit",
        metavar="NAME=VALUE",
        action="append",
        help="Limit or deadline; --help-limits prints all, and rare options.",
    )
    for row in settings_table():
        if row.type is bool:
            _add_switch(by_title[row.group], row)
        elif not row.is_limit:
            by_title[row.group].add_argument(row.flag, dest=row.name, **_options(row))
    return parser


def _add_switch(group: Any, row: Setting) -> None:
    """Two flags, of which the help has the one that changes the default."""
    off = "--no-" + row.flag.removeprefix("--")
    brief = f"Disable: {row.brief[0].lower()}{row.brief[1:]}." if row.default else f"{row.brief}."
    for flag, value in ((row.flag, True), (off, False)):
        is_shown = value is not row.default and not row.rare
        text = brief if is_shown else argparse.SUPPRESS
        group.add_argument(flag, dest=row.name, action="store_const", const=value, help=text)


def _options(row: Setting) -> dict[str, Any]:
    default = "" if row.default in (None, [], "") or row.secret else f" ({_shown(row)})"
    options: dict[str, Any] = {"default": None, "metavar": _word(row)}
    options["help"] = f"{row.brief}{default}.".replace("%", "%%")
    # Other users can see a secret on a command line: it is taken, and not recommended.
    if row.secret or row.rare:
        options["help"] = argparse.SUPPRESS
    if row.type == list[str]:
        options["action"] = "append"
    return options


def _word(row: Setting) -> str:
    """The value's placeholder in the help."""
    if row.type is bool:
        return ""
    if row.choices:
        choices = "|".join(row.choices)
        return choices if len(choices) <= _MOST_CHOICES else row.name.rpartition("_")[2].upper()
    if row.unit:
        return {"s": "SECONDS", "B": "BYTES"}[row.unit]
    if row.type in (int, int | None) and row.name != "port":
        return "N"
    return _WORDS.get(row.name, row.name.rpartition("_")[2].upper())


def _shown(row: Setting) -> str:
    if isinstance(row.default, list):
        return ", ".join(row.default)
    return f"{row.default:g}" if isinstance(row.default, float) else str(row.default)


class _Formatter(argparse.HelpFormatter):
    """One line for an option where the terminal is wide enough."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


class _HelpLimits(argparse.Action):
    """Prints the limits (name, default, description), and the options that the help leaves out."""

    def __init__(self, option_strings: list[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **options)

    def __call__(self, *_: Any) -> None:
        print("Use --limit NAME=VALUE, or the table [limits] of the settings file.\n")
        width = min(100, shutil.get_terminal_size().columns)
        for row in settings_table():
            if row.is_limit:
                default = "" if row.default is None else _amount(row)
                head = f"  {row.name:<22} {default:>8}  "
                space = " " * len(head)
                print(textwrap.fill(head + row.help, width, subsequent_indent=space))
        print("\nOptions that --help leaves out:\n")
        for row in settings_table():
            if row.rare:
                print(f"  {row.flag} {_word(row)}")
                print(textwrap.indent(textwrap.fill(row.help, width - 8), " " * 8))
        raise SystemExit(0)


def _amount(row: Setting) -> str:
    if row.unit != "B":
        return f"{_shown(row)} {row.unit}".strip()
    value = int(row.default)
    return f"{value >> 20} MiB" if value >= 1 << 20 else f"{value >> 10} KiB"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        hint = "see tokenwire serve --help"
        what, _, words = message.partition("unrecognized arguments: ")
        if not what and words.startswith("--"):
            flag = words.split()[0].partition("=")[0]
            limits = {"--" + r.name.replace("_", "-"): r for r in settings_table() if r.is_limit}
            near = difflib.get_close_matches(flag, [*self._option_string_actions, *limits], 1)
            message = f"unknown option '{flag}'"
            if near and near[0] in limits:
                hint = f"use '{limits[near[0]].flag}=VALUE'"
            elif near:
                hint = f"did you mean '{near[0]}'?"
        raise ConfigError(f"{message}; {hint}")


def _serve(settings: Settings) -> int:
    from tokenwire.log.open import user_store
    from tokenwire.observe.logging import log_facts, setup
    from tokenwire.server.app import create_app
    from tokenwire.server.start import bind, check, check_names, listen, raise_file_limit, unbound
    from tokenwire.server.variables import warnings_of
    from tokenwire.server.workers import supervise

    settings.store = settings.store or user_store()
    setup(settings.log_level)
    app = create_app(settings)
    check(settings, keys_on=app.state.auth.on)
    registry = check_names(settings)
    variables = (row.env for row in settings_table())
    for line in warnings_of(os.environ, variables, registry.reads, keys_on=app.state.auth.on):
        _note(f"tokenwire: {line}")
    log_facts()
    raise_file_limit(settings, _note)
    if settings.workers == 1:
        return _run(app, lambda: bind(settings))
    with contextlib.closing(unbound(settings)) as listener:

        def bound() -> socket.socket:
            listen(listener, settings)
            return listener

        def run(is_first: bool, beat: Callable[[float], None]) -> int:
            return _run(create_app(settings), bound, quiet=not is_first, beat=beat)

        return supervise(settings.workers, run, _note)


def _run(
    app: Any,
    bound: Callable[[], socket.socket],
    *,
    quiet: bool = False,
    beat: Callable[[float], None] | None = None,
) -> int:
    """Serve until a signal. What else is wrong is said before the port is looked at."""
    from tokenwire.server.process.collector import Collector
    from tokenwire.server.start import server_for
    from tokenwire.server.watchdog import Watchdog

    server = server_for(app)

    async def main() -> int:
        try:
            await app.startup()  # here, so that an error is one line
        except BaseException:
            await app.abandon()
            raise
        app.started_outside = True
        try:
            listener = bound()
        except BaseException:
            await app.shutdown()
            raise
        if not quiet:
            server.on_started = lambda: _announce(app, listener)
        collector = Collector(lambda: len(app.state.connections))
        collector.start()
        watchdog = Watchdog(beat=beat)
        watchdog.start()
        try:
            with contextlib.closing(listener):
                await server.serve(sockets=[listener])
        finally:
            watchdog.stop()
            collector.stop()
        return 0

    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        return run_to_end(runner, main())


def _announce(app: Any, listener: socket.socket) -> None:
    import tokenwire

    settings: Settings = app.state.settings
    host, port = listener.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    kind, _, rest = (settings.store or "memory:").partition(":")
    kind = kind.lower().partition("+")[0].replace("rediss", "redis")
    loss = _LOSSES.get(kind, {}).get(app.state.store.durability, "")
    place = _STORES[kind].format(store=unquote(urlsplit(rest).path), loss=loss)
    if app.state.auth.on:
        keys = f"a token of {settings.jwt_issuer}, or an API key"
        access = f"with {keys if settings.jwt_issuer else 'an API key'} only"
    elif settings.loopback:
        access = "this machine only, no key required"
    else:
        access = "ANYBODY who can reach this address (--insecure)"
    page = "" if "/index.html" in app.state.public_paths else " (page not built: make page)"
    agents = ", ".join(app.state.agents)
    agents = f"  agent   {agents}\n" if agents else ""
    aliases = settings.aliases
    models = ", ".join(f"{m} = {aliases[m]}" if m in aliases else m for m in settings.model)
    if settings.model[0] == "demo":
        models += " (simulated answers; --model NAME for a real one)"
    tools = ""
    if not settings.tools and settings.model != ["demo"]:  # which has its own
        tools = "  tools   none (--tools MODULE:NAME, mcp:COMMAND, mcp:URL or demo adds some)\n"
    _print(
        f"tokenwire {tokenwire.__version__} at http://{address}:{port}/{page}\n"
        f"{agents}"
        f"  model   {models}\n"
        f"{tools}"
        f"  runs    {place}\n"
        f"  kept    {_duration(settings.retention)} after a conversation's last use (--retention)\n"
        f"  access  {access}\n"
        "  Ctrl-C stops the server."
    )


def _duration(seconds: float) -> str:
    """A time in the largest unit that leaves no fraction: ``24 h``, ``7 d``, ``90 s``."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s" if seconds != 86_400 else "24 h"


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError:  # no reader; serve nevertheless
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - to the end of the process


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
