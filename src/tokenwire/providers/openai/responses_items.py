"""Output items of a Responses stream: which part belongs to which, and how each kind ends.

Always true: items are found by their output index first, since some servers change the id from
event to event; a hosted tool's item goes into the result part as it came, so that it can be sent
back; an unknown item is kept whole as ``opaque``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenwire.events.model import (
    FileStart,
    OpaqueStart,
    PartStart,
    PartStatus,
    ProviderResultStart,
    ReasoningStart,
    ToolCallStart,
)
from tokenwire.providers.decoding.parts import OpenPart, Parts, dump, obj, text_of

__all__ = ["Item", "Items"]

#: Hosted tools, run by the provider.
HOSTED = frozenset(
    {"web_search_call", "file_search_call", "code_interpreter_call", "mcp_call"}
    | {"image_generation_call", "program", "tool_search_call"}
)
#: Tools with a form of their own that the caller runs.
CALLER = frozenset({"local_shell_call", "shell_call", "computer_call", "apply_patch_call"})
_CODE = frozenset({"code_interpreter_call", "program"})
_FUNCTION = frozenset({"function_call", "custom_tool_call"})
_CALL_FIELDS = frozenset({"type", "id", "call_id", "name", "arguments", "input", "status"})

MissingContents = Callable[["Item", dict[str, Any]], None]


class Item:
    """One output item and its parts."""

    def __init__(self, kind: str, index: Any, item_id: str) -> None:
        self.type = kind
        self.index = index
        self.id = item_id
        self.contents: dict[tuple[str, int], OpenPart] = {}
        self.annotations: dict[int, int] = {}
        self.call: OpenPart | None = None
        #: The last reasoning part: open until the item ends, which carries its encrypted form.
        self.tail: OpenPart | None = None
        self.final: dict[int, str] = {}
        self.ended = False

    @property
    def meta(self) -> dict[str, Any]:
        """What every part of the item carries."""
        return {"type": self.type, "index": self.index, "id": self.id}

    def agree(self, part: OpenPart, text: str) -> None:
        """Compare with the whole text of a ``done``: emit the rest, or note the correction."""
        streamed = part.text
        if text == streamed or not text:
            return
        if text.startswith(streamed):
            part.delta(text[len(streamed) :])
        else:
            self.final[part.number] = text

    def finish(self, part: OpenPart, status: PartStatus = "complete") -> None:
        """End a part, with the corrected text where the deltas were wrong."""
        text = self.final.pop(part.number, None)
        part.end(status, **({} if text is None else {"text": text}))

    def finish_content(self, part: OpenPart) -> None:
        """A text is over; reasoning waits for the end of its item."""
        if isinstance(part.start, ReasoningStart) and self.type == "reasoning":
            self.tail = part
        else:
            self.finish(part)


class Items:
    """All output items of one response."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.by_index: dict[Any, Item] = {}
        self.calls = 0
        self.refused = False

    def find(self, value: dict[str, Any]) -> Item | None:
        """The item that an event names, if it is known."""
        return self.by_index.get(_key(value))

    def of(self, value: dict[str, Any], fields: dict[str, Any] | None = None) -> Item:
        """The item that an event names; one that was never announced is begun here."""
        key = _key(value, fields)
        item = self.by_index.get(key)
        if item is None:
            item = self._begin(key, value, fields or {})
        return item

    def added(self, value: dict[str, Any], fields: dict[str, Any]) -> None:
        """An item begins."""
        key = _key(value, fields)
        if key not in self.by_index:
            self._begin(key, value, fields)

    def _begin(self, key: Any, value: dict[str, Any], fields: dict[str, Any]) -> Item:
        kind = text_of(fields.get("type"))
        if not kind:
            kind = "reasoning" if "reasoning" in text_of(value.get("type")) else "message"
        item_id = text_of(fields.get("id")) or text_of(value.get("item_id"))
        item = self.by_index[key] = Item(kind, value.get("output_index"), item_id)
        if kind in _FUNCTION:
            self._function(item, fields)
        elif kind in HOSTED or kind in CALLER:
            self._tool(item, fields)
        return item

    def _function(self, item: Item, fields: dict[str, Any]) -> None:
        call_id = text_of(fields.get("call_id"))
        self.calls += 1
        extra = {k: v for k, v in fields.items() if k not in _CALL_FIELDS and v is not None}
        item.call = self.parts.open(
            ToolCallStart,
            name=text_of(fields.get("name")),
            call_id=call_id or item.id or f"call_{self.parts.step}_{self.parts.next_part}",
            id_source="provider" if call_id else "synthetic",
            format="text" if item.type == "custom_tool_call" else "json",
            meta=item.meta | extra,
        )

    def _tool(self, item: Item, fields: dict[str, Any]) -> None:
        caller = item.type in CALLER or fields.get("execution") == "client"
        call_id = text_of(fields.get("call_id")) if caller else item.id
        if caller:
            self.calls += 1
        item.call = self.parts.open(
            ToolCallStart,
            name=text_of(fields.get("name")) or item.type.removesuffix("_call"),
            call_id=call_id or f"call_{self.parts.step}_{self.parts.next_part}",
            id_source="provider" if call_id else "synthetic",
            executor="client" if caller else "provider",
            format="text" if item.type in _CODE else "json",
            meta=item.meta | {"native": True},
        )

    def open_content(
        self, item: Item, cls: type[PartStart], group: str, index: int, fields: dict[str, Any]
    ) -> OpenPart:
        """A new text, refusal or reasoning part of an item."""
        if item.tail is not None:
            item.finish(item.tail)
            item.tail = None
        meta = item.meta | {f"{group}_index": index}
        part = self.parts.open(cls, meta=meta, **fields).keep()
        item.contents[group, index] = part
        return part

    def partial_image(self, item: Item, value: dict[str, Any]) -> None:
        """A preview: visible, but not part of the message."""
        media_type = f"image/{text_of(value.get('output_format')) or 'png'}"
        part = self.parts.open(
            FileStart, media="image", media_type=media_type, name="preview", meta=item.meta
        )
        part.delta(text_of(value.get("partial_image_b64")))
        part.end("discarded")

    # --- ends ----------------------------------------------------------------------------------

    def done(self, item: Item, fields: dict[str, Any], contents: MissingContents) -> None:
        """End an item; ``fields`` is the whole item of the provider."""
        if item.ended:
            return
        item.ended = True
        status: PartStatus = "complete"
        if fields.get("status") == "incomplete":
            status = "truncated"
        if item.type in _FUNCTION:
            self._end_function(item, fields, status)
        elif item.call is not None:
            self._end_tool(item, fields, status)
        elif item.type == "reasoning":
            contents(item, fields)
            self._end_reasoning(item, fields, status)
        elif item.type == "message":
            contents(item, fields)
            for part in item.contents.values():
                item.finish(part, status)
        elif item.type.endswith("_output"):
            call_id = text_of(fields.get("call_id")) or item.id
            self.parts.whole(
                ProviderResultStart, call_id=call_id, name=item.type, content=fields, meta=item.meta
            )
        else:
            self.parts.whole(OpaqueStart, name=item.type, payload=fields, meta=item.meta)

    def _end_function(self, item: Item, fields: dict[str, Any], status: PartStatus) -> None:
        call = item.call
        if call is None:
            return
        text = fields.get("input" if item.type == "custom_tool_call" else "arguments")
        if isinstance(text, str):
            item.agree(call, text)
        elif isinstance(text, dict) and not call.size:
            call.delta(dump(text))
        extra = {k: v for k, v in fields.items() if k not in _CALL_FIELDS and v is not None}
        if any((call.meta or {}).get(k) != v for k, v in extra.items()):
            call.attr("meta", (call.meta or {}) | extra)
        name = text_of(fields.get("name"))
        if name and isinstance(call.start, ToolCallStart) and not call.start.name:
            call.attr("tool_name", name)
        item.finish(call, status)

    def _end_tool(self, item: Item, fields: dict[str, Any], status: PartStatus) -> None:
        call = item.call
        if call is None or not call.open:
            return
        arguments = next(
            (fields[k] for k in ("arguments", "code", "action", "operation") if fields.get(k)), None
        )
        if isinstance(arguments, str):
            item.agree(call, arguments)
        elif arguments is not None and not call.size:
            call.delta(dump(arguments))
        elif fields.get("queries") and not call.size:
            call.delta(dump({"queries": fields["queries"]}))
        name = call.start.name if isinstance(call.start, ToolCallStart) else item.type
        executor = call.start.executor if isinstance(call.start, ToolCallStart) else "provider"
        if executor == "client" or item.type == "program":
            call.attr("meta", (call.meta or {}) | {"item": fields})
        item.finish(call, status)
        if executor == "client" or item.type == "program" or not fields:
            return
        if item.type == "image_generation_call" and isinstance(fields.get("result"), str):
            self._image(item, fields)
            return
        self.parts.whole(
            ProviderResultStart, call_id=item.id, name=name, content=fields, meta=item.meta
        )

    def _image(self, item: Item, fields: dict[str, Any]) -> None:
        rest = {k: v for k, v in fields.items() if k != "result"}
        media_type = f"image/{text_of(fields.get('output_format')) or 'png'}"
        self.parts.whole(
            FileStart,
            text_of(fields.get("result")),
            media="image",
            media_type=media_type,
            meta=item.meta | {"item": rest},
        )

    def _end_reasoning(self, item: Item, fields: dict[str, Any], status: PartStatus) -> None:
        parts = [p for p in item.contents.values() if p.open]
        if not item.contents:
            parts = [self.parts.open(ReasoningStart, meta=item.meta)]
        encrypted = fields.get("encrypted_content")
        if isinstance(encrypted, str) and encrypted and parts:
            parts[-1].attr("encrypted", encrypted)
        for part in parts:
            item.finish(part, status)
        item.tail = None

    def complete(self, output: list[Any], contents: MissingContents) -> None:
        """Read the final response's items: emit those that never streamed."""
        count = len(self.by_index)
        for index, entry in enumerate(output):
            fields = obj(entry)
            value = {"output_index": index}
            item = self.by_index.get(index)
            if item is None and count and not any(k == index for k in self.by_index):
                if any(i.id and i.id == fields.get("id") for i in self.by_index.values()):
                    continue
                if count >= len(output):  # keyed by ids of another making
                    continue
            item = self.of(value, fields)
            self.done(item, fields, contents)

    def close(self) -> None:
        """The response is over: what is still open is whole."""
        for item in self.by_index.values():
            for part in [*item.contents.values(), item.call]:
                if part is not None and part.open:
                    item.finish(part)


def _key(value: dict[str, Any], fields: dict[str, Any] | None = None) -> Any:
    index = value.get("output_index")
    if type(index) is int:
        return index
    return text_of(value.get("item_id")) or text_of(obj(fields).get("id"))
