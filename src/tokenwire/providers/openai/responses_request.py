"""Our request to an OpenAI Responses request.

Always true: encrypted reasoning goes back byte for byte under its own id; nothing is stored at the
provider unless the request says so, and then items go back by their ids.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from tokenwire.errors import InputError
from tokenwire.events.message import (
    FilePart,
    Message,
    OpaquePart,
    Part,
    ProviderResultPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from tokenwire.events.request import Request
from tokenwire.providers.base import Call, Target, effort_of
from tokenwire.providers.decoding.values import text_of
from tokenwire.providers.history import (
    arguments_text,
    as_words,
    base64_of,
    call_id_for,
    meta_of,
    mine,
    result_text,
    system_text,
    turns,
    whole_calls,
)

__all__ = ["build", "resume"]

_NAME = "openai-responses"
_EXTRA_SKIPPED = frozenset({"type", "index", "id", "item", "native", "content_index"})


def build(request: Request, target: Target) -> Call:
    """The HTTP request that sends ``request`` and streams the answer."""
    for name in ("stop", "seed"):
        if getattr(request, name) is not None:
            raise InputError(f"OpenAI Responses does not accept '{name}'; use openai-chat for it")
    extra = request.extra or {}
    stored = bool(extra.get("store") or extra.get("background"))
    body: dict[str, Any] = {
        "model": target.model,
        "input": _Builder(turns(request), stored=stored).items(),
        "stream": True,
        "store": stored,
    }
    system = system_text(request)
    if system:
        body["instructions"] = system
    for name, value in (
        ("temperature", request.temperature),
        ("top_p", request.top_p),
        ("max_output_tokens", request.max_tokens),
        ("parallel_tool_calls", request.parallel_tool_calls),
    ):
        if value is not None:
            body[name] = value
    if request.output is not None:
        schema = {
            "type": "json_schema",
            "name": request.output.name,
            "schema": request.output.schema,
            "strict": request.output.strict,
        }
        body["text"] = {"format": schema}
    if request.reasoning is not None:
        body["reasoning"] = {"effort": effort_of(request.reasoning), "summary": "auto"}
        if not stored:
            body["include"] = ["reasoning.encrypted_content"]
    _tools(request, body)
    body |= extra
    return Call(
        url=f"{target.base_url}/responses",
        headers={"content-type": "application/json"} | _headers(target),
        body=msgspec.json.encode(body),
    )


def resume(response: str, after: int | None, target: Target) -> Call:
    """The request that re-attaches to a background response."""
    url = f"{target.base_url}/responses/{quote(response, safe='')}?stream=true"
    if after is not None:
        url += f"&starting_after={after}"
    return Call(url=url, headers=_headers(target), body=b"", method="GET")


def _headers(target: Target) -> dict[str, str]:
    headers = {"accept": "text/event-stream"}
    if target.api_key:
        if "api_key_header" in target.quirks:
            headers["api-key"] = target.api_key
        else:
            headers["authorization"] = f"Bearer {target.api_key}"
    return target.headers_over(headers)


def _tools(request: Request, body: dict[str, Any]) -> None:
    if request.tools:
        body["tools"] = [
            tool.native
            or {
                "type": "function",
                "name": tool.name,
                **({"description": tool.description} if tool.description else {}),
                "parameters": tool.parameters or {"type": "object", "properties": {}},
                "strict": bool(tool.strict),
            }
            for tool in request.tools
        ]
    if request.tool_choice in ("auto", "none", "required"):
        body["tool_choice"] = request.tool_choice
    elif request.tool_choice:
        body["tool_choice"] = {"type": "function", "name": request.tool_choice}


class _Builder:
    """Messages to input items; parts of one item come together again."""

    def __init__(self, messages: list[Message], *, stored: bool) -> None:
        self.messages = messages
        self.stored = stored
        self.calls = whole_calls(messages)
        self.calls_by_id = {p.call_id: p for m in messages for p in m.tool_calls}
        self.entries: list[dict[str, Any]] = []
        self.open_id: tuple[str, str] | None = None

    def items(self) -> list[dict[str, Any]]:
        for message in self.messages:
            self.open_id = None
            if message.role == "user":
                self._user(message)
            else:
                for part in message.parts:
                    self._part(part)
        return self.entries

    def _user(self, message: Message) -> None:
        content: list[dict[str, Any]] = []
        for part in map(as_words, message.parts):
            if isinstance(part, TextPart):
                content.append({"type": "input_text", "text": part.text})
            elif isinstance(part, FilePart):
                content.append(_file(part))
            elif isinstance(part, ToolResultPart):
                self._part(part)
        if content:
            self.entries.append({"role": "user", "content": content})

    def _part(self, part: Part) -> None:
        own = mine(part, _NAME)
        if isinstance(part, TextPart):
            if part.text:
                annotations = [c.get("raw", c) for c in part.citations or []] if own else []
                text = {"type": "output_text", "text": part.text, "annotations": annotations}
                self._message(part, text)
        elif isinstance(part, RefusalPart):
            self._message(part, {"type": "refusal", "refusal": part.text})
        elif isinstance(part, ReasoningPart):
            if own and part.meta:
                self._reasoning(part)
        elif isinstance(part, ToolCallPart):
            self._call(part)
        elif isinstance(part, ToolResultPart):
            self._result(part)
        elif isinstance(part, FilePart):
            item = meta_of(part, _NAME).get("item")
            if isinstance(item, dict):
                self._item(item | {"result": part.data})
        elif own and isinstance(part, ProviderResultPart | OpaquePart) and part.meta:
            whole = part.content if isinstance(part, ProviderResultPart) else part.payload
            if isinstance(whole, dict):
                self._item(whole)

    def _item(self, item: dict[str, Any]) -> None:
        self.open_id = None
        self.entries.append(item)

    def _message(self, part: Part, content: dict[str, Any]) -> None:
        item_id = text_of(meta_of(part, _NAME).get("id"))
        if self.open_id == ("message", item_id) and self.entries:
            self.entries[-1]["content"].append(content)
            return
        item: dict[str, Any] = {"type": "message", "role": "assistant", "content": [content]}
        if item_id and self.stored:
            item |= {"id": item_id, "status": "completed"}
        self._item(item)
        self.open_id = ("message", item_id)

    def _reasoning(self, part: ReasoningPart) -> None:
        meta = meta_of(part, _NAME)
        item_id = text_of(meta.get("id"))
        if self.open_id != ("reasoning", item_id) or not self.entries:
            self._item({"type": "reasoning", "id": item_id, "summary": []})
            self.open_id = ("reasoning", item_id)
        item = self.entries[-1]
        if part.text and part.summary:
            item["summary"].append({"type": "summary_text", "text": part.text})
        elif part.text:
            content = item.setdefault("content", [])
            content.append({"type": "reasoning_text", "text": part.text})
        if part.encrypted is not None:
            item["encrypted_content"] = part.encrypted

    def _call(self, part: ToolCallPart) -> None:
        meta = meta_of(part, _NAME)
        if isinstance(meta.get("item"), dict):
            self._item(meta["item"])
            return
        if part.executor == "provider" or part.call_id not in self.calls:
            return
        kind = text_of(meta.get("type")) or "function_call"
        if part.format == "text":
            kind = "custom_tool_call"
        call_id = call_id_for(part.call_id)
        item: dict[str, Any] = {"type": kind, "call_id": call_id, "name": part.name}
        item["input" if kind == "custom_tool_call" else "arguments"] = arguments_text(part)
        if meta.get("id") and self.stored:
            item["id"] = meta["id"]
        self._item(item | {k: v for k, v in meta.items() if k not in _EXTRA_SKIPPED})

    def _result(self, part: ToolResultPart) -> None:
        call = self.calls_by_id.get(part.call_id)
        kind = text_of(meta_of(call, _NAME).get("type")) if call is not None else ""
        if call is not None and call.format == "text":
            kind = "custom_tool_call"
        item: dict[str, Any] = {"type": f"{kind or 'function_call'}_output"}
        if kind == "local_shell_call" and call is not None:
            item["id"] = part.call_id
        else:
            item["call_id"] = call_id_for(part.call_id)
        native = kind not in ("", "function_call", "custom_tool_call")
        output = part.content if native and not isinstance(part.content, str) else result_text(part)
        self._item(item | {"output": output})


def _file(part: FilePart) -> dict[str, Any]:
    if part.media_type.startswith(("audio/", "video/")):
        raise InputError(f"OpenAI Responses does not accept {part.media_type} files")
    url = part.url
    if part.data is not None:
        url = f"data:{part.media_type};base64,{base64_of(part, 'OpenAI Responses')}"
    if part.media_type.startswith("image/"):
        return {"type": "input_image", "image_url": url, "detail": "auto"}
    if part.data is None:
        return {"type": "input_file", "file_url": url}
    return {"type": "input_file", "filename": part.name or "file", "file_data": url}
