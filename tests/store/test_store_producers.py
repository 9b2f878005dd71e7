"""Idempotent producers: every case of PROTOCOL.md §5.2.1, by both faces, and again after a reopen."""

from __future__ import annotations

import pytest

from durable_log.errors import InvalidProducer, SequenceConflict, SequenceGap, StaleEpoch, StreamClosed
from durable_log.model import Producer


def p(epoch: int, seq: int, name: str = "p") -> Producer:
    return Producer(name, epoch, seq)


def test_a_producer_starts_at_zero_and_grows_by_one(store):
    stream = store.create("a")
    assert stream.append(b"0", producer=p(0, 0)) == (0, 1, False, False, 0)
    assert stream.append(b"1", producer=p(0, 1)) == (1, 2, False, False, 1)


def test_a_producer_may_start_with_any_epoch(store):
    stream = store.create("a")
    assert stream.append(b"0", producer=p(7, 0)).duplicate is False
    with pytest.raises(StaleEpoch):
        stream.append(b"x", producer=p(6, 0))


def test_a_duplicate_is_found_and_tells_the_highest_sequence(store):
    stream = store.create("a")
    for seq in range(3):
        stream.append(b"%d" % seq, producer=p(0, seq))
    for seq in range(3):
        assert stream.append(b"other", producer=p(0, seq)) == (3, 3, True, False, 2)
    assert stream.read().data == b"012"


def test_a_gap_is_refused_with_what_is_expected(store):
    stream = store.create("a")
    stream.append(b"0", producer=p(0, 0))
    with pytest.raises(SequenceGap) as caught:
        stream.append(b"2", producer=p(0, 2))
    assert (caught.value.expected, caught.value.received, caught.value.producer) == (1, 2, "p")


def test_an_unknown_producer_that_does_not_start_at_zero_has_a_gap(store):
    stream = store.create("a")
    with pytest.raises(SequenceGap) as caught:
        stream.append(b"x", producer=p(0, 1))
    assert caught.value.expected == 0


def test_a_new_epoch_fences_the_old_one_off(store):
    stream = store.create("a")
    stream.append(b"0", producer=p(0, 0))
    stream.append(b"1", producer=p(1, 0))
    for seq in (0, 1, 5):
        with pytest.raises(StaleEpoch) as caught:
            stream.append(b"x", producer=p(0, seq))
        assert (caught.value.current, caught.value.received) == (1, 0)
    stream.append(b"2", producer=p(1, 1))
    assert stream.read().data == b"012"


def test_a_new_epoch_has_to_start_at_zero(store):
    stream = store.create("a")
    stream.append(b"0", producer=p(0, 0))
    with pytest.raises(InvalidProducer):
        stream.append(b"x", producer=p(1, 1))
    stream.append(b"1", producer=p(0, 1))


def test_a_refused_append_moves_no_state(store):
    stream = store.create("a")
    stream.append(b"0", producer=p(1, 0), seq="b")
    for claim, seq in ((p(0, 0), "c"), (p(1, 5), "c"), (p(2, 1), "c"), (p(1, 1), "a")):
        with pytest.raises((StaleEpoch, SequenceGap, InvalidProducer, SequenceConflict)):
            stream.append(b"x", producer=claim, seq=seq)
    assert stream.append(b"1", producer=p(1, 1), seq="bb").duplicate is False
    assert stream.read().data == b"01"


def test_producers_of_one_stream_and_streams_of_one_producer_are_apart(store):
    first, second = store.create("a"), store.create("b")
    first.append(b"0", producer=p(0, 0, "x"))
    first.append(b"0", producer=p(3, 0, "y"))
    second.append(b"0", producer=p(0, 0, "x"))
    assert first.append(b"1", producer=p(0, 1, "x")).producer_seq == 1
    assert second.append(b"0", producer=p(0, 0, "x")).duplicate is True


