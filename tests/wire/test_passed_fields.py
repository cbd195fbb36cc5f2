"""Fields of OpenAI's and Anthropic's clients that tokenwire has no use for; aliases of models."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import Any

import anthropic
import openai
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from tokenwire.errors import ConfigError, InputError
from tokenwire.events.message import user
from tokenwire.events.request import PassedFields, Request
from tokenwire.providers.base import Target
from tokenwire.providers.registry import Registry
from tokenwire.providers.routing.aliases import aliases_of
from tokenwire.providers.routing.passing import dropped_fields, with_passed
from tokenwire.server import Live
from tokenwire.server.configuration import load_settings
from tokenwire.server.settings import Settings
from tokenwire.testing import ScriptedModel
from tokenwire.wire.anthropic.request import parse_messages
from tokenwire.wire.openai.chat_request import parse_chat
from tokenwire.wire.openai.responses_request import parse_responses

HELLO = [{"role": "user", "content": "Hello"}]


@contextmanager
def serving(model: Any, **options: Any):
    registry = options.pop("registry", model)
    settings = Settings(**options.pop("settings", {}))
    live = Live(
        registry=registry, http=model, user=lambda _: "ann", settings=settings,
        check_origin=False, **options,
    )  # fmt: skip
    app = Starlette(routes=[Mount("/", live.asgi)], lifespan=live.lifespan)
    with TestClient(app) as client:
        yield client


def openai_client(http: TestClient) -> openai.OpenAI:
    return openai.OpenAI(
        base_url="http://testserver/v1", api_key="k", http_client=http, max_retries=0
    )


# --- OpenAI's own client ---------------------------------------------------------------------


def test_what_openais_client_sends_reaches_a_provider_of_its_wire() -> None:
    model = ScriptedModel(["Hi."])
    sent: dict[str, Any] = {
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "logit_bias": {"42": -100},
        "logprobs": True,
        "top_logprobs": 3,
        "user": "u-1",
        "service_tier": "flex",
        "prompt_cache_key": "k",
        "verbosity": "low",
    }
    with serving(model, models=["any"]) as http:
        client = openai_client(http)
        answer = client.chat.completions.with_raw_response.create(
            model="any",
            messages=HELLO,  # type: ignore[arg-type]
            seed=7,
            extra_body={"min_p": 0.1, "repetition_penalty": 1.1},
            **sent,
        )
        assert answer.parse().choices[0].message.content == "Hi."
        assert "tokenwire-dropped-fields" not in answer.headers
        stream = client.chat.completions.create(
            model="any",
            messages=HELLO,
            stream=True,
            **sent,  # type: ignore[call-overload]
        )
        assert "".join(c.choices[0].delta.content or "" for c in stream if c.choices) == "Hi."
    first, second = model.requests
    for name, value in {**sent, "seed": 7, "min_p": 0.1, "repetition_penalty": 1.1}.items():
        assert first[name] == value, name
    assert {name: second[name] for name in sent} == sent
    assert first["stream"] is True, "the server always streams"


LOGPROBS = {"content": [{"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}]}


class WithLogprobs(ScriptedModel):
    """Its answer has log probabilities."""

    async def open(self, call: Any, *, connect_timeout: float = 5.0) -> Any:
        stream = await super().open(call, connect_timeout=connect_timeout)
        choice = {"index": 0, "delta": {"content": "Hi"}, "logprobs": LOGPROBS}
        chunk = b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
        stream._chunks[0] = (chunk, "Hi")
        return stream


def test_log_probabilities_come_back() -> None:
    with serving(WithLogprobs(["Hi"]), models=["any"]) as http:
        client = openai_client(http)
        whole = client.chat.completions.create(model="any", messages=HELLO, logprobs=True)  # type: ignore[arg-type]
        assert whole.choices[0].logprobs is not None
        assert whole.choices[0].logprobs.content is not None
        assert [item.token for item in whole.choices[0].logprobs.content] == ["Hi"]
        stream = client.chat.completions.create(
            model="any",
            messages=HELLO,
            logprobs=True,
            stream=True,  # type: ignore[call-overload]
        )
        pieces = [c.choices[0] for c in stream if c.choices]
        tokens = [t.token for p in pieces if p.logprobs for t in p.logprobs.content or []]
        assert tokens == ["Hi"]
        assert "".join(p.delta.content or "" for p in pieces) == "Hi"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("best_of", 3),
        ("functions", [{}]),
        ("audio", {"voice": "a"}),
        ("modalities", ["audio"]),
        ("web_search_options", {"a": 1}),
        ("models", ["other"]),
        ("Model", "other"),
        ("MESSAGES", []),
        ("mEſſages", []),
        ("Stream", False),
        ("stream_mode", "x"),
        ("TOOLS", []),
        ("tool_config", {}),
        ("extra_body", {"model": "x"}),
        ("api_base", "http://127.0.0.1"),
        ("api_key", "k"),
        ("provider", {"order": []}),
        ("response-format", {}),
        ("chat_template", "x"),
        ("a b", 1),
        ("x" * 65, 1),
    ],
)
@pytest.mark.parametrize("unknown", ["pass", "drop", "refuse"])
def test_what_the_server_decides_is_refused_however_it_is_spelled(
    field: str, value: Any, unknown: Any
) -> None:
    body = {"model": "any", "messages": HELLO, field: value}
    with pytest.raises(InputError):
        parse_chat(body, unknown=unknown)
    if field not in ("n", "functions", "modalities", "web_search_options", "audio"):
        with pytest.raises(InputError):
            parse_responses({"model": "any", "input": "Hello", field: value}, unknown=unknown)
        with pytest.raises(InputError):
            parse_messages(
                {"model": "any", "messages": HELLO, "max_tokens": 9, field: value}, unknown=unknown
            )


def test_policies() -> None:
    body = {"model": "any", "messages": HELLO, "presence_penalty": 1, "foo": [1], "user": "u"}
    passed = parse_chat(body).request.passed
    assert passed == PassedFields(
        wire="openai-chat", fields={"presence_penalty": 1, "foo": [1], "user": "u"}
    )
    dropped = parse_chat(body, unknown="drop").request.passed
    assert dropped is not None
    assert dropped_fields("openai-chat", dropped) == ["foo", "presence_penalty", "user"]
    with pytest.raises(InputError, match="unknown field 'foo'"):
        parse_chat(body, unknown="refuse")
    del body["foo"]
    with pytest.raises(InputError, match="'presence_penalty' is not supported here"):
        parse_chat(body, unknown="refuse")
    body["presence_penalty"] = 0
    assert parse_chat(body, unknown="refuse").request.passed is None
    assert parse_chat({"model": "any", "messages": HELLO, "foo": None}).request.passed is None


def test_dropped_fields_are_said_on_each_wire() -> None:
    model = ScriptedModel(["Hi."])
    chat = {"model": "any", "messages": HELLO, "logit_bias": {"1": 2}, "min_p": 0.1}
    with serving(model, models=["any"], settings={"unknown_fields": "drop"}) as http:
        for stream in (False, True):
            answer = http.post("/v1/chat/completions", json={**chat, "stream": stream})
            assert answer.headers["tokenwire-dropped-fields"] == "logit_bias, min_p"
        assert "min_p" not in model.requests[0]
    with serving(model, models=["any"]) as http:
        answer = http.post(
            "/v1/responses", json={"model": "any", "input": "Hi", "user": "u", "a": 1}
        )
        assert answer.headers["tokenwire-dropped-fields"] == "a"
        assert model.requests[-1]["user"] == "u", "the same thing on the other wire"
        answer = http.post(
            "/v1/messages",
            json={"model": "any", "max_tokens": 9, "messages": HELLO, "top_k": 5, "temperature": 1},
        )
        assert answer.headers["tokenwire-dropped-fields"] == "top_k"
        assert http.post("/v1/chat/completions", json={**chat, "n": 2}).status_code == 400
    with serving(model, agents=[answer_of], registry=Registry(env={})) as http:
        answer = http.post("/v1/chat/completions", json={**chat, "model": "answer_of"})
        assert answer.headers["tokenwire-dropped-fields"] == "logit_bias, min_p"
    refusing = {"unknown_fields": "refuse"}
    with serving(model, models=["any"], settings=refusing) as http:
        assert http.post("/v1/chat/completions", json=chat).status_code == 400


async def answer_of(prompt: str) -> str:
    return "Hi."


def test_anthropics_client_keeps_its_code() -> None:
    model = ScriptedModel(["Hi."])
    with serving(model, models=["any"]) as http:
        client = anthropic.Anthropic(
            base_url="http://testserver", api_key="k", http_client=http, max_retries=0
        )
        answer = client.messages.with_raw_response.create(
            model="any",
            max_tokens=9,
            messages=HELLO,  # type: ignore[arg-type]
            metadata={"user_id": "u"},
            service_tier="auto",
            extra_body={"top_k": 5, "new_field": 1},
        )
        assert answer.parse().content[0].text == "Hi."  # type: ignore[union-attr]
        assert answer.headers["tokenwire-dropped-fields"] == "metadata, new_field, top_k"


# --- where fields go -------------------------------------------------------------------------

CHAT = {
    "presence_penalty": 0.5, "frequency_penalty": 0.25, "logprobs": True, "user": "u", "top_k": 5,
    "logit_bias": {"1": 2}, "verbosity": "low",
}  # fmt: skip


@pytest.mark.parametrize(
    ("dialect", "wire", "fields", "placed"),
    [
        ("openai-chat", "openai-chat", CHAT, CHAT),
        ("openai-responses", "openai-chat", CHAT, {"user": "u", "text": {"verbosity": "low"}}),
        ("gemini", "openai-chat", CHAT, {"generationConfig": {
            "presencePenalty": 0.5, "frequencyPenalty": 0.25, "topK": 5,
            "responseLogprobs": True}}),
        ("ollama", "openai-chat", CHAT, {"options": {
            "presence_penalty": 0.5, "frequency_penalty": 0.25, "top_k": 5}}),
        ("cohere", "openai-chat", CHAT, {
            "presence_penalty": 0.5, "frequency_penalty": 0.25, "logprobs": True, "k": 5}),
        ("anthropic", "openai-chat", CHAT, {"metadata": {"user_id": "u"}, "top_k": 5}),
        ("bedrock-converse", "openai-chat", CHAT, {}),
        ("anthropic", "anthropic", {"top_k": 5, "x": 1}, {"top_k": 5, "x": 1}),
        ("gemini", "anthropic", {"top_k": 5, "x": 1}, {"generationConfig": {"topK": 5}}),
        ("openai-chat", "anthropic", {"top_k": 5}, {}),
        ("openai-responses", "openai-responses", {"truncation": "auto"}, {"truncation": "auto"}),
        ("openai-chat", "", CHAT, {}),
    ],
)  # fmt: skip
def test_fields_go_where_a_dialect_has_the_same_thing(
    dialect: str, wire: str, fields: dict[str, Any], placed: dict[str, Any]
) -> None:
    speaker = Registry(env={}).dialect(dialect)
    target = Target(provider="p", dialect=dialect, model="m", base_url="http://127.0.0.1:9")
    request = Request(messages=[user("Hello")], temperature=0.5, max_tokens=9)
    plain = speaker.build(request, target)
    passed = PassedFields(wire=wire, fields=fields)
    before, after = json.loads(plain.body), json.loads(with_passed(plain, dialect, passed).body)
    for name, value in placed.items():
        old = before.get(name, {}) if isinstance(value, dict) else None
        assert after.pop(name) == ({**old, **value} if isinstance(value, dict) else value)
        before.pop(name, None)
    assert after == before, "nothing else has changed"
    places = json.dumps(placed)
    assert dropped_fields(dialect, passed) == sorted(
        name for name in fields if json.dumps(fields[name]) not in places
    )


def test_nothing_that_a_dialect_set_is_replaced() -> None:
    speaker = Registry(env={}).dialect("openai-chat")
    target = Target(provider="p", dialect="openai-chat", model="m", base_url="http://127.0.0.1:9")
    plain = speaker.build(Request(messages=[user("Hello")], temperature=0.5), target)
    evil = {"model": "x", "Temperature": 2, "stream": False, "messages": []}
    call = with_passed(plain, "openai-chat", PassedFields(wire="openai-chat", fields=evil))
    assert json.loads(call.body) == json.loads(plain.body)


# --- aliases ---------------------------------------------------------------------------------


def test_an_alias_is_a_model_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    model = ScriptedModel(["Hi."])
    aliases = {"fast": "demo-1", "openai:gpt-5": "demo-2"}
    with serving(model, aliases=aliases, registry=Names(model)) as http:
        listed = http.get("/v1/models").json()["data"]
        assert [entry["id"] for entry in listed] == ["fast", "openai:gpt-5"]
        assert listed[0]["owned_by"] == "scripted"
        answer = openai_client(http).chat.completions.create(model="fast", messages=HELLO)  # type: ignore[arg-type]
        assert answer.choices[0].message.content == "Hi."
        assert model.requests[-1]["model"] == "demo-1"
        body = {"model": "demo-1", "messages": HELLO}
        assert http.post("/v1/chat/completions", json=body).status_code == 404
    assert "'openai:gpt-5' takes the place of the model" in caplog.text
    assert "'fast'" not in caplog.text
    with serving(model, models=["demo-1"], aliases=aliases, registry=Names(model)) as http:
        listed = [entry["id"] for entry in http.get("/v1/models").json()["data"]]
        assert listed == ["demo-1", "fast", "openai:gpt-5"]
        assert http.post("/v1/chat/completions", json=body).status_code == 200


class Names(Registry):
    """Knows the demo's models and one of a provider."""

    def __init__(self, model: ScriptedModel) -> None:
        super().__init__(env={})
        self._model = model

    def resolve(self, name: str) -> Any:
        if name.startswith(("demo-", "openai:")):
            return self._model.resolve(name)
        return super().resolve(name)


