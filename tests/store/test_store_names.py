"""Listing names: in order, by prefix, while others create and delete."""

from __future__ import annotations

import sys
import threading

import pytest
from twins import Task

from durable_log.model import Create, StreamConfig

ODD = [
    "",
    "a",
    "ab",
    "a\U0010ffff",
    "a\U0010ffffz",
    "b",
    "é",
    "\ud7ff",
    "\ue000",
    "\uffff",
    "\U00010000",
    "\U0010ffff",
    "a/b",
    "a\0",
    "日本",
]


@pytest.mark.parametrize("prefix", ODD)
def test_names_are_those_with_the_prefix_in_order(store, prefix):
    names = [name + tail for name in ODD[1:] for tail in ("", "1", "é")]
    for name in names:
        store.create(name)
    expected = sorted({name for name in names if name.startswith(prefix)})
    assert list(store.names(prefix)) == expected
    assert expected == sorted(expected, key=lambda name: name.encode())


def test_names_of_a_store_without_streams_are_none(store):
    assert list(store.names()) == []
    assert list(store.names("x")) == []


def test_a_name_that_comes_amid_a_listing_hides_no_other(opened):
    """The list is taken in two steps, of which the first finds positions: what comes between must not shift them."""
    store = opened().engine
    names = [f"s{number:03}" for number in range(300)]
    for name in names:
        store.execute(Create(name, StreamConfig()))

    def amid(frame, event, _argument):
        if event == "return":
            sys.settrace(outer)
            creation = Task(store.execute, Create("a", StreamConfig()))
            creation._thread.join(0.2)  # one that is kept waiting until the list is taken is fine, too
        return amid

    outer = sys.gettrace()
    sys.settrace(lambda frame, event, _argument: amid if frame.f_code.co_name == "irange" else None)
    try:
        found = list(store.names("s"))
    finally:
        sys.settrace(outer)
    assert found == names


def test_names_are_consistent_while_others_come_and_go(store):
    stable = [f"s{number:04}" for number in range(0, 2000, 2)]
    for name in stable:
        store.create(name)
    stop = threading.Event()

    def come_and_go(start: int) -> None:
        while not stop.is_set():
            for number in range(start, 2000, 40):
                store.create(f"s{number:04}")
            for number in range(start, 2000, 40):
                store.delete(f"s{number:04}")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    others = [Task(come_and_go, 1), Task(come_and_go, 3)]
    try:
        for _ in range(60):
            found = list(store.names("s"))
            assert found == sorted(set(found))
            assert set(stable) <= set(found)
    finally:
        stop.set()
        sys.setswitchinterval(interval)
    for other in others:
        other.result()
