"""Credentials of clouds: their own libraries against servers of the test, and what is signed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from support.endpoints import (
    CLAUDE,
    GEMINI,
    Endpoint,
    model_server,
    said,
)
from support.spine import run_async
from tokenwire.framing.aws_eventstream import encode_message
from tokenwire.providers.registry import Registry


def test_vertex_takes_googles_own_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("google.auth")
    tokens = iter(["t1", "t2", "t3"])

    def metadata(request: dict[str, str]) -> Any:
        path = request[":path"]
        if "/token" in path:
            value = {"access_token": next(tokens), "expires_in": 3600, "token_type": "Bearer"}
            return 200, "application/json", json.dumps(value).encode()
        if path.endswith("/project/project-id"):
            return 200, "text/plain", b"project"
        value = {"email": "robot", "scopes": [], "aliases": []}
        return 200, "application/json", json.dumps(value).encode()

    async def main() -> None:
        accepted = ["t1"]
        with Endpoint(metadata) as server, model_server(accepted, GEMINI) as model:
            monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{server.port}")
            monkeypatch.setenv("GCE_METADATA_IP", f"127.0.0.1:{server.port}")
            monkeypatch.setenv("GCE_METADATA_ROOT", f"127.0.0.1:{server.port}")
            monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
            monkeypatch.setenv("CLOUDSDK_CONFIG", "/nonexistent")
            import google.auth.compute_engine._metadata as gce

            monkeypatch.setattr(gce, "_GCE_METADATA_HOST", f"127.0.0.1:{server.port}")
            registry = Registry(env={"VERTEX_BASE_URL": model.url})
            assert await said(registry, "vertex:gemini-3-flash") == "Hi"
            assert await said(registry, "vertex:gemini-3-flash") == "Hi"
            assert [r["authorization"] for r in model.requests] == ["Bearer t1"] * 2
            accepted[:] = ["t2"]
            assert await said(registry, "vertex:gemini-3-flash") == "Hi", "refreshed by a 401"

    run_async(main())


def test_azure_takes_tokens_of_its_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("azure.identity")

    def identity(request: dict[str, str]) -> Any:
        assert request["x-identity-header"] == "id"
        expires = int((datetime.now(UTC) + timedelta(hours=1)).timestamp())
        value = {
            "access_token": "aad", "expires_on": str(expires), "token_type": "Bearer",
            "resource": "https://cognitiveservices.azure.com",
        }  # fmt: skip
        return 200, "application/json", json.dumps(value).encode()

    async def main() -> None:
        with Endpoint(identity) as server, model_server(["aad"]) as model:
            monkeypatch.setenv("IDENTITY_ENDPOINT", server.url)
            monkeypatch.setenv("IDENTITY_HEADER", "id")
            registry = Registry(env={"AZURE_BASE_URL": model.url})
            assert await said(registry, "azure:deployment") == "Hi"
            assert "api-key" not in model.requests[0]
            assert len(server.requests) == 1

    run_async(main())


def test_bedrock_is_signed_by_botocores_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("botocore")
    numbers = iter("123456")

    def container(_: dict[str, str]) -> Any:
        value = {
            "AccessKeyId": f"AKIA{next(numbers)}", "SecretAccessKey": "s", "Token": "session",
            "Expiration": (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }  # fmt: skip
        return 200, "application/json", json.dumps(value).encode()

    async def main() -> None:
        accepted = ["AKIA1"]

        def bedrock(request: dict[str, str]) -> Any:
            authorization = request["authorization"]
            assert authorization.startswith("AWS4-HMAC-SHA256 Credential=")
            assert "/eu-west-1/bedrock/aws4_request" in authorization
            assert request["x-amz-security-token"] == "session"
            if not any(f"={key}/" in authorization for key in accepted):
                body = b'{"message": "expired", "__type": "ExpiredTokenException"}'
                return 403, "application/json", body
            body = b'{"message": "bad model"}'
            return 400, "application/json", body

        with Endpoint(container) as source, Endpoint(bedrock) as model:
            for name in list(os.environ):
                if name.startswith("AWS_"):
                    monkeypatch.delenv(name)
            monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", source.url + "/creds")
            monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
            monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
            env = {"BEDROCK_BASE_URL": model.url, "AWS_REGION": "eu-west-1"}
            registry = Registry(env=env)
            with pytest.raises(Exception, match="refused the request"):
                await said(registry, "bedrock:amazon.nova-lite-v1:0")
            assert len(model.requests) == 1
            accepted[:] = ["AKIA2"]
            with pytest.raises(Exception, match="refused the request"):
                await said(registry, "bedrock:amazon.nova-lite-v1:0")
            assert len(model.requests) == 3, "signed anew with new credentials, once"
            assert len(source.requests) == 2

    run_async(main())


def test_claude_on_vertex_has_vertexs_path_version_and_key() -> None:
    async def main() -> None:
        with model_server(["t1"], CLAUDE) as model:
            env = {"VERTEX_ANTHROPIC_BASE_URL": model.url, "GOOGLE_ACCESS_TOKEN": "t1"}
            assert await said(Registry(env=env), "vertex-anthropic:claude-x@1") == "Hi"
            [request] = model.requests
            assert request[":path"] == "/models/claude-x@1:streamRawPredict"
            assert "x-api-key" not in request
            assert "anthropic-version" not in request
            body = json.loads(request[":body"])
            assert body["anthropic_version"] == "vertex-2023-10-16"
            assert body["stream"] is True
            assert "model" not in body

    run_async(main())


def signature_by_hand(request: dict[str, str], key: str, secret: str) -> str:
    """The SigV4 signature of a request as it arrived, from AWS's own description of it."""
    authorization = dict(
        part.strip().split("=", 1)
        for part in request["authorization"].removeprefix("AWS4-HMAC-SHA256 ").split(",")
    )
    who, scope = authorization["Credential"].split("/", 1)
    assert who == key
    names = authorization["SignedHeaders"].split(";")
    assert {"host", "x-amz-date", "content-type"} <= set(names)
    canonical = "\n".join([
        request[":method"],
        quote(request[":path"], safe="/~"),  # encoded once more, as all services but S3 want it
        "",
        *(f"{name}:{request[name].strip()}" for name in names),
        "",
        ";".join(names),
        hashlib.sha256(request[":body"].encode("latin-1")).hexdigest(),
    ])  # fmt: skip
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", request["x-amz-date"], scope, digest])
    signing = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        signing = hmac.new(signing, part.encode(), hashlib.sha256).digest()
    assert authorization["Signature"]
    return hmac.new(signing, text.encode(), hashlib.sha256).hexdigest()


