"""Failures in the forms that gateways, proxies and clouds give them, on every wire and at every
place of an answer: each is told as the error that it is; and what is no failure harms nothing."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from support.answers import ANSWERS, error_of, events_of, sse, status_of
from support.corpus import decode
from tokenwire.events.model import Error
from tokenwire.providers.registry import Registry
from tokenwire.providers.summary import facts

AUTH, DENIED, LIMITED = "provider_auth", "provider_permission", "rate_limited"
DOWN, BAD, OTHER = "overloaded", "provider_bad_request", "provider_error"
OVERFLOW, MISSING, PROTOCOL = "context_overflow", "model_not_found", "protocol_error"
#: Failures after which another try may succeed.
AGAIN = {LIMITED, DOWN}

SHAPES: list[tuple[str, Any]] = [
    (OTHER, {"status": "error"}),
    (OTHER, {"status": "failed"}),
    (OTHER, {"success": False}),
    (OTHER, {"ok": False, "message": "x"}),
    (LIMITED, {"ok": False, "error_code": 429, "description": "Too Many Requests"}),
    (OTHER, {"err": "x"}),
    (AUTH, {"err": "invalid api key"}),
    (
        LIMITED,
        {
            "fault": {
                "faultstring": "Rate limit quota violation. Quota limit exceeded.",
                "detail": {"errorcode": "policies.ratelimit.QuotaViolation"},
            }
        },
    ),
    (
        AUTH,
        {
            "fault": {
                "faultstring": "Invalid ApiKey",
                "detail": {"errorcode": "oauth.v2.InvalidApiKey"},
            }
        },
    ),
    (DENIED, {"Message": "User: x is not authorized to perform: bedrock:InvokeModel"}),
    (AUTH, {"message": "The security token included in the request is invalid."}),
    (
        LIMITED,
        {
            "__type": "ThrottlingException",
            "message": "Too many tokens, please wait before trying again.",
        },
    ),
    (DENIED, {"__type": "com.amazon.coral.service#AccessDeniedException", "Message": "no"}),
    (LIMITED, {"message": "Too many requests"}),
    (DENIED, {"message": "Forbidden"}),
    (AUTH, {"message": "Unauthorized"}),
    (DOWN, {"message": "Endpoint request timed out"}),
    (DOWN, {"message": "Internal server error"}),
    (DOWN, {"message": "Service Unavailable"}),
    (
        LIMITED,
        {"type": "about:blank", "title": "Too Many Requests", "status": 429, "detail": "slow down"},
    ),
    (AUTH, {"title": "Unauthorized", "status": 401}),
    (
        OVERFLOW,
        {
            "title": "Bad Request",
            "status": 400,
            "detail": "Input is too long for the model's context window",
        },
    ),
    (LIMITED, {"error": "rate limit exceeded"}),
    (OTHER, {"error": "text"}),
    (AUTH, {"error": True, "message": "Invalid API key"}),
    (AUTH, {"error": 1, "message": "Invalid API key"}),
    (
        AUTH,
        {
            "error": {
                "code": 400,
                "message": "API key not valid. Please pass a valid API key.",
                "status": "INVALID_ARGUMENT",
            }
        },
    ),
    (
        LIMITED,
        [{"error": {"code": 429, "message": "Resource exhausted", "status": "RESOURCE_EXHAUSTED"}}],
    ),
    (
        DOWN,
        [{"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}],
    ),
    (
        OVERFLOW,
        {
            "object": "error",
            "message": "This model's maximum context length is 4096 tokens",
            "type": "BadRequestError",
            "code": 400,
        },
    ),
    (LIMITED, {"code": 429, "message": "x"}),
    (AUTH, {"code": "InvalidApiKey", "message": "Invalid API-key provided.", "request_id": "r"}),
    (AUTH, {"detail": "Not authenticated"}),
    (OTHER, {"detail": "Not Found"}),
    (
        BAD,
        {
            "detail": [
                {"loc": ["body", "x"], "msg": "field required", "type": "value_error.missing"}
            ]
        },
    ),
    (DENIED, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}),
    (LIMITED, {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}),
    (LIMITED, {"error_code": 17, "error_msg": "Open api daily request limit reached"}),
    (
        AUTH,
        {
            "success": False,
            "errors": [{"code": 10000, "message": "Authentication error"}],
            "messages": [],
            "result": None,
        },
    ),
    (
        DOWN,
        {
            "errors": [{"message": "AiError: capacity temporarily exceeded", "code": 3040}],
            "success": False,
            "result": {},
            "messages": [],
        },
    ),
    (OTHER, {"type": "error", "message": "x"}),
    (DOWN, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    (OTHER, {"errors": ["x"]}),
    (OTHER, {"error_msg": "x"}),
    (DOWN, {"errorMessage": "Task timed out after 3.00 seconds", "errorType": "Runtime.ExitError"}),
    (
        DOWN,
        {
            "timestamp": "2026-11-01T00:00:00Z",
            "status": 500,
            "error": "Internal Server Error",
            "path": "/v1/chat/completions",
        },
    ),
    (AUTH, {"statusCode": 401, "message": "Access denied due to invalid subscription key."}),
    (LIMITED, {"statusCode": 429, "message": "Rate limit is exceeded. Try again in 27 seconds."}),
    (DENIED, {"Error": {"Code": "AccessDenied", "Message": "x"}}),
    (
        AUTH,
        {
            "Response": {
                "Error": {"Code": "AuthFailure.SecretIdNotFound", "Message": "x"},
                "RequestId": "r",
            }
        },
    ),
    (OTHER, {"result": "error", "message": "x"}),
    (LIMITED, {"status": "error", "data": None, "message": "quota exceeded"}),
    (AUTH, {"status": {"code": 401, "message": "x"}}),
    (DENIED, {"code": 1113, "msg": "余额不足", "success": False}),
    (LIMITED, {"error": {"code": "1302", "message": "您的账户已达到速率限制"}}),
    (
        LIMITED,
        {
            "error": {
                "message": "Rate limit reached",
                "type": "tokens",
                "code": "rate_limit_exceeded",
            }
        },
    ),
    (
        OVERFLOW,
        {
            "error": {
                "type": "invalid_request_error",
                "message": "prompt is too long: 210000 tokens > 200000 maximum",
            }
        },
    ),
    (OTHER, {"error": {"message": "", "code": None}}),
    (OTHER, {"error": {}}),
    (LIMITED, {"error": {"http_code": 429, "message": "x"}}),
    (AUTH, {"errors": {"message": "Invalid API key"}}),
    (OTHER, {"error": ["x", "y"]}),
    (OTHER, {"exceptions": ["x"]}),
    (DOWN, {"status_code": 503, "reason": "x"}),
    (OTHER, {"failed": True, "reason": "x"}),
    (OTHER, {"errcode": "E42", "errmsg": "x"}),
    (LIMITED, {"event": "error", "data": {"message": "rate limit"}}),
    (OTHER, {"type": "exception", "content": "x"}),
    (OTHER, {"status": "ERROR", "message": "x"}),
    (OTHER, {"state": "FAILED"}),
    (AUTH, {"is_error": True, "result": "Invalid API key"}),
    (OTHER, {"isError": True}),
    (OTHER, {"has_error": True}),
    (OTHER, {"traceId": "x", "code": "40001", "msg": "x"}),
]
NO_FAILURES: list[dict[str, Any]] = [
    {"type": "status", "message": "queued"},
    {"status": "processing"},
    {"object": "queue", "position": 3},
    {"message": "queued"},
    {"message": "Your request is in the queue"},
    {"status": "ok"},
    {"success": True},
    {"code": 0, "msg": "success"},
    {"code": 200, "message": "OK"},
    {"error": None},
    {"error": False},
    {"errors": []},
    {"error": None, "status": "running"},
    {"error_code": 0, "error_msg": ""},
    {"base_resp": {"status_code": 0, "status_msg": ""}},
    {"type": "progress", "detail": "50%"},
    {"type": "warning", "message": "deprecated"},
    {"object": "info", "message": "x"},
    {"level": "info", "message": "x"},
    {"event": "ping"},
    {"id": "x", "created": 1},
    {"type": "tool_status", "status": "failed", "tool": "x"},
    {"type": "response.foo.failed", "status": "failed"},
    {"type": "status", "status": "queued", "position": 3},
    {"status": "queued", "message": "waiting for capacity"},
    {"type": "keepalive"},
    {"warning": "x"},
    {"error_count": 0},
    {"success": True, "errors": [], "messages": []},
    {"has_error": False},
    {"errors": None},
    {"error": "", "choices": None},
    {"provider": "x"},
    {"progress": 0.4},
    {"state": "warming_up"},
    {"status": "in_progress"},
    {"type": "log", "message": "cannot use cache"},
    {"status": {"code": 200, "message": "OK"}},
    {"detail": "processing"},
    {"result": {"status": "ok"}},
    {"failed": False},
    {"status": 200},
    {"code": "0", "message": ""},
    {"queue": {"position": 1, "message": "waiting"}},
]
#: Whole bodies that are no JSON object.
BODIES: list[tuple[str, bytes]] = [
    (DOWN, b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"),
    (DOWN, b"<!DOCTYPE html>\n<html><body><h1>503 Service Unavailable</h1></body></html>"),
    (LIMITED, b"<html><title>Error 429 (Too Many Requests)!!1</title></html>"),
    (DENIED, b"<html><head><title>403 Forbidden</title></head></html>"),
    (PROTOCOL, b"<!DOCTYPE html><html><body>Sign in to the network</body></html>"),
    (DENIED, b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>no</Message></Error>'),
    (LIMITED, b"<ErrorResponse><Error><Code>Throttling</Code></Error></ErrorResponse>"),
    (DOWN, b"Bad Gateway"),
    (DOWN, b"upstream connect error or disconnect/reset before headers. reset reason: timeout"),
    (DOWN, b"Internal Server Error"),
    (DOWN, b"no healthy upstream"),
    (DOWN, b"error code: 502"),
    (LIMITED, b"error code: 1015"),
    (AUTH, b"Unauthorized"),
    (AUTH, b'"invalid api key"'),
    (LIMITED, b'"rate limit exceeded"'),
    (PROTOCOL, b'"error text"'),
    (PROTOCOL, b"null"),
    (PROTOCOL, b"{}"),
    (PROTOCOL, b"[]"),
    (PROTOCOL, b"false"),
    (PROTOCOL, b"Hello, how can I help?"),
    (PROTOCOL, gzip.compress(b'{"error": {"message": "x"}}', mtime=0)),
]
#: Blocks of an event stream whose data is no object.
BLOCKS: list[tuple[str, bytes]] = [
    (AUTH, b"data: Unauthorized\n\n"),
    (LIMITED, b"event: error\ndata: Too many requests\n\n"),
    (OTHER, b"event: error\ndata: \n\n"),
    (OTHER, b"event: error\ndata: null\n\n"),
    (DOWN, b'event: error\ndata: "overloaded"\n\n'),
    (DOWN, b'event: error\ndata: ["overloaded"]\n\n'),
    (OTHER, b"event: error\ndata: {}\n\n"),
    (DOWN, b'event: error\ndata: {"message": "overloaded"}\n\n'),
    (DOWN, b'event: exception\ndata: {"message": "overloaded"}\n\n'),
    (LIMITED, b"data: error: rate limit exceeded\n\n"),
    (LIMITED, b'data: "rate limit exceeded"\n\n'),
    (LIMITED, b'data: [{"error": {"code": 429}}]\n\n'),
    (DOWN, b'error: {"message": "overloaded"}\n\n'),
    (DOWN, b"data: <html><title>502 Bad Gateway</title></html>\n\n"),
]
CUT = Error(scope="transport", code="truncated", message="cut")


def places(dialect: str, block: bytes) -> dict[str, bytes]:
    """A block at every place of an answer."""
    begin, reason, end = ANSWERS[dialect]
    found = {
        "first": block + sse([*reason, *end]),
        "after text": sse(begin) + block + sse([*reason, *end]),
    }
    if reason:
        found["after the finish reason"] = sse([*begin, *reason]) + block + sse(end)
    return found


def check(code: str, events: list[Any], where: str) -> None:
    error = error_of(events)
    assert error is not None, where
    assert (status_of(events), error.code) == ("error", code), where
    assert error.retryable == (code in AGAIN), where


@pytest.mark.parametrize("dialect", ANSWERS)
@pytest.mark.parametrize(("code", "shape"), SHAPES, ids=lambda v: json.dumps(v)[:60])
def test_a_failure_in_another_form(dialect: str, code: str, shape: Any) -> None:
    for where, data in places(dialect, sse([shape])).items():
        events = events_of(dialect, data)
        check(code, events, where)
        assert facts(events)["text"] == ("" if where == "first" else "Hi")
    for indent in (None, 1):
        check(code, events_of(dialect, json.dumps(shape, indent=indent).encode()), "as a body")
    check(code, events_of(dialect, sse([shape])), "alone")


@pytest.mark.parametrize("dialect", ANSWERS)
@pytest.mark.parametrize(("code", "block"), BLOCKS, ids=repr)
def test_a_failure_that_is_no_object(dialect: str, code: str, block: bytes) -> None:
    for where, data in places(dialect, block).items():
        events = events_of(dialect, data)
        check(code, events, where)
        assert facts(events)["text"] == ("" if where == "first" else "Hi")
    check(code, events_of(dialect, block), "alone")


def test_an_error_field_says_why_an_answer_was_cut() -> None:
    for dialect, (begin, _, _) in ANSWERS.items():
        decoder = Registry(env={}).dialect(dialect).decoder()
        events = decoder.feed(sse(begin) + b'error: {"message": "overloaded"}\n\n')
        check(DOWN, events + decoder.finish(CUT), dialect)


@pytest.mark.parametrize("dialect", ANSWERS)
@pytest.mark.parametrize(("code", "body"), BODIES, ids=repr)
def test_a_body_that_is_no_stream(dialect: str, code: str, body: bytes) -> None:
    check(code, events_of(dialect, body), "whole")
    pieces = [body[i : i + 1] for i in range(len(body))]
    decoder = Registry(env={}).dialect(dialect).decoder()
    check(code, decode(decoder, pieces), "in bytes")


@pytest.mark.parametrize("body", [b"", b"\n\n", b" \r\n", b"\xef\xbb\xbf"])
def test_an_empty_body_is_a_cut_answer(body: bytes) -> None:
    for dialect in ANSWERS:
        events = events_of(dialect, body)
        assert error_of(events) is None
        assert status_of(events) == "incomplete"


@pytest.mark.parametrize("dialect", ANSWERS)
@pytest.mark.parametrize("shape", NO_FAILURES, ids=lambda v: json.dumps(v)[:60])
def test_what_is_no_failure(dialect: str, shape: dict[str, Any]) -> None:
    begin, reason, end = ANSWERS[dialect]
    for payloads in ([shape, *begin, *reason, *end], [*begin, shape, *reason, *end]):
        events = events_of(dialect, payloads)
        assert (status_of(events), facts(events)["text"]) == ("complete", "Hi")
