"""Admission as a table: the state of a stream, a request, the verdict. Nothing is changed by deciding."""

from __future__ import annotations

from typing import Any

import pytest

from durable_log.engine.admission import admit_append, admit_create
from durable_log.engine.state import ProducerState, StreamState
from durable_log.errors import StreamExists
from durable_log.model import Append, Appended, Create, Created, Producer, StreamConfig

TAIL = 10


def stream(*, closed: bool = False, producers: dict[str, tuple[int, int]] | None = None, seq: str | None = None,
           content_type: str = "text/plain") -> StreamState:  # fmt: skip
    state = StreamState(1, "s", StreamConfig(content_type), 0)
    state.tail, state.closed, state.last_seq = TAIL, closed, seq
    if producers is not None:
        state.producers = {name: ProducerState(index, *claim) for index, (name, claim) in enumerate(producers.items())}
    return state


def p(epoch: int, seq: int, name: str = "p") -> Producer:
    return Producer(name, epoch, seq)


KNOWN = {"p": (3, 5)}
HERE = Appended(TAIL, TAIL, True, False, 5)
GONE = Appended(TAIL, TAIL, True, True, 5)

TABLE: list[tuple[str, dict[str, Any], dict[str, Any], Any]] = [
    # what                              stream                       request                               verdict
    ("plain", {}, {}, None),
    ("plain close", {}, {"data": b"", "close": True}, None),
    ("append and close", {}, {"close": True}, None),
    ("closed", {"closed": True}, {}, "StreamClosed"),
    ("closed, closing with data", {"closed": True}, {"close": True}, "StreamClosed"),
    ("closed, closing", {"closed": True}, {"data": b"", "close": True}, Appended(TAIL, TAIL, True, True)),
    ("closed, closing by p", {"closed": True}, {"data": b"", "close": True, "producer": p(0, 0)}, "StreamClosed"),
    ("same type", {}, {"content_type": "text/plain"}, None),
    ("same type, other case and parameters", {}, {"content_type": "TEXT/plain ; charset=x"}, None),
    ("other type", {}, {"content_type": "text/html"}, "ContentTypeMismatch"),
    ("other type, no data", {}, {"data": b"", "close": True, "content_type": "text/html"}, None),
    ("other type, closed", {"closed": True}, {"content_type": "text/html"}, "StreamClosed"),
    ("new producer", {}, {"producer": p(0, 0)}, None),
    ("new producer, later epoch", {}, {"producer": p(9, 0)}, None),
    ("new producer, gap", {}, {"producer": p(0, 1)}, "SequenceGap"),
    ("new producer beside another", {"producers": KNOWN}, {"producer": p(0, 0, "q")}, None),
    ("next", {"producers": KNOWN}, {"producer": p(3, 6)}, None),
    ("last again", {"producers": KNOWN}, {"producer": p(3, 5)}, HERE),
    ("first again", {"producers": KNOWN}, {"producer": p(3, 0)}, HERE),
    ("gap", {"producers": KNOWN}, {"producer": p(3, 7)}, "SequenceGap"),
    ("stale", {"producers": KNOWN}, {"producer": p(2, 6)}, "StaleEpoch"),
    ("stale, from zero", {"producers": KNOWN}, {"producer": p(2, 0)}, "StaleEpoch"),
    ("new epoch", {"producers": KNOWN}, {"producer": p(4, 0)}, None),
    ("new epoch, far", {"producers": KNOWN}, {"producer": p(400, 0)}, None),
    ("new epoch, not from zero", {"producers": KNOWN}, {"producer": p(4, 1)}, "InvalidProducer"),
    ("duplicate on a closed stream", {"producers": KNOWN, "closed": True}, {"producer": p(3, 5)}, GONE),
    ("duplicate close", {"producers": KNOWN, "closed": True}, {"data": b"", "close": True, "producer": p(3, 5)}, GONE),
    ("next on a closed stream", {"producers": KNOWN, "closed": True}, {"producer": p(3, 6)}, "StreamClosed"),
    ("stale on a closed stream", {"producers": KNOWN, "closed": True}, {"producer": p(2, 6)}, "StreamClosed"),
    ("duplicate of another type", {"producers": KNOWN}, {"producer": p(3, 5), "content_type": "a/b"}, HERE),
    ("next of another type", {"producers": KNOWN}, {"producer": p(3, 6), "content_type": "a/b"}, "ContentTypeMismatch"),
    ("first seq", {}, {"seq": ""}, None),
    ("greater seq", {"seq": "1"}, {"seq": "2"}, None),
    ("longer seq", {"seq": "1"}, {"seq": "10"}, None),
    ("same seq", {"seq": "1"}, {"seq": "1"}, "SequenceConflict"),
    ("numerically greater seq", {"seq": "2"}, {"seq": "10"}, "SequenceConflict"),
    ("bytewise greater seq", {"seq": "\uffff"}, {"seq": "\U00010000"}, None),
    ("no seq after one", {"seq": "1"}, {}, None),
    ("duplicate with an old seq", {"producers": KNOWN, "seq": "z"}, {"producer": p(3, 5), "seq": "a"}, HERE),
    ("gap before seq", {"producers": KNOWN, "seq": "z"}, {"producer": p(3, 9), "seq": "a"}, "SequenceGap"),
    ("next with an old seq", {"producers": KNOWN, "seq": "z"}, {"producer": p(3, 6), "seq": "a"}, "SequenceConflict"),
]  # fmt: skip


@pytest.mark.parametrize(("state", "request_", "verdict"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_appends_are_judged_by_the_table(state, request_, verdict):
    judged = stream(**state)
    before = repr((judged.tail, judged.closed, judged.last_seq, state.get("producers")))
    request = Append(**{"name": "s", "data": b"x", **request_})
    try:
        found: Any = admit_append(judged, request)
    except Exception as error:  # noqa: BLE001 - its name is compared
        found = type(error).__name__
    assert found == verdict
    producers = (
        {name: (known.epoch, known.seq) for name, known in judged.producers.items()} if judged.producers else None
    )
    assert repr((judged.tail, judged.closed, judged.last_seq, producers)) == before


CREATES: list[tuple[str, StreamConfig, bool, str | None]] = [
    ("the same", StreamConfig("text/plain"), False, None),
    ("other case and parameters", StreamConfig("Text/PLAIN; q=1"), False, None),
    ("another type", StreamConfig("text/html"), False, "content type"),
    ("a ttl", StreamConfig("text/plain", 5), False, "TTL"),
    ("an expiry", StreamConfig("text/plain", None, 5.0), False, "expiry"),
    ("closed", StreamConfig("text/plain"), True, "closed"),
]


@pytest.mark.parametrize(("config", "closed", "differs"), [row[1:] for row in CREATES], ids=[row[0] for row in CREATES])
def test_creations_of_what_exists_are_judged_by_the_table(config, closed, differs):
    request = Create("s", config, b"ignored", closed)
    if differs is None:
        assert admit_create(stream(), request) == Created(True, TAIL, False, "text/plain")
    else:
        with pytest.raises(StreamExists) as caught:
            admit_create(stream(), request)
        assert caught.value.differs == differs
