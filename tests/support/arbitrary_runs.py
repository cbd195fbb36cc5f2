"""Runs of arbitrary events with arbitrary fields: whatever the table of `events/order.py` allows.

`event_strategies` writes runs that make sense; these need not. A field's value is made from its
type, so a new event or field is covered as soon as it is there.
"""

from __future__ import annotations

import random
from typing import Any

from msgspec import inspect

from tokenwire.events import model as m
from tokenwire.events.codec import AnyEvent
from tokenwire.events.model import EVENT_TYPES
from tokenwire.events.order import _DELTAS, ENDS, TABLE, Order

__all__ = ["arbitrary_run"]

_WORDS = [
    "",
    "a",
    "Hello",
    "é👩‍👩‍👧",
    "\r\n",
    "\n\ndata: x\n\n",
    "\u2028",
    "null",
    '"}',
    "https://x.example/a",
]
_OPENS = [name for name in EVENT_TYPES if name.endswith("-start") and name[:-6] in ENDS]
#: What is drawn more often than its share, so that runs have some length and some parts.
_OFTEN = {"step-start": 12, "part": 40, "run-end": 1, "step-end": 4, "step-reset": 1}
_ATTRS = ["signature", "encrypted", "citation", "call_id", "tool_name", "meta", "logprobs", "index"]


class _Dice:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def value(self, depth: int = 0) -> Any:
        """Some JSON value."""
        kind = self.random.randrange(8 if depth < 2 else 6)
        if kind == 6:
            return [self.value(depth + 1) for _ in range(self.random.randrange(3))]
        if kind == 7:
            return {self.word(): self.value(depth + 1) for _ in range(self.random.randrange(3))}
        return [None, True, 0, -1.5, self.word(), self.word()][kind]

    def word(self) -> str:
        return self.random.choice(_WORDS)

    def of(self, kind: inspect.Type) -> Any:
        """A value of a field's type."""
        if isinstance(kind, inspect.UnionType):
            return self.of(self.random.choice(kind.types))
        if isinstance(kind, inspect.LiteralType):
            return self.random.choice(kind.values)
        if isinstance(kind, inspect.ListType):
            return [self.of(kind.item_type) for _ in range(self.random.randrange(3))]
        if isinstance(kind, inspect.StructType):
            return self.struct(kind)
        if isinstance(kind, inspect.DictType):
            return {self.word(): self.of(kind.value_type) for _ in range(self.random.randrange(3))}
        made: dict[type, Any] = {
            inspect.StrType: self.word,
            inspect.IntType: lambda: self.random.choice([0, 1, 7, 1 << 40]),
            inspect.FloatType: lambda: self.random.choice([0.0, 0.25, 1e9]),
            inspect.BoolType: lambda: self.random.random() < 0.5,
            inspect.NoneType: lambda: None,
            inspect.AnyType: self.value,
        }
        return made[type(kind)]()

    def struct(self, kind: inspect.StructType) -> Any:
        """A value inside of an event, such as who speaks."""
        there = [f for f in kind.fields if f.required or self.random.random() < 0.5]
        return kind.cls(**{field.name: self.of(field.type) for field in there})

    def fields(self, kind: type[m.Event]) -> dict[str, Any]:
        """Arbitrary fields of an event, each there or left out."""
        info = inspect.type_info(kind)
        assert isinstance(info, inspect.StructType)
        return {
            field.name: self.of(field.type)
            for field in info.fields
            if field.name not in ("seq", "t", "extra")
            and (field.required or self.random.random() < 0.5)
        }


