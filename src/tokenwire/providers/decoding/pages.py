"""Answers that are no stream of any wire: a web page, an XML error, plain words.

Always true: pure; what is read here is a failure in any case, and only which one is decided; a page
without a status or a known word is a `protocol_error`, as an answer from a wrong address is.
"""

from __future__ import annotations

import html
import re

import msgspec

from tokenwire.events.model import Error
from tokenwire.providers.failures import error_event, from_object

__all__ = ["MOST_PAGE_BYTES", "is_page_clear", "not_this_wire", "page_error", "words_error"]

#: No page says why it came only after that many bytes.
MOST_PAGE_BYTES = 8192
_CLEAR = re.compile(rb"</(?:title|h1|body|html|(?:\w+:)?(?:error\w*|fault|message))\s*>", re.I)
# A title ends before the next one begins: one without an end costs no more than its length.
_TITLE = re.compile(
    r"<(title|h1)[^<>]*+>((?:[^<]++|<(?!/?(?:title|h1)))*+)</\1\s*+>", re.I | re.DOTALL
)
_FIELD = re.compile(
    r"<(?:\w++:)?(code|message|faultcode|faultstring|detail|type)\b[^<>]*+>([^<]++)<", re.I
)
_STATUS = re.compile(r"(?<![\d.])([45]\d\d)(?![\d.])")
_NAMES = {"faultcode": "code", "faultstring": "message"}
_PAGE = "the provider answered with a web page, not a stream"


def is_page_clear(page: bytes) -> bool:
    """Whether a page that begins so says by now why it came."""
    return len(page) >= MOST_PAGE_BYTES or _CLEAR.search(page) is not None


def page_error(page: bytes) -> Error:
    """The failure of an answer that is a page, or an error in XML."""
    text = page[:MOST_PAGE_BYTES].decode("utf-8", "replace")
    fields = {_NAMES.get(k.lower(), k.lower()): v.strip() for k, v in _FIELD.findall(text)}
    fault = {k: v for k, v in fields.items() if k in ("code", "message", "detail")}
    if not fault:
        title = " ".join(html.unescape(t) for _, t in _TITLE.findall(text)).strip()
        match = _STATUS.search(title)
        fault = {"message": title, **({"status": int(match[1])} if match else {})}
    return _error_of(fault) or not_this_wire(_PAGE)


def words_error(text: str) -> Error | None:
    """The failure that plain words tell of, or None when they tell of none that is known."""
    text = text.strip()
    if text[:1] == '"':
        try:
            value = msgspec.json.decode(text)
        except msgspec.MsgspecError:
            value = text
        text = value if isinstance(value, str) else text
    return _error_of({"message": text}) if text else None


def _error_of(fault: dict[str, object]) -> Error | None:
    error = from_object(fault)
    return error_event(error, raw=fault) if error.code != "provider_error" else None


def not_this_wire(message: str, data: bytes | None = None) -> Error:
    """An answer that is not of the configured wire; ``data`` is the payload that is none."""
    raw = data[:2000].decode("utf-8", "replace") if data is not None else None
    return Error(scope="parse", code="protocol_error", message=message, http_status=502, raw=raw)
