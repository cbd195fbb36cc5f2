"""Settings from flags, environment and file, and the rows that the help and the docs are made from.

Always true: every setting has one name, ``log_level``, which determines its flag (``--log-level``),
its environment variable (``TOKENWIRE_LOG_LEVEL``) and its key in the TOML file (``log_level``); the
flag of a limit is ``--limit NAME=VALUE``, its key is in the table ``[limits]``. A flag overrides
the environment, that the file, that the default; an unknown key or an invalid value is a
`ConfigError` of one line that names the setting and its source.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from tokenwire.errors import ConfigError
from tokenwire.server.settings import Settings
from tokenwire.server.variables import PREFIX

__all__ = ["CONFIG_FILE", "Setting", "load_settings", "settings_table"]

CONFIG_FILE = "tokenwire.toml"
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "k": 1 << 10, "m": 1 << 20, "b": 1}
#: Settings of these groups are limits.
_LIMIT_GROUPS = ("Deadlines", "Limits")
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class Setting(typing.NamedTuple):
    """One row of the table."""

    name: str
    flag: str
    env: str
    type: Any
    default: Any
    group: str
    help: str
    unit: str
    secret: bool
    #: Left out of the short help.
    rare: bool

    @property
    def is_limit(self) -> bool:
        """Whether it belongs to the table ``[limits]`` and the flag ``--limit``."""
        return self.group in _LIMIT_GROUPS

    @property
    def brief(self) -> str:
        """The beginning of the description, for a help of one line per setting."""
        return re.split(r"[.;] |\.\Z| \(", self.help, maxsplit=1)[0]

    @property
    def choices(self) -> tuple[str, ...]:
        """The accepted words, if the setting is an enumeration."""
        return typing.get_args(self.type) if typing.get_origin(self.type) is Literal else ()


def settings_table() -> list[Setting]:
    """Every setting, in order: the source of flags, documentation and validation."""
    hints = typing.get_type_hints(Settings)
    rows: list[Setting] = []
    for item in dataclasses.fields(Settings):
        default = item.default
        if item.default_factory is not dataclasses.MISSING:
            default = item.default_factory()
        meta = item.metadata
        rows.append(
            Setting(
                item.name,
                _flag(item.name, meta["group"]),
                PREFIX + item.name.upper(),
                hints[item.name],
                default,
                meta["group"],
                meta["help"],
                meta["unit"],
                meta["secret"],
                meta["rare"],
            )
        )
    return rows


def _flag(name: str, group: str) -> str:
    if group in _LIMIT_GROUPS:
        return f"--limit {name}"
    return "--" + name.replace("_", "-")


def load_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    config: str | Path | None = None,
) -> Settings:
    """Settings from ``flags`` (name -> value; None: absent), environment (``environ``, default the
    process's), file and defaults, in that order. Raises `ConfigError`.

    ``config`` names the TOML file, which must then exist; default ``TOKENWIRE_CONFIG``, else
    ``tokenwire.toml`` in the working directory, if it exists.
    """
    environ = os.environ if environ is None else environ
    rows = {row.name: row for row in settings_table()}
    arguments = {k: v for k, v in (flags or {}).items() if v is not None and v != []}
    arguments |= _limit_arguments(arguments.pop("limit", []), rows)
    config = config or environ.get(PREFIX + "CONFIG")
    from_file = _file_values(_read_file(config), f"the settings file {config or CONFIG_FILE}", rows)
    for name in arguments:
        if name not in rows:
            raise _unknown(name, "a flag", rows)
    values: dict[str, Any] = {}
    for name, row in rows.items():
        if name in arguments:
            values[name] = _value(row, arguments[name], row.flag)
        elif row.env in environ:
            values[name] = _value(row, environ[row.env], row.env)
        elif name in from_file:
            values[name] = _value(row, from_file[name], f"'{name}' in the settings file")
    return Settings(**values)


def _limit_arguments(items: list[str], rows: Mapping[str, Setting]) -> dict[str, str]:
    """The values of ``--limit NAME=VALUE``."""
    limits = {name: row for name, row in rows.items() if row.is_limit}
    arguments: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise ConfigError(f"--limit must be NAME=VALUE, not '{item}'")
        if name in rows and name not in limits:
            raise ConfigError(f"'{name}' is not a limit; use {rows[name].flag}")
        if name not in limits:
            raise _unknown(name, "--limit", limits)
        arguments[name] = value
    return arguments


def _file_values(file: dict[str, Any], place: str, rows: Mapping[str, Setting]) -> dict[str, Any]:
    """The keys of the file and of its table ``[limits]``, each checked to be in its place."""
    limits = file.pop("limits", {})
    if not isinstance(limits, dict):
        raise ConfigError(f"'limits' in {place} must be a table: [limits]")
    for name in file:
        if name not in rows:
            raise _unknown(name, place, rows)
        if rows[name].is_limit:
            raise ConfigError(f"'{name}' in {place} is a limit; move it to the table [limits]")
    for name in limits:
        if name not in rows:
            raise _unknown(name, f"[limits] of {place}", rows)
        if not rows[name].is_limit:
            raise ConfigError(f"'{name}' in {place} is not a limit; move it above [limits]")
    return {**file, **limits}


def _unknown(name: str, place: str, names: Iterable[str]) -> ConfigError:
    close = difflib.get_close_matches(name.replace("-", "_"), list(names), 1)
    hint = f"did you mean '{close[0]}'?" if close else "docs/reference/settings.md lists them all"
    return ConfigError(f"unknown setting '{name}' in {place}; {hint}")


def _read_file(config: str | Path | None) -> dict[str, Any]:
    path = Path(config) if config else Path(CONFIG_FILE)
    if not config and not path.is_file():
        return {}
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read the settings file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the settings file {path} is not valid TOML: {error}") from error


def _value(row: Setting, value: Any, source: str) -> Any:
    try:
        return _convert(row, value)
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from error


def _convert(row: Setting, value: Any) -> Any:
    kind = row.type
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        kind = next(a for a in typing.get_args(kind) if a is not type(None))
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if str(value) not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}, not '{value}'")
        return str(value)
    if row.name == "alias" and isinstance(value, dict):  # a table of the file
        value = [f"{name}={model}" for name, model in value.items()]
    if kind == list[str]:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple) or not all(isinstance(i, str) for i in items):
            raise ValueError("must be a list of texts")
        return [item.strip() for item in items if item.strip()]
    if kind is bool:
        return _boolean(value)
    if kind in (int, float):
        return _number(row, kind, value)
    if not isinstance(value, str):
        raise ValueError(f"must be a text, not {value!r}")
    if row.name == "on_disconnect" and not re.fullmatch(r"continue|stop|stop:\d{1,5}", value):
        raise ValueError(f"must be continue, stop or stop:SECONDS, not '{value}'")
    return value


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in _TRUE:
        return True
    if str(value).lower() in _FALSE:
        return False
    raise ValueError(f"must be true or false, not '{value}'")


def _number(row: Setting, kind: type, value: Any) -> int | float:
    factor: float = 1
    if isinstance(value, str):
        text = value.strip().lower().replace("_", "")
        units = {"s": _SECONDS, "B": _BYTES}.get(row.unit, {})
        for suffix in sorted(units, key=len, reverse=True):
            if text.endswith(suffix):
                factor, text = units[suffix], text[: -len(suffix)].strip()
                break
        try:
            value = float(text) if "." in text or kind is float else int(text)
        except ValueError:
            raise ValueError(f"must be a number, not '{value}'") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be a number, not {value!r}")
    number = kind(value * factor)
    if kind is int and number != value * factor:
        raise ValueError(f"must be a whole number, not {value!r}")
    if not number >= 0 or number == float("inf"):  # refuses NaN as well
        raise ValueError("must not be negative" if number < 0 else "must be a finite number")
    if row.name == "port" and number > 65535:
        raise ValueError("must be at most 65535")
    if number == 0 and row.name in _POSITIVE:
        raise ValueError("must be more than 0")
    return number


_POSITIVE = {
    "workers", "heartbeat", "max_age", "graceful_stop", "connect_timeout", "first_event_timeout",
    "idle_timeout", "keep_alive_timeout", "total_timeout", "header_deadline", "body_deadline",
    "write_deadline", "wait_timeout", "approval_timeout", "waiting_runs", "header_limit",
    "header_fields", "hook_timeout", "body_limit", "media_limit", "json_depth", "message_limit",
    "prompt_limit", "connections", "connections_per_ip", "runs", "starts_burst", "socket_buffer",
    "run_events", "run_bytes", "run_steps", "run_tools_at_once",
}  # fmt: skip
