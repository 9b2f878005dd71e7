"""The load generator tells the truth: of a server that is slow, loses, doubles or refuses, it says exactly that."""

from __future__ import annotations

import asyncio

import pytest
from stub import Stub, serving

from benchmarks.generator import LoadFailed, load


def append(stub, **options):
    return load("append", stub.port, **{"seconds": 0.4, "patience": 2, **options})


def view(stub, **options):
    return load("viewers", stub.port, **{"seconds": 0.4, "patience": 1, "rate": 100, "viewers": 3, **options})


def test_what_an_honest_server_took_is_counted():
    with serving(Stub) as stub:
        found = append(stub, connections=3, streams=2, warm_up=0.2, seconds=0.4)
    taken = sum(len(bodies) for bodies in stub.streams.values())
    assert 0 < found["requests"] < taken
    assert found["requests_per_second"] == pytest.approx(found["requests"] / 0.4, rel=0.01)
    latency = found["latency_us"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["p99.9"] <= latency["max"]


def test_messages_of_json_batches_are_counted_one_by_one():
    with serving(Stub) as stub:
        found = append(stub, connections=2, streams=2, messages=10)
    assert found["messages_per_second"] == pytest.approx(10 * found["requests_per_second"], rel=0.01)
    assert all(body.startswith(b'["') and body.count(b",") == 9 for bodies in stub.streams.values() for body in bodies)


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_responses_may_come_in_pieces(piece):
    def make():
        stub = Stub()
        stub.piece = piece
        return stub

    with serving(make) as stub:
        assert append(stub, connections=2, streams=2, seconds=0.1)["requests"] > 0
        assert load("viewers", stub.port, "/v/", viewers=2, seconds=0.1, rate=50)["deliveries"] > 0


def test_on_a_schedule_a_pause_counts_for_all_who_were_due_in_it():
    class Pausing(Stub):
        def status(self, appended):
            if appended == 60:
                self.pauses.append(0.4)
            return 204

    with serving(Pausing) as stub:
        found = append(stub, rate=200, seconds=1)
    # A request was due each 5 ms: for 80 of 200 the pause of 400 ms had 400, 395, 390 ... ms left.
    latency = found["latency_us"]
    assert found["requests"] == 200
    assert latency["max"] >= 395_000
    assert latency["p90"] >= 250_000
    assert latency["p50"] <= 150_000


def test_in_a_closed_loop_a_pause_counts_once():
    class Pausing(Stub):
        def status(self, appended):
            if appended == 60:
                self.pauses.append(0.2)
            return 204

    with serving(Pausing) as stub:
        latency = append(stub, seconds=0.6)["latency_us"]
    assert latency["max"] >= 195_000
    assert latency["p90"] < 100_000


def test_a_time_in_which_nothing_is_answered_lasts_until_something_is():
    class Slow(Stub):
        def status(self, appended):
            self.pauses = [0.1]
            return 204

    with serving(Slow) as stub:
        assert append(stub, warm_up=0.11, seconds=0.01)["requests"] == 1


def test_a_server_that_does_not_keep_up_is_told():
    class Slow(Stub):
        def status(self, appended):
            self.pauses.append(0.02)
            return 204

    with serving(Slow) as stub, pytest.raises(LoadFailed, match="the server does not keep up"):
        append(stub, rate=500, seconds=0.5, patience=0.5)


def test_a_wrong_status_is_told():
    class Refusing(Stub):
        def status(self, appended):
            return 503 if appended == 5 else 204

    with serving(Refusing) as stub, pytest.raises(LoadFailed, match="status 503 instead of 204"):
        append(stub)


def test_an_acknowledged_token_that_is_lost_is_told():
    class Losing(Stub):
        def kept(self, body, appended):
            return [] if b"-000000000005-" in body else [body]

    with serving(Losing) as stub, pytest.raises(LoadFailed, match="token 6 of writer 0 came where token 5 was due"):
        append(stub)


def test_the_last_token_that_is_lost_is_told():
    class Losing(Stub):
        def kept(self, body, appended):
            self.last = body
            return [body]

        async def _page(self, writer, bodies, query):
            await super()._page(writer, bodies[:-1], query)

    with serving(Losing) as stub, pytest.raises(LoadFailed, match=r"of (\d+) tokens of writer 0, \d+ are there"):
        append(stub)


def test_a_token_that_is_stored_twice_is_told():
    class Doubling(Stub):
        def kept(self, body, appended):
            return [body, body] if appended == 5 else [body]

    with serving(Doubling) as stub, pytest.raises(LoadFailed, match="token 5 of writer 0 came where token 6 was due"):
        append(stub)


def test_half_a_token_is_told():
    class Tearing(Stub):
        def kept(self, body, appended):
            return [body[:30]] if appended == 5 else [body]

    with serving(Tearing) as stub, pytest.raises(LoadFailed, match="no token"):
        append(stub)


def test_every_delivery_is_counted():
    with serving(Stub) as stub:
        found = view(stub, seconds=0.5)
    assert found["deliveries"] == pytest.approx(3 * 0.5 * 100, abs=6)


def test_a_delivery_counts_from_when_its_token_was_due():
    class Late(Stub):
        async def before_event(self):
            await asyncio.sleep(0.05)

    with serving(Late) as stub:
        latency = view(stub, rate=10, seconds=0.5)["latency_us"]
    assert 50_000 <= latency["p50"] < 200_000


def test_a_token_that_one_viewer_misses_is_told():
    class Losing(Stub):
        def shown(self, body, viewer, number):
            return b"" if (viewer, number) == (1, 5) else body

    with serving(Losing) as stub, pytest.raises(LoadFailed, match=r"a viewer: token 6 .* came where token 5 was due"):
        view(stub)


def test_a_token_that_one_viewer_gets_twice_is_told():
    class Doubling(Stub):
        def shown(self, body, viewer, number):
            return body + body if (viewer, number) == (1, 5) else body

    with serving(Doubling) as stub, pytest.raises(LoadFailed, match=r"a viewer: token 5 .* came where token 6 was due"):
        view(stub)


def test_last_tokens_that_a_viewer_never_gets_are_told():
    class Losing(Stub):
        def shown(self, body, viewer, number):
            return b"" if viewer == 1 and number >= 30 else body

    with serving(Losing) as stub, pytest.raises(LoadFailed, match=r"\d+ of \d+ tokens for viewers are missing"):
        view(stub)


def test_catching_up_looks_at_every_byte():
    with serving(Stub) as stub:
        assert load("fill", stub.port, bytes=200_000) == {"bytes": 200_000}
        found = load("catch-up", stub.port, bytes=200_000)
        assert (found["bytes"], found["pages"]) == (200_000, 2)
        with pytest.raises(LoadFailed, match="200000 of 200001 bytes are there"):
            load("catch-up", stub.port, bytes=200_001)
        bodies = next(iter(stub.streams.values()))
        bodies[1] = bodies[1][:99] + bytes([bodies[1][99] ^ 1]) + bodies[1][100:]
        with pytest.raises(LoadFailed, match="byte 65635 is not the one that was written"):
            load("catch-up", stub.port, bytes=200_000)
