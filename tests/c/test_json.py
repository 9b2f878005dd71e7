"""JSON mode's splitter and pager, with Python's own parser and plain arithmetic as oracles."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_log._core import ffi, lib

DEPTH = 64
VERDICTS = {
    getattr(lib, f"DL_JSON_{name.upper()}"): name
    for name in ("ok", "empty", "syntax", "utf8", "depth", "trailing", "no_room")
}


def memory_of(data: bytes):
    """An array of exactly these bytes, so that a sanitizer sees a read past either end."""
    memory = ffi.new("uint8_t[]", len(data))
    ffi.memmove(memory, data, len(data))
    return memory


def split(
    text: bytes, depth_max: int = DEPTH, room: int | None = None, texts: int = 1, call: str = "dl_json_split"
) -> tuple[str, bytes, int, int]:
    """Verdict, output, number of messages, error position."""
    size = len(text) + 1 if room is None else room
    out = ffi.new("uint8_t[]", size)
    length, count, position = ffi.new("size_t *"), ffi.new("size_t *"), ffi.new("size_t *")
    taken = memory_of(text), len(text)
    verdict = getattr(lib, call)(*taken, texts, depth_max, out, size, length, count, position)
    return VERDICTS[verdict], bytes(ffi.buffer(out)[0 : length[0]]), count[0], position[0]


def page(stored: bytes, limit: int) -> int:
    return lib.dl_json_page(memory_of(stored), len(stored), limit)


def messages(text: bytes) -> bytes:
    verdict, out, _, position = split(text)
    assert verdict == "ok", (verdict, position)
    return out


def refusal(text: bytes, depth_max: int = DEPTH) -> tuple[str, int]:
    verdict, _, _, position = split(text, depth_max)
    assert verdict != "ok"
    return verdict, position


def refuse(constant: str) -> None:
    raise ValueError(constant)


def oracle(text: bytes):
    """The value, or ValueError: RFC 8259 as Python's parser has it, less its own extensions."""
    return json.loads(text.decode("utf-8"), parse_constant=refuse, parse_int=str, parse_float=str)


def is_valid(text: bytes) -> bool:
    try:
        oracle(text)
    except ValueError:
        return False
    return True


SPACE = st.text(" \t\r\n", max_size=3)
NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?", fullmatch=True)
CHARACTERS = st.one_of(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\'),
    st.sampled_from(['\\"', "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r", "\\t", "\\u00e9", "\\ud83d", "\\uDE00", "\x7f"]),
    st.sampled_from(["plain ascii", "日本語", "é", "😀", ",", "]", "}", "[{"]),
)
STRINGS = st.lists(CHARACTERS, max_size=12).map(lambda parts: '"' + "".join(parts) + '"')
SCALARS = st.one_of(st.sampled_from(["true", "false", "null"]), NUMBERS, STRINGS)


