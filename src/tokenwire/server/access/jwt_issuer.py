"""JSON Web Tokens of one issuer: a token to the principal, tenant and roles that its claims name.

Always true: only asymmetric algorithms are accepted, each for keys of its own type; the keys are
the issuer's, and nothing in a token can name another one; a token without an end, of another
issuer or for another audience is refused; no error and no log line holds any of the token but the
names of claims.
"""

from __future__ import annotations

import base64
import logging
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import jiter

from tokenwire.errors import ConfigError, NotAuthenticatedError
from tokenwire.events.names import names_of, principal_fault
from tokenwire.events.principal import ROLES, Principal
from tokenwire.observe.line_limit import LineLimit
from tokenwire.server.access.key_sources import FetchedKeys, FileKeys, KeySource, check_address
from tokenwire.server.access.keys import ALGORITHMS, Key, jwt_module
from tokenwire.server.settings import Settings

__all__ = ["MOST_TOKEN", "JwtIssuer", "Verified", "issuer_of"]

#: Characters of a token, of its ``kid``, and seconds by which clocks may differ at most.
MOST_TOKEN, _MOST_KID, _MOST_LEEWAY = 8192, 512, 300.0
#: Seconds: an end that is later is as good as this one, and fits a number of any kind.
_LONGEST = 10**9
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_TYPES = ("jwt", "at+jwt", "application/jwt", "application/at+jwt")
_WHAT = ("principal", "tenant", "roles")
#: Before the name of a role in claims that hold those of several applications.
_PREFIX = re.compile(r"tokenwire[:.]")
_REFUSED = LineLimit(logging.getLogger("tokenwire.server"), logging.WARNING)


class Verified(NamedTuple):
    """A token that counts. ``until``: Unix seconds, clocks' differences included; ``key``: the
    thumbprint of the key that signed it."""

    principal: Principal
    until: float
    key: bytes


class JwtIssuer:
    """An issuer of JSON Web Tokens, such as an OpenID provider, and what its tokens mean here.

    ``issuer``: exactly the ``iss`` of its tokens, an https address; ``audience``: the ``aud`` of
    this server, or several; ``jwks``: a file or the address of its key set, default: what the
    issuer's ``/.well-known/openid-configuration`` names. ``claims``: which claim is the
    ``principal`` (default ``sub``), the ``tenant`` and the ``roles``; a dotted name is looked up
    in nested claims where there is no claim of that very name. With a claim for ``tenant``, a token
    without it is refused; with one for ``roles``, a token without it may do nothing. ``leeway``:
    seconds by which the clocks may differ, at most 300. Raises `ConfigError`."""

    def __init__(
        self,
        issuer: str,
        *,
        audience: str | Iterable[str],
        jwks: str | None = None,
        claims: Mapping[str, str] | None = None,
        leeway: float = 60.0,
    ) -> None:
        self._jwt, self._clock = jwt_module(), time.time
        check_address(issuer, "the issuer of tokens")
        if urlsplit(issuer).query:
            raise ConfigError("the issuer of tokens must have no query")
        self._issuer, self._audience = issuer, names_of(audience, "audience")
        if not self._audience or not all(self._audience):
            raise ConfigError(
                "tokens need an audience: the 'aud' that the issuer gives this server"
            )
        if not 0 <= leeway <= _MOST_LEEWAY:
            raise ConfigError(f"the leeway of tokens must be 0 to {_MOST_LEEWAY:g} s")
        self._leeway = leeway
        self._claims = {"principal": "sub", **(claims or {})}
        for name, claim in self._claims.items():
            if name not in _WHAT or not claim:
                raise ConfigError(
                    f"the claims of tokens are CLAIM names of {', '.join(_WHAT)}, not of "
                    f"'{name[:40]}'"
                )
        self.keys: KeySource = _source(issuer, jwks)

    def takes(self, credential: str) -> bool:
        """Whether ``credential`` has the form of a token."""
        return len(credential) <= MOST_TOKEN and _TOKEN.fullmatch(credential) is not None

    async def check(self, token: str) -> Verified:
        """The principal of ``token``. Raises `NotAuthenticatedError`, and
        `IssuerUnavailableError` while there are no keys to check it with."""
        try:
            key_id, algorithm = self._header(token)
            keys = await self.keys.find(key_id, algorithm)
            if not keys:
                raise _Refusal("it is signed with a key that its issuer does not publish")
            key, claims = self._verified(token, algorithm, keys)
            until = min(int(claims["exp"]), int(self._clock()) + _LONGEST) + self._leeway
            return Verified(self._principal(claims), until, key.thumbprint)
        except _Refusal as refusal:
            _REFUSED.log("a token of %s was refused: %s", self._issuer, refusal.reason)
            raise NotAuthenticatedError(f"the token is refused: {refusal.reason}") from None

    async def is_current(self, until: float, key: bytes) -> bool:
        """Whether a token that ends at ``until`` and was signed with ``key`` still counts. Raises
        `IssuerUnavailableError`."""
        return self._clock() < until and await self.keys.has(key)

    def _header(self, token: str) -> tuple[str | None, str]:
        """``kid`` and ``alg``. What else could name or hold a key is not read."""
        header = _part(token, 0)
        algorithm, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise _Refusal("its algorithm is not accepted; use RS256, ES256, EdDSA or the like")
        if "crit" in header or "enc" in header or "zip" in header:
            raise _Refusal("its header asks for an extension")
        if kind is not None and (not isinstance(kind, str) or kind.lower() not in _TYPES):
            raise _Refusal("it is of another type than JWT")
        if key_id is not None and (not isinstance(key_id, str) or len(key_id) > _MOST_KID):
            raise _Refusal("its key id is not valid")
        return key_id, algorithm

    def _verified(self, token: str, algorithm: str, keys: list[Key]) -> tuple[Key, dict[str, Any]]:
        """The key that signed it, and its claims, checked."""
        errors = self._jwt.exceptions
        for key in keys[:4]:
            try:
                claims = self._jwt.decode(
                    token,
                    key.value,
                    algorithms=[algorithm],
                    audience=self._audience,
                    issuer=self._issuer,
                    leeway=self._leeway,
                    options={"require": ["exp", "iss", "aud"], "verify_sub": False},
                )
            except errors.InvalidSignatureError:
                continue
            except errors.ExpiredSignatureError:
                raise _Refusal("it has expired") from None
            except errors.ImmatureSignatureError:
                raise _Refusal("it is not valid yet") from None
            except errors.InvalidAudienceError:
                raise _Refusal("it is for another audience") from None
            except errors.InvalidIssuerError:
                raise _Refusal("it is of another issuer") from None
            except errors.MissingRequiredClaimError as error:
                raise _Refusal(f"it has no claim '{error.claim}'") from None
            except Exception:  # claims of any type reach the library's arithmetic
                raise _Refusal("it is not a valid token") from None
            return key, {**_part(token, 1), **claims}
        raise _Refusal("its signature is wrong")

    def _principal(self, claims: dict[str, Any]) -> Principal:
        roles: frozenset[str] | None = None
        if "roles" in self._claims:
            roles = _roles(_claim(claims, self._claims["roles"]))
        tenant = self._name(claims, "tenant") if "tenant" in self._claims else None
        return Principal(self._name(claims, "principal"), tenant, roles)

    def _name(self, claims: dict[str, Any], what: str) -> str:
        claim = self._claims[what]
        value = _claim(claims, claim)
        if value is None:
            raise _Refusal(f"it has no claim '{claim}' for the {what}")
        if fault := principal_fault(value):
            raise _Refusal(f"its claim '{claim}' cannot be the {what}: it {fault}")
        return value