class _Writer:
    def __init__(self, seed: int) -> None:
        self.dice = _Dice(seed)
        self.random = self.dice.random
        self.order = Order()
        self.events: list[AnyEvent] = []
        self.calls: list[str] = []
        self.steps = 0

    def run(self) -> list[AnyEvent]:
        self.add("run-start")
        most = self.random.choice([5, 20, 60])
        while self.order.state != "ended":
            if len(self.events) >= most:
                self.finish()
            else:
                self.something()
        return self.events

    def finish(self) -> None:
        if self.order.state == "step":
            for part in list(self.order.open):
                self.end(part)
            self.add("step-end", step=self.order.step)
        for task in list(self.order.tasks):
            self.add("step-end", step=task)
        self.add("run-end")

    def something(self) -> None:
        allowed = [name for name in TABLE[self.order.state] if not self.is_part(name)]
        if self.order.state == "step":
            allowed.append("part")
            if self.order.open and not self.order.tasks:
                allowed.remove("step-end")
        elif self.order.state == "between" and not self.order.tasks:
            allowed.remove("step-end")
        if self.order.tasks and "run-end" in allowed:
            allowed.remove("run-end")
        name = self.random.choices(allowed, [_OFTEN.get(name, 2) for name in allowed])[0]
        if name == "part":
            self.part()
        elif name == "raw" and self.random.random() < 0.3:
            fields = {"type": "event-of-tomorrow", "payload": self.dice.value()}
            self.check(m.Unknown(fields=fields))
        else:
            self.add(name)

    def is_part(self, name: str) -> bool:
        return name.split("-start")[0].split("-delta")[0].split("-end")[0] in ENDS or (
            name.startswith("part-")
        )

    def part(self) -> None:
        what = self.random.random()
        if what < 0.3 or not self.order.open:
            self.add(self.random.choice(_OPENS), part=self.order.next_part)
            return
        part = self.random.choice(list(self.order.open))
        kind = self.order.open[part]
        deltas = [delta for delta, of in _DELTAS.items() if of == kind]
        if what < 0.7 and deltas:
            self.check(deltas[0](part=part, text=self.dice.word()))  # type: ignore[call-arg]
        elif what < 0.82:
            name = self.random.choice(_ATTRS)
            self.check(m.PartAttr(part=part, name=name, value=self.attr(name)))
        elif what < 0.85:
            self.add("part-patch", part=part)
        else:
            self.end(part)

    def attr(self, name: str) -> Any:
        if name in ("call_id", "tool_name"):
            return self.call_id() if name == "call_id" else "tool"
        if name == "citation":
            names = ("url", "title", "document_title", "media_type", "filename")
            return {n: self.dice.value() for n in names if self.random.random() < 0.6}
        if name == "meta":
            return {"k": self.dice.value()}
        if name in ("signature", "encrypted"):
            return self.random.choice(["c2ln", "", "x" * 40])
        return self.dice.value()

    def end(self, part: int) -> None:
        kind = ENDS[self.order.open[part]]
        fields = {**self.dice.fields(kind), "part": part}
        if fields.get("text") is not None and self.random.random() < 0.8:
            del fields["text"]  # a provider rarely says the whole again
        self.check(kind(**fields))

    def call_id(self) -> str:
        """A new call's id; the relay lets each name one call."""
        self.calls.append(f"call_{len(self.calls)}")
        return self.calls[-1]

    def add(self, name: str, **fixed: Any) -> None:
        kind = EVENT_TYPES[name]
        fields = {**self.dice.fields(kind), **fixed}
        if name == "step-start":
            self.steps += 1
            fields["step"] = self.steps
            if self.order.state == "step":
                fields["kind"] = "task"
        elif name == "step-end" and "step" not in fixed:
            own = self.order.state == "step" and not self.order.open
            fields["step"] = self.random.choice([*self.order.tasks, *[self.order.step] * own])
        elif name == "step-reset" and self.steps and self.random.random() < 0.8:
            fields["step"] = self.random.randint(1, self.steps)
        if name in ("tool-call-start", "provider-result-start"):
            fields["call_id"] = self.call_id() if self.random.random() < 0.8 else ""
        elif "call_id" in fields and self.calls and self.random.random() < 0.8:
            fields["call_id"] = self.random.choice(self.calls)
        if name == "run-start":
            fields["run"] = "run-1234567890abcdef"
        self.check(kind(**fields))

    def check(self, event: AnyEvent) -> None:
        self.events.append(self.order.check(event))


def arbitrary_run(seed: int) -> list[AnyEvent]:
    """The run of a number: any events that may follow each other, to the ``run-end``."""
    return _Writer(seed).run()
