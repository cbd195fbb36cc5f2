"""JSON Web Tokens: what counts, what is refused, and how keys are fetched, rotated and missed."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import os
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.issuer import AUDIENCE, Issuer, SigningKey, answer, issuer, raw_token, signing_key
from tokenwire.errors import ConfigError, NotAuthenticatedError
from tokenwire.events.principal import ROLES
from tokenwire.server.access.file_look import FileLook
from tokenwire.server.access.jwt_issuer import JwtIssuer
from tokenwire.server.access.key_sources import FetchedKeys, FileKeys, IssuerUnavailableError
from tokenwire.server.access.keys import keys_of

DOCUMENT, KEYS = "/.well-known/openid-configuration", "/keys"


@pytest.fixture
def provider() -> Iterator[Issuer]:
    with issuer() as made:
        yield made


class Clock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def checking(provider: Issuer, **more: Any) -> JwtIssuer:
    return JwtIssuer(provider.url, audience=AUDIENCE, **more)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(60):
            return await work

    return asyncio.run(bounded())


def check(provider: Issuer, token: str, **more: Any) -> Any:
    return run(checking(provider, **more).check(token))


def refused(provider: Issuer, token: str, words: str, **more: Any) -> None:
    with pytest.raises(NotAuthenticatedError, match=words) as caught:
        check(provider, token, **more)
    for part in token.split("."):
        assert len(part) < 8 or part not in caught.value.message


# --- what counts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["RS256", "RS512", "PS256", "PS384", "ES256", "ES384", "ES512", "EdDSA"]
)
def test_each_asymmetric_algorithm_counts(provider: Issuer, kind: str) -> None:
    provider.keys = [signing_key(kind, "k")]
    found = check(provider, provider.token())
    assert found.principal.name == "ann"
    assert found.principal.roles is None
    assert abs(found.until - time.time() - 3660) < 60


def test_claims_name_principal_tenant_and_roles(provider: Issuer) -> None:
    claims = {"principal": "email", "tenant": "https://x.example/org", "roles": "realm.roles"}
    token = provider.token(
        email="ann@x.example",
        realm={"roles": ["tokenwire:read", "approve", "offline_access", 7, "Write"]},
        **{"https://x.example/org": "acme"},
    )
    found = check(provider, token, claims=claims).principal
    assert (found.id, found.tenant) == ("ann@x.example", "acme")
    assert found.roles == {"read", "approve"}
    scope = provider.token(scope="openid tokenwire.write  read")
    assert check(provider, scope, claims={"roles": "scope"}).principal.roles == {"read", "write"}
    every = provider.token(roles=sorted(ROLES))
    assert check(provider, every, claims={"roles": "roles"}).principal.roles == ROLES


@pytest.mark.parametrize("value", [None, [], {}, 7, "", ["Admin"], {"admin": True}, "ADMIN root"])
def test_roles_that_are_none_permit_nothing(provider: Issuer, value: Any) -> None:
    token = provider.token() if value is None else provider.token(roles=value)
    assert check(provider, token, claims={"roles": "roles"}).principal.roles == frozenset()


@pytest.mark.parametrize("value", [None, "", " acme", 7, ["acme"], {"a": 1}, "a\nb", "x" * 201])
@pytest.mark.parametrize("what", ["tenant", "principal"])
def test_a_name_that_is_none_is_refused(provider: Issuer, what: str, value: Any) -> None:
    token = provider.token() if value is None else provider.token(org=value)
    refused(provider, token, f"'org'.* the {what}", claims={what: "org"})


def test_audiences_may_be_several(provider: Issuer) -> None:
    token = provider.token(aud=["other", AUDIENCE])
    assert check(provider, token).principal.id == "ann"
    two = JwtIssuer(provider.url, audience=["first", AUDIENCE])
    assert run(two.check(provider.token())).principal.id == "ann"


def test_clocks_may_differ_a_little(provider: Issuer) -> None:
    now = time.time()
    assert check(provider, provider.token(seconds=-30)).principal.id == "ann"
    assert check(provider, provider.token(nbf=now + 30, iat=now + 30)).principal.id == "ann"
    refused(provider, provider.token(seconds=-90), "expired")
    refused(provider, provider.token(nbf=now + 90), "not valid yet")
    refused(provider, provider.token(iat=now + 90), "not valid yet")
    refused(provider, provider.token(seconds=-30), "expired", leeway=0)


# --- what does not --------------------------------------------------------------------------------


def hs256(message: str, secret: bytes) -> bytes:
    return hmac.digest(secret, message.encode(), hashlib.sha256)


def test_symmetric_and_no_algorithms_are_refused(provider: Issuer) -> None:
    key = provider.keys[0]
    claims = {"iss": provider.url, "aud": AUDIENCE, "sub": "eve", "exp": time.time() + 60}
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    secrets = [pem, json.dumps(key.entry).encode(), key.entry["n"].encode(), b"", b"secret"]
    for name in ("none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512", "RS1", "ES256K"):
        for secret in secrets:
            unsigned = raw_token({"alg": name, "kid": key.id}, claims, b"").rpartition(".")[0]
            for end in (b"", hs256(unsigned, secret)):
                forged = raw_token({"alg": name, "kid": key.id}, claims, end)
                refused(provider, forged, "algorithm is not accepted")
    for name in (None, 7, ["RS256"], {"a": 1}):
        refused(provider, raw_token({"alg": name}, claims, b"x"), "algorithm is not accepted")
    # An octet key of the set is no key, whatever it says.
    octets = {"kty": "oct", "k": base64.urlsafe_b64encode(b"x" * 32).decode(), "kid": "oct"}
    provider.entries = [octets, key.entry]
    unsigned = raw_token({"alg": "HS256", "kid": "oct"}, claims, b"").rpartition(".")[0]
    forged = raw_token({"alg": "HS256", "kid": "oct"}, claims, hs256(unsigned, b"x" * 32))
    refused(provider, forged, "algorithm is not accepted")


def test_a_key_serves_its_own_algorithm(provider: Issuer) -> None:
    """What one key may sign, another of the same id may not."""
    rsa, curve = signing_key("RS256", "same"), signing_key("ES256", "same")
    provider.keys = [curve]
    refused(provider, provider.token(key=rsa), "does not publish")
    provider.keys = [rsa]
    refused(provider, provider.token(key=curve), "does not publish")
    refused(provider, provider.token(algorithm="PS256"), "does not publish")
    provider.keys = [curve, rsa]
    assert check(provider, provider.token(key=rsa)).principal.id == "ann"


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"]},
        {"crit": ["b64"], "b64": False},
        {"crit": []},
        {"enc": "A256GCM"},
        {"zip": "DEF"},
    ],
)
def test_extensions_are_refused(provider: Issuer, header: dict[str, Any]) -> None:
    refused(provider, provider.token(header=header), "extension")


def test_a_token_brings_no_key(provider: Issuer) -> None:
    """What a header says of keys and addresses is not read: nothing is fetched, nothing counts."""
    mine = SigningKey("RS256", "mine")
    with issuer() as evil:
        evil.keys = [mine]
        addresses = {"jku": evil.keys_url, "x5u": evil.keys_url, "x5c": ["MIIB"], "jwk": mine.entry}
        for name, value in addresses.items():
            for key_id in ("one", "mine", None):
                token = provider.token(key=mine, header={name: value, "kid": key_id})
                refused(provider, token, "signature is wrong|does not publish")
            fine = provider.token(header={name: value})
            assert check(provider, fine).principal.id == "ann"
        assert not evil.requests


@pytest.mark.parametrize(
    "key_id", ["", "../../etc/passwd", "one' or '1'='1", "ONE", "one\0", 7, ["one"], "x" * 600]
)
def test_key_ids_are_names_only(provider: Issuer, key_id: Any) -> None:
    refused(provider, provider.token(header={"kid": key_id}), "does not publish|id is not valid")


def test_a_token_without_a_key_id(provider: Issuer) -> None:
    token = provider.token(header={"kid": None})
    assert check(provider, token).principal.id == "ann"
    provider.keys = [signing_key("RS256", "one"), signing_key("ES256", "two")]
    assert check(provider, token).principal.id == "ann"
    provider.keys = [signing_key("RS256", "one"), signing_key("RS256", "three")]
    refused(provider, token, "does not publish")  # which of them is not to be guessed


def test_two_keys_may_have_the_same_id(provider: Issuer) -> None:
    first, second = signing_key("RS256", "one"), SigningKey("RS256", "one")
    provider.keys = [first, second]
    for key in (first, second):
        assert check(provider, provider.token(key=key)).principal.id == "ann"
    refused(provider, provider.token(key=SigningKey("RS256", "one")), "signature is wrong")


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"aud": "another"}, "another audience"),
        ({"aud": []}, "aud"),
        ({"aud": 7}, "audience"),
        ({"aud": [AUDIENCE, 7]}, "audience"),
        ({"aud": AUDIENCE.upper()}, "another audience"),
        ({"iss": "http://127.0.0.1"}, "another issuer"),
        ({"iss": ["x"]}, "another issuer"),
        ({"exp": None}, "valid|no claim"),
        ({"exp": "soon"}, "valid"),
        ({"exp": []}, "valid"),
        ({"exp": True}, "expired"),
        ({"exp": -1}, "expired"),
        ({"nbf": "x"}, "valid"),
        ({"nbf": [1]}, "valid"),
        ({"iat": {}}, "valid"),
        ({"sub": None}, "'sub'"),
        ({"sub": 7}, "'sub'"),
    ],
)
def test_claims_of_any_kind_are_refused(
    provider: Issuer, claims: dict[str, Any], words: str
) -> None:
    refused(provider, provider.token(**claims), words)


@pytest.mark.parametrize("name", ["exp", "iss", "aud", "sub"])
def test_claims_that_are_missing_are_refused(provider: Issuer, name: str) -> None:
    refused(provider, provider.token(without=(name,)), f"no claim '{name}'|{name}")


@pytest.mark.parametrize("end", [1e308, 10**400, 10**30, 4e9])
def test_an_end_beyond_all_numbers_is_an_end(provider: Issuer, end: float) -> None:
    found = check(provider, provider.token(exp=end))
    assert time.time() < found.until < time.time() + 2e9


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t[:-4] + ("AAAA" if t[-4:] != "AAAA" else "BBBB"),
        lambda t: t.rpartition(".")[0] + ".",
        lambda t: ".".join([t.split(".")[0], t.split(".")[1][:-2], t.split(".")[2]]),
        lambda t: "." + t.partition(".")[2],
        lambda t: t.replace(".", "..", 1),
    ],
)
def test_damaged_tokens_are_refused(provider: Issuer, damage: Any) -> None:
    token = damage(provider.token())
    subject = checking(provider)
    if subject.takes(token):
        refused(provider, token, "signature|valid")


def test_what_is_said_twice_is_refused(provider: Issuer) -> None:
    key = provider.keys[0]
    body = json.dumps({"iss": provider.url, "aud": AUDIENCE, "exp": time.time() + 60, "sub": "ann"})
    twice = (body[:-1] + ', "sub": "eve"}').encode()
    head = b'{"alg":"RS256","kid":"one"}'
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    for header, claims in [
        (head, twice),
        (b'{"alg":"RS256","kid":"one","kid":"one"}', body.encode()),
        (b'{"alg":"none","alg":"RS256","kid":"one"}', body.encode()),
        (b'["RS256"]', body.encode()),
        (head, b"[]"),
        (head, b"\xff\xfe"),
        (b"[" * 3000, body.encode()),
    ]:
        unsigned = raw_token(header, claims, b"").rpartition(".")[0]
        signature = key.private.sign(unsigned.encode(), PKCS1v15(), SHA256())
        refused(provider, raw_token(header, claims, signature), "valid")


def test_what_has_no_tokens_form_is_left_to_others(provider: Issuer) -> None:
    subject = checking(provider)
    assert subject.takes(provider.token())
    for text in ("", "a", "a.b", "a.b.c.d", "a.b.c.d.e", "a b.c.d", "a.b.c\n", "é.b.c", "x" * 9000):
        assert not subject.takes(text)
    assert not subject.takes(provider.token(padding="x" * 9000))


@pytest.mark.parametrize("kind", ["logout+jwt", "secevent+jwt", "JOSE", 7, "JWE"])
def test_tokens_of_other_types_are_refused(provider: Issuer, kind: Any) -> None:
    refused(provider, provider.token(header={"typ": kind}), "another type")


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt"])
def test_access_tokens_count(provider: Issuer, kind: str) -> None:
    assert check(provider, provider.token(header={"typ": kind})).principal.id == "ann"


# --- key sets -------------------------------------------------------------------------------------


def test_only_public_keys_for_signatures_are_taken() -> None:
    good = signing_key("RS256", "good").entry
    bad = [
        None,
        7,
        {},
        {"kty": "oct", "k": "AAAA"},
        {**good, "use": "enc"},
        {**good, "alg": "RSA-OAEP"},
        {**good, "alg": "HS256"},
        {**good, "alg": "none"},
        {**good, "alg": 7},
        {**good, "kid": 7},
        {**good, "key_ops": ["encrypt"]},
        {**good, "key_ops": "verify"},
        {**good, "n": "AQAB"},
        {**good, "n": 7},
        {**good, "e": "!!"},
        {"kty": "EC", "crv": "secp256k1", "x": "AAAA", "y": "AAAA"},
        {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"},
        {"kty": "OKP", "crv": "X25519", "x": "AAAA"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"},
        {**good, "kty": ["RSA"]},
        signing_key("RS256", "short", 1024).entry,
    ]
    found = keys_of(json.dumps({"keys": [*bad, good]}).encode())
    assert [key.id for key in found] == ["good"]
    for text in (b"", b"[]", b"{}", b'{"keys": 7}', b'{"keys": []}', b"\xff", b"[" * 5000):
        with pytest.raises(ConfigError):
            keys_of(text)
    private = {**good, "d": "AAAA", "p": "AAAA"}
    (key,) = keys_of(json.dumps({"keys": [private]}).encode())
    assert not hasattr(key.value, "private_numbers")


def test_a_file_of_keys_is_read_again(provider: Issuer, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(provider.key_set()))
    subject, now = JwtIssuer(provider.url, audience=AUDIENCE, jwks=str(path)), Clock()
    source = subject.keys = FileKeys(path, look=lambda path: FileLook(path, clock=now))
    assert run(subject.check(provider.token())).principal.id == "ann"
    provider.keys = [signing_key("ES256", "next")]
    with pytest.raises(NotAuthenticatedError):
        run(subject.check(provider.token()))
    path.write_text("{")
    now.now += 10
    assert run(source.find("one", "RS256"))  # half a file changes nothing
    path.write_text(json.dumps(provider.key_set()))
    os.utime(path, (1, 1))
    now.now += 10
    assert run(subject.check(provider.token())).principal.id == "ann"
    assert not run(source.find("one", "RS256"))
    path.unlink()
    now.now += 10
    assert run(subject.check(provider.token())).principal.id == "ann"
    with pytest.raises(ConfigError, match=r"cannot read the key set file keys.json: No such file"):
        FileKeys(path)
    assert not provider.requests


# --- fetching -------------------------------------------------------------------------------------


def fetched(provider: Issuer, clock: Clock, **more: Any) -> FetchedKeys:
    return FetchedKeys(provider.url, clock=clock, **more)


def names(source: FetchedKeys, *ids: str) -> list[bool]:
    async def main() -> list[bool]:
        return [bool(await source.find(name, "RS256")) for name in ids]

    return run(main())


def test_keys_are_fetched_once_and_again_for_an_unknown_one(provider: Issuer) -> None:
    clock = Clock()
    source = fetched(provider, clock)
    assert names(source, "one", "one") == [True, True]
    assert provider.requests == {DOCUMENT: 1, KEYS: 1}
    provider.keys = [signing_key("RS256", "one"), signing_key("RS256", "three")]
    assert names(source, "three") == [False]  # fetched a moment ago
    clock.now += 11
    assert names(source, "three", "one") == [True, True]
    assert provider.requests[KEYS] == 2
    for number in range(50):  # an attacker's ids cause one fetch in ten seconds
        assert names(source, f"x{number}") == [False]
    assert provider.requests[KEYS] == 2
    clock.now += 11
    for number in range(50):
        assert names(source, f"x{number}") == [False]
    assert provider.requests[KEYS] == 3


def test_a_key_that_was_taken_back_counts_no_more(provider: Issuer) -> None:
    clock = Clock()
    source = fetched(provider, clock)
    (old,) = run(source.find("one", "RS256"))
    provider.keys = [signing_key("RS256", "three")]
    clock.now += 601

    async def main() -> None:
        assert await source.has(old.thumbprint)  # meanwhile they are fetched
        await source._fetch()
        assert not await source.has(old.thumbprint)
        assert not await source.find("one", "RS256")
        assert await source.find("three", "RS256")

    run(main())


def test_many_wait_for_one_fetch(provider: Issuer) -> None:
    source = fetched(provider, Clock())

    async def main() -> None:
        found = await asyncio.gather(*(source.find("one", "RS256") for _ in range(100)))
        assert all(found)

    run(main())
    assert provider.requests[KEYS] == 1


def test_keys_are_used_for_an_hour_without_their_issuer(provider: Issuer, caplog: Any) -> None:
    clock = Clock()
    source = fetched(provider, clock)
    assert names(source, "one") == [True]
    provider.stop()
    with caplog.at_level(logging.WARNING, "tokenwire.server"):
        for _ in range(5):
            clock.now += 605
            assert names(source, "one") == [True]
            run(_settled(source))
    assert "cannot be fetched" in caplog.text
    assert "used for up to an hour" in caplog.text
    assert caplog.text.count("cannot be fetched") == 1
    with pytest.raises(IssuerUnavailableError):  # a new key of the issuer, or none: nobody knows
        names(source, "three")
    clock.now += 605
    with pytest.raises(IssuerUnavailableError):
        names(source, "one")
    provider.start()
    clock.now += 11
    assert names(source, "one") == [True]


async def _settled(source: FetchedKeys) -> None:
    """Until no fetch is under way; one of an earlier loop was cancelled with that."""
    source._fetching = None
    await source._fetch()


def test_without_its_issuer_nobody_is_let_in(provider: Issuer) -> None:
    provider.stop()
    clock = Clock()
    subject = checking(provider)
    subject.keys = fetched(provider, clock)
    token = provider.token()
    for _ in range(3):
        with pytest.raises(IssuerUnavailableError) as caught:
            run(subject.check(token))
        assert caught.value.details["retry_after"] == 5
        clock.now += 2
    provider.start()
    assert run(subject.check(token)).principal.id == "ann"


def redirect(handler: Any) -> None:
    answer(handler, b"", 302, location=f"http://127.0.0.1:{handler.server.server_port}{KEYS}")


def endless(handler: Any) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b" " * 65536)
    except OSError:
        pass  # the client has had enough


def nothing(handler: Any) -> None:
    handler.close_connection = True


HOSTILE: dict[str, tuple[str, Any, str]] = {
    "a redirect": (KEYS, redirect, "status 302"),
    "a redirect of the document": (DOCUMENT, redirect, "status 302"),
    "an error": (KEYS, lambda h: answer(h, b"{}", 500), "status 500"),
    "no document": (DOCUMENT, lambda h: answer(h, b"{}", 404), "status 404"),
    "a body without an end": (KEYS, endless, "more than 512 KiB"),
    "no JSON": (KEYS, lambda h: answer(h, b"<html>"), "not valid JSON"),
    "a document that is no JSON": (DOCUMENT, lambda h: answer(h, b"<html>"), "not valid JSON"),
    "a document that is a list": (DOCUMENT, lambda h: answer(h, b"[]"), "another issuer"),
    "no keys": (KEYS, lambda h: answer(h, b'{"keys": []}'), "no public key"),
    "nested to the sky": (KEYS, lambda h: answer(h, b"[" * 100_000), "not valid JSON"),
    "nothing": (KEYS, nothing, "http://|127.0.0.1"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_issuer_lets_nobody_in(provider: Issuer, what: str, caplog: Any) -> None:
    path, behave, words = HOSTILE[what]
    provider.misbehave[path] = behave
    source = fetched(provider, Clock())
    with (
        caplog.at_level(logging.WARNING, "tokenwire.server"),
        pytest.raises(IssuerUnavailableError),
    ):
        names(source, "one")
    assert pytest.importorskip("re").search(words, caplog.text), caplog.text


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"issuer": "https://another.example"}, "another issuer"),
        ({"issuer": None}, "another issuer"),
        ({"jwks_uri": None}, "no jwks_uri"),
        ({"jwks_uri": "http://keys.example/x"}, "must be https"),
        ({"jwks_uri": "file:///etc/passwd"}, "must be an address"),
        ({"jwks_uri": "https://user:pw@keys.example/x"}, "must not hold a user"),
        ({"jwks_uri": "http://[::1"}, "must be an address"),
    ],
)
def test_a_document_sends_nobody_elsewhere(
    provider: Issuer, document: dict[str, Any], words: str, caplog: Any
) -> None:
    provider.document = document
    with (
        caplog.at_level(logging.WARNING, "tokenwire.server"),
        pytest.raises(IssuerUnavailableError),
    ):
        names(fetched(provider, Clock()), "one")
    assert words in caplog.text
    assert "pw@" not in caplog.text
    assert not provider.requests[KEYS]


def test_a_slow_issuer_is_waited_for_in_the_background(
    provider: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that are known count while new ones are on their way, however long that takes."""
    clock = Clock()
    source = fetched(provider, clock)
    assert names(source, "one") == [True]
    provider.misbehave[KEYS] = lambda handler: time.sleep(3)
    clock.now += 700
    monkeypatch.setattr("tokenwire.server.access.key_sources._FETCH", 0.2)

    async def main() -> None:
        assert await source.find("one", "RS256")
        assert source._is_fetching
        await source._fetch()  # which gives up
        assert source._is_failing
        assert await source.find("one", "RS256")

    run(main())


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("issuer_url", "more", "words"),
    [
        ("login.example", {}, "must be an address"),
        ("http://login.example", {}, "must be https"),
        ("https://login.example?x=1", {}, "no query"),
        ("https://u:p@login.example", {}, "must not hold a user"),
        ("https://login.example", {"audience": []}, "need an audience"),
        ("https://login.example", {"audience": ""}, "need an audience"),
        ("https://login.example", {"leeway": 301}, "leeway"),
        ("https://login.example", {"leeway": -1}, "leeway"),
        ("https://login.example", {"claims": {"user": "sub"}}, "not of 'user'"),
        ("https://login.example", {"claims": {"tenant": ""}}, "not of 'tenant'"),
        ("https://login.example", {"jwks": "http://keys.example/x"}, "must be https"),
        ("https://login.example", {"jwks": "ftp://keys.example/x"}, "must be an address"),
        ("https://login.example", {"jwks": "no-such-file.json"}, "cannot read the key set file"),
    ],
)
def test_settings_that_let_in_the_wrong_ones_are_refused(
    issuer_url: str, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        JwtIssuer(issuer_url, **{"audience": AUDIENCE, **more})
