"""Heads of responses before they reach the strict parser: what servers get wrong and can be read.

Always true: pure; a head that follows the rules is passed on as the same bytes; a head that could
be read in two ways is an error that says which two.
"""

from __future__ import annotations

import re

from tokenwire.errors import ProtocolError

__all__ = ["MOST_HEAD_BYTES", "HeadReader"]

#: Largest head of a response.
MOST_HEAD_BYTES = 64 << 10

_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_PREFIX = b"HTTP/"


class HeadReader:
    """Collects the bytes of one response up to the end of its (last) head."""

    __slots__ = ("_buffer", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._buffer = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(bytes for the parser, whether the final head is among them). Raises `ProtocolError`
        that names the server and what is wrong."""
        buffer = (self._buffer + data).lstrip(b"\r\n")
        ready: list[bytes] = []
        while True:
            if buffer[: len(_PREFIX)] != _PREFIX[: len(buffer)]:
                raise ProtocolError(f"{self._name} did not reply with HTTP")
            end = _END.search(buffer, 0, MOST_HEAD_BYTES)
            if end is None:
                if len(buffer) > MOST_HEAD_BYTES:
                    raise ProtocolError(
                        f"the response head of {self._name} exceeds {MOST_HEAD_BYTES} bytes"
                    )
                self._buffer = buffer
                return b"".join(ready), False
            head, buffer = buffer[: end.end()], buffer[end.end() :]
            status = _STATUS.match(head)
            if status is None:
                raise ProtocolError(f"{self._name} did not reply with HTTP/1.1")
            if status[1] == b"101":
                raise ProtocolError(f"{self._name} switched to another protocol (101)")
            ready.append(self._normal(head))
            if not status[1].startswith(b"1"):  # 100 Continue, 103 Early Hints: another head comes
                self._buffer = b""
                return b"".join([*ready, buffer]), True

    def _normal(self, head: bytes) -> bytes:
        """The head with CRLF line ends, a line a field, and one way to say how long the body is."""
        if b"\n " in head or b"\n\t" in head:
            head = _unfolded(head)
        lines = head.replace(b"\r\n", b"\n").split(b"\n")
        fields = [line.partition(b":") for line in lines[1:]]
        lengths = [value for name, _, value in fields if name.lower() == b"content-length"]
        chunked = any(
            name.lower() == b"transfer-encoding" and b"chunked" in value.lower()
            for name, _, value in fields
        )
        values = {each.strip() for value in lengths for each in value.split(b",")}
        if len(values) > 1:
            lengths = " and ".join(sorted(v.decode("latin-1")[:20] for v in values)[:2])
            raise ProtocolError(f"{self._name} sent different Content-Length values: {lengths}")
        plain = head.count(b"\n") == head.count(b"\r\n")
        single = len(lengths) <= 1 and b"," not in b"".join(lengths)
        if plain and single and not (chunked and lengths):
            return head
        rest = [line for line in lines[:-2] if not line.lower().startswith(b"content-length:")]
        if values and not chunked:
            rest.append(b"content-length: " + values.pop())
        return b"\r\n".join([*rest, b"", b""])


def _unfolded(head: bytes) -> bytes:
    """The head with fields that continue on the next line in one, as old proxies fold them."""
    lines: list[bytes] = []
    for line in head.replace(b"\r\n", b"\n").split(b"\n"):
        if line[:1] in (b" ", b"\t") and len(lines) > 1:
            lines[-1] += b" " + line.strip()
        else:
            lines.append(line)
    return b"\r\n".join(lines)
