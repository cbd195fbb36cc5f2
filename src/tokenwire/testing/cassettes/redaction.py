"""Takes secrets out of what is recorded, and names those that are left.

Always true: a redacted body has as many chunks as before, with the same times; what remains and
looks like a secret is named with its place, and never shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from tokenwire.testing.cassettes.file import Body, Chunk, Exchange
from tokenwire.testing.cassettes.matching import KEYS, REDACTED

__all__ = ["Redactor", "credentials_of", "kept_headers"]

#: Headers that say how a body is to be read; all others are not recorded.
REQUEST_HEADERS = frozenset(
    {"content-type", "accept", "anthropic-version", "anthropic-beta", "openai-beta"}
)
RESPONSE_HEADERS = frozenset({"content-type", "retry-after", "retry-after-ms", "x-should-retry"})
_RATE_LIMITS = ("x-ratelimit-", "anthropic-ratelimit-")
_CREDENTIALS = re.compile(r"(?i)key|token|secret|auth|cookie|organi[sz]ation|project|account")
#: Characters of a key; of one that has letters only.
_LEAST, _LEAST_WORD = 6, 12

_FIELDS = (
    "organization organization_id organization_name organization_uuid org_id account_id"
    " account_uuid user_email api_key apikey access_token refresh_token client_secret password"
    " authorization"
).split()

#: Redacted without asking. The group ``s`` is the secret; without one, all of the match is.
_REDACTED: list[re.Pattern[str]] = [
    re.compile(r"(?i)\bbearer\s+(?P<s>[a-z0-9._~+/=-]{8,})"),
    # With a digit or a mask in it: a name such as sk-learn is none. In JSON, a line end before it
    # is an escape.
    re.compile(
        r"(?:(?<![A-Za-z0-9_*.-])|(?<=\\[nrt]))(?:sk|rk|gsk|xai|hf|r8|pplx|csk|nvapi|tgp)[-_](?=[A-Za-z_.-]*[\d*])[A-Za-z0-9_*.-]{8,}(?<![.-])"
    ),
    re.compile(r"\bAIza[A-Za-z0-9_-]{20,}|\bya29\.[A-Za-z0-9_-]{20,}"),
    re.compile(r"\b(?:org-|proj_|user-)(?=[a-z]*[A-Z\d])[A-Za-z0-9]{8,}"),
    re.compile(r"\bft:[\w.-]+:(?P<s>[\w-]+):"),
    re.compile(r"\((?:org|organi[sz]ation|workspace): (?P<s>[^,)\"]+)"),
    re.compile(rf'"(?:{"|".join(_FIELDS)})"\s*:\s*"(?P<s>(?:[^"\\]|\\.)+)"'),
]

#: Refused, by these names.
_REFUSED: list[tuple[str, re.Pattern[str]]] = [
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")),
    (
        "a JSON Web Token",
        re.compile(r"(?:\b|(?<=\\[nrt]))eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\."),
    ),
    ("an AWS access key", re.compile(r"(?:\b|(?<=\\[nrt]))(?:AKIA|ASIA)[A-Z0-9]{16}\b")),
    (
        "a GitHub token",
        re.compile(r"(?:\b|(?<=\\[nrt]))(?:gh[opsur]_[A-Za-z0-9]{20,}|github_pat_\w{20,})"),
    ),
    ("a Slack token", re.compile(r"(?:\b|(?<=\\[nrt]))xox[abeprs]-[A-Za-z0-9-]{10,}")),
    ("a password in an address", re.compile(r"://[^/\s:@\"\\]+:(?!\[redacted\])[^/\s@\"\\]+@")),
    (
        "a password",
        re.compile(
            r"(?i)(?:\b|(?<=\\[nrt]))(?:password|passwd|secret|api[_-]?key|access[_-]?token)\\*[\"']?\s*[:=]\s*\\*"
            r"[\"']?(?=[^\s\"'\\,;{}()<>$]*\d)[^\s\"'\\,;{}()<>.$\[\]]{8,}"
        ),
    ),
]
_SECRET_VARIABLE = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)\Z")


def kept_headers(
    headers: Mapping[str, str], names: Iterable[str], *, limits: bool = False
) -> dict[str, str]:
    """The headers of these names; with ``limits``, those of rate limits as well."""
    all_names = set(names)
    return {
        name: value
        for name, value in sorted(headers.items())
        if name in all_names or (limits and name.startswith(_RATE_LIMITS))
    }


def credentials_of(headers: Mapping[str, str], url: str) -> set[str]:
    """The keys, cookies and ids that a request was sent with."""
    values: set[str] = set()
    for name, value in headers.items():
        if name not in REQUEST_HEADERS and _CREDENTIALS.search(name):
            values |= {value, value.rpartition(" ")[2]}
            values |= {one.partition("=")[2].strip() for one in value.split(";") if "=" in one}
    for name, value in parse_qsl(urlsplit(url).query):
        if name.lower() in KEYS:
            values.add(value)
    return {value for value in values if _is_key(value)}


def _is_key(value: str) -> bool:
    """Not a word that stands for one, such as the ``ollama`` that local servers are given: it may
    be in any text."""
    return len(value) >= _LEAST_WORD or (len(value) >= _LEAST and not value.isalpha())


class Redactor:
    """``own``: texts and patterns to redact beside the usual ones; of a pattern with a group named
    ``s``, only that. ``allow``: texts that look like secrets and are none. ``env``: where the
    secrets of this process are looked up."""

    def __init__(
        self,
        own: Iterable[str | re.Pattern[str]] = (),
        *,
        allow: Iterable[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._own = [one for one in own if isinstance(one, re.Pattern)]
        self._texts = {one for one in own if isinstance(one, str)}
        self._allow = list(allow)
        self._env = {
            name: value
            for name, value in (env or {}).items()
            if _SECRET_VARIABLE.search(name.upper()) and len(value) >= 8
        }

    def redact(self, exchange: Exchange, credentials: Iterable[str] = ()) -> list[str]:
        """Redact an exchange, in place; ``credentials`` are texts to redact beside the others.
        Returns where something that looks like a secret is left, and what it looks like."""
        patterns = self._patterns({*self._texts, *credentials})
        exchange.url = self._text(_without_keys(exchange.url), patterns)
        exchange.headers = self._values(exchange.headers, patterns)
        exchange.response_headers = self._values(exchange.response_headers, patterns)
        body = exchange.body
        if body.kind == "base64":
            exchange.body = Body("base64", _in_bytes([body.value], patterns, self._is_allowed)[0])
        elif body.kind:
            exchange.body = Body(body.kind, self._value(body.value, patterns))
        data = _in_bytes([chunk.data for chunk in exchange.chunks], patterns, self._is_allowed)
        exchange.chunks = [
            Chunk(chunk.at, piece) for chunk, piece in zip(exchange.chunks, data, strict=True)
        ]
        return list(self._leaks(exchange, patterns))

    def _patterns(self, texts: Iterable[str]) -> list[re.Pattern[str]]:
        forms: set[str] = set()
        for text in filter(None, texts):
            # As JSON writes it, with and without escapes, and within another JSON text.
            escaped = {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
            forms |= {text, *escaped, *(json.dumps(form)[1:-1] for form in escaped)}
        exact = [re.compile(re.escape(text)) for text in sorted(forms, key=len, reverse=True)]
        return [*exact, *self._own, *_REDACTED]

    def _is_allowed(self, text: str) -> bool:
        return any(text in allowed or allowed in text for allowed in self._allow)

    def _text(self, text: str, patterns: Iterable[re.Pattern[str]]) -> str:
        for pattern in patterns:
            for start, end in reversed(list(_spans(text, pattern, self._is_allowed))):
                text = text[:start] + REDACTED + text[end:]
        return text

    def _value(self, value: Any, patterns: Sequence[re.Pattern[str]], key: str = "") -> Any:
        if isinstance(value, str):
            return REDACTED if key in _FIELDS and value else self._text(value, patterns)
        if isinstance(value, list):
            return [self._value(item, patterns) for item in value]
        if isinstance(value, dict):
            return {
                self._text(name, patterns): self._value(item, patterns, name)
                for name, item in value.items()
            }
        return value

    def _values(
        self, headers: dict[str, str], patterns: Sequence[re.Pattern[str]]
    ) -> dict[str, str]:
        return {name: self._text(value, patterns) for name, value in headers.items()}

    # --- what is left --------------------------------------------------------------------------

    def _leaks(self, exchange: Exchange, patterns: Sequence[re.Pattern[str]]) -> Iterator[str]:
        body, text = exchange.body, exchange.content.decode("utf-8", "replace")
        request = (
            body.value.decode("utf-8", "replace")
            if body.kind == "base64"
            else json.dumps(body.value, ensure_ascii=False)
        )
        places = [
            ("its address", exchange.url),
            ("its headers", json.dumps(exchange.headers)),
            ("its body", request),
            ("the response's headers", json.dumps(exchange.response_headers)),
            ("the response's body", text),
        ]
        for place, content in places:
            for what in self._secrets(content):
                yield f"{what} in {place}"
        for joined in _joined_texts(text):
            spread = [pattern for pattern in patterns if self._has(pattern, joined)]
            names = [*self._secrets(joined), *("a redacted text" for _ in spread)]
            for what in dict.fromkeys(names):
                yield f"{what}, spread over several events of the response"

    def _secrets(self, text: str) -> Iterator[str]:
        for what, pattern in _REFUSED:
            if self._has(pattern, text):
                yield what
        for name, value in self._env.items():
            if value in text and not self._is_allowed(value):
                yield f"the value of ${name}"

    def _has(self, pattern: re.Pattern[str], text: str) -> bool:
        return any(True for _ in _spans(text, pattern, self._is_allowed))


def _spans(text: str, pattern: re.Pattern[str], is_allowed: Any) -> Iterator[tuple[int, int]]:
    """Where the secrets of a pattern are that are not redacted so far."""
    group = "s" if "s" in pattern.groupindex else 0
    for match in pattern.finditer(text):
        secret = match[group]
        if secret and REDACTED not in secret and not is_allowed(secret):
            yield match.span(group)


def _without_keys(url: str) -> str:
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    remaining = [(name, value) for name, value in pairs if name.lower() not in KEYS]
    return url if remaining == pairs else urlunsplit(parts._replace(query=urlencode(remaining)))


def _in_bytes(
    pieces: list[bytes], patterns: Iterable[re.Pattern[str]], is_allowed: Any
) -> list[bytes]:
    """The pieces of one body without its secrets; one that lies over a seam goes to the first."""
    seams = [0]
    for piece in pieces:
        seams.append(seams[-1] + len(piece))
    text = b"".join(pieces).decode("utf-8", "surrogateescape")
    for pattern in patterns:
        spans = list(_spans(text, pattern, is_allowed))
        if not spans:
            continue
        parts: list[str] = []
        at = place = new = 0  # of the text, of its bytes, of the new bytes
        new_seams = list(seams)
        for start, end in spans:
            before = text[at:start]
            size = len(_bytes(before))
            secret = len(_bytes(text[start:end]))
            first, last = place + size, place + size + secret
            new += size + len(REDACTED)
            for number, seam in enumerate(seams):
                if first < seam:
                    new_seams[number] = new + max(0, seam - last)
            parts += [before, REDACTED]
            at, place = end, last
        parts.append(text[at:])
        text, seams = "".join(parts), new_seams
    data = _bytes(text)
    return [data[start:end] for start, end in pairwise(seams)]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _joined_texts(body: str) -> Iterator[str]:
    """The texts that the events of a stream write piece by piece: those of one field, joined."""
    texts: dict[str, list[str]] = {}
    for line in re.split(r"[\r\n]+", body):
        try:
            value = json.loads(line.removeprefix("data:").strip())
        except ValueError:
            continue
        _collect(value, "", texts)
    for pieces in texts.values():
        if len(set(pieces)) > 1:
            yield "".join(pieces)


def _collect(value: Any, path: str, texts: dict[str, list[str]]) -> None:
    if isinstance(value, str):
        texts.setdefault(path, []).append(value)
    elif isinstance(value, list):
        for item in value:
            _collect(item, path, texts)
    elif isinstance(value, dict):
        for key, item in value.items():
            _collect(item, f"{path}.{key}", texts)
