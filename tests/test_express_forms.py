"""A chunk filled into its form is what its wire would write, behind its size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tokenwire.express import form_of

#: Of a wire's fixed bytes: percent signs look like gaps, digits like sizes.
FIXED = st.lists(
    st.sampled_from([b"%", b"%b", b"%d", b"0", b'{"a":"', b"\r\n", b"\0", b"data: "]), max_size=5
).map(b"".join)
OFFSETS = st.one_of(st.integers(1, 12_000), st.integers(10**5, 10**12))
HEAD = b'{"type":"text","text":"'


@given(
    fixed=st.tuples(FIXED, FIXED, FIXED, FIXED),
    offset=OFFSETS,
    check=st.sampled_from([b"0123456789abcdef", b"%b", b"1"]),
    text=st.sampled_from([b"word", b"%d", b"\\n", b"\xc3\xa9" * 300, b" "]),
    head=st.sampled_from([b"", HEAD, b"another"]),
    has_cursor=st.booleans(),
    is_json=st.booleans(),
    shift=st.one_of(st.none(), st.integers(-5, 5)),
)
def test_a_form_is_filled_as_its_wire_writes(
    fixed: tuple[bytes, bytes, bytes, bytes],
    offset: int,
    check: bytes,
    text: bytes,
    head: bytes,
    has_cursor: bool,
    is_json: bool,
    shift: int | None,
) -> None:
    json = HEAD + text + b'","seq":%d,"t":3}' % offset
    form = form_of(
        b"%b%%b%b%%b%b%%b%b" % tuple(each.replace(b"%", b"%%") for each in fixed),
        head=head,
        has_cursor=has_cursor,
        is_json=is_json,
        shift=shift,
    )
    cursor = str(offset).encode() + b"-" + check if has_cursor else b""
    number = b"" if shift is None else str(offset + shift).encode()
    body = fixed[0] + cursor + fixed[1] + (text if head else json) + fixed[2] + number + fixed[3]
    fits = not head or (head == HEAD and (is_json or b"\\" not in text))
    chunk = format(len(body), "x").encode() + b"\r\n" + body + b"\r\n" if fits else b""
    assert form.fill(offset, check, json, text) == chunk
