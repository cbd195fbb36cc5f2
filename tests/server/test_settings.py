"""Settings: precedence, units, errors that name the setting, and the page made from the table."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tokenwire.cli.serve import serve_parser
from tokenwire.errors import ConfigError
from tokenwire.providers.registry import Registry
from tokenwire.server.configuration import load_settings, settings_table
from tokenwire.server.settings import Settings
from tokenwire.server.start import check
from tokenwire.server.variables import warnings_of

ROOT = Path(__file__).parents[2]


def test_flags_win_over_environment_over_file_over_default(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('port = 1\nheartbeat = 2\nmodel = ["from-file"]\nmax_age = "2m"\n')
    env = {"TOKENWIRE_HEARTBEAT": "3", "TOKENWIRE_MODEL": "a, b", "TOKENWIRE_CONFIG": str(file)}
    found = load_settings({"heartbeat": "4s", "store": None, "model": []}, environ=env)
    assert (found.port, found.heartbeat, found.max_age) == (1, 4.0, 120.0)
    assert found.model == ["a", "b"]
    assert found.store is None
    assert load_settings({}, environ={}, config=file).model == ["from-file"]


def test_the_file_of_the_working_directory_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(environ={}).port == 8765
    (tmp_path / "tokenwire.toml").write_text("port = 9000\n")
    assert load_settings(environ={}).port == 9000


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("500ms", "heartbeat", 0.5),
        ("1.5", "heartbeat", 1.5),
        ("24h", "retention", 86400.0),
        ("7d", "retention", 604800.0),
        ("64KiB", "body_limit", 65536),
        ("1_000", "body_limit", 1000),
        ("2MiB", "body_limit", 2 << 20),
        ("off", "access_log", False),
        ("YES", "insecure", True),
        ("", "cors_origin", []),
        ("0", "port", 0),
    ],
)
def test_units_and_words(text: str, name: str, value: object) -> None:
    env = {f"TOKENWIRE_{name.upper()}": text}
    assert getattr(load_settings(environ=env), name) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", "-1"),
        ("port", "65536"),
        ("port", "1.5"),
        ("heartbeat", "nan"),
        ("heartbeat", "inf"),
        ("heartbeat", "0"),
        ("heartbeat", "soon"),
        ("insecure", "maybe"),
        ("compat", "9"),
        ("runs", "0"),
        ("on_disconnect", "stop:x"),
        ("log_level", "loud"),
    ],
)
def test_a_bad_value_names_its_source(name: str, text: str) -> None:
    variable = f"TOKENWIRE_{name.upper()}"
    with pytest.raises(ConfigError, match=variable):
        load_settings(environ={variable: text})


def test_a_bad_file_is_said(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    for text, said in (
        ("port = ", "TOML"),
        ("prot = 1", r"'prot' in the settings file .*x.toml; did you mean 'port'"),
        ("max-age = 1", "did you mean 'max_age'"),
        ("[server]\nport = 1", "'server' in .* lists them all"),
        ('port = "x"', "port"),
        ("model = [1]", "model"),
        ("port = true", "port"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=said):
            load_settings(environ={}, config=file)
    with pytest.raises(ConfigError, match="missing"):
        load_settings(environ={}, config=tmp_path / "missing.toml")


def test_a_flag_that_is_none_is_answered_with_the_nearest() -> None:
    for words in (["--run-evnts", "5"], ["--run-evnts=5"]):
        with pytest.raises(
            ConfigError, match=r"unknown option '--run-evnts'; use '--limit run_events=VALUE'"
        ):
            serve_parser().parse_args(words)
    for row in settings_table():
        if row.is_limit:  # flags of the past
            flag = "--" + row.name.replace("_", "-")
            with pytest.raises(ConfigError, match=f"use '--limit {row.name}=VALUE'"):
                serve_parser().parse_args([flag, "5"])
    with pytest.raises(ConfigError, match="did you mean '--retention'"):
        serve_parser().parse_args(["--retenton", "5"])
    with pytest.raises(ConfigError, match=r"unknown option '--zzz'; see tokenwire serve --help"):
        serve_parser().parse_args(["--zzz"])


def test_every_setting_is_a_flag_and_every_flag_a_setting() -> None:
    given = vars(serve_parser().parse_args([]))
    flags_and_limits = {row.is_limit: set[str]() for row in settings_table()}
    for row in settings_table():
        flags_and_limits[row.is_limit].add(row.name)
    assert set(given) - {"config", "limit"} == flags_and_limits[False]
    for name in flags_and_limits[True]:
        limited = load_settings({"limit": [f"{name}=7"]}, environ={})
        assert getattr(limited, name) == 7
    assert all(value is None for value in given.values())
    flags = ["--model", "a", "--model", "b", "--no-metrics", "--insecure", "--port", "1"]
    found = load_settings(
        {k: v for k, v in vars(serve_parser().parse_args(flags)).items() if k != "config"},
        environ={},
    )
    assert (found.model, found.metrics, found.insecure, found.port) == (["a", "b"], False, True, 1)


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("run_events", "--limit must be NAME=VALUE, not 'run_events'"),
        ("run_evnts=5", r"unknown setting 'run_evnts' in --limit; did you mean 'run_events'\?"),
        ("port=5", "'port' is not a limit; use --port"),
        ("run_events=x", "--limit run_events: must be a number, not 'x'"),
        ("run_events=0", "--limit run_events: must be more than 0"),
        ("=5", "unknown setting '' in --limit"),
    ],
)
def test_a_bad_limit_is_named(limit: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_settings({"limit": [limit]}, environ={})


def test_limits_have_a_table_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('port = 1\n[limits]\nrun_events = 5\nidle_timeout = "2m"\nbody_limit = "2k"\n')
    settings = load_settings(environ={}, config=file)
    assert (settings.port, settings.run_events, settings.idle_timeout) == (1, 5, 120.0)
    flags = {"limit": ["run-events=6", "run_events=7"]}
    assert load_settings(flags, environ={}, config=file).run_events == 7
    variables = {"TOKENWIRE_RUN_EVENTS": "8"}
    assert load_settings(environ=variables, config=file).run_events == 8
    for text, words in (
        ("run_events = 5", r"'run_events' in .* is a limit; move it to the table \[limits\]"),
        ("[limits]\nport = 5", r"'port' in .* is not a limit; move it above \[limits\]"),
        ("[limits]\nrun_evnts = 5", "did you mean 'run_events'"),
        ("limits = 5", r"must be a table: \[limits\]"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=words):
            load_settings(environ={}, config=file)


@pytest.mark.parametrize("columns", [80, 100])
def test_the_help_fits_a_screen(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = serve_parser().format_help().splitlines()
    assert 24 <= len(lines) <= 50
    assert max(map(len, lines)) <= columns


def test_what_the_short_help_leaves_out_is_in_the_long_one(capsys) -> None:
    rare = [row for row in settings_table() if row.rare]
    assert rare
    short = serve_parser().format_help()
    with pytest.raises(SystemExit):
        serve_parser().parse_args(["--help-limits"])
    long = capsys.readouterr().out
    for row in rare:
        assert f"{row.flag} " not in short
        assert f"  {row.flag} " in long
        assert not row.is_limit


def test_defaults_are_of_their_types_and_described() -> None:
    for row in settings_table():
        assert row.help.endswith("."), row.name
        word = row.name.replace("_", "-")
        assert row.flag == (f"--limit {row.name}" if row.is_limit else f"--{word}")
    settings = Settings()
    assert settings.loopback
    assert not Settings(host="0.0.0.0").loopback
    assert Settings(host="::1").loopback
    assert not Settings(host="127.evil.test").loopback


@pytest.mark.parametrize(
    ("settings", "keys", "said"),
    [
        ({"host": "0.0.0.0"}, False, "API key"),
        ({"host": "::"}, False, "API key"),
        ({"host": "192.168.1.5"}, False, "API key"),
        ({"cors_origin": ["*"]}, True, "exact"),
        ({"cors_origin": ["https://a.example/path"]}, True, "exact"),
        ({"cors_origin": ["null"]}, True, "exact"),
        ({"model": []}, False, "model"),
        ({"workers": 2, "store": "memory:"}, False, "store"),
    ],
)
def test_unsafe_combinations_are_refused(settings: dict, keys: bool, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check(Settings(**settings), keys_on=keys)


def test_safe_combinations_are_not() -> None:
    check(Settings(), keys_on=False)
    check(Settings(host="0.0.0.0"), keys_on=True)
    check(Settings(host="0.0.0.0", insecure=True), keys_on=False)
    check(Settings(cors_origin=["https://a.example:8443"]), keys_on=False)


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("TOKENWIRE_PROT", "unknown environment variable TOKENWIRE_PROT; did you mean"),
        ("TOKENWIRE_API_KEYFILE", "did you mean TOKENWIRE_API_KEY_FILE?"),
        ("TOKENWIRE_RUN_TOOL_CALL", "did you mean TOKENWIRE_RUN_TOOL_CALLS?"),
        ("tokenwire_port", "did you mean TOKENWIRE_PORT?"),
        ("TOKENWIRE_XYZZY_QUUX", "docs/reference/settings.md lists them all"),
        ("TOKENWIRE_MODEL_IDLE_TIMEOUTS", "unknown environment variable"),
        ("TOKENWIRE_API_KEY", "is the key of clients; the server has no keys"),
    ],
)
def test_a_variable_that_nothing_reads_is_told(variable: str, words: str) -> None:
    (line,) = told({variable: "s3cret", "PATH": "/bin", "OTHER_PORT": "1"})
    assert words in line
    assert "s3cret" not in line


def test_variables_that_something_reads_are_not_told(tmp_path: Path) -> None:
    file = tmp_path / "providers.toml"
    file.write_text(
        '[house]\ntitle = "House"\nbase_url = "http://{TOKENWIRE_HOUSE_HOST}/v1"\n'
        'keys = ["TOKENWIRE_HOUSE_KEY"]\n'
    )
    env = dict.fromkeys([row.env for row in settings_table()], "1")
    env |= {"TOKENWIRE_PROVIDERS": str(file), "TOKENWIRE_HOUSE_HOST": "h", "TOKENWIRE_DEBUG": "1"}
    more = """CONFIG URL SPEEDUPS HOUSE_KEY MODEL_API_KEY MODEL_QUIRKS MODEL_TOTAL_TIMEOUT
        MODEL_LLAMA_3_FIRST_EVENT_TIMEOUT SERVICE_HOST SERVICE_PORT PORT_8765_TCP
        PORT_8765_TCP_ADDR"""
    env |= {f"TOKENWIRE_{name}": "1" for name in more.split()}
    assert told(env) == []
    assert told({"TOKENWIRE_API_KEY": "a"}, keys_on=True) == []


def told(env: dict[str, str], *, keys_on: bool = False) -> list[str]:
    variables = [row.env for row in settings_table()]
    return warnings_of(env, variables, Registry(env=env).reads, keys_on=keys_on)


def test_the_page_of_settings_is_current() -> None:
    spec = importlib.util.spec_from_file_location(
        "settings_table", ROOT / "scripts" / "settings_table.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text("utf-8") == module.page()
