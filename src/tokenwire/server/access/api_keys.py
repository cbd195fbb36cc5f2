"""API keys as text: lists of settings, and the file that names them, which may change.

Always true: a key is kept only as its SHA-256, and no error contains any of it; a key whose line is
gone from a file that can be read counts no more once the change is seen, whatever else is wrong
with the file; a file that is wrong lets nobody new in.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from tokenwire.errors import ConfigError
from tokenwire.events.names import principal_fault
from tokenwire.server.access.file_look import FileLook

__all__ = ["KeyFile", "digests_of", "read_key_file"]

_LEAST_KEY = 16
#: What people put between keys, and what a key is made of, as headers hold it.
_SEPARATORS, _KEY = re.compile(r"""["'`,;\r\n\t]"""), re.compile(r"[!-~]*")
_log = logging.getLogger("tokenwire.server")


def digests_of(keys: Iterable[str], others: Iterable[bytes] = ()) -> dict[bytes, str]:
    """The names of ``keys`` by the SHA-256 of each. Raises `ConfigError` for what is no key, or
    stands there twice, or among the digests ``others``."""
    digests, others = dict[bytes, str](), set(others)
    for key in keys:
        name, digest = _parse(key)
        if digest in digests or digest in others:
            raise ConfigError("an API key is listed twice")
        digests[digest] = name
    return digests


def read_key_file(path: str | Path) -> list[str]:
    """The lines of a key file. Refuses one that others may read."""
    lines, fault = _read(Path(path))
    if fault is not None:
        raise fault
    return lines


def _read(path: Path) -> tuple[list[str], ConfigError | None]:
    """The lines of a key file, and what is wrong where others may read it."""
    try:
        mode = path.stat().st_mode
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the API key file {path.name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the API key file {path.name} is not text") from error
    fault = None
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        fault = ConfigError(
            f"API key file {path.name} is readable by other users; run chmod 600 {path.name}"
        )
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")], fault


class KeyFile:
    """The keys of the file ``path``, read again when it changes, beside ``others``, which no line
    may have. Raises `ConfigError` at once where it holds none."""

    def __init__(
        self,
        path: str | Path,
        others: Mapping[bytes, str],
        *,
        look: Callable[[Path], FileLook] = FileLook,
    ) -> None:
        self._path, self._others = Path(path), others
        self._look = look(self._path)  # before it is read: a change in between is seen
        self._digests = digests_of(read_key_file(self._path), self._others)
        self._all = {**others, **self._digests}
        if not self._digests:
            raise ConfigError("the API key file holds no key")

    def digests(self) -> dict[bytes, str]:
        """The names of all keys that count now, by digest. Looks at the file once a second."""
        if self._look.is_due():
            self._reread()
            self._all = {**self._others, **self._digests}
        return self._all

    def _reread(self) -> None:
        try:
            lines, fault = _read(self._path)
        except ConfigError as error:
            _log.error("%s; the keys that it held before count", error)
            return
        before = self._digests
        try:
            if fault is not None:
                raise fault
            self._digests = digests_of(lines, self._others)
        except ConfigError as error:
            there = _those_of(lines)
            self._digests = {key: name for key, name in before.items() if key in there}
            _log.error(
                "the API key file %s is not usable: %s; of the keys that it held before those that "
                "it still holds count",
                self._path.name,
                error,
            )
        added = len(self._digests.keys() - before.keys())
        removed = len(before.keys() - self._digests.keys())
        _log.info("the API key file has changed: %d keys are new, %d are gone", added, removed)


def _those_of(lines: Iterable[str]) -> set[bytes]:
    """The digests of the lines that are keys."""
    digests = set[bytes]()
    for line in lines:
        try:
            digests.add(_parse(line)[1])
        except ConfigError:
            continue
    return digests


def _parse(entry: str) -> tuple[str, bytes]:
    """Name and digest of one entry. No error contains any of it."""
    name, colon, rest = entry.partition(":")
    if not colon or name == "sha256":
        name, rest = "", entry
    if _SEPARATORS.search(entry) or not _KEY.fullmatch(rest):
        raise ConfigError(
            "an API key must not contain spaces, quotes, commas and semicolons; separate several "
            "by commas in TOKENWIRE_API_KEYS, by lines in the key file"
        )
    if name and (fault := principal_fault(name)):
        raise ConfigError(f"the name of an API key {fault}")
    if rest.startswith("sha256:"):
        try:
            digest = bytes.fromhex(rest[7:])
        except ValueError:
            digest = b""
        if len(digest) != 32:
            raise ConfigError("an API key given as sha256: needs 64 hexadecimal digits after it")
    else:
        if len(rest) < _LEAST_KEY:
            raise ConfigError(f"an API key is too short: at least {_LEAST_KEY} characters")
        digest = hashlib.sha256(rest.encode()).digest()
    return name or f"key-{digest.hex()[:8]}", digest