@pytest.mark.parametrize("kind", ["signed", "key"])
def test_claude_on_bedrock_is_signed_as_it_arrives(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    pytest.importorskip("botocore")
    chunks = b"".join(
        encode_message(
            {":event-type": "chunk", ":message-type": "event"},
            json.dumps({"bytes": base64.b64encode(json.dumps(c).encode()).decode()}).encode(),
        )
        for c in CLAUDE
    )

    async def main() -> None:
        for name in list(os.environ):
            if name.startswith("AWS_"):
                monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA1")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        answer = 200, "application/vnd.amazon.eventstream", chunks
        with Endpoint(lambda _: answer) as model:
            env = {"BEDROCK_ANTHROPIC_BASE_URL": model.url, "AWS_REGION": "eu-west-1"}
            if kind == "key":
                env["AWS_BEARER_TOKEN_BEDROCK"] = "bearer"
            name = "bedrock-anthropic:anthropic.claude-x-v1:0"
            assert await said(Registry(env=env), name) == "Hi"
            [request] = model.requests
            path = "/model/anthropic.claude-x-v1%3A0/invoke-with-response-stream"
            assert request[":path"] == path
            body = json.loads(request[":body"])
            assert body["anthropic_version"] == "bedrock-2023-05-31"
            assert not {"model", "stream"} & body.keys()
            if kind == "key":
                assert request["authorization"] == "Bearer bearer"
                return
            assert "/eu-west-1/bedrock/aws4_request" in request["authorization"]
            assert request["authorization"].endswith(
                f"Signature={signature_by_hand(request, 'AKIA1', 'secret')}"
            )

    run_async(main())
