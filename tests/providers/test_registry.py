"""Names of models: what each means, what is missing, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tokenwire.errors import ConfigError, UnknownModelError
from tokenwire.providers import registry as module
from tokenwire.providers.compatible import PROVIDERS, QUIRKS, Provider
from tokenwire.providers.registry import DIALECTS, FAMILIES, Registry


def test_a_provider_and_a_model() -> None:
    dialect, target = Registry(env={"OPENAI_API_KEY": "k"}).resolve("openai:gpt-5")
    assert (dialect.name, target.model, target.api_key) == ("openai-chat", "gpt-5", "k")
    assert target.base_url == "https://api.openai.com/v1"
    assert "k" not in repr(target).replace("tokenwire", "").split(":")


def test_the_demo_model_is_where_the_configuration_says() -> None:
    known = Registry(env={})
    assert not known.has_demo
    with pytest.raises(ConfigError, match="demo"):
        known.resolve("demo")
    known.demo_url = "http://127.0.0.1:9/v1/"
    assert known.has_demo
    assert known.resolve("demo")[1].base_url == "http://127.0.0.1:9/v1"


def test_any_compatible_server_by_its_address() -> None:
    known = Registry(env={"OPENAI_API_KEY": "secret"})
    dialect, target = known.resolve("http://127.0.0.1:8080/v1/#org/name:tag")
    assert (dialect.name, target.model) == ("openai-chat", "org/name:tag")
    assert target.base_url == "http://127.0.0.1:8080/v1"
    assert target.api_key is None  # a key of somebody else's must not go there
    _, target = Registry(env={"TOKENWIRE_MODEL_API_KEY": "mine"}).resolve("https://h/v1#m")
    assert target.api_key == "mine"
    assert known.resolve("anthropic+http://127.0.0.1:1/v1#m")[0].name == "anthropic"


def test_a_server_by_its_address_may_have_quirks() -> None:
    env = {"TOKENWIRE_MODEL_QUIRKS": "think_tags no_stream_options"}
    _, target = Registry(env=env).resolve("http://127.0.0.1/v1#m")
    assert target.quirks == {"think_tags", "no_stream_options"}
    with pytest.raises(ConfigError, match="'nonsense'"):
        Registry(env={"TOKENWIRE_MODEL_QUIRKS": "nonsense"}).resolve("http://127.0.0.1/v1#m")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "PROVIDER:MODEL"),
        ("gpt-5", "PROVIDER:MODEL"),
        ("opnai:gpt-5", "openai:MODEL"),
        ("dmo", "demo"),
        ("openai:", "empty"),
        ("openai:a b", "name"),
        ("openai:../x", "name"),
        ("openai:a/../../x", "name"),
        ("openai:x?y=1", "name"),
        ("openai:" + "x" * 300, "name"),
        ("http://127.0.0.1/v1", "URL#MODEL"),
        ("http://user:pass@127.0.0.1/v1#m", "password"),
        ("http://127.0.0.1/v1?x=1#m", "query"),
        ("ftp://127.0.0.1/v1#m", "unknown model"),
        ("nothing+http://127.0.0.1/v1#m", "dialect"),
        ("a\nb:c", "unknown model"),
    ],
)
def test_bad_names_say_what_would_be_right(name: str, says: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        Registry(env={"OPENAI_API_KEY": "k"}).resolve(name)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_key_says_what_to_set() -> None:
    with pytest.raises(ConfigError, match="set GEMINI_API_KEY or GOOGLE_API_KEY"):
        Registry(env={}).resolve("gemini:x")
    with pytest.raises(ConfigError, match="AZURE_OPENAI_ENDPOINT"):
        Registry(env={"AZURE_OPENAI_API_KEY": "k"}).resolve("azure:x")


def test_addresses_come_from_the_environment() -> None:
    env = {
        "AZURE_OPENAI_API_KEY": "k",
        "AZURE_OPENAI_ENDPOINT": "https://me.example/",
        "OLLAMA_HOST": "10.0.0.5:11434",
        "OPENAI_API_KEY": "k",
        "OPENAI_BASE_URL": "https://proxy.example/v1/",
        "GROQ_API_KEY": "k",
        "GROQ_BASE_URL": "nonsense//",
    }
    known = Registry(env=env)
    assert known.resolve("azure:dep")[1].base_url == "https://me.example/openai/v1"
    assert known.resolve("openai:m")[1].base_url == "https://proxy.example/v1"
    ollama = {m.name: m for m in known.models()}["ollama"]
    assert ollama.base_url == "http://10.0.0.5:11434"


def test_the_list_says_what_is_configured_and_what_is_missing() -> None:
    listed = {m.name: m for m in Registry(env={"OPENAI_API_KEY": "k"}).models()}
    assert listed["openai"].configured
    assert listed["demo"].configured
    assert listed["anthropic"].missing == "set ANTHROPIC_API_KEY"
    assert listed["llamacpp"].configured


def test_every_row_names_a_known_dialect_and_known_quirks() -> None:
    for provider in PROVIDERS.values():
        assert provider.dialect in DIALECTS
        assert provider.quirks <= set(QUIRKS)
    assert set(FAMILIES.values()) == set(DIALECTS)


def test_own_rows_win_over_the_table() -> None:
    row = Provider(name="openai", title="Mine", base_url="http://127.0.0.1:5/v1")
    _, target = Registry(providers=[row], env={}).resolve("openai:m")
    assert target.base_url == "http://127.0.0.1:5/v1"


def test_a_file_adds_providers(tmp_path: Path) -> None:
    file = tmp_path / "providers.toml"
    file.write_text(
        "[mine]\nbase_url = 'http://127.0.0.1:5/v1'\nkeys = ['MINE']\n"
        "quirks = ['think_tags']\nheaders = { x-team = 'blue' }\n"
    )
    known = Registry(env={"TOKENWIRE_PROVIDERS": str(file), "MINE": "k"})
    _, target = known.resolve("mine:m")
    assert (target.api_key, target.headers) == ("k", {"x-team": "blue"})
    assert target.quirks == {"think_tags"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[mine]\n", "base_url"),
        ("[mine]\nbase_url = 5\n", "base_url"),
        ("[mine]\nbase_url = 'x'\nbaseurl = 'y'\n", "'baseurl'"),
        ("[mine]\nbase_url = 'x'\nname = 'y'\n", "'name'"),
        ("[mine]\nbase_url = 'x'\nquirks = ['z']\n", "'z'"),
        ("[Mine]\nbase_url = 'x'\n", "small letters"),
        ("mine = 5\n", "table of providers"),
        ("[", "table of providers"),
        (None, "cannot be read"),
    ],
)
def test_a_bad_file_says_what_is_wrong(tmp_path: Path, text: str | None, says: str) -> None:
    file = tmp_path / "providers.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        Registry(env={"TOKENWIRE_PROVIDERS": str(file)})


def test_third_parties_register_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine:
        name = "mine"

        def decoder(self) -> None: ...

    class Point:
        def __init__(self, name: str, value: object) -> None:
            self.name, self.value = name, value

        def load(self) -> object:
            if isinstance(self.value, Exception):
                raise self.value
            return self.value

    row = Provider(name="theirs", title="Theirs", base_url="http://127.0.0.1:6", dialect="mine")
    points = [Point("theirs", [row, Mine()])]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
    dialect, target = Registry(env={}).resolve("theirs:m")
    assert (dialect.name, target.base_url) == ("mine", "http://127.0.0.1:6")
    for broken in (ImportError("x"), 5):
        points[:] = [Point("broken", broken)]
        with pytest.raises(ConfigError, match="broken"):
            Registry(env={}).resolve("other:m")


def test_dialects_are_imported_when_used() -> None:
    code = (
        "import sys, tokenwire.providers.registry as r; r.Registry(env={});"
        "assert not [m for m in sys.modules if m in r.DIALECTS.values()]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": "src"})
    assert module.ENTRY_POINTS == "tokenwire.providers"


def test_clocks_of_providers_and_models_come_from_the_environment() -> None:
    env = {
        "OPENAI_API_KEY": "k",
        "OPENAI_IDLE_TIMEOUT": "90",
        "OPENAI_TOTAL_TIMEOUT": "1200",
        "OPENAI_O3_PRO_TOTAL_TIMEOUT": "3600",
        "OPENAI_RESPONSES_KEEP_ALIVE_TIMEOUT": "900",
        "TOKENWIRE_MODEL_FIRST_EVENT_TIMEOUT": "2.5",
    }
    known = Registry(env=env)
    assert known.resolve("openai:gpt-5")[1].clocks == {"idle": 90.0, "total": 1200.0}
    assert known.resolve("openai:o3-pro")[1].clocks == {"idle": 90.0, "total": 3600.0}
    assert known.resolve("openai-responses:o3-pro")[1].clocks == {"keep_alive": 900.0}
    assert known.resolve("http://127.0.0.1:1/v1#m")[1].clocks == {"first_event": 2.5}


@pytest.mark.parametrize("value", ["0", "-1", "soon", "nan", "inf", "1e999"])
def test_a_clock_that_is_no_number_of_seconds_is_named(value: str) -> None:
    env = {"OPENAI_API_KEY": "k", "OPENAI_IDLE_TIMEOUT": value}
    with pytest.raises(ConfigError, match="OPENAI_IDLE_TIMEOUT"):
        Registry(env=env).resolve("openai:gpt-5")


def test_clocks_of_a_providers_table(tmp_path: Path) -> None:
    table = tmp_path / "providers.toml"
    start = '[slow]\nbase_url = "http://127.0.0.1:1/v1"\n'
    table.write_text(start + "clocks = { keep_alive = 1800, total = 3600 }\n")
    env = {"TOKENWIRE_PROVIDERS": str(table), "SLOW_M_TOTAL_TIMEOUT": "60"}
    assert Registry(env=env).resolve("slow:m")[1].clocks == {"keep_alive": 1800.0, "total": 60.0}
    for wrong in ("{ naps = 3 }", "{ idle = 0 }", "{ idle = -2 }"):
        table.write_text(f"{start}clocks = {wrong}\n")
        with pytest.raises(ConfigError, match="slow"):
            Registry(env=env)


def test_what_a_name_means_is_one_object_until_it_means_something_else() -> None:
    env = {"OPENAI_API_KEY": "k"}
    known = Registry(env=env)
    for name in ("openai:gpt-5", "http://127.0.0.1/v1#m"):
        assert known.resolve(name)[1] is known.resolve(name)[1]
    before = known.resolve("openai:gpt-5")[1]
    env["OPENAI_API_KEY"] = "another"
    after = known.resolve("openai:gpt-5")[1]
    assert (before.api_key, after.api_key) == ("k", "another")
    for number in range(600):  # names come from requests: what is kept is bounded
        known.resolve(f"openai:m{number}")
    assert known.resolve("openai:gpt-5")[1] == after