def test_duplicates_are_found_before_the_sequence_of_the_stream_is_looked_at(store):
    stream = store.create("a")
    stream.append(b"0", producer=p(0, 0), seq="b")
    assert stream.append(b"0", producer=p(0, 0), seq="a").duplicate is True


def test_closing_consumes_a_sequence_number_and_is_found_again(store):
    stream = store.create("a")
    stream.append(b"0", producer=p(0, 0))
    assert stream.close(producer=p(0, 1)) == (1, 1, False, True, 1)
    assert stream.close(producer=p(0, 1)) == (1, 1, True, True, 1)
    assert stream.append(b"another body", close=True, producer=p(0, 1)).duplicate is True
    assert stream.append(b"0", producer=p(0, 0)) == (1, 1, True, True, 1)
    for refused in (p(0, 2), p(1, 0), p(0, 0, "q")):
        with pytest.raises(StreamClosed):
            stream.append(b"x", producer=refused)
        with pytest.raises(StreamClosed):
            stream.close(producer=refused)
    assert stream.close().duplicate is True


@pytest.mark.parametrize("claim", [p(-1, 0), p(0, -1), p(2**53, 0), p(0, 2**53), p(0, 0, ""), p(0, 0, "x" * 1025)])
def test_claims_that_no_order_makes_valid_are_refused(store, claim):
    stream = store.create("a")
    with pytest.raises(InvalidProducer):
        stream.append(b"x", producer=claim)
    assert stream.info().tail == 0


@pytest.mark.parametrize("name", ["x" * 1024, "\ud800", "é\0\n", "\U0010ffff"])
def test_ids_of_every_kind_survive_a_reopen(opened, tmp_path, name):
    store = opened(tmp_path)
    store.create("a").append(b"0", producer=p(2**53 - 1, 0, name), seq="\udfff")
    store.close()
    stream = opened(tmp_path).stream("a")
    assert stream.append(b"0", producer=p(2**53 - 1, 0, name)).duplicate is True
    assert stream.append(b"1", producer=p(2**53 - 1, 1, name)).producer_seq == 1
    with pytest.raises(SequenceConflict):
        stream.append(b"2", seq="\udfff")


def test_everything_that_is_known_of_producers_survives_a_reopen(opened, tmp_path):
    store = opened(tmp_path)
    stream = store.create("a")
    stream.append(b"0", producer=p(0, 0, "x"), seq="5")
    stream.append(b"1", producer=p(4, 0, "y"))
    stream.append(b"2", producer=p(4, 1, "y"))
    stream.append(b"3", producer=p(1, 0, "x"))
    store.close()
    for _ in range(2):
        store = opened(tmp_path)
        stream = store.stream("a")
        assert stream.append(b"!", producer=p(1, 0, "x")) == (4, 4, True, False, 0)
        assert stream.append(b"!", producer=p(4, 0, "y")) == (4, 4, True, False, 1)
        with pytest.raises(StaleEpoch):
            stream.append(b"!", producer=p(0, 1, "x"))
        with pytest.raises(SequenceGap):
            stream.append(b"!", producer=p(4, 3, "y"))
        with pytest.raises(SequenceConflict):
            stream.append(b"!", seq="5")
        store.close()


def test_a_stream_that_is_created_anew_knows_no_producer_of_its_former_life(store):
    store.create("a").append(b"0", producer=p(5, 0), seq="z")
    store.delete("a")
    stream = store.create("a")
    assert stream.append(b"0", producer=p(0, 0), seq="a").duplicate is False


def test_a_claim_and_its_data_are_one_whatever_the_batch(store):
    stream = store.create("a")
    assert stream.append_many([b"x", b"y"], producer=p(0, 0)).duplicate is False
    assert stream.append_many([b"x", b"y"], producer=p(0, 0)).duplicate is True
    json_stream = store.create("j", content_type="application/json")
    assert json_stream.append_json(1, 2, producer=p(0, 0)).duplicate is False
    assert json_stream.append_json(1, 2, producer=p(0, 0)).duplicate is True
    assert json_stream.read().items == [1, 2]
