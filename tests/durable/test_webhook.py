"""Calling webhooks: who may be called, at which address, and how the call is signed and bounded."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from support.webhook import Receiver, verified
from tokenwire.durable.subscriptions.signer import Signer, load_key_file
from tokenwire.errors import ConfigError, ProviderError
from tokenwire.log.base import Store
from tokenwire.log.memory import MemoryStore
from tokenwire.log.open import open_store
from tokenwire.relay.webhooks import post as webhooks_post
from tokenwire.relay.webhooks.post import Targets, post

# --- who may be called -------------------------------------------------------------------------

ALLOWED = Targets(
    ["worker.example", "Inner.Example:9000", "localhost:*", "10.0.0.5:80", "[::1]:7", "8.8.8.8"]
)


@pytest.mark.parametrize(
    "url",
    [
        "https://worker.example/hook?x=1",
        "https://WORKER.example./hook",
        "https://worker.example:443/",
        "http://inner.example:9000/",
        "https://inner.example:9000/",
        "http://localhost:1/",
        "http://localhost/",
        "http://10.0.0.5/hook",
        "http://[::1]:7/hook",
        "https://8.8.8.8/hook",
    ],
)
def test_what_the_settings_name_may_be_called(url: str) -> None:
    assert ALLOWED.check(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "worker.example",
        "//worker.example/",
        "ftp://worker.example/",
        "file:///etc/passwd",
        "gopher://worker.example/",
        "http://worker.example/",
        "https://worker.example:8443/",
        "https://worker.example.evil.example/",
        "https://evil.example/worker.example",
        "https://evil.example#worker.example",
        "https://worker.example#x",
        "https://user@worker.example/",
        "https://worker.example:pass@evil.example/",
        "https://worker.example@evil.example/",
        "https://worker.example\\@evil.example/",
        "https://evil.example\\.worker.example/",
        "https://worker.example /",
        "https://worker.example/\r\nHost: evil",
        "https://worker.example/\x00",
        "https://wörker.example/",
        "https://worker.example:99999/",
        "https://worker.example:x/",
        "https://[worker.example]/",
        "https://[::1/",
        "http://inner.example/",
        "http://inner.example:9001/",
        "http://127.0.0.1:9000/",
        "http://[::ffff:127.0.0.1]:80/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0/",
        "http://10.0.0.1/hook",
        "http://10.0.0.5:81/hook",
        "http://169.254.169.254/latest/meta-data/",
        "http://metadata.google.internal/",
        "https://worker.example/" + "x" * 2100,
    ],
)
def test_anything_else_may_not(url: str) -> None:
    assert ALLOWED.check(url)
    assert Targets([]).check(url)


def test_nothing_may_be_called_by_default() -> None:
    assert not Targets([])
    assert Targets([]).check("https://worker.example/")


@pytest.mark.parametrize(
    "entry",
    ["https://w.example", "w.example/", "a b", "*", "*.example", "x:0", "x:65536", "x:y", "user@x",
     ":80", "a,b"],
)  # fmt: skip
def test_a_setting_that_is_no_host_is_refused(entry: str) -> None:
    with pytest.raises(ConfigError, match="--durable-streams-webhooks"):
        Targets([entry])


def test_an_address_that_is_not_public_is_not_taken_for_a_host() -> None:
    assert Targets(["127.0.0.1", "10.0.0.1"]).check("https://10.0.0.1/")
    assert Targets(["127.0.0.1"]).check("https://127.0.0.1/")


NOT_PUBLIC = [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "192.0.0.8", "198.18.0.1", "224.0.0.1", "240.0.0.1",
    "255.255.255.255", "192.0.2.1", "::", "::1", "fe80::1", "fc00::1", "fd12::1", "ff02::1",
    "::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::", "2001:db8::1", "fec0::1", "64:ff9b:1::a", "192.88.99.1", "2001::1", "3fff::1",
]  # fmt: skip


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """From now on every name has these addresses."""

    async def getaddrinfo(self: Any, host: str, port: int, **more: Any) -> list[Any]:
        if not addresses:
            raise socket.gaierror(-2, "not known")
        return [
            (socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port))
            for a in addresses
        ]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_a_name_that_leads_inside_is_not_called(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    targets = Targets(["worker.example", "inner.example:443"])
    for addresses in ([address], ["8.8.8.8", address]):
        resolving(monkeypatch, *addresses)
        with pytest.raises(ProviderError, match="not public"):
            asyncio.run(targets.resolve("worker.example", 443))
        assert asyncio.run(targets.resolve("inner.example", 443)) == addresses


def test_public_addresses_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"]
    resolving(monkeypatch, *addresses)
    targets = Targets(["worker.example"])
    assert asyncio.run(targets.resolve("worker.example", 443)) == addresses
    resolving(monkeypatch)
    with pytest.raises(ProviderError, match="cannot resolve"):
        asyncio.run(targets.resolve("worker.example", 443))


# --- the call ----------------------------------------------------------------------------------


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def call(url: str, targets: Targets | None = None) -> tuple[int, bytes | None]:
    allowed = targets or Targets(["127.0.0.1:*"])
    return asyncio.run(post(allowed, url, b'{"x":1}', {"webhook-signature": "s"}))


def test_a_call_says_what_it_is_and_no_more(receiver: Receiver) -> None:
    receiver.body = b'{"done":true}'
    assert call(receiver.url) == (200, b'{"done":true}')
    path, headers, body = receiver.requests[0]
    assert (path, body) == ("/hook", b'{"x":1}')
    assert headers == {
        "host": f"127.0.0.1:{receiver.port}",
        "content-type": "application/json",
        "accept-encoding": "identity",
        "webhook-signature": "s",
        "user-agent": "tokenwire",
        "connection": "close",
        "content-length": "7",
    }


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(receiver: Receiver, status: int) -> None:
    inside = Receiver()
    receiver.status, receiver.headers = status, {"location": inside.url}
    assert call(receiver.url)[0] == status
    assert inside.requests == []
    inside.close()


def test_a_long_answer_is_not_read_to_its_end(receiver: Receiver) -> None:
    receiver.body = b" " * (64 << 10)
    assert call(receiver.url) == (200, receiver.body)
    receiver.body = b" " * (50 << 20)
    assert call(receiver.url) == (200, None)


def test_a_slow_answer_is_not_waited_for(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks_post, "CALL_SECONDS", 0.3)
    receiver.hold.clear()
    with pytest.raises(ProviderError, match="in time"):
        call(receiver.url)


def test_what_does_not_answer_is_told_in_words(receiver: Receiver) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(ProviderError, match="refused or timed out"):
            call(f"http://127.0.0.1:{closed.getsockname()[1]}/")
    with pytest.raises(ProviderError):  # TLS is not spoken there
        call(receiver.url.replace("http:", "https:"))
    with pytest.raises(ProviderError, match="host not allowed"):
        call(receiver.url, Targets(["127.0.0.1:1"]))
    assert receiver.requests == []


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context for ``name``, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / f"{name}.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=str(pem))


def test_the_name_is_held_against_the_certificate_at_the_address_that_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = certificate(tmp_path, "worker.example")
    monkeypatch.setattr(webhooks_post, "_tls", lambda: client)
    receiver = Receiver(server)
    resolving(monkeypatch, "127.0.0.1")
    targets = Targets([f"worker.example:{receiver.port}", f"other.example:{receiver.port}"])
    try:
        assert call(f"https://worker.example:{receiver.port}/x", targets) == (200, b"{}")
        assert receiver.requests[0][1]["host"] == f"worker.example:{receiver.port}"
        with pytest.raises(ProviderError):
            call(f"https://other.example:{receiver.port}/x", targets)
        assert len(receiver.requests) == 1
    finally:
        receiver.close()


def test_a_name_that_changes_its_address_in_between_is_not_followed_inside(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was checked is what is connected to: the name is looked up once for a call."""
    looked: list[str] = []

    async def getaddrinfo(self: Any, host: str, port: int, **more: Any) -> list[Any]:
        looked.append(host)
        address = "8.8.8.8" if len(looked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    connected: list[Any] = []

    async def create_connection(self: Any, factory: Any, host: Any, port: Any, **more: Any) -> Any:
        connected.append((host, port, more.get("server_hostname")))
        raise OSError("unreachable")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(asyncio.BaseEventLoop, "create_connection", create_connection)
    with pytest.raises(ProviderError):
        call("https://worker.example/", Targets(["worker.example"]))
    assert connected == [("8.8.8.8", 443, "worker.example")]
    assert looked == ["worker.example"]


# --- signing -----------------------------------------------------------------------------------


def key_file(path: Path, key: Any = None, mode: int = 0o600) -> Path:
    key = key or ed25519.Ed25519PrivateKey.generate()
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    path.chmod(mode)
    return path


def test_all_processes_of_a_store_sign_with_one_key_also_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        logs: list[Store] = [open_store(f"sqlite://{tmp_path}/keys.db") for _ in range(2)]
        for log in logs:
            await log.start()
        signers = await asyncio.gather(*(Signer.open(logs[n % 2], None) for n in range(4)))
        assert len({signer.kid for signer in signers}) == 1
        header = signers[0].sign(b"body", 12.9)
        assert header.startswith(f"t=12,kid={signers[0].kid},ed25519=")
        assert verified(signers[3].jwks(0.0), header, b"body")
        assert json.loads(json.dumps(signers[0].jwks(0.0)))["keys"][0]["alg"] == "EdDSA"
        for log in logs:
            await log.close()
        again = open_store(f"sqlite://{tmp_path}/keys.db")
        await again.start()
        assert (await Signer.open(again, None)).kid == signers[0].kid
        await again.close()

    asyncio.run(main())


def test_an_earlier_key_stays_published_for_a_day(tmp_path: Path) -> None:
    async def main() -> None:
        log = MemoryStore()
        old = await Signer.open(log, None)
        header = old.sign(b"x", 1.0)
        given = load_key_file(str(key_file(tmp_path / "key.pem")))
        new = await Signer.open(log, given)
        assert new.kid != old.kid
        now = new._keys.retired[0][1]
        assert [key["kid"] for key in new.jwks(now + 10)["keys"]] == [new.kid, old.kid]
        assert verified(new.jwks(now + 10), header, b"x")
        assert [key["kid"] for key in new.jwks(now + 90_000)["keys"]] == [new.kid]
        assert (await Signer.open(log, given)).kid == new.kid
        kept = await log.document("ds-key", "webhook")
        assert kept is not None
        assert given not in kept, "a key of the settings is not copied into the store"

    asyncio.run(main())


def test_a_key_file_that_will_not_do_is_refused_by_name(tmp_path: Path) -> None:
    def refusal(path: Path) -> str:
        with pytest.raises(ConfigError) as caught:
            load_key_file(str(path))
        assert path.name in caught.value.message
        assert str(tmp_path) not in caught.value.message
        return caught.value.message

    assert "chmod 600" in refusal(key_file(tmp_path / "open.pem", mode=0o644))
    assert "another kind" in refusal(
        key_file(tmp_path / "ec.pem", ec.generate_private_key(ec.SECP256R1()))
    )
    assert "cannot read" in refusal(tmp_path / "missing.pem")
    (tmp_path / "text.pem").write_text("hello")
    os.chmod(tmp_path / "text.pem", 0o600)
    assert "no readable PEM key" in refusal(tmp_path / "text.pem")


def test_an_address_list_without_ranges_in_between() -> None:
    """The ranges above are those of the library; what it calls public, we call public."""
    for text in NOT_PUBLIC:
        assert not webhooks_post._is_public(ipaddress.ip_address(text)), text
