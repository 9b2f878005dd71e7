"""Patterns over stream paths."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_log.protocol.globs import parse_glob


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        (
            "events/*",
            ["events/a", "events/ä ö"],
            ["events", "events/", "events/a/b", "event/a", "events2/a", "a/events/a"],
        ),
        ("events/**", ["events", "events/a", "events/a/b", "events/"], ["event", "eventsx", "a/events"]),
        ("**", ["a", "a/b", "/"], ["__ds", "__ds/keys"]),
        ("*", ["a", "__dsx"], ["a/b", "__ds"]),
        ("*/*", ["a/b"], ["a", "a/b/c", "__ds/keys"]),
        ("**/x", ["x", "a/x", "a/b/x"], ["xx", "x/a"]),
        ("a/**/b/**/c", ["a/b/c", "a/x/b/y/z/c", "a/b/b/c/c"], ["a/c", "a/b", "a/b/c/d", "b/c"]),
        ("a/*/**", ["a/b", "a/b/c"], ["a", "a/"]),
        ("__ds/**", [], ["__ds/keys", "__ds"]),
        ("a", ["a"], ["b", "a/b", "aa"]),
        ("a.c/[x]", ["a.c/[x]"], ["abc/x", "a.c/x"]),
    ],
)
def test_stars_stand_for_whole_segments(pattern: str, matches: list[str], others: list[str]):
    glob = parse_glob(pattern)
    assert [path for path in matches + others if glob.matches(path)] == matches


def plainly(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(plainly(pattern[1:], path[start:]) for start in range(len(path) + 1))
    return bool(path) and pattern[0] in ("*" if path[0] else "", path[0]) and plainly(pattern[1:], path[1:])


@given(
    st.lists(st.sampled_from(("a", "b", "*", "**")), min_size=1, max_size=6),
    st.lists(st.sampled_from(("a", "b", "")), min_size=1, max_size=7),
)
def test_matching_means_what_the_definition_says(pattern: list[str], path: list[str]):
    glob = parse_glob("/".join(pattern))
    assert glob.matches("/".join(path)) == plainly(tuple(pattern), tuple(path))
    assert not glob.matches("/".join(path)) or "/".join(path).startswith(glob.prefix)


@pytest.mark.parametrize("pattern", ["a*", "*a", "a/b*c/d", "***", "a/****", "%2A*"])
def test_a_star_within_a_segment_is_refused(pattern: str):
    with pytest.raises(ValueError, match="star"):
        parse_glob(pattern)


def test_no_pattern_takes_long():
    glob, path = parse_glob("**/a/" * 100 + "b"), "a/" * 500 + "c"
    began = time.perf_counter()
    assert not glob.matches(path)
    assert time.perf_counter() - began < 1