def padded(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(lambda before, value, after: before + value + after, SPACE, values, SPACE)


def arrays(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        SPACE.map(lambda space: f"[{space}]"),
        st.lists(padded(values), min_size=1, max_size=4).map(lambda items: "[" + ",".join(items) + "]"),
    )


def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    members = st.builds(lambda name, value: f"{name}:{value}", padded(STRINGS), padded(values))
    return st.one_of(
        SPACE.map(lambda space: f"{{{space}}}"),
        st.lists(members, min_size=1, max_size=4).map(lambda items: "{" + ",".join(items) + "}"),
    )


VALUES = st.recursive(SCALARS, lambda inner: st.one_of(arrays(inner), objects(inner)), max_leaves=12)
OBJECTS_OR_SCALARS = st.one_of(SCALARS, objects(VALUES))


@st.composite
def mutated(draw) -> bytes:
    """A valid text with up to three bytes or stretches changed."""
    text = bytearray(draw(padded(VALUES)).encode())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        until = min(len(text), at + draw(st.integers(0, 2)))
        byte = st.one_of(
            st.sampled_from(b'"\\,:[]{}0-.eE+utn \n\x00\x1f\x7f\x80\xbf\xc2\xe0\xed\xf4\xff'), st.integers(0, 255)
        )
        text[at:until] = bytes(draw(st.lists(byte, max_size=2)))
    return bytes(text)


# ---- what comes out ----


@given(padded(OBJECTS_OR_SCALARS))
def test_a_value_that_is_no_array_is_one_message(text):
    stripped = text.encode().strip(b" \t\r\n")
    assert split(text.encode()) == ("ok", stripped + b",", 1, 0)


@given(st.lists(st.tuples(SPACE, VALUES, SPACE), max_size=6), SPACE, SPACE)
def test_an_array_is_its_elements_byte_for_byte(items, before, after):
    text = before + "[" + (",".join(a + value + b for a, value, b in items) or before) + "]" + after
    stored = "".join(value + "," for _, value, _ in items).encode()
    assert split(text.encode()) == ("ok", stored, len(items), 0)


@given(padded(VALUES))
def test_messages_read_back_as_what_was_sent(text):
    value = oracle(text.encode())
    verdict, out, count, _ = split(text.encode())
    expected = value if isinstance(value, list) else [value]
    assert verdict == "ok"
    assert count == len(expected)
    assert oracle(b"[" + out[:-1] + b"]") == expected


FLATTENED = {
    "an empty array is no message": (b"[]", b"", 0),
    "an empty array with white space": (b" [ \n\t ] ", b"", 0),
    "an empty array in an array is a message": (b"[[]]", b"[],", 1),
    "only one level is flattened": (b"[[1,2],[3]]", b"[1,2],[3],", 2),
    "an object": (b'{"a":[1,2]}', b'{"a":[1,2]},', 1),
    "white space goes around messages and stays inside": (b' [ { "a" : 1 } , 2 ] ', b'{ "a" : 1 },2,', 2),
    "a number": (b"-0.0e-0", b"-0.0e-0,", 1),
    "a string": (b'"x"', b'"x",', 1),
    "null": (b"null", b"null,", 1),
}


@pytest.mark.parametrize(("text", "stored", "count"), FLATTENED.values(), ids=FLATTENED)
def test_flattening(text, stored, count):
    assert split(text) == ("ok", stored, count, 0)


def test_out_must_have_room_for_the_text_and_a_comma():
    assert split(b"1", room=1)[0] == "no_room"
    assert split(b"", room=0)[0] == "no_room"
    assert split(b"1", room=2)[:2] == ("ok", b"1,")


# ---- several texts ----


@given(st.lists(padded(VALUES).map(str.encode), max_size=5))
def test_texts_together_are_what_each_is_alone(texts):
    alone = [split(text) for text in texts]
    stored, count = b"".join(out for _, out, _, _ in alone), sum(count for _, _, count, _ in alone)
    assert split(b"\x1e".join(texts), texts=len(texts)) == ("ok", stored, count, 0)


@given(st.lists(mutated(), min_size=1, max_size=4))
def test_texts_together_are_refused_if_one_is_refused_alone(texts):
    together = split(b"\x1e".join(texts), texts=len(texts))
    assert (together[0] == "ok") == all(split(text)[0] == "ok" for text in texts)


TEXTS = {
    "a separator in a text": (b"1\x1e2", 1, "trailing", 1),
    "a separator in a text of two": (b"1\x1e2\x1e3", 2, "trailing", 3),
    "one text too few": (b"1\x1e2", 3, "trailing", 3),
    "an empty text": (b"1\x1e\x1e2", 3, "syntax", 2),
    "an empty text at the end": (b"1\x1e", 2, "empty", 2),
    "an array across two texts": (b"[1\x1e2]", 2, "syntax", 2),
    "a string across two texts": (b'"1\x1e2"', 2, "syntax", 2),
    "no text in white space": (b" ", 0, "trailing", 0),
}


@pytest.mark.parametrize(("text", "texts", "verdict", "position"), TEXTS.values(), ids=TEXTS)
def test_texts_that_are_not_what_they_are_said_to_be(text, texts, verdict, position):
    assert split(text, texts=texts) == (verdict, b"", 0, position)


def test_an_array_leaves_no_depth_to_the_text_behind_it():
    assert split(b"[1]\x1e" * 10 + b"[[1]]", 2, texts=11)[0] == "ok"
    assert split(b"", texts=0) == ("ok", b"", 0, 0)


# ---- what is valid ----

ACCEPTED = {
    "a lone high surrogate is kept": rb'"\ud83d"',
    "a lone low surrogate is kept": rb'"\uDE00"',
    "surrogates the wrong way round are kept": rb'"\ude00\ud83d"',
    "an escaped NUL": rb'"\u0000"',
    "every escape": rb'"\"\\\/\b\f\n\r\t\u0aFf"',
    "DEL in a string": b'"\x7f"',
    "a noncharacter": '"\uffff\U0010ffff"'.encode(),
    "line separators": '"\u2028\u2029"'.encode(),
    "the least of two, three and four bytes": '"\x80\u0800\U00010000"'.encode(),
    "around the surrogates": '"\ud7ff\ue000"'.encode(),
    "a duplicate key": b'{"a":1,"a":2}',
    "an empty key": b'{"":0}',
    "an exponent with a plus": b"1E+2",
    "a huge exponent": b"1e999999",
    "minus zero": b"-0",
    "a long number": b"1" * 5000,
    "a string of eight": b'"12345678"',
    "a backslash at the eighth byte": rb'"1234567\n"',
    "brackets in a string": b'"]}[{,:"',
}


@pytest.mark.parametrize("text", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted_as_it_is(text):
    assert is_valid(text)
    assert messages(text) == text + b","
    assert messages(b"[" + text + b"," + text + b"]") == (text + b",") * 2


REFUSED = {
    "nothing": (b"", "empty", 0),
    "only white space": (b" \r\n\t", "empty", 4),
    "a byte order mark": (b"\xef\xbb\xbf1", "syntax", 0),
    "UTF-16": ("[]".encode("utf-16-le"), "syntax", 1),
    "a trailing comma in an array": (b"[1,]", "syntax", 3),
    "a leading comma in an array": (b"[,1]", "syntax", 1),
    "two commas in an array": (b"[1,,2]", "syntax", 3),
    "a missing comma in an array": (b"[1 2]", "syntax", 3),
    "an array that does not end": (b"[1", "syntax", 2),
    "an array that ends in a comma": (b"[1,", "syntax", 3),
    "an inner array with a trailing comma": (b"[[1,]]", "syntax", 4),
    "an array closed as an object": (b"[1}", "syntax", 2),
    "an object closed as an array": (b'{"a":1]', "syntax", 6),
    "an inner array closed as an object": (b"[[1}]", "syntax", 3),
    "a trailing comma in an object": (b'{"a":1,}', "syntax", 7),
    "a leading comma in an object": (b'{,"a":1}', "syntax", 1),
    "a key without a value": (b'{"a"}', "syntax", 4),
    "a key with a colon only": (b'{"a":}', "syntax", 5),
    "a key that is no string": (b"{1:1}", "syntax", 1),
    "a key without quotes": (b"{a:1}", "syntax", 1),
    "two colons": (b'{"a"::1}', "syntax", 5),
    "a comma for a colon": (b'{"a",1}', "syntax", 4),
    "single quotes": (b"'a'", "syntax", 0),
    "a comment": (b"[1/**/]", "syntax", 2),
    "a closing bracket alone": (b"]", "syntax", 0),
    "a comma alone": (b",", "syntax", 0),
    "a form feed": (b"\x0c1", "syntax", 0),
    "a no-break space": ("[\xa0]".encode(), "syntax", 1),
    "a word that is no literal": (b"nope", "syntax", 1),
    "a capital literal": (b"True", "syntax", 0),
    "half a literal": (b"tru", "syntax", 3),
    "NaN": (b"NaN", "syntax", 0),
    "Infinity": (b"[Infinity]", "syntax", 1),
    "minus Infinity": (b"-Infinity", "syntax", 1),
    "a minus alone": (b"-", "syntax", 1),
    "a plus": (b"+1", "syntax", 0),
    "a leading zero": (b"[01]", "syntax", 2),
    "a leading zero after a minus": (b"[-01]", "syntax", 3),
    "no digit after the point": (b"[1.]", "syntax", 3),
    "no digit before the point": (b"[.5]", "syntax", 1),
    "no digit in the exponent": (b"[1e]", "syntax", 3),
    "a sign alone in the exponent": (b"[1e+]", "syntax", 4),
    "two signs in the exponent": (b"[1e+-2]", "syntax", 4),
    "a point in the exponent": (b"[1e2.5]", "syntax", 4),
    "hexadecimal": (b"[0x1]", "syntax", 2),
    "digits of another script": ("[\uff11]".encode(), "syntax", 1),
    "a string that does not end": (b'"abc', "syntax", 4),
    "a string that ends in a backslash": (b'"abc\\', "syntax", 5),
    "an escaped end": (b'"abc\\"', "syntax", 6),
    "an unknown escape": (rb'"\x41"', "syntax", 2),
    "an escaped NUL byte": (b'"\\\x00"', "syntax", 2),
    "a capital U escape": (rb'"\U0041"', "syntax", 2),
    "a short u escape": (rb'"\u12"', "syntax", 5),
    "a u escape with a letter": (rb'"\u12G4"', "syntax", 5),
    "a u escape with a small letter": (rb'"\u12g4"', "syntax", 5),
    "a u escape with what stands before the letters": (rb'"\u12@4"', "syntax", 5),
    "a u escape with what stands between the letters": (rb'"\u12`4"', "syntax", 5),
    "a u escape with what stands before the digits": (rb'"\u12/4"', "syntax", 5),
    "a u escape with a sign": (rb'"\u+123"', "syntax", 3),
    "a newline in a string": (b'"a\nb"', "syntax", 2),
    "a tab in a string": (b'"a\tb"', "syntax", 2),
    "a NUL in a string": (b'"a\x00b"', "syntax", 2),
    "a control character late in a string": (b'"0123456789abcde\x1f"', "syntax", 16),
    "a NUL after the value": (b"1\x00", "trailing", 1),
    "two values": (b"1 2", "trailing", 2),
    "two arrays": (b"[1][2]", "trailing", 3),
    "an extra bracket": (b"[1]]", "trailing", 3),
    "an extra brace": (b"{}}", "trailing", 2),
    "a comma after the value": (b'{"a":1},', "trailing", 7),
    "two literals": (b"truefalse", "trailing", 4),
    "a leading zero alone": (b"01", "trailing", 1),
    "a continuation byte alone": (b'"a\x80"', "utf8", 2),
    "an overlong slash": (b'"\xc0\xaf"', "utf8", 1),
    "an overlong of two bytes": (b'"\xc1\xbf"', "utf8", 1),
    "an overlong of three bytes": (b'"\xe0\x9f\xbf"', "utf8", 1),
    "an overlong of four bytes": (b'"\xf0\x8f\xbf\xbf"', "utf8", 1),
    "an encoded high surrogate": (b'"\xed\xa0\x80"', "utf8", 1),
    "an encoded low surrogate": (b'"\xed\xbf\xbf"', "utf8", 1),
    "above U+10FFFF": (b'"\xf4\x90\x80\x80"', "utf8", 1),
    "a lead byte of five": (b'"\xf8\x88\x80\x80\x80"', "utf8", 1),
    "0xff": (b'"\xff"', "utf8", 1),
    "a character without its last byte": (b'"\xe2\x82"', "utf8", 1),
    "a bad character after a good one": ('"é'.encode() + b'\xe9"', "utf8", 3),
    "a bad character in a key": (b'{"\xff":1}', "utf8", 2),
    "a text cut inside of a character": (b'"\xf0\x9f\x98', "utf8", 4),
    "Latin-1": ('"é"'.encode("latin-1"), "utf8", 1),
}


@pytest.mark.parametrize(("text", "verdict", "position"), REFUSED.values(), ids=REFUSED)
def test_refused(text, verdict, position):
    assert not is_valid(text)
    assert refusal(text) == (verdict, position)


@given(mutated())
def test_a_changed_text_is_accepted_as_the_oracle_does(text):
    assert (split(text)[0] == "ok") == is_valid(text)


@given(st.binary(max_size=40))
def test_any_bytes_are_accepted_as_the_oracle_does(text):
    assert (split(text)[0] == "ok") == is_valid(text)


@given(st.binary(max_size=24))
def test_any_bytes_in_a_string_are_accepted_as_the_oracle_does(inside):
    text = b'["' + inside + b'"]'
    assert (split(text)[0] == "ok") == is_valid(text)


@given(mutated())
def test_an_error_position_is_the_first_byte_that_cannot_stand_there(text):
    verdict, _, _, position = split(text)
    if verdict == "ok":
        return
    before = split(text[:position])
    assert before[0] in ("ok", "empty") or before[3] == position
    if verdict in ("syntax", "trailing") and position < len(text):
        assert refusal(text[: position + 1]) == (verdict, position)


@given(VALUES)
def test_a_cut_text_is_refused_at_its_length(text):
    whole = text.encode()
    for length in range(len(whole)):
        verdict, _, _, position = split(whole[:length])
        assert verdict == "ok" or position == length


def test_every_character_that_utf8_has_is_accepted_and_no_other():
    for start in range(0, 0x110000, 0x800):
        encoded = "".join(map(chr, range(start, start + 0x800))).encode("utf-8", "surrogatepass")
        inside = encoded.translate(None, bytes(range(0x20)) + b'"\\')
        assert (split(b'"' + inside + b'"')[0] == "ok") == (start != 0xD800)


def test_every_pair_of_bytes_is_judged_as_python_does():
    for first in range(0x80, 0x100):
        for second in range(0x100):
            for rest in (b"", b"\x80", b"\xbf\xbf"):
                text = b'"' + bytes([first, second]) + rest + b'"'
                assert (split(text)[0] == "ok") == is_valid(text)


@pytest.mark.parametrize("byte", range(256))
def test_every_byte_at_every_place_of_a_long_string(byte):
    for place in range(20):
        text = b'"' + b"x" * place + bytes([byte]) + b"x" * (19 - place) + b'"'
        assert (split(text)[0] == "ok") == is_valid(text)


# ---- depth ----


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'], ids=["arrays", "objects", "both"])
@pytest.mark.parametrize("depth_max", [1, 2, 7, 8, 9, 64, 1000, 4096])
def test_the_deepest_nesting_is_accepted_and_one_more_is_not(opening, depth_max):
    closing = {b"[": b"]", b"{": b"}"}
    brackets = [bytes([byte]) for byte in (opening * depth_max) if byte in b"[{"][:depth_max]
    opened = b"".join(b"[" if bracket == b"[" else b'{"a":' for bracket in brackets)
    closed = b"".join(closing[bracket] for bracket in reversed(brackets))
    assert split(opened + b"1" + closed, depth_max)[0] == "ok"
    assert refusal(opened + b"[1]" + closed, depth_max) == ("depth", len(opened))
    assert refusal(opened + b"{}" + closed, depth_max) == ("depth", len(opened))


def test_siblings_do_not_add_to_the_depth():
    assert split(b"[" + b"[[]]," * 1000 + b"[{}]]", 3)[0] == "ok"


def test_a_closed_object_does_not_change_what_encloses_it():
    assert messages(b'[[{"a":{}},[{}],1],{"b":[[],{}],"c":1}]') == b'[{"a":{}},[{}],1],{"b":[[],{}],"c":1},'
    assert refusal(b'{"a":[{"b":1},{"c":[]}],2}') == ("syntax", 24)


@pytest.mark.parametrize("depth_max", [0, -1])
def test_no_depth_means_scalars_only(depth_max):
    assert split(b"1", depth_max)[0] == "ok"
    assert refusal(b"[]", depth_max) == ("depth", 0)
    assert refusal(b"{}", depth_max) == ("depth", 0)


def test_a_million_brackets_are_refused_and_not_followed():
    assert refusal(b"[" * 1_000_000, 2**31 - 1) == ("depth", 4096)
    assert refusal(b'{"a":' * 1_000_000, 2**31 - 1) == ("depth", 5 * 4096)


# ---- pages ----


def expected_page(stored: list[bytes], length: int, limit: int) -> int:
    ends = [end for end in accumulate(len(message) + 1 for message in stored) if end <= length]
    return max((end for end in ends if end <= limit), default=ends[0] if ends else 0)


@given(st.lists(VALUES.map(str.encode), max_size=6), st.data())
def test_a_page_ends_behind_the_last_message_that_fits(stored, draw):
    whole = b"".join(message + b"," for message in stored)
    length = draw.draw(st.integers(0, len(whole)))
    limit = draw.draw(st.integers(0, len(whole) + 2))
    assert page(whole, limit) == expected_page(stored, len(whole), limit)
    assert page(whole[:length], limit) == expected_page(stored, length, limit)


PAGES = {
    "two scalars": [b"1", b"2"],
    "nested": [b'{"a":[1,{"b":2},3],"c":"d"}', b"[[],[[]],{}]", b"[1,2,3]"],
    "strings with what looks like structure": [rb'"a,b]}"', rb'{"k,\"":"\\"}', rb'"\\\","', b'"]["'],
    "long strings": [b'"' + b"x" * 30 + b'"', b'{"' + b"y," * 20 + b'":0}'],
    "other scripts": ['"日本,語"'.encode(), '{"😀":"é,"}'.encode(), b"1"],
}


@pytest.mark.parametrize("stored", PAGES.values(), ids=PAGES)
def test_a_page_at_every_limit_and_every_cut(stored):
    whole = b"".join(message + b"," for message in stored)
    for length in range(len(whole) + 1):
        for limit in range(len(whole) + 2):
            assert page(whole[:length], limit) == expected_page(stored, length, limit)


def test_a_first_message_that_is_too_long_is_returned_whole():
    assert page(b'"0123456789",2,', 3) == 13
    assert page(b'"0123456789",2,', 0) == 13


def test_nothing_has_no_page():
    assert page(b"", 10) == 0
    assert page(b'{"a":1}', 10) == 0


@given(st.binary(max_size=60), st.integers(0, 70))
def test_a_page_of_any_bytes_stays_inside_of_them(stored, limit):
    end = page(stored, limit)
    assert 0 <= end <= len(stored)
    assert end == 0 or stored[end - 1 : end] == b","


@given(st.lists(VALUES, min_size=1, max_size=5), st.integers(1, 60))
def test_pages_one_after_another_are_all_the_messages(values, limit):
    stored = messages(("[" + ",".join(values) + "]").encode())
    read, at = [], 0
    while at < len(stored):
        size = page(stored[at:], limit)
        read += oracle(b"[" + stored[at : at + size - 1] + b"]")
        at += size
    assert read == oracle(("[" + ",".join(values) + "]").encode())


# ---- formats ----


def sizes(stored: bytes, most: int) -> tuple[list[int], int]:
    """The sizes that the format has, and where the last message ends."""
    format_, end = ffi.new("uint8_t[]", most * lib.DL_JSON_FORMAT), ffi.new("size_t *")
    used = lib.dl_json_format(memory_of(stored), len(stored), most, format_, end)
    words = ffi.buffer(format_)[:used].decode().split("sx")
    assert words.pop() == ""
    return [int(word) for word in words], end[0]


@given(st.lists(VALUES.map(str.encode), max_size=6), st.integers(0, 7), st.data())
def test_a_format_has_the_sizes_of_the_first_whole_messages(stored, most, draw):
    whole = b"".join(message + b"," for message in stored)
    cut = whole[: draw.draw(st.integers(0, len(whole)))]
    ends = [end for end in accumulate(len(message) + 1 for message in stored) if end <= len(cut)][:most]
    assert sizes(cut, most) == ([len(message) for message in stored[: len(ends)]], ends[-1] if ends else 0)


@pytest.mark.parametrize("size", [1, 9, 10, 99, 100, 12_345])
def test_a_size_is_written_with_all_its_digits(size):
    assert sizes(b"1" * size + b",", 2) == ([size], size + 1)


@given(st.binary(max_size=60), st.integers(0, 70))
def test_a_format_of_any_bytes_stays_inside_of_them(stored, most):
    found, end = sizes(stored, most)
    assert sum(found) + len(found) == end <= len(stored)


@pytest.mark.parametrize("text", [b"[1, 2]", b"[1", b""])
def test_the_brief_call_says_the_same(text):
    assert split(text, call="dl_json_split_brief") == split(text)


@pytest.fixture
def turns() -> Iterator[list[int]]:
    """How often a thread has had the interpreter's lock that gets it only where it is let go."""
    before, count, over = sys.getswitchinterval(), [0], threading.Event()

    def take_turns() -> None:
        while not over.is_set():
            count[0] += 1
            time.sleep(0)

    sys.setswitchinterval(1000)
    thread = threading.Thread(target=take_turns)
    thread.start()
    yield count
    over.set()
    thread.join()
    sys.setswitchinterval(before)


def test_a_brief_call_keeps_the_interpreters_lock(turns):
    before = turns[0]
    for _ in range(1000):
        split(b"[1, 2]", call="dl_json_split_brief")
    assert turns[0] == before


def test_a_long_call_lets_others_run(turns):
    text, before, deadline = b"1" * 1_000_000, turns[0], time.monotonic() + 60
    while turns[0] == before:
        split(text)
        assert time.monotonic() < deadline
