"""The built page: its files, read once from the package, and the policy they are served under.

Always true: only files that were there at the start are served, by exact path; nothing of the
request is ever joined to a directory.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

__all__ = ["PAGE_HEADERS", "PAGE_POLICY", "routes", "static_files"]

STATIC = Path(__file__).parent.parent / "static"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
#: What a page may not use, even in a frame or by a script that should not be there.
_UNUSED = (
    "accelerometer autoplay bluetooth camera display-capture encrypted-media "
    "fullscreen gamepad geolocation gyroscope hid idle-detection local-fonts magnetometer "
    "microphone midi payment picture-in-picture publickey-credentials-get screen-wake-lock serial "
    "storage-access usb web-share xr-spatial-tracking"
).split()
PAGE_HEADERS = {
    "content-security-policy": PAGE_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": ", ".join(
        [f"{name}=()" for name in _UNUSED] + ["clipboard-write=(self)"]
    ),
}
_NOT_BUILT = (
    "The page is not built: run 'make page' with Node 20 or newer. The API works without it.\n"
)
_TYPES = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".html": "text/html",
    ".svg": "image/svg+xml",
}


def static_files(folder: Path = STATIC, *, hosted: bool = False) -> dict[str, tuple[bytes, str]]:
    """URL path -> (bytes, media type) of every file of the build; ``/`` is its index,
    ``/dash`` the dashboard. ``hosted``: the pages are told that an application around the server
    signs people in, which keys do otherwise."""
    files: dict[str, tuple[bytes, str]] = {}
    for file in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if not file.is_file() or file.name.startswith("."):
            continue
        kind = _TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0]
        path = "/" + file.relative_to(folder).as_posix()
        data = file.read_bytes()
        if hosted and file.suffix == ".html":
            data = data.replace(b"<html", b"<html data-hosted", 1)
        files[path] = (data, kind or "application/octet-stream")
    for path, name in (("/", "/index.html"), ("/dash", "/dash.html")):
        if name in files:
            files[path] = files[name]
    return files


def routes(files: dict[str, tuple[bytes, str]]) -> list[BaseRoute]:
    """One route a file, and a line of advice where the page was not built."""

    return [Route(path, _endpoint(path, files), methods=["GET"]) for path in {**files, "/": None}]


def _endpoint(
    path: str, files: dict[str, tuple[bytes, str]]
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(_request: Request) -> Response:
        if path not in files:
            return PlainTextResponse(_NOT_BUILT)
        data, kind = files[path]
        # Built assets carry a hash in their names; the index must be validated at every load.
        hashed = path.startswith("/assets/")
        cache = "public, max-age=31536000, immutable" if hashed else "no-cache, no-transform"
        headers = {**PAGE_HEADERS, "cache-control": cache}
        return Response(data, headers=headers, media_type=kind)

    return endpoint
