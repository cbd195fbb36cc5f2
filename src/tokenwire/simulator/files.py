"""Files that a caller sent with a message, in the shapes of every wire.

Always true: a file is described, never opened, decoded or fetched; a shape that is not known is no
file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tokenwire.simulator.script import SentFile

__all__ = ["files_in_text", "files_of", "without_files"]

_DATA = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[^,]*)?,(.*)", re.DOTALL)
#: A text file, as clients write one among the words of a message.
_WRITTEN = re.compile(r'<file name="([^"\n]{1,200})" type="([^"\n]{1,100})">\n')
_WRITTEN_END = "\n</file>"


def files_of(content: Any, images: Any = None) -> list[SentFile]:
    """The files of a message's content (a text, or a list of parts), and of Ollama's ``images``."""
    files: list[SentFile] = []
    if isinstance(content, str):
        files += files_in_text(content)
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict):
            continue
        if isinstance(text := part.get("text"), str):
            files += files_in_text(text)
        elif (file := _file(part)) is not None:
            files.append(file)
    for data in images if isinstance(images, list) else ():
        files.append(SentFile("", "image", _bytes_of(data)))
    return files


def files_in_text(text: str) -> list[SentFile]:
    """Text files that were written into the words."""
    return [
        SentFile(head[1], head[2], len(text[head.end() : end].encode()))
        for head, end in _written(text)
    ]


def without_files(text: str) -> str:
    """The words alone."""
    words: list[str] = []
    place = 0
    for head, end in _written(text):
        words.append(text[place : head.start()].lstrip() if place else text[: head.start()])
        place = end + len(_WRITTEN_END)
    return "".join([*words, text[place:].lstrip()]).strip()


def _written(text: str) -> Iterator[tuple[re.Match[str], int]]:
    """The head of every file in a text, and where its content ends. One without an end is none,
    and neither is what follows it."""
    place = 0
    while (head := _WRITTEN.search(text, place)) is not None:
        end = text.find(_WRITTEN_END, head.end())
        if end < 0:
            return
        yield head, end
        place = end + len(_WRITTEN_END)


def _file(part: dict[str, Any]) -> SentFile | None:
    kind = part.get("type")
    if kind in ("image_url", "input_image"):
        image = part.get("image_url")
        return _at(image.get("url") if isinstance(image, dict) else image, "", "image")
    if kind in ("file", "input_file"):
        inner = part.get("file") if kind == "file" else part
        if not isinstance(inner, dict):
            return None
        name = str(inner.get("filename") or "")
        return _at(inner.get("file_data") or inner.get("file_url"), name, "file")
    if kind == "input_audio":
        audio = part.get("input_audio") or {}
        return SentFile("", f"audio/{audio.get('format')}", _bytes_of(audio.get("data")))
    if kind in ("image", "document"):
        return _anthropic(part, kind)
    if isinstance(inline := part.get("inlineData"), dict):
        return SentFile("", str(inline.get("mimeType")), _bytes_of(inline.get("data")))
    if isinstance(linked := part.get("fileData"), dict):
        return SentFile(str(linked.get("fileUri") or ""), str(linked.get("mimeType")), None)
    return None


def _anthropic(part: dict[str, Any], kind: str) -> SentFile | None:
    source = part.get("source")
    if not isinstance(source, dict):
        return None
    name = str(part.get("title") or "")
    if source.get("type") == "url":
        return SentFile(name or str(source.get("url")), kind, None)
    data, form = source.get("data"), str(source.get("media_type") or kind)
    size = len(str(data).encode()) if source.get("type") == "text" else _bytes_of(data)
    return SentFile(name, form, size)


def _at(address: Any, name: str, kind: str) -> SentFile:
    """A file by its address, which may hold it."""
    address = str(address or "")
    match = _DATA.fullmatch(address)
    if match is None:
        return SentFile(name or address[:200], kind, None)
    return SentFile(name, match[1] or kind, _bytes_of(match[2]))


def _bytes_of(data: Any) -> int:
    """How many bytes a base64 text stands for."""
    return len(str(data or "").rstrip("=")) * 3 // 4