def issuer_of(settings: Settings) -> JwtIssuer | None:
    """The issuer of tokens that ``settings`` name; None without one. Raises `ConfigError`."""
    if not settings.jwt_issuer:
        if settings.jwt_audience or settings.jwt_jwks or settings.jwt_claims:
            raise ConfigError("tokens need --jwt-issuer: the 'iss' that they name")
        return None
    claims: dict[str, str] = {}
    for item in ",".join(settings.jwt_claims).split(",") if settings.jwt_claims else ():
        name, equals, claim = item.partition("=")
        if not equals or name in claims:
            raise ConfigError(
                "--jwt-claims must be like principal=sub,tenant=org,roles=roles, each name once"
            )
        claims[name.strip()] = claim.strip()
    return JwtIssuer(
        settings.jwt_issuer,
        audience=settings.jwt_audience,
        jwks=settings.jwt_jwks,
        claims=claims,
        leeway=settings.jwt_leeway,
    )


class _Refusal(Exception):
    """Why a token does not count, in words that hold nothing of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _source(issuer: str, jwks: str | None) -> KeySource:
    if jwks is not None and "://" not in jwks:
        return FileKeys(jwks)
    if jwks is not None:
        check_address(jwks, "the key set of the issuer")
    return FetchedKeys(issuer, jwks)


def _part(token: str, number: int) -> dict[str, Any]:
    """Header (0) or claims (1), where nothing is said twice."""
    text = token.split(".")[number]
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        value = jiter.from_json(data, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError:
        raise _Refusal("it is not a valid token") from None
    if not isinstance(value, dict):
        raise _Refusal("it is not a valid token")
    return value


def _claim(claims: dict[str, Any], name: str) -> Any:
    """A claim by its name, or below others by a dotted one; None without it."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _roles(value: object) -> frozenset[str]:
    """The roles that a claim names, as a list or, as a scope, between spaces; what is no role here
    is another application's."""
    names = value.split() if isinstance(value, str) else value
    if not isinstance(names, list):
        return frozenset()
    words = {_PREFIX.sub("", name, count=1) for name in names if isinstance(name, str)}
    return ROLES & words
