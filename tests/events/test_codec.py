"""Events and their JSON form."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.event_strategies import runs
from tokenwire.errors import InputError
from tokenwire.events import codec
from tokenwire.events import model as m

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)


@given(runs())
def test_what_is_encoded_decodes_to_the_same_event_and_the_same_bytes(events):
    for event in events:
        data = codec.encode(event)
        assert codec.decode(data) == event
        assert codec.encode(codec.decode(data)) == data
        assert b"\n" not in data


def test_a_delta_stays_small():
    event = m.TextDelta(seq=17, t=412, part=0, text=" world")
    assert codec.encode(event) == b'{"type":"text-delta","part":0,"text":" world","seq":17,"t":412}'


def test_every_type_has_its_own_name_in_noun_then_moment_form():
    assert len(m.EVENT_TYPES) == len(set(m.EVENT_TYPES.values()))
    for name, cls in m.EVENT_TYPES.items():
        assert name == name.lower()
        assert cls.__doc__ or cls.__bases__[0].__doc__


@given(st.dictionaries(st.text(min_size=1, max_size=6).map(lambda k: "x" + k), JSON, min_size=1))
def test_unknown_fields_survive(fields):
    known = {"type": "text-delta", "part": 3, "text": "a", "seq": 4}
    data = msgspec.json.encode({**known, **fields})
    event = codec.decode(data)
    assert isinstance(event, m.TextDelta)
    assert event.part == 3
    assert msgspec.json.decode(codec.encode(event)) == {**known, **fields}


@given(st.dictionaries(st.text(max_size=6), JSON))
def test_unknown_types_survive(fields):
    fields = {**fields, "type": "from-the-future"}
    event = codec.decode(msgspec.json.encode(fields))
    assert isinstance(event, m.Unknown)
    assert event.type == "from-the-future"
    assert msgspec.json.decode(codec.encode(event)) == fields


def test_a_field_that_is_called_extra_is_kept():
    data = b'{"type":"text-end","part":1,"extra":{"a":1}}'
    assert msgspec.json.decode(codec.encode(codec.decode(data))) == msgspec.json.decode(data)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "not an event"),
        (b"[]", "object"),
        (b'{"a":1}', "'type'"),
        (b'{"type":5}', "'type'"),
        (b'{"type":"text-delta","part":"x","text":1}', "text-delta"),
        (b'{"type":"text-delta"}', "text-delta"),
        (b"\xff\xfe", "not an event"),
    ],
)
def test_what_is_no_event_is_refused_with_its_reason(data, word):
    with pytest.raises(InputError, match=word):
        codec.decode(data)


@given(st.binary(max_size=60))
def test_any_bytes_give_an_event_or_an_input_error(data):
    try:
        codec.decode(data)
    except InputError as error:
        assert error.message
