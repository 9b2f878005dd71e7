"""Offset tokens and cursors as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_log.model import EARLIEST, NOW
from durable_log.protocol.tokens import CURSOR_EPOCH, cursor, offset_token, parse_cursor, parse_offset

OFFSETS = st.integers(min_value=0, max_value=10**16 - 1)


def test_the_start_of_a_stream_has_the_token_that_the_field_expects():
    assert offset_token(0) == b"0000000000000000_0000000000000000"


def test_the_sentinels_name_the_oldest_byte_and_the_tail():
    assert (parse_offset("-1"), parse_offset("now")) == (EARLIEST, NOW)


@given(OFFSETS)
def test_a_token_reads_back_as_its_offset(offset: int):
    assert parse_offset(offset_token(offset).decode()) == offset


@given(OFFSETS, OFFSETS)
def test_tokens_sort_as_text_the_way_offsets_sort(one: int, other: int):
    assert (offset_token(one) < offset_token(other)) == (one < other)


def test_a_token_with_another_first_field_lies_beyond_every_tail():
    assert parse_offset("9999999999999999_9999999999999999") == 2**63 - 1
    assert parse_offset("0000000000000001_0000000000000000") == 10**16


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "0",
        "-2",
        "+1",
        "NOW",
        "now ",
        "-1\n",
        "0000000000000000_0000000000000000\n",
        " 0000000000000000_0000000000000000",
        "0000000000000000_0000000000000000\x00",
        "0000000000000000_000000000000000",
        "0000000000000000_00000000000000000",
        "0000000000000000-0000000000000000",
        "0000000000000000_000000000000000a",
        "0000000000000000_00000000000000\u0660\u0660",
        "0000000000000000_0000000000000000,1",
        "../0000000000000000_0000000000000000",
        "0000000000000000_0000000000000000/..",
        "1e15",
        "0x10",
    ],
)
def test_what_is_nearly_a_token_is_none(text: str):
    assert parse_offset(text) is None


def test_a_cursor_counts_twenty_seconds_from_the_epoch_of_the_protocol():
    assert [cursor(CURSOR_EPOCH + seconds, None, 1) for seconds in (0, 19.9, 20, 3600)] == [0, 0, 1, 180]


def test_a_clock_before_the_epoch_gives_the_first_cursor():
    assert cursor(0.0, None, 1) == 0


def test_an_older_cursor_gets_the_current_interval():
    assert cursor(CURSOR_EPOCH + 2000, 99, 3600) == 100


@given(st.integers(0, 10**18 - 1), st.integers(1, 3600), st.floats(0, 4e9))
def test_an_echoed_cursor_always_comes_back_larger(echoed: int, jitter: int, now: float):
    assert cursor(now, echoed, jitter) > echoed


def test_jitter_is_counted_in_intervals():
    assert [cursor(CURSOR_EPOCH, 5, jitter) for jitter in (1, 20, 21, 3600)] == [6, 6, 7, 185]


@pytest.mark.parametrize("text", ["", "abc", "-1", "1.0", "1e3", "1 ", "1\n", "\u0661", "9" * 19])
def test_a_cursor_that_nobody_gave_out_counts_for_nothing(text: str):
    assert parse_cursor(text) is None


def test_a_cursor_reads_back_as_a_number():
    assert parse_cursor("1050") == 1050
