"""Descriptions to an OpenAPI document, 3.2 or 3.1.

Always true: every schema is made from a type of the code or from `openapi.foreign`; a document
holds exactly the schemas that it uses; the same routes give the same document.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import msgspec

from tokenwire import __version__
from tokenwire.events.model import EVENT_TYPES
from tokenwire.server.openapi import shapes
from tokenwire.server.openapi.catalogue import PARAMETERS
from tokenwire.server.openapi.foreign import BODIES, CHUNKS
from tokenwire.server.openapi.langgraph import schemas as langgraph
from tokenwire.server.openapi.operation import (
    EVENT_STREAM,
    JSON,
    Answer,
    Operation,
    Socket,
    header,
)
from tokenwire.server.openapi.problems import PROVIDER, codes_of
from tokenwire.server.spending.budgets import HEADER as BUDGET_HEADER

__all__ = ["Version", "document", "operation_fields", "schemas"]

Version = Literal["3.1", "3.2"]
Json = dict[str, Any]

_REF = "#/components/schemas/"
_FULL = {"3.1": "3.1.1", "3.2": "3.2.0"}
_PATH_NAME = re.compile(r"\{(\w+)\}")
_WORDS = re.compile(r"\W+")
_PROBLEMS = {
    "native": "Problem",
    "openai": "OpenAIProblem",
    "anthropic": "AnthropicProblem",
    "a2a": "A2AProblem",
    "rpc": "A2AAnswer",
    "langgraph": "LangGraphProblem",
}
_ABOUT = (
    "Bring a model's answer to people while it is being written, and never lose or repeat a word "
    "of it."
)
#: What every request may bring that changes something; requests that only read may as well.
_READER = header(
    "Tokenwire-Reader",
    "Whom the caller takes itself for, as `reader` of `GET /v1/threads` says: the request is "
    "refused to every other principal.",
)
_BUDGET = (
    "What is left of each budget, where any holds: "
    "`principal/day; unit=tokens; left=1200; most=200000; resets=3600, ...`. Also of a 402."
)
#: The wires whose requests wait for a provider, so that its failures are their statuses.
_WAITING = ("/v1/chat/completions", "/v1/responses", "/v1/messages")


def document(
    operations: dict[tuple[str, str], Operation],
    sockets: dict[str, Socket],
    *,
    version: Version = "3.2",
) -> Json:
    """The document of these routes; ``servers`` is for the caller to add."""
    paths: Json = {}
    problems: Json = {}
    for (method, path), operation in operations.items():
        fields = operation_fields(method, path, operation, version=version)
        _share(fields["responses"], operation.form, problems)
        paths.setdefault(path, {})[method.lower()] = fields
    all_schemas = schemas()
    tags = dict.fromkeys(operation.tag for operation in operations.values())
    value: Json = {
        "openapi": _FULL[version],
        "info": {"title": "tokenwire", "version": __version__, "description": _ABOUT},
        "tags": [{"name": tag} for tag in tags],
        "paths": paths,
        "components": {
            "schemas": _used([paths, problems], all_schemas),
            "responses": dict(sorted(problems.items())),
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key."},
                "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of the route's own.",
                },
            },
        },
    }
    if sockets:
        value["x-websockets"] = {path: msgspec.to_builtins(s) for path, s in sockets.items()}
    return value


def operation_fields(
    method: str, path: str, operation: Operation, *, version: Version, inline: bool = False
) -> Json:
    """One operation object. ``inline``: with every schema in its place, for documents of others."""
    fields: Json = {
        "operationId": f"{method.lower()}{_WORDS.sub('_', path)}".strip("_"),
        "summary": operation.summary,
        "tags": [operation.tag],
    }
    if operation.text:
        fields["description"] = operation.text
    parameters = _parameters(method, path, operation)
    if parameters:
        fields["parameters"] = parameters
    if operation.body is not None:
        fields["requestBody"] = {
            "required": operation.body.required,
            "content": {operation.body.content: {"schema": _schema(operation.body.type)}},
        }
    fields["responses"] = _responses(method, path, operation, version)
    fields["security"] = {
        "key": [{"key": []}, {"header": []}, {}],
        "token": [{"token": []}],
        "none": [],
    }[operation.access]
    if inline:
        del fields["security"]  # the application around has its own login
        return _inlined(fields, schemas())
    return fields


def _parameters(method: str, path: str, operation: Operation) -> list[Json]:
    in_path = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": PARAMETERS[name],
            "schema": {"type": "string", "minLength": 1},
        }
        for name in _PATH_NAME.findall(path)
    ]
    has_reader = operation.access == "key" and method not in ("GET", "HEAD", "OPTIONS")
    others = [
        {"name": p.name, "in": p.place, "description": p.text, "schema": _clean(p.schema)}
        for p in (*operation.params, *([_READER] if has_reader else []))
    ]
    return in_path + others


def _responses(method: str, path: str, operation: Operation, version: Version) -> Json:
    responses: Json = {}
    for answer in operation.answers:
        response = responses.setdefault(str(answer.status), {"description": answer.text})
        if answer.text not in response["description"]:
            response["description"] += f"; {answer.text[0].lower()}{answer.text[1:]}"
        named = _headers(answer, operation)
        if named:
            header_fields = {n: {"description": t, "schema": {"type": "string"}} for n, t in named}
            response.setdefault("headers", {}).update(header_fields)
        for media_type, body in _content(answer, version).items():
            content = response.setdefault("content", {})
            content[media_type] = _either(content.get(media_type), body)
    for status, codes in codes_of(method, path, operation).items():
        problem = _problem_of(operation.form, codes)
        there = responses.setdefault(str(status), problem)
        if there is not problem:
            content = there["content"]
            content[JSON] = _either(content[JSON], problem["content"][JSON])
    if path.startswith(_WAITING) and method == "POST":
        for status in PROVIDER:
            responses[str(status)] = _problem_of(operation.form, [])
    return dict(sorted(responses.items()))


def _share(responses: Json, form: str, problems: Json) -> None:
    """Put the errors of an operation among ``problems``, and refer to them."""
    for status, response in responses.items():
        codes = re.findall(r"`(\w+)`", response["description"]) if status >= "400" else []
        if codes and response == _problem_of(form, codes):
            name = ".".join(codes) if form == "native" else f"{form}.{'.'.join(codes)}"
            problems[name] = response
            responses[status] = {"$ref": f"#/components/responses/{name}"}


def _either(one: Json | None, other: Json) -> Json:
    """A body of one of two kinds."""
    if one is None or one == other:
        return other
    return {"schema": {"anyOf": [*one["schema"].get("anyOf", [one["schema"]]), other["schema"]]}}


def _headers(answer: Answer, operation: Operation) -> list[tuple[str, str]]:
    """What is said in the head of a success, also of every start, on whatever wire."""
    more = {BUDGET_HEADER: _BUDGET} if "budget" in operation.problems else {}
    return sorted((answer.headers | more).items())


def _content(answer: Answer, version: Version) -> Json:
    if answer.items is not None:
        if version == "3.1":
            return {answer.content: {"schema": {"type": "string"}}}
        items = _schema(answer.items)
        has_form = isinstance(answer.items, str) and answer.items in _FRAMES
        is_data = answer.content == EVENT_STREAM and not has_form
        has_end = answer.items in _WITH_DONE
        return {answer.content: {"itemSchema": _frame(items, has_end) if is_data else items}}
    if answer.type is None:
        return {}
    return {answer.content: {"schema": _schema(answer.type)}}


def _frame(data: Json, has_end: bool) -> Json:
    """One server-sent event whose data is JSON; ``has_end``: or the sentinel."""
    json_data: Json = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": data,
    }
    return {
        "type": "object",
        "required": ["data"],
        "properties": {
            "id": {"type": "string"},
            "event": {"type": "string"},
            "retry": {"type": "integer"},
            "data": {"anyOf": [{"const": "[DONE]"}, json_data]} if has_end else json_data,
        },
    }


#: What ends with ``data: [DONE]``.
_WITH_DONE = ("UIMessageChunk", "ChatCompletionChunk", "AnyChunk")


#: Events that have a form of their own.
_FRAMES: dict[str, Json] = {
    "TokenEvent": {
        "description": "A piece of the text, or the end of it.",
        "type": "object",
        "required": ["event", "data"],
        "properties": {
            "id": {"type": "string"},
            "event": {"enum": ["token", "done", "error"]},
            "data": {"type": "string"},
        },
    },
    "DurableEvent": {
        "description": "Appended data, or where the stream is now.",
        "type": "object",
        "required": ["event", "data"],
        "properties": {
            "id": {"type": "string"},
            "event": {"enum": ["data", "control"]},
            "data": {"type": "string"},
        },
    },
}


def _problem_of(form: str, codes: list[str]) -> Json:
    shape: Json = {"$ref": _REF + _PROBLEMS[form]}
    if form == "native" and codes:
        code = {"type": "object", "properties": {"code": {"enum": sorted(codes)}}}
        named = {"type": "object", "properties": {"error": code}}
        shape = {"allOf": [shape, named]}
    text = ", ".join(f"`{code}`" for code in sorted(codes)) or "the provider failed"
    return {"description": text, "content": {JSON: {"schema": shape}}}


def _schema(kind: Any) -> Json:
    """The schema of a type, by reference where it has a name."""
    if isinstance(kind, str):
        return {"$ref": _REF + kind}
    if isinstance(kind, dict):
        return _clean(kind)
    if kind is dict:
        return _clean({"type": "object"})
    (schema,), _ = msgspec.json.schema_components((kind,), ref_template=_REF + "{name}")
    return schema


_SCHEMAS: Json = {}


def schemas() -> Json:
    """Every named schema."""
    if not _SCHEMAS:
        kinds = [*EVENT_TYPES.values(), *_types()]
        _, components = msgspec.json.schema_components(kinds, ref_template=_REF + "{name}")
        _SCHEMAS.update({name: _clean(schema) for name, schema in components.items()})
        for name in (kind.__name__ for kind in EVENT_TYPES.values()):
            _SCHEMAS[name]["properties"].pop("extra", None)
        _SCHEMAS["Event"] = {
            "description": "An event of a run. Types that are not listed may come.",
            "anyOf": [{"$ref": _REF + kind.__name__} for kind in EVENT_TYPES.values()],
        }
        _SCHEMAS["StreamedEvent"] = {"$ref": _REF + "Event"}
        _SCHEMAS["EventAt"]["properties"]["event"] = {
            "anyOf": [{"$ref": _REF + "Event"}, {"type": "object", "required": ["type"]}]
        }
        _SCHEMAS.update(
            _clean({**BODIES, **CHUNKS, **langgraph.BODIES, **langgraph.SHAPES, **_FRAMES})
        )
    return _SCHEMAS


def _types() -> list[Any]:
    from tokenwire.server.openapi.catalogue import OPERATIONS

    kinds: list[Any] = [shapes.Problem]
    for operation in OPERATIONS.values():
        kinds += [kind for answer in operation.answers for kind in (answer.type, answer.items)]
        kinds += [operation.body.type] if operation.body is not None else []
    return [kind for kind in kinds if kind is not None and not isinstance(kind, str | dict)]


def _clean(schema: Any) -> Any:
    """A schema in JSON Schema's own words: patterns without Python's anchors, prose without marks
    of docstrings. A value that may be absent is no `default`, which generators of clients take for
    a promise that it is there."""
    if isinstance(schema, list):
        return [_clean(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    cleaned = {
        name: {key: _clean(item) for key, item in value.items()}
        if name == "properties"
        else _clean(value)
        for name, value in schema.items()
        if name != "default"
    }
    if schema.get("default"):
        cleaned["description"] = f"`{json.dumps(schema['default'])}` where it is absent."
    if isinstance(pattern := cleaned.get("pattern"), str):
        cleaned["pattern"] = pattern.replace(r"\A", "^").replace(r"\Z", "$")
    if isinstance(text := cleaned.get("description"), str):
        cleaned["description"] = " ".join(text.replace("``", "`").split())
    if "object" in cleaned.get("type", ()) and "properties" not in cleaned:
        cleaned.setdefault("additionalProperties", True)
    return cleaned


def _used(value: Any, all_schemas: Json) -> Json:
    """The schemas that ``value`` needs."""
    names: dict[str, None] = {}
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            ref = item.get("$ref")
            name = ref.removeprefix(_REF) if isinstance(ref, str) else ""
            if name in all_schemas and name not in names:
                names[name] = None
                pending.append(all_schemas[name])
            pending += item.values()
        elif isinstance(item, list):
            pending += item
    return {name: all_schemas[name] for name in sorted(names)}


def _inlined(value: Any, all_schemas: Json) -> Any:
    """``value`` with every schema in its place; no schema of ours holds itself."""
    if isinstance(value, list):
        return [_inlined(item, all_schemas) for item in value]
    if not isinstance(value, dict):
        return value
    ref = value.get("$ref")
    if isinstance(ref, str):
        return _inlined(all_schemas[ref.removeprefix(_REF)], all_schemas)
    return {name: _inlined(item, all_schemas) for name, item in value.items() if name != "mapping"}
