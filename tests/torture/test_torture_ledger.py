"""The ledger of a torture sees what it has to see: each way to break a promise, by name."""

from __future__ import annotations

import pytest
from torture_ledger import CONTENT_TYPES, Ledger, Stream, Violation, Writer, read_all

import durable_log


@pytest.fixture(params=list(CONTENT_TYPES))
def stream(request) -> Stream:
    stream = Ledger().open("s", request.param)
    stream.created = True
    return stream


def append(writer: Writer, seq: int) -> bytes:
    """A record in the form that it is kept in; nobody has acknowledged it."""
    return writer.ask(seq, 50) + (b"," if writer.stream.kind == "json" else b"")


def test_whole_records_in_order_are_as_they_should_be(stream):
    writer, other = stream.writer("a", exact=True), stream.writer("b", exact=False)
    content = append(writer, 0) + append(other, 0)
    lost = append(other, 1)
    content += append(other, 2) + append(writer, 1)
    writer.acknowledge(1, len(content))
    stream.check(content, closed=False)
    stream.check(content, closed=False)
    assert lost not in content
    assert bytes(stream.history) == content


def test_a_record_that_was_acknowledged_and_is_not_there_is_seen(stream):
    writer = stream.writer("a", exact=False)
    content = append(writer, 0)
    append(writer, 1)
    writer.acknowledge(1, None)
    with pytest.raises(Violation, match="was acknowledged to a is there"):
        stream.check(content, closed=False)


def test_a_record_at_another_offset_than_acknowledged_is_seen(stream):
    writer = stream.writer("a", exact=False)
    first, second = append(writer, 0), append(writer, 1)
    writer.acknowledge(1, len(first + second))
    with pytest.raises(Violation, match="bytes that were seen stay"):
        stream.check(second + first, closed=False)


def test_a_record_that_is_there_twice_is_seen(stream):
    content = append(stream.writer("a", exact=True), 0)
    with pytest.raises(Violation, match="once and in order"):
        stream.check(content + content, closed=False)


def test_a_gap_in_what_a_producer_sent_is_seen(stream):
    writer = stream.writer("a", exact=True)
    append(writer, 0)
    with pytest.raises(Violation, match="once and in order"):
        stream.check(append(writer, 1), closed=False)


def test_half_a_record_is_seen(stream):
    content = append(stream.writer("a", exact=True), 0)
    with pytest.raises(Violation, match="whole records"):
        stream.check(content[:-1], closed=False)


def test_one_changed_byte_is_seen(stream):
    content = append(stream.writer("a", exact=True), 0)
    changed = content[:-8] + bytes([content[-8] ^ 1]) + content[-7:]
    with pytest.raises(Violation, match=r"as it was sent|whole records"):
        stream.check(changed, closed=False)


def test_a_record_that_nobody_sent_is_seen(stream):
    content = append(Stream("other", stream.kind).writer("b", exact=True), 0)
    with pytest.raises(Violation, match="its own writers"):
        stream.check(content, closed=False)


def test_bytes_that_a_viewer_saw_and_that_vanish_are_seen(stream):
    content = append(stream.writer("a", exact=True), 0)
    stream.know(0, content, "a viewer")
    with pytest.raises(Violation, match="bytes that were seen stay"):
        stream.check(b"", closed=False)


def test_bytes_seen_beyond_what_is_known_are_compared_once_it_is(stream):
    stream.know(10, b"later", "a viewer")
    assert not stream.history
    with pytest.raises(Violation, match="a viewer: bytes that were seen stay"):
        stream.know(0, b"0123456789other", "another")


def test_a_close_that_is_forgotten_is_seen(stream):
    stream.closing = True
    stream.know_closed(0)
    with pytest.raises(Violation, match="closed stays closed"):
        stream.check(b"", closed=False)


def test_a_close_that_nobody_asked_for_is_seen(stream):
    with pytest.raises(Violation, match="a close where one was asked for"):
        stream.check(b"", closed=True)


def test_bytes_beyond_the_close_are_seen(stream):
    stream.closing = True
    stream.know_closed(0)
    with pytest.raises(Violation, match="nothing beyond the close"):
        stream.know(0, b"x", "a viewer")


def test_a_fork_begins_with_its_sources_bytes(stream):
    content = append(stream.writer("a", exact=True), 0)
    stream.check(content, closed=False)
    fork = Stream("fork", stream.kind, stream, len(content))
    own = append(fork.writer("b", exact=True), 0)
    fork.check(content + own, closed=False)
    with pytest.raises(Violation, match="bytes that were seen stay"):
        Stream("other", stream.kind, stream, len(content)).check(own + content, closed=False)


@pytest.fixture
def store():
    with durable_log.open(":memory:") as store:
        yield store


def test_a_stream_that_is_missing_is_seen(store):
    ledger = Ledger()
    ledger.open("s", "text").created = True
    with pytest.raises(Violation, match="what was created is there"):
        ledger.check(store, 0.0)


def test_a_stream_that_came_back_is_seen(store):
    ledger = Ledger()
    stream = ledger.open("s", "text")
    stream.created = stream.deleting = stream.deleted = True
    store.create("s", content_type="text/plain")
    with pytest.raises(Violation, match="deleted stays deleted"):
        ledger.check(store, 0.0)


def test_a_stream_that_nobody_asked_for_is_seen(store):
    store.create("s")
    with pytest.raises(Violation, match="only streams that were asked for"):
        Ledger().check(store, 0.0)


def test_a_backup_without_what_was_acknowledged_is_seen(store):
    ledger = Ledger()
    stream = ledger.open("s", "binary")
    stream.created = True
    stream.know(0, b"acknowledged", "a writer")
    promised = ledger.promised()
    store.create("s", data=b"acknow")
    with pytest.raises(Violation, match="a backup holds what was acknowledged"):
        ledger.check_backup(store, promised, 0.0)


def test_all_pages_of_a_stream_are_read(store):
    stream = store.create("s")
    for _ in range(5):
        stream.append(b"x" * 2**20)
    assert read_all(store, "s") == b"x" * 5 * 2**20
