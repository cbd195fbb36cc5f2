"""What to change in a proxy, by its kind and by what it does to streams.

Always true: every problem has an answer for a proxy that could not be recognized.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

__all__ = ["Problem", "advice_for", "kind_of"]

Problem = Literal[
    "buffered", "http10", "compressed", "silence", "cut", "socket", "last_event_id", "authorization"
]

#: Part of a header's value -> the proxy; the first that fits.
_BY_HEADER: Final = (
    ("cf-ray", "", "cloudflare"),
    ("x-amz-cf-id", "", "cloudfront"),
    ("x-amzn-requestid", "", "api-gateway"),
    ("apigw-requestid", "", "api-gateway"),
    ("server", "nginx", "nginx"),
    ("server", "openresty", "nginx"),
    ("server", "caddy", "caddy"),
    ("via", "caddy", "caddy"),
    ("server", "envoy", "envoy"),
    ("server", "awselb", "elb"),
    ("via", "haproxy", "haproxy"),
    ("server", "haproxy", "haproxy"),
    ("via", "google", "google"),
)
_TEXTS: Final[Mapping[Problem, Mapping[str, str]]] = {
    "buffered": {
        "nginx": "'proxy_buffering off;', and no 'proxy_ignore_headers X-Accel-Buffering'",
        "haproxy": "no 'option http-buffer-response' or filter that collects the response",
        "caddy": "no 'buffer_responses' in reverse_proxy, or 'flush_interval -1'",
        "cloudflare": "no rule that caches or rewrites the response",
        "api-gateway": "response streaming ('responseTransferMode: STREAM'), or another way in",
        "": "nginx: 'proxy_buffering off;'. Caddy: no 'buffer_responses'. HAProxy: no filter that "
        "collects responses. Traefik: no 'buffering' middleware. API gateways: their streaming "
        "mode",
    },
    "http10": {
        "nginx": "'proxy_http_version 1.1;'",
        "": "nginx: 'proxy_http_version 1.1;'. Others: HTTP/1.1 to the server",
    },
    "compressed": {
        "nginx": "no 'text/event-stream' in gzip_types, and no 'gzip_types *'",
        "haproxy": "no 'text/event-stream' in 'compression type'",
        "caddy": "'encode' with a 'match' that leaves text/event-stream out",
        "cloudflare": "a compression rule that leaves text/event-stream out",
        "": "leave text/event-stream out of compression (nginx: gzip_types; HAProxy: compression "
        "type; Caddy: encode; Traefik: compress.excludedContentTypes)",
    },
    "silence": {
        "nginx": "'proxy_read_timeout' above --heartbeat",
        "haproxy": "'timeout server' and 'timeout client' above --heartbeat",
        "caddy": "'read_timeout' of the transport above --heartbeat",
        "": "a limit of silence above --heartbeat (nginx: proxy_read_timeout; HAProxy: timeout "
        "server), or a shorter --heartbeat",
    },
    "cut": {
        "caddy": "no 'stream_timeout', or one above --max-age",
        "google": "'timeoutSec' of the backend above --max-age, or a shorter --max-age",
        "api-gateway": "a longer integration timeout, or --max-age below it",
        "": "a limit of the whole response above --max-age, or a shorter --max-age",
    },
    "socket": {
        "nginx": "'proxy_http_version 1.1;', 'proxy_set_header Upgrade $http_upgrade;' and "
        "'proxy_set_header Connection $connection_kind;' (docs/guide/operate.md)",
        "haproxy": "no 'option httpclose' or rule that drops Upgrade; a 'timeout tunnel'",
        "": "pass the headers Upgrade and Connection (docs/guide/operate.md); clients use SSE "
        "until then",
    },
    "last_event_id": {
        "nginx": "no 'proxy_set_header Last-Event-ID', and 'proxy_pass_request_headers on'",
        "": "pass the header Last-Event-ID; without it an EventSource begins anew",
    },
    "authorization": {
        "nginx": "no 'proxy_set_header Authorization \"\"'",
        "": "pass the header Authorization to the server",
    },
}


def kind_of(headers: Mapping[str, str]) -> str:
    """The proxy that ``headers`` of a response (names in lower case) show; "" if none does."""
    for name, part, kind in _BY_HEADER:
        if part in headers.get(name, "\0").lower() and name in headers:
            return kind
    return ""


def advice_for(problem: Problem, kind: str) -> str:
    """What to set in a proxy of this kind."""
    texts = _TEXTS[problem]
    return texts.get(kind) or texts[""]
