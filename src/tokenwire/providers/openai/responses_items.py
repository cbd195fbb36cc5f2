"""Output items of a Responses stream: which part belongs to which, and how each kind ends.

Always true: an item is found by its id where that is known, else by its output index and kind:
some servers change the id from event to event, others give every item the same index; a call is one
item wherever its ``call_id`` comes; a hosted tool's item goes into the result part as it came, so
that it can be sent back; an unknown item is kept whole as ``opaque``.
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
from tokenwire.providers.decoding.arguments import resolve
from tokenwire.providers.decoding.parts import OpenPart, Parts
from tokenwire.providers.decoding.values import (
    arguments_in,
    arguments_text,
    dump,
    obj,
    text_of,
    texts_of,
)

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
_CALL_FIELDS |= {"args", "parameters"}

MissingContents = Callable[["Item", dict[str, Any]], None]


class Item:
    """One output item and its parts."""

    def __init__(self, kind: str, index: Any, item_id: str) -> None:
        self.type = kind
        self.index = index
        self.id = item_id
        self.call_id = ""
        #: A call's arguments that came with its announcement: they count where no others come.
        self.announced = ""
        #: The text of its ended parts.
        self.text = ""
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
        if part.format == "json":
            part.final = text
            if text.startswith(streamed) and not part.is_repeating:
                part.delta(text[len(streamed) :])
        elif text.startswith(streamed):
            part.delta(text[len(streamed) :])
        else:
            self.final[part.number] = text

    def check(self, fields: dict[str, Any]) -> None:
        """A call that has ended comes again, whole: other arguments make it invalid."""
        call = self.call
        if self.type not in _FUNCTION or call is None or not call.open:
            return
        text = arguments_text(fields)
        if call.is_bare:
            self.agree(call, text)
        elif text.strip() and _plain(text) not in (_plain(call.final or call.text), "{}"):
            call.end("invalid", error="the arguments came twice, and differ")

    def finish(self, part: OpenPart, status: PartStatus = "complete") -> None:
        """End a part, with the corrected text where the deltas were wrong."""
        text = self.final.pop(part.number, None)
        if self.type in _FUNCTION:
            if not part.size and not part.final:
                part.delta(self.announced)
            self.text = _plain(text or part.final or part.text)
        elif part.pieces is not None:
            self.text += part.text if text is None else text
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
        self.all: list[Item] = []
        self.calls = 0
        self.refused = False
        #: Pieces of arguments whose item was not announced yet, by the id or index they name.
        self._waiting: dict[Any, list[str]] = {}
        #: The last event's names, and its item: deltas of one item come in a row.
        self._memo: tuple[Any, Any, Any, Item] | None = None

    def find(self, value: dict[str, Any]) -> Item | None:
        """The item that an event names, if it is known."""
        kind, item_id, index = value.get("type"), value.get("item_id"), value.get("output_index")
        memo = self._memo
        if memo is not None and memo[0] == item_id and memo[1] == kind and memo[2] == index:
            return memo[3]
        item = self._match(value, {}, _kinds(text_of(kind)))
        if item is not None:
            self._memo = item_id, kind, index, item
        return item

    def _match(
        self,
        value: dict[str, Any],
        fields: dict[str, Any],
        kinds: frozenset[str],
        *,
        ends: bool = False,
    ) -> Item | None:
        item_id = text_of(value.get("item_id")) or text_of(fields.get("id"))
        call_id = text_of(fields.get("call_id"))
        index = value.get("output_index")
        fitting = [i for i in reversed(self.all) if not kinds or i.type in kinds]
        if call_id:
            same_call = [i for i in fitting if i.call_id == call_id]
            if same_call:
                return same_call[0]
            others = [i for i in fitting if i.call_id and not i.ended]
            fitting = [i for i in fitting if not i.call_id]
            if ends and not fitting:  # its ids are others than at its start
                same = [i for i in others if item_id and i.id == item_id]
                fitting = same or ([i for i in others if i.index == index and _like(i, fields)])
                fitting = fitting if len(fitting) == 1 else []
        same_id = [i for i in fitting if item_id and i.id == item_id]
        if same_id:
            return same_id[0]
        if type(index) is int:
            placed = [i for i in fitting if i.index == index]
            return next((i for i in placed if not i.ended), placed[0] if placed else None)
        if item_id:
            return None
        return next((i for i in fitting if not i.ended), None)

    def of(self, value: dict[str, Any], fields: dict[str, Any] | None = None) -> Item:
        """The item that an event names; one that was never announced is begun here."""
        if fields is None:
            return self.find(value) or self._begin(value, {})
        kind = text_of(fields.get("type"))
        kinds = frozenset({kind} if kind else ())
        return self._match(value, fields, kinds, ends=True) or self._begin(value, fields)

    def added(self, value: dict[str, Any], fields: dict[str, Any]) -> None:
        """An item begins, unless its pieces, or the same announcement, came before."""
        kind = text_of(fields.get("type"))
        item = self._match(value, fields, frozenset({kind} if kind else ()))
        item_id = text_of(fields.get("id"))
        has_ended = item is not None and item.ended and item.id != item_id
        is_other = (
            item is not None
            and kind in _FUNCTION
            and not fields.get("call_id")
            and item.id != item_id
        )
        if item is None or has_ended or is_other:
            self._begin(value, fields)

    def wait(self, value: dict[str, Any], text: str) -> None:
        """Keep a piece of arguments until its item is announced."""
        keys = _keys(value)
        pieces = next((self._waiting[key] for key in keys if key in self._waiting), [])
        pieces.append(text)
        self._waiting |= dict.fromkeys(keys, pieces)

    def unclaimed(self) -> list[list[str]]:
        """Pieces of arguments whose item never came."""
        return list({id(pieces): pieces for pieces in self._waiting.values()}.values())

    def claim(self) -> None:
        """At the end: give pieces that no item claims to the only call without arguments; where
        that is not clear, no call without arguments may run."""
        pieces = self.unclaimed()
        bare = [i for i in self.all if i.call is not None and i.call.open and not i.announced]
        bare = [i for i in bare if i.call is not None and i.call.lacks_arguments]
        if len(pieces) == len(bare) == 1 and bare[0].call is not None:
            bare[0].call.delta("".join(pieces[0]))
            self._waiting.clear()
        elif pieces:
            for item in bare:
                if item.call is not None:
                    item.call.end("invalid", error="its arguments came for an item that is no call")

    def _begin(self, value: dict[str, Any], fields: dict[str, Any]) -> Item:
        kind = text_of(fields.get("type"))
        if not kind:
            kind = "reasoning" if "reasoning" in text_of(value.get("type")) else "message"
        item_id = text_of(fields.get("id")) or text_of(value.get("item_id"))
        item = Item(kind, value.get("output_index"), item_id)
        item.call_id = text_of(fields.get("call_id"))
        if kind in _FUNCTION:
            item.announced = arguments_text(fields)
        self.all.append(item)
        self._memo = None
        if kind in _FUNCTION:
            self._function(item, fields)
        elif kind in HOSTED or kind in CALLER:
            self._tool(item, fields)
        if item.call is not None:
            keys = _keys({"output_index": item.index, "item_id": item_id})
            waiting = [pieces for key in keys if (pieces := self._waiting.pop(key, None))]
            if waiting:
                item.call.delta("".join(waiting[0]))
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
        item.call.place = item.index if item.index is not None else item.id

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
            item.check(fields)
            return
        item.ended = True
        self._memo = None
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
        text = arguments_in(fields)
        if isinstance(text, str):
            item.agree(call, text)
        elif isinstance(text, dict) and not call.size:
            call.delta(dump(text))
        extra = {k: v for k, v in fields.items() if k not in _CALL_FIELDS and v is not None}
        if any((call.meta or {}).get(k) != v for k, v in extra.items()):
            call.attr("meta", (call.meta or {}) | extra)
        name = text_of(fields.get("name"))
        if name and not call.name:
            call.attr("tool_name", name)
        call_id = text_of(fields.get("call_id"))
        if call_id and not item.call_id:
            item.call_id = call_id
            call.attr("call_id", call_id)
        if not call.name:
            call.end("invalid", error="the call has no name")
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
        """Read the final response's items: emit those that never streamed. Its ids and places may
        be others than those of the stream, so an item is also known by what it says."""
        rest = list(self.all)
        matches: list[tuple[int, dict[str, Any], Item | None]] = []
        for index, fields in enumerate(map(obj, output)):
            item = _same(rest, index, fields)
            if item is not None:
                rest.remove(item)
            matches.append((index, fields, item))
        for index, fields, match in matches:
            item = match
            if item is None:
                item = next((i for i in rest if _like(i, fields)), None)
                if item is not None:
                    rest.remove(item)
            if item is None:
                item = self._begin({"output_index": index}, fields)
            self.done(item, fields, contents)

    def close(self) -> None:
        """The response is over: what is still open is whole."""
        for item in self.all:
            for part in [*item.contents.values(), item.call]:
                if part is not None and part.open:
                    item.finish(part)


def _same(items: list[Item], index: int, fields: dict[str, Any]) -> Item | None:
    """The streamed item that an entry of the final response surely is."""
    like = [i for i in items if _like(i, fields)]
    call_id, item_id = text_of(fields.get("call_id")), text_of(fields.get("id"))
    tests = (
        lambda i: bool(call_id) and i.call_id == call_id,
        lambda i: bool(item_id) and i.id == item_id,
        lambda i: _text_of(i) == _text_in(fields),
        lambda i: i.index == index and (not call_id or not i.call_id),
    )
    return next((i for test in tests for i in like if test(i)), None)


def _like(item: Item, fields: dict[str, Any]) -> bool:
    """Whether an item may be the one that ``fields`` is: its kind, and its name for a call."""
    if item.type != text_of(fields.get("type")):
        return False
    name = item.call.name if item.call is not None and item.type in _FUNCTION else ""
    return not name or not fields.get("name") or fields["name"] == name


def _text_of(item: Item) -> str | None:
    """What a streamed message said, or a call's arguments in one form; None for other items."""
    if item.type in _FUNCTION and item.call is not None and item.call.open:
        return _plain(item.call.text)
    if item.type == "message":
        return item.text + "".join(p.text for p in item.contents.values() if p.open)
    return item.text if item.type in _FUNCTION else None


