"""JSON bodies, stored messages, JSON arrays."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_log.errors import InvalidData
from durable_log.protocol.json_mode import DEPTH_MAX, end_of_message, page, split, to_array

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("body", "stored", "count"),
    [
        (b'{"a": 1}', b'{"a": 1},', 1),
        (b"[1,2]", b"1,2,", 2),
        (b"[[1,2],[3,4]]", b"[1,2],[3,4],", 2),
        (b"[[[1,2,3]]]", b"[[1,2,3]],", 1),
        (b"null", b"null,", 1),
        (b"-0.50E+7", b"-0.50E+7,", 1),
        (b"[]", b"", 0),
        (b" [ ] ", b"", 0),
        (b"\r\n[ 1 ,\n\t2 ]\r\n", b"1,2,", 2),
        (rb'"\ud83d"', rb'"\ud83d",', 1),
        ('"ü€😀"'.encode(), '"ü€😀",'.encode(), 1),
    ],
)
def test_messages_keep_their_bytes_and_one_array_level_is_flattened(body: bytes, stored: bytes, count: int):
    assert split(body) == (stored, count)


@pytest.mark.parametrize(
    ("body", "position"),
    [
        (b"   ", 3),
        (b"{", 1),
        (b"[1,]", 3),
        (b"[1 2]", 3),
        (b"{'a':1}", 1),
        (b"01", 1),
        (b"nul", 3),
        (b"NaN", 0),
        (b'"\n"', 1),
        (b'"\xff"', 1),
        (b'"\xed\xa0\xbd"', 1),
        (b"1 2", 2),
        (b"\xef\xbb\xbf1", 0),
    ],
)
def test_what_is_not_json_is_refused_with_its_position(body: bytes, position: int):
    with pytest.raises(InvalidData, match=f"at byte {position}$") as caught:
        split(body)
    assert caught.value.position == position


def test_nesting_has_a_limit_and_no_effect_below_it():
    deepest = b"[" * DEPTH_MAX + b"]" * DEPTH_MAX
    assert split(deepest)[1] == 1
    with pytest.raises(InvalidData, match="nests deeper than 512"):
        split(b"[" + deepest + b"]")


def test_a_hundred_thousand_brackets_are_refused_and_nothing_overflows():
    with pytest.raises(InvalidData, match="nests deeper"):
        split(b"[" * 100_000)


def test_no_messages_are_an_empty_array():
    assert to_array(b"") == b"[]"


@given(st.lists(VALUES, min_size=1, max_size=5))
def test_an_array_comes_back_as_the_values_that_it_held(values: list[object]):
    stored, count = split(json.dumps(values).encode())
    assert count == len(values)
    assert json.loads(to_array(stored)) == values


@given(st.lists(VALUES.filter(lambda value: not isinstance(value, list)), min_size=1, max_size=5))
def test_appends_join_into_one_array(values: list[object]):
    stored = b"".join(split(json.dumps(value).encode())[0] for value in values)
    assert json.loads(to_array(stored)) == values


@pytest.mark.parametrize(("limit", "end"), [(1, 2), (2, 2), (9, 2), (10, 10), (12, 10), (13, 13), (99, 13)])
def test_a_page_ends_behind_the_last_message_that_fits_and_has_at_least_one(limit: int, end: int):
    assert page(b'1,[2,","],33,', limit) == end


def test_half_a_message_is_no_page():
    assert page(b'{"a":1', 99) == 0


@given(st.binary(max_size=64))
def test_any_bytes_are_taken_or_refused_as_the_parser_of_the_standard_library_does(body: bytes):
    try:
        json.loads(body.decode("utf-8"), parse_constant=_no_constant)
        valid = bool(body.strip(b" \t\r\n"))
    except ValueError:
        valid = False
    try:
        split(body)
    except InvalidData:
        assert not valid
    else:
        assert valid


def _no_constant(name: str) -> None:
    raise ValueError(name)


def test_the_end_of_a_message_is_found_by_counting():
    stored = b'1,"a,b",[2,{"c":3}],null,'
    assert [end_of_message(stored, count) for count in range(5)] == [0, 2, 8, 20, 25]
    assert [end_of_message(stored, count) for count in (5, 2**53)] == [0, 0]
    assert end_of_message(b"", 1) == 0
