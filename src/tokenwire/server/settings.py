"""The settings of the server: one typed table for flags, environment, file, defaults and docs.

Always true: every setting has one name, ``log_level``, which determines its flag (``--log-level``),
its environment variable (``TOKENWIRE_LOG_LEVEL``) and its key in the TOML file (``log_level``); the
flag of a limit is ``--limit NAME=VALUE``, its key is in the table ``[limits]``. A flag overrides
the environment, that the file, that the default; an unknown key or an invalid value is a
`ConfigError` of one line that names the setting and its source.
"""

# ruff: noqa: RUF009 - `_set` is `dataclasses.field` with the columns of the table
from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import os
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tokenwire.errors import ConfigError

__all__ = ["CONFIG_FILE", "Setting", "Settings", "load_settings", "settings_table"]

CONFIG_FILE = "tokenwire.toml"
_PREFIX = "TOKENWIRE_"
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "k": 1 << 10, "m": 1 << 20, "b": 1}
#: Settings of these groups are limits.
_LIMIT_GROUPS = ("Deadlines", "Limits")
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def _set(default: Any, group: str, text: str, *, unit: str = "", secret: bool = False) -> Any:
    metadata = {"group": group, "help": text, "unit": unit, "secret": secret}
    if isinstance(default, list):
        return field(
            default_factory=lambda: list(typing.cast(list[Any], default)),
            metadata=metadata,
            repr=not secret,
        )
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(kw_only=True)
class Settings:
    """All settings, with their defaults. ``None``: depends on other settings, as described."""

    host: str = _set(
        "127.0.0.1", "Server", "Address to listen on. Any but loopback requires an API key."
    )
    port: int = _set(8765, "Server", "Port to listen on; 0 picks a free one.")
    workers: int = _set(1, "Server", "Worker processes. More than one requires a shared store.")
    model: list[str] = _set(
        ["demo"],
        "Models and runs",
        "Model to serve; repeatable. The first is the default; no other model is served.",
    )
    agent: list[str] = _set(
        [],
        "Models and runs",
        "Agent to serve: MODULE:NAME or FILE.py:NAME; TITLE=MODULE:NAME titles it; repeatable. "
        "Requests name it as a model; the first is the default.",
    )
    store: str | None = _set(
        None,
        "Models and runs",
        "Store: memory:, sqlite:FILE or redis://HOST. Default of the command: tokenwire/runs.db "
        "in the user's data folder (XDG_DATA_HOME, else ~/.local/share).",
    )
    on_end: str | None = _set(None, "Models and runs", "Called with each ended run.")
    retention: float = _set(
        86400.0, "Models and runs", "Time to keep a run after its end.", unit="s"
    )
    tools: list[str] = _set(
        [],
        "Models and runs",
        "Tool: MODULE:NAME, demo, mcp:COMMAND, mcp:URL. NAME is a tool or a list; repeatable.",
    )
    on_disconnect: str = _set(
        "continue",
        "Models and runs",
        "Policy when no reader is left; continue, stop, or stop:SECONDS to wait first.",
    )
    durable_streams: Literal["off", "read", "readwrite"] = _set(
        "read", "Models and runs", "Durable Streams routes under /ds."
    )
    durable_streams_webhooks: list[str] = _set(
        [],
        "Models and runs",
        "Hosts that webhooks may call; HOST (https at a public address), HOST:PORT or HOST:* "
        "(also http and private addresses). Default: none.",
    )
    durable_streams_webhook_key: str | None = _set(
        None,
        "Models and runs",
        "PEM file of the key that signs webhooks; Ed25519, readable by its owner only. Default: a "
        "generated key in the store.",
    )
    compat: Literal["common", "5", "6", "7"] = _set(
        "6", "Models and runs", "AI SDK release to write for; 7 reads 6, too."
    )
    chat_get: Literal["auto", "on", "off"] = _set(
        "auto",
        "Models and runs",
        "Route GET /chat/stream?prompt=; auto: on loopback without keys only.",
    )

    api_key_file: str | None = _set(
        None,
        "Access",
        "File of API keys; readable by its owner only, lines KEY, NAME:KEY or NAME:sha256:HEX.",
    )
    api_keys: list[str] = _set(
        [],
        "Access",
        "API keys; in the same forms. Prefer the environment variable to the flag.",
        secret=True,
    )
    insecure: bool = _set(False, "Access", "Serve beyond loopback without an API key.")
    allow_host: list[str] = _set(
        [], "Access", "Accepted Host header (loopback and --host always are)."
    )
    cors_origin: list[str] = _set(
        [], "Access", "Allowed CORS origin (https://app.example); exact match."
    )
    trust_proxy: list[str] = _set([], "Access", "Trusted proxy (its X-Forwarded-For counts).")
    metrics: bool = _set(True, "Access", "Route /metrics; with API keys it requires one.")

    heartbeat: float = _set(15.0, "Streams and logs", "Keep-alive of idle streams.", unit="s")
    ping: float = _set(
        20.0,
        "Streams and logs",
        "Interval of WebSocket pings; also the timeout of each.",
        unit="s",
    )
    max_age: float = _set(
        240.0,
        "Streams and logs",
        "Maximum connection age (+-10 %); the client then reconnects.",
        unit="s",
    )
    retry_ms: int = _set(1000, "Streams and logs", "Clients' reconnect delay, in ms.")
    graceful_stop: float = _set(10.0, "Streams and logs", "Longest graceful stop.", unit="s")

    connect_timeout: float = _set(5.0, "Deadlines", "Connecting to a provider.", unit="s")
    first_event_timeout: float = _set(
        60.0, "Deadlines", "Until a provider accepts a request (its response begins).", unit="s"
    )
    idle_timeout: float = _set(
        60.0, "Deadlines", "Between two signs of life in an answer: output, keep-alives.", unit="s"
    )
    keep_alive_timeout: float = _set(
        300.0, "Deadlines", "Without output: accepted and silent, or keep-alives only.", unit="s"
    )
    total_timeout: float = _set(600.0, "Deadlines", "One whole answer.", unit="s")
    wait_timeout: float = _set(604800.0, "Deadlines", "A run's wait for an approval.", unit="s")
    header_deadline: float = _set(10.0, "Deadlines", "Receiving a request's headers.", unit="s")
    body_deadline: float = _set(30.0, "Deadlines", "Receiving a request's body.", unit="s")
    long_poll_timeout: float = _set(
        30.0, "Deadlines", "A long poll's wait for new records.", unit="s"
    )
    write_deadline: float = _set(
        30.0,
        "Deadlines",
        "Sending to a reader that does not read; it is then disconnected.",
        unit="s",
    )

    header_limit: int = _set(16384, "Limits", "Size of the request line and headers.", unit="B")
    header_fields: int = _set(100, "Limits", "Header fields of a request.")
    body_limit: int = _set(1 << 20, "Limits", "Size of a request body.", unit="B")
    media_limit: int = _set(
        8 << 20,
        "Limits",
        "Size of a request's files as base64, in addition to body_limit.",
        unit="B",
    )
    json_depth: int = _set(64, "Limits", "Nesting depth of a JSON body.")
    message_limit: int = _set(1000, "Limits", "Messages of a request.")
    prompt_limit: int = _set(256 << 10, "Limits", "Size of one text of a prompt.", unit="B")
    connections: int = _set(10000, "Limits", "Open connections per process.")
    connections_per_ip: int = _set(
        100,
        "Limits",
        "Open connections per address; loopback and trusted proxies are exempt.",
    )
    readers_per_run: int | None = _set(
        None, "Limits", "Concurrent readers per run. Default: 32 with API keys, unlimited without."
    )
    readers_per_principal: int | None = _set(
        None,
        "Limits",
        "Concurrent streams per principal. Default: 20 with API keys, unlimited without.",
    )
    runs: int = _set(1000, "Limits", "Concurrent runs per process.")
    max_lag: float = _set(
        1.0,
        "Limits",
        "Event loop delay above which new runs are rejected; 0 is no limit.",
        unit="s",
    )
    runs_per_principal: int | None = _set(
        None,
        "Limits",
        "Concurrent runs per principal. Default: 4 with API keys, unlimited without.",
    )
    waiting_runs: int = _set(10_000, "Limits", "Runs per process that wait for an approval.")
    waiting_runs_per_principal: int | None = _set(None, "Limits", "The same; 20 with API keys.")
    starts_per_minute: int | None = _set(
        None,
        "Limits",
        "Run starts per minute and principal. Default: 30 with API keys, unlimited without.",
    )
    starts_burst: int = _set(10, "Limits", "Burst of run starts within that rate.")
    bad_attach_per_minute: int = _set(
        30, "Limits", "Requests for unknown runs or invalid cursors per minute and address."
    )
    run_events: int = _set(
        200_000, "Limits", "Events per run; at the limit the run ends with an error."
    )
    buffer_per_connection: int = _set(
        16 << 20, "Limits", "Bytes that may wait, unread or unsent, on one connection.", unit="B"
    )
    buffer_per_client: int | None = _set(
        None,
        "Limits",
        "Bytes waiting, per client. Default: 64 MiB with API keys, 128 MiB (an address) without.",
        unit="B",
    )
    wrong_keys_per_minute: int = _set(
        30, "Limits", "Wrong API keys per minute and address; beyond it the answer is 429."
    )
    run_bytes: int = _set(64 << 20, "Limits", "Size of one run in the log, with files.", unit="B")
    run_steps: int = _set(10, "Limits", "Model calls per run.")
    run_tool_calls: int = _set(50, "Limits", "Tool calls per run.")
    run_tools_at_once: int = _set(8, "Limits", "Concurrent tool calls per run.")
    durable_streams_count: int = _set(10_000, "Limits", "Durable Streams per principal.")
    durable_streams_bytes: int = _set(
        1 << 30, "Limits", "Size of a principal's Durable Streams.", unit="B"
    )
    socket_buffer: int = _set(256 << 10, "Limits", "Kernel send buffer per connection.", unit="B")

    log_level: Literal["debug", "info", "warning", "error"] = _set(
        "info", "Streams and logs", "Least level to log on standard error."
    )
    otel: bool = _set(
        False, "Streams and logs", "Record OpenTelemetry spans and metrics; with the process's SDK."
    )
    access_log: bool = _set(
        True, "Streams and logs", "Log one line per request; without its query string."
    )

    @property
    def loopback(self) -> bool:
        """Whether the server is reachable from this machine only."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether an address or a name is of this machine."""
    bare = host.strip("[]").lower()
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return bare == "localhost"


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
                _PREFIX + item.name.upper(),
                hints[item.name],
                default,
                meta["group"],
                meta["help"],
                meta["unit"],
                meta["secret"],
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
    config = config or environ.get(_PREFIX + "CONFIG")
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
    "write_deadline", "wait_timeout", "waiting_runs", "header_limit", "header_fields",
    "body_limit", "media_limit", "json_depth", "message_limit", "prompt_limit", "connections",
    "connections_per_ip", "runs", "starts_burst", "socket_buffer", "run_events", "run_bytes",
    "run_steps", "run_tools_at_once",
}  # fmt: skip