def _text_in(fields: dict[str, Any]) -> str:
    """The same of an item of the final response."""
    if text_of(fields.get("type")) in _FUNCTION:
        return _plain(arguments_text(fields))
    return texts_of(fields.get("content"))


def _plain(text: str) -> str:
    """Arguments without what is only spelling."""
    value, error, _ = resolve(text)
    return text if error is not None else dump(value)


_MESSAGE = frozenset({"message"})
_REASONING = frozenset({"reasoning"})


def _kinds(event: str) -> frozenset[str]:
    """The kinds of item to which an event can belong; empty when it does not say."""
    words = event.split(".")
    if len(words) < 3 or words[0] != "response":
        return frozenset()
    if words[1].startswith("reasoning"):
        return _REASONING
    if words[1] in ("output_text", "refusal"):
        return _MESSAGE
    if words[1] == "function_call_arguments":
        return frozenset({"function_call"})
    if words[1] in ("custom_tool_call_input", "mcp_call_arguments", "code_interpreter_call_code"):
        return frozenset({words[1].rpartition("_")[0]})
    return frozenset({words[1]}) if words[1].endswith("_call") else frozenset()


def _keys(value: dict[str, Any]) -> list[Any]:
    """What an event says of its item: the id, then the index."""
    item_id, index = text_of(value.get("item_id")), value.get("output_index")
    return [*([item_id] if item_id else ()), *([index] if type(index) is int else ())]