@pytest.mark.parametrize(
    ("aliases", "words"),
    [
        (["fast"], "NAME=MODEL"),
        (["=demo"], "NAME=MODEL"),
        (["fast="], "NAME=MODEL"),
        (["a=b", "b=demo"], "leads to the alias 'b'; name its model: demo"),
        (["a=b", "b=a"], "leads to the alias"),
        (["a=a"], "leads to itself"),
        (["a=demo", "a=openai:gpt-5"], "has two models"),
        (["a b=demo"], "printable characters"),
        (["x\ny=demo"], "printable characters"),
    ],
)
def test_aliases_that_make_no_sense_are_refused_at_the_start(
    aliases: list[str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        Settings(alias=aliases)


def test_aliases_of_agents_and_of_nothing_are_refused() -> None:
    for aliases, words in [
        ({"answer_of": "demo"}, "is the name of an agent"),
        ({"fast": "answer_of"}, "leads to an agent"),
        ({"fast": "nothing"}, "the alias 'fast': unknown model"),
        ({"fast": "openai:gpt-5"}, "the alias 'fast': OpenAI is not configured"),
    ]:
        with pytest.raises(Exception, match=words):
            with serving(
                ScriptedModel(),
                agents=[answer_of],
                aliases=aliases,
                registry=Registry(env={}, demo_url="http://127.0.0.1:9"),
            ):
                pass


def test_aliases_come_from_flags_environment_and_file(tmp_path: Any) -> None:
    assert aliases_of("fast=http://127.0.0.1:9/v1?#m") == {"fast": "http://127.0.0.1:9/v1?#m"}
    settings = load_settings({"alias": ["fast=demo"]}, environ={})
    assert (settings.aliases, settings.model) == ({"fast": "demo"}, ["fast"])
    settings = load_settings(environ={"TOKENWIRE_ALIAS": "a=demo,b=openai:gpt-5"})
    assert settings.aliases == {"a": "demo", "b": "openai:gpt-5"}
    file = tmp_path / "tokenwire.toml"
    file.write_text('model = ["openai:x"]\n[alias]\nfast = "demo"\n')
    settings = load_settings(environ={}, config=file)
    assert (settings.aliases, settings.model) == ({"fast": "demo"}, ["openai:x", "fast"])
