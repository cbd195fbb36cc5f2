"""Whether an object fulfils a protocol: the answer of `isinstance`, looked up once for a type."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable
from unittest.mock import patch

import pytest

from support.dialect_streams import STREAMS
from tokenwire import contracts
from tokenwire.contracts import fulfils
from tokenwire.providers.base import ReleasedDecoder, ResumableDecoder, SteadyDecoder
from tokenwire.providers.http.client import PushStream
from tokenwire.providers.http.response import Response
from tokenwire.wire.base import FormEncoder, SteadyEncoder
from tokenwire.wire.catalogue import encoder_for
from tokenwire.wire.native import NativeEncoder


@runtime_checkable
class Named(Protocol):
    """Something with a name that can be said."""

    name: str

    def say(self) -> str:
        """The name."""
        ...


class Good:
    def __init__(self) -> None:
        self.name = "good"

    def say(self) -> str:
        return self.name


class Half:
    name = "half"


def test_the_answer_is_looked_up_once_for_a_type() -> None:
    looks = 0

    class Look(type(Named)):  # type: ignore[misc]
        def __instancecheck__(cls, instance: object) -> bool:
            nonlocal looks
            looks += 1
            return super().__instancecheck__(instance)

    @runtime_checkable
    class Counted(Named, Protocol, metaclass=Look):
        """The same, with the looks counted."""

    for _ in range(3):
        assert fulfils(Good(), Counted)
        assert not fulfils(Half(), Counted)
        assert not fulfils(None, Counted)
    assert looks == 3


def test_what_is_remembered_is_bounded() -> None:
    with patch.dict(contracts._answers, clear=True):
        for number in range(contracts._MOST + 10):
            kind: Any = type(f"Kind{number}", (Good,), {})
            assert fulfils(kind(), Named)
            assert len(contracts._answers) <= contracts._MOST


@pytest.mark.parametrize(
    "contract",
    [ReleasedDecoder, ResumableDecoder, SteadyDecoder, PushStream, FormEncoder, SteadyEncoder],
)
def test_ours_are_what_isinstance_says(contract: Any) -> None:
    values: list[Any] = [Response(None), NativeEncoder()]  # type: ignore[arg-type]
    values += [encoder_for(name) for name in ("ui", "ag-ui", "openai-chat", "anthropic")]
    for stream in STREAMS.values():
        make = stream.dialect.decoder
        values.append(make(step=1, first_part=0, quirks=frozenset(), content_type=None))
    answers = [fulfils(value, contract) for value in values]
    assert answers == [isinstance(value, contract) for value in values]
    assert any(answers)
    assert not all(answers)
