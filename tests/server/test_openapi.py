"""The OpenAPI document: it describes every route, is what the server does, and needs no network."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
import schemathesis
from fastapi import Depends, FastAPI
from hypothesis import HealthCheck, Phase, given, seed, settings
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.applications import Starlette
from starlette.routing import Mount, Route, WebSocketRoute

from support.mounted import everybody, live_of
from support.mounted import serving as serving_app
from support.server import AS_A, KEYS, Site, make_app
from support.server import site as serving
from tokenwire.server.openapi.catalogue import OPERATIONS, SOCKETS, plain_path
from tokenwire.server.openapi.document import document
from tokenwire.server.openapi.durable import REFUSED
from tokenwire.server.openapi.problems import STATUS

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    # What follows a conversation has no end of its own.
    bounds = {"max_age": 1.0, "long_poll_timeout": 0.5}
    with serving(durable_streams="readwrite", chat_get="on", usage=True, **bounds) as running:
        yield running


# --- what is described ---------------------------------------------------------------------------


def test_every_route_has_a_description_and_every_description_a_route() -> None:
    app = make_app(durable_streams="readwrite", chat_get="on")
    served: set[tuple[str, str]] = set()
    sockets: set[str] = set()
    for name, routes in app.wires.items():
        for route in routes if name != "page" else ():
            if isinstance(route, WebSocketRoute):
                sockets.add(route.path)
                continue
            assert isinstance(route, Route)
            methods = route.methods or set()
            path = plain_path(route.path)
            is_head_of_get = "GET" in methods and ("HEAD", path) not in OPERATIONS
            served |= {(m, path) for m in methods - ({"HEAD"} if is_head_of_get else set())}
    assert served - REFUSED == set(OPERATIONS)
    assert sockets == set(SOCKETS)


def test_what_is_refused_is_refused(site: Site) -> None:
    assert REFUSED
    for method, path in sorted(REFUSED):
        if method == "OPTIONS":
            continue
        answer = site.client.request(method, re.sub(r"\{\w+\}", "x", path), json={})
        is_head_of_get = method == "HEAD" and ("GET", path) in OPERATIONS
        assert answer.status_code == 405 or is_head_of_get, (method, path, answer.status_code)


def refs(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from refs(item)
    elif isinstance(value, list):
        for item in value:
            yield from refs(item)


@pytest.mark.parametrize("version", ["3.1", "3.2"])
def test_the_document_is_whole(version: Any) -> None:
    value = document(OPERATIONS, SOCKETS, version=version)
    assert value["openapi"].startswith(version)
    components = value["components"]
    for name, schema in components["schemas"].items():
        Draft202012Validator.check_schema(schema)
        for pattern in re.findall(r"'pattern': '([^']*)'", str(schema)):
            assert "\\A" not in pattern, name
    for ref in set(refs(value)):
        _, _, kind, name = ref.split("/")
        assert name in components[kind], ref
    used = set(refs(value))
    assert {f"#/components/schemas/{name}" for name in components["schemas"]} <= used
    names = [op["operationId"] for path in value["paths"].values() for op in path.values()]
    assert len(names) == len(set(names)) == len(OPERATIONS)
    assert ("itemSchema" in str(value)) is (version == "3.2")


def test_every_code_has_a_status_and_stands_in_its_answer() -> None:
    value = document(OPERATIONS, SOCKETS)
    seen: set[str] = set()
    for path in value["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                name = response.get("$ref", "").rpartition("/")[2]
                codes = [code for code in name.split(".") if code in STATUS]
                assert all(STATUS[code] == int(status) or code == "busy" for code in codes), name
                seen |= set(codes)
    assert {"bad_request", "unknown_run", "bad_cursor", "busy", "internal"} <= seen


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        ("OpenAIChatRequest", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("OpenAIResponsesRequest", {"input": "Hi"}),
        ("AnthropicRequest", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}),
        ("AnthropicCountRequest", {"messages": [{"role": "user", "content": "Hi"}]}),
    ],
)
def test_fields_that_are_passed_on_stand_in_the_document(
    site: Site, schema: str, body: dict[str, Any]
) -> None:
    schemas = document(OPERATIONS, SOCKETS)["components"]["schemas"]
    check = Draft202012Validator(schemas[schema])
    path = {
        "OpenAIChatRequest": "/v1/chat/completions",
        "OpenAIResponsesRequest": "/v1/responses",
        "AnthropicRequest": "/v1/messages",
        "AnthropicCountRequest": "/v1/messages/count_tokens",
    }[schema]
    for name, is_plain in (("top_k", True), ("min_p", True), ("9 lives", False)):
        asked = {"model": "demo", **body, name: 1}
        assert check.is_valid(asked) is is_plain
        answer = site.client.post(path, json=asked)
        assert (answer.status_code == 200) is is_plain, answer.text


# --- where it is ---------------------------------------------------------------------------------


def test_both_versions_and_no_other(site: Site) -> None:
    newest, older = site.client.get("/openapi.json"), site.client.get("/openapi.json?version=3.1")
    assert newest.headers["content-type"] == "application/json"
    assert newest.json()["openapi"] == "3.2.0"
    assert older.json()["openapi"] == "3.1.1"
    for query, words in (
        ("version=2", "'version' must be one of 3.2, 3.1"),
        ("version=", "'version' must be one of 3.2, 3.1"),
        ("versoin=3.1", "unknown parameter 'versoin'"),
    ):
        answer = site.client.get(f"/openapi.json?{query}")
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, words)


def test_it_says_nothing_of_this_deployment(site: Site) -> None:
    text = site.client.get("/openapi.json").text
    assert '"servers":[{"url":"/"}]' in text
    assert str(site.port) not in text
    assert "scenario" not in text


@pytest.mark.parametrize(
    ("setting", "without", "with_key"), [("public", 200, 200), ("key", 401, 200), ("off", 401, 404)]
)
def test_who_may_read_it(setting: str, without: int, with_key: int) -> None:
    with serving(api_keys=KEYS, openapi=setting) as site:
        for path in ("/openapi.json", "/docs"):
            assert site.client.get(path).status_code == without, path
            assert site.client.get(path, headers=AS_A).status_code == with_key, path


def test_under_a_prefix_its_server_is_the_prefix() -> None:
    live = live_of(user=lambda connection: None)
    app = Starlette(routes=[Mount("/ai", live.asgi)], lifespan=live.lifespan)
    with serving_app(app) as url:
        value = httpx.get(url + "/ai/openapi.json").json()
        assert value["servers"] == [{"url": "/ai"}]
        assert "/v1/runs" in value["paths"]
        assert '"/ai/openapi.json"' in httpx.get(url + "/ai/docs").text
        assert httpx.get(url + "/ai/v1/runs").status_code == 401


def test_in_fastapi_the_document_is_the_hosts_own() -> None:
    live = live_of()
    app = FastAPI(lifespan=live.lifespan)
    app.include_router(live.router(prefix="/ai", user=Depends(everybody)))
    value = app.openapi()
    assert not [ref for ref in refs(value) if "tokenwire" in ref.lower()]
    events = value["paths"]["/ai/v1/runs/{run}/events"]["get"]
    assert {p["name"] for p in events["parameters"]} == {"run", "Last-Event-ID", "after", "live"}
    assert {"200", "204", "400", "404", "410"} <= set(events["responses"])
    create = value["paths"]["/ai/v1/runs"]["post"]
    fields = create["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert {"prompt", "messages", "thread"} <= set(fields)
    assert set(create["responses"]) >= {"200", "201", "422", "429"}
    for ref in refs(value):
        assert ref.rpartition("/")[2] in value["components"]["schemas"], ref
    assert "/ai/openapi.json" not in value["paths"]


def test_a_router_of_some_wires_describes_these() -> None:
    live = live_of()
    app = FastAPI(lifespan=live.lifespan)
    wires = ["openai", "openapi"]
    app.include_router(live.router(prefix="/ai", user=everybody, wires=wires))
    with serving_app(app) as url:
        value = httpx.get(url + "/ai/openapi.json").json()
        assert value["servers"] == [{"url": "/ai"}]
        assert "/v1/responses" in value["paths"]
        assert not set(value["paths"]) & {"/v1/runs", "/api/chat"}


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names[tag] += 1
        for name, value in attrs:
            assert not name.startswith("on")
            assert name != "style"
            if name in ("href", "src", "action"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.add(value or "")


def test_the_page_loads_nothing_and_runs_nothing(site: Site) -> None:
    answer = site.client.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(
        part.strip().partition(" ")[::2]
        for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert "script-src" not in policy
    tags = Tags(answer.text)
    assert not set(tags.names) & {"script", "link", "img", "iframe", "form", "object"}
    style = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    assert tags.names["style"] == len(style) == 1
    digest = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    assert policy["style-src"] == f"'sha256-{digest}'"
    for address in tags.addresses:
        if address.startswith("#"):
            assert address[1:] in tags.ids, address
        else:
            assert site.client.get(address).status_code == 200, address
    assert tags.names["details"] > len(OPERATIONS)


# --- what it says is true ------------------------------------------------------------------------

ASKED = [{"role": "user", "content": "Hello"}]
UI = {"id": "chat-2", "messages": [{"role": "user", "parts": [{"type": "text", "text": "Hi"}]}]}
#: What no schema can say: bodies that start an answer here.
GOOD: dict[str, dict[str, Any]] = {
    "/v1/runs": {
        "prompt": "Hello",
        "messages": None,
        "model": "demo",
        "history": None,
        "while_busy": None,
        "parent": None,
        "replaces": None,
    },
    "/v1/threads/{thread}": {"title": "Tea", "history": "last:3", "while_busy": None},
    "/v1/threads/{thread}/head": {"run": "the run"},
    "/api/chat": {**UI, "message": None, "model": None, "tokenwire": None},
    "/ds/chat": {**UI, "message": None, "model": None, "tokenwire": None},
    "/ag-ui": {
        "threadId": "t",
        "messages": [{"id": "1", **ASKED[0]}],
        "tools": None,
        "context": None,
        "forwardedProps": None,
    },
    "/v1/producers": {"prompt": "Hello"},
    "/v1/chat/completions": {"model": "demo", "messages": ASKED},
    "/v1/responses": {"model": "demo", "input": "Hello"},
    "/v1/messages": {"model": "demo", "messages": ASKED, "max_tokens": 100},
    "/v1/messages/count_tokens": {"model": "demo", "messages": ASKED},
    **{
        f"/v1/budgets/{of}": {"budgets": [{"period": "day", "unit": "tokens", "most": 10**12}]}
        for of in ("{whose}", "{whose}/{owner}")
    },
    **{
        f"{base}/message:{word}": {"message": {"messageId": word, "parts": [{"text": "Hello"}]}}
        for base in ("/a2a", "/a2a/{tenant}")
        for word in ("send", "stream")
    },
    "/a2a": {"jsonrpc": "2.0", "id": 1, "method": "ListTasks", "params": {}},
    **{
        f"/langgraph{base}/runs{path}": {"input": {"messages": [{"type": "human", "content": "x"}]}}
        for base in ("", "/threads/{thread}")
        for path in ("", "/stream", "/wait")
    },
    "/langgraph/threads/{thread}/state/checkpoint": {"checkpoint": {"checkpoint_id": "root"}},
    "/langgraph/threads/{thread}/stream/events": {"channels": ["values"]},
    "/langgraph/threads/{thread}/commands": {
        "id": 1,
        "method": "run.start",
        "params": {"input": {"messages": [{"type": "human", "content": "x"}]}},
    },
    "/ds/v1/stream/__ds/subscriptions/{name}": {
        "type": "pull-wake",
        "pattern": "own/*",
        "streams": [],
        "wake_stream": "wake",
    },
    "/ds/v1/stream/__ds/subscriptions/{name}/streams": {"streams": ["own"]},
}
#: Of these bodies nothing is left that was made up: their parsers refuse some of what it may be.
STRICT = (
    "/v1/producers",
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    *(path for path in GOOD if path.startswith(("/a2a", "/langgraph"))),
)
PLACES = ("Last-Event-ID", "after", "model", "before", "offset", "X-Run-Id", "starting_after")
PLACES += ("If-Match", "Tokenwire-Reader", "tenant", "principal")
PLACES += ("history", "while_busy", "thread", "pageToken", "contextId", "statusTimestampAfter")


def made_good(case: Any, path: str, number: int, run: str) -> None:
    """Put what exists in place of what was made up."""
    names = {"run": run, "response": f"resp_{run}", "thread": "chat-1", "model": "demo"}
    names |= {"task": run, "tenant": "demo", "whose": "principal"}
    names |= {"assistant": "demo", "checkpoint": "root"}
    names |= {"chat": "chat-1", "path": "own", "name": "one"}
    names["wire"] = ("ui", "ag-ui", "openai-chat", "openai-responses", "anthropic")[number % 5]
    for name in case.path_parameters:
        case.path_parameters[name] = names.get(name, "x")
    for fields in (case.headers, case.query):
        for name in PLACES:
            (fields or {}).pop(name, None)
    good = GOOD.get(path)
    if good is not None and isinstance(case.body, dict):
        stream = {"stream": case.body["stream"]} if "stream" in case.body else {}
        case.body = {**({} if path in STRICT else case.body), **stream, **good}
        if "run" in good:
            case.body["run"] = run


def ask_of(site: Site, operation: Any, run: str, examples: int) -> Counter[int]:
    """Ask the server what the document says; the statuses of its answers."""
    statuses: Counter[int] = Counter()
    path = operation.path
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        if mode is GenerationMode.NEGATIVE and not list(operation.body):
            continue  # hardly any path, query or header is not a text

        @seed(7)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            number = statuses.total()
            is_kept = operation.method.upper() != "DELETE" or path.startswith("/v1/budgets")
            if number % 2 and is_kept and path != "/v1/session":
                made_good(case, path, number, run)
            if path == "/v1/probe" and isinstance(case.query.get("seconds"), float | int):
                case.query["seconds"] = min(case.query["seconds"], 0.2)  # it takes that long
            response = case.call(base_url=site.url, timeout=60)
            statuses[response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

        ask()
    return statuses


#: What has a success only in a state that is made elsewhere: a run that waits,
#: a run that its producer writes (tests/server/test_producers.py), a wake, a webhook.
WITHOUT_SUCCESS = {
    *(
        f"{method} {base}/tasks/{{task}}:{word}"
        for base in ("/a2a", "/a2a/{tenant}")
        for method, word in (("POST", "cancel"), ("GET", "subscribe"), ("POST", "subscribe"))
    ),
    *(  # which this server does not send
        f"{method} {base}/tasks/{{task}}/pushNotificationConfigs{end}"
        for base in ("/a2a", "/a2a/{tenant}")
        for method, end in (
            ("GET", ""),
            ("POST", ""),
            ("GET", "/{config}"),
            ("DELETE", "/{config}"),
        )
    ),
    "DELETE /v1/runs/{run}",
    "DELETE /langgraph/threads/{thread}/runs/{run}",
    "POST /v1/runs/{run}/approvals/{approval}",
    "POST /v1/runs/{run}/approvals/{approval}/links",
    "DELETE /v1/runs/{run}/approvals/{approval}/links",
    "DELETE /v1/runs/{run}/approvals/{approval}/links/{link}",
    "GET /v1/approval-links/{token}",
    "POST /v1/approval-links/{token}",
    "POST /v1/runs/{run}/tools/{call}",
    "GET /v1/producers/{run}",
    "GET /v1/producers/{run}/commands",
    "POST /v1/producers/{run}/claim",
    "POST /v1/producers/{run}/events",
    "POST /v1/producers/{run}/finish",
    "POST /v1/producers/{run}/renew",
    "POST /api/chat/{chat}/approval",
    "GET /v1/threads/{thread}/queue/{run}",
    "PUT /v1/threads/{thread}/queue/{run}",
    "DELETE /v1/threads/{thread}/queue/{run}",
    "POST /v1/threads/{thread}/queue/{run}/now",
    "PUT /v1/threads/{thread}/members/{principal}",  # a server without keys knows no principals
    "DELETE /v1/threads/{thread}/members/{principal}",
    "POST /v1/threads/{thread}/invites",
    "DELETE /v1/threads/{thread}/invites/{invite}",
    "POST /v1/invites/accept",
    "DELETE /v1/responses/{response}",
    "DELETE /v1/runs/{run}/attach-tokens",
    "GET /ds/v1/stream/__ds/jwks.json",
    "POST /ds/v1/stream/__ds/subscriptions/{name}/claim",
    "POST /ds/v1/stream/__ds/subscriptions/{name}/ack",
    "POST /ds/v1/stream/__ds/subscriptions/{name}/callback",
    "POST /ds/v1/stream/__ds/subscriptions/{name}/release",
    "DELETE /ds/v1/stream/__ds/subscriptions/{name}/streams/{path}",
}


def test_the_server_answers_as_the_document_says(site: Site) -> None:
    """Bodies, parameters and headers made up from the document, right and wrong ones."""
    run = site.start("scenario:text", thread="chat-1")
    site.frames(f"/v1/runs/{run}/events")
    for path in ("wake", "own"):
        made = site.client.put(
            f"/ds/v1/stream/{path}", headers={"content-type": "application/json"}
        )
        assert made.status_code == 201
    schema = schemathesis.openapi.from_dict(site.client.get("/openapi.json").json())
    operations = {op.ok().label: op.ok() for op in schema.get_all_operations()}
    assert len(operations) == len(OPERATIONS)
    # A subscription is made before it is read, and everything is read before it is deleted.
    order = ("PUT", "POST", "GET", "HEAD", "OPTIONS", "DELETE")
    ordered = sorted(operations.items(), key=lambda item: order.index(item[1].method.upper()))
    unanswered = set()
    for label, operation in ordered:
        # What is made up differs: four may all be wrong ones.
        for examples in (4, 1 if label in WITHOUT_SUCCESS else 50):
            if any(status < 300 for status in ask_of(site, operation, run, examples=examples)):
                break
        else:
            unanswered.add(label)
    assert unanswered <= WITHOUT_SUCCESS


def test_a_document_that_is_not_true_is_refused_by_this_test(site: Site) -> None:
    value = site.client.get("/openapi.json").json()
    del value["paths"]["/v1/runs/{run}"]["get"]["responses"]["404"]
    value["components"]["schemas"]["Models"]["properties"]["data"] = {"type": "string"}
    schema = schemathesis.openapi.from_dict(value)
    for path in ("/v1/runs/{run}", "/v1/models"):
        with pytest.raises(FailureGroup, match="distinct failure"):
            ask_of(site, schema[path]["GET"], "none", examples=2)
