"""What the headers of a request say about where it ends, and to whom it goes."""

from __future__ import annotations

__all__ = ["framing_problem", "has_body"]


def has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a request of these headers has a body."""
    names = dict(headers)
    return b"transfer-encoding" in names or bool(names.get(b"content-length", b"").strip(b"0 "))


def framing_problem(headers: list[tuple[bytes, bytes]], version: str, url: bytes) -> str | None:
    """What two servers could read in two ways, and so send a request within a request."""
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if codings and (codings != [b"chunked"] or version == "1.0"):
        return "the only transfer coding is chunked, in HTTP/1.1"
    if not url.startswith(b"/") and b"://" in url:  # absolute form: its host is the request's
        place = url.partition(b"://")[2].partition(b"/")[0].partition(b"?")[0].lower()
        hosts = [value.strip().lower() for name, value in headers if name == b"host"]
        if hosts != [place]:
            return "the URL of the request and its Host header must name the same host"
    return None
