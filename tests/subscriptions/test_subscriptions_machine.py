"""The state machine, against a model that knows streams, wakes and workers as the protocol tells of them.

Each step is also written down as the records that the store would get: what they tell is always what is so.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from durable_log._subscriptions import machine, records
from durable_log._subscriptions.links import Link, Links
from durable_log._subscriptions.machine import Facts, State
from durable_log._subscriptions.records import Identity, Stored
from durable_log.protocol.refusal import Refusal
from durable_log.protocol.subscriptions import Ack, Config

PATHS = ("a", "b")
LEASE_MS = 10_000
START_MS = 1_900_000_000_000


class Subscribed(RuleBasedStateMachine):
    """A subscription, and the plain truth: tails, cursors, who may speak and until when."""

    kind = "webhook"
    wakes = Bundle("wakes")

    def __init__(self) -> None:
        super().__init__()
        self.now, self.jitter, self.wake_ids = START_MS, 0.5, 0
        self.state, self.links = State(), Links()
        self.sending, self.waiting = 0, False
        config = Config(self.kind, "*", (), None, None, LEASE_MS, None)
        identity = Identity("s", "life", START_MS, "http://h/__ds", config)
        self.log = [json.dumps(record) for record in records.whole(Stored(identity, State(), {}))]
        self.tails: dict[str, int] = {}
        self.cursors: dict[str, int] = {}
        self.lives: dict[str, int] = {}
        self.seen: dict[str, int] = {}

    @property
    def webhook(self) -> bool:
        return self.kind == "webhook"

    def step(self, decision, *arguments, **more):
        """Run a decision, check what holds for all of them, write it down and have it be so."""
        self.wake_ids += 1
        sending = self.sending == self.state.generation != 0
        facts = Facts(
            self.now, self.webhook, LEASE_MS, self.links, f"w{self.wake_ids}", self.jitter, sending, self.waiting
        )
        old, (new, acked) = self.state, decision(self.state, facts, *arguments, **more)
        assert new.generation in (old.generation, old.generation + 1)
        assert (new.generation > old.generation) == (new.wake_id not in (None, old.wake_id))
        if new.wake_id is not None:
            assert self.seen.setdefault(new.wake_id, new.generation) == new.generation
        changed = {path: self.links.by_path[path]._replace(acked=offset) for path, offset in acked.items()}
        self.log.append(json.dumps(records.difference(old, new, changed)))
        self.state = new
        for path, offset in acked.items():
            assert self.cursors[path] < offset <= self.tails[path]
            self.cursors[path] = offset
            self.links.ack(path, offset)
        return old

    def refuses(self, decision, *arguments, **more) -> str:
        before = self.state
        with pytest.raises(Refusal) as refused:
            self.step(decision, *arguments, **more)
        assert self.state is before
        return refused.value.code

    def pending(self) -> bool:
        return any(tail > self.cursors[path] for path, tail in self.tails.items())

    @property
    def lease_until(self) -> int | None:
        """When whoever works on the wake loses it: not while the wake waits for its turn."""
        return None if self.waiting and not self.state.sent else self.state.lease_until

    def in_time(self, generation: int, wake_id: str | None) -> bool:
        lease = self.lease_until
        current = (self.state.generation, self.state.wake_id) == (generation, wake_id) and wake_id is not None
        is_taken = self.webhook or self.state.holder is not None
        return current and is_taken and not (lease is not None and lease <= self.now)

    # --- streams ---

    @rule(path=st.sampled_from(PATHS), size=st.integers(0, 3))
    def append(self, path: str, size: int) -> None:
        if path not in self.tails:
            self.lives[path] = self.lives.get(path, 0) + 1
            self.tails[path] = self.cursors[path] = 0
            self.links.put(path, Link(self.lives[path], 0, False, True), 0)
        self.tails[path] += size
        self.links.moved(path, self.tails[path])

    @rule(path=st.sampled_from(PATHS))
    def delete(self, path: str) -> None:
        self.tails.pop(path, None)
        self.cursors.pop(path, None)
        self.links.drop(path)
        self.log.append(json.dumps({"links": {path: None}}))

    # --- what goes on by itself ---

    @rule(milliseconds=st.sampled_from((1, 500, 1000, 9_999, 10_000, 60_000)), jitter=st.floats(0, 1))
    def wait(self, milliseconds: int, jitter: float) -> None:
        self.now += milliseconds
        self.jitter = jitter

    @rule(target=wakes)
    def look(self):
        old = self.step(machine.look)
        state = self.state
        if state.wake_id is None and self.pending():
            assert state.next_attempt_at is not None
            assert state.next_attempt_at > self.now
        if state.generation > old.generation:
            assert (state.next_attempt_at or 0) <= self.now
        if self.lease_until is not None:
            assert self.lease_until > self.now
        if state.wake_id is None and not self.pending():
            assert state.attempts == 0
        elif old.wake_id is not None and old.wake_id == state.wake_id:
            assert state == old
        elif old.lease_until is not None and not old.sent and self.sending == old.generation:
            assert state.attempts == old.attempts + 1
        else:
            assert state.attempts == old.attempts
        is_sending = self.sending == state.generation
        due = machine.due_at(state, self.links, sending=is_sending, waiting=self.waiting)
        assert due is None or due > self.now or machine.unsent(state, self.now)
        unsent = not (state.sent or is_sending or self.waiting)
        if (self.pending() if state.wake_id is None else unsent) and state.next_attempt_at is not None:
            assert due is not None
            assert due <= state.next_attempt_at
        return state.wake_id, state.generation

    @rule()
    def queue(self) -> None:
        if machine.unsent(self.state, self.now) and self.sending != self.state.generation and self.webhook:
            self.waiting = True

    @rule(target=wakes)
    def send(self):
        if self.waiting:
            old = self.step(machine.issued)
            self.waiting = False
            if old.wake_id is not None and not old.sent:
                assert (self.state.wake_id, self.state.attempts) == (old.wake_id, old.attempts)
            if machine.unsent(self.state, self.now):
                assert self.state.lease_until == self.now + LEASE_MS
        if machine.unsent(self.state, self.now):
            self.sending = self.state.generation
        return self.state.wake_id, self.state.generation

    @rule(done=st.booleans())
    def arrive(self, done: bool) -> None:
        if not self.sending:
            return
        generation, self.sending = self.sending, 0
        told = self.state.tails if self.state.wake_id is not None and self.state.generation == generation else {}
        due = {path: tail for path, (life, tail) in told.items() if path in self.tails and self.lives[path] == life}
        self.step(machine.delivered, generation, done=done and self.webhook)
        if done and self.webhook:
            for path, tail in due.items():
                assert self.cursors[path] >= tail
        if told and self.state.generation == generation:
            assert self.state.attempts == 0

    @rule()
    def fail(self) -> None:
        if not self.sending:
            return
        generation, self.sending = self.sending, 0
        old = self.step(machine.failed, generation)
        if old.wake_id is not None and old.generation == generation and not old.sent:
            assert self.state.attempts == old.attempts + 1
            delay = self.state.next_attempt_at - self.now
            assert 800 <= delay <= 60_000
            assert abs(delay - 1000 * 2 ** (self.state.attempts - 1)) <= 200 * 2 ** (self.state.attempts - 1) or (
                delay >= 48_000
            )
        else:
            assert self.state == old

    # --- workers ---

    @rule(target=wakes, worker=st.sampled_from(("one", "two")))
    def claim(self, worker: str):
        if self.webhook:
            return None, 0
        held = self.state.holder is not None and self.state.lease_until > self.now
        if held:
            assert self.refuses(machine.claim, worker) == "ALREADY_CLAIMED"
        elif not self.pending():
            assert self.refuses(machine.claim, worker) == "NO_PENDING_WORK"
        else:
            self.step(machine.claim, worker)
            assert (self.state.holder, self.state.lease_until) == (worker, self.now + LEASE_MS)
            told = {path: tail for path, (_, tail) in self.state.tails.items()}
            assert told == {path: tail for path, tail in self.tails.items() if tail > self.cursors[path]}
        return self.state.wake_id, self.state.generation

    @rule(wake=wakes, token=st.integers(-1, 0), done=st.booleans(), part=st.floats(0, 1), beyond=st.integers(0, 1))
    def ack(self, wake, token: int, done: bool, part: float, beyond: int) -> None:
        wake_id, generation = wake
        if wake_id is None:
            return
        acks = {
            path: self.cursors[path] + int(part * (tail - self.cursors[path])) + beyond * (tail + 1)
            for path, tail in self.tails.items()
        }
        request = Ack(wake_id, generation, acks, done)
        if token or not self.in_time(generation, wake_id):
            assert self.refuses(machine.ack, generation + token, request) == "FENCED"
        elif beyond and any(
            path not in self.state.tails or self.state.tails[path][0] == self.lives[path] for path in acks
        ):
            assert self.refuses(machine.ack, generation, request) == "INVALID_OFFSET"
        else:
            told = self.state.tails
            self.step(machine.ack, generation, request)
            assert self.state.attempts == 0
            for path, offset in acks.items():
                if path not in told or told[path][0] == self.lives[path]:
                    assert self.cursors[path] == offset
            if not done:
                assert (self.state.wake_id, self.state.lease_until) == (wake_id, self.now + LEASE_MS)
            else:
                assert self.state.wake_id != wake_id
                assert (self.state.wake_id is not None) == self.pending()

    @rule(wake=wakes, token=st.integers(-1, 0))
    def release(self, wake, token: int) -> None:
        wake_id, generation = wake
        if wake_id is None:
            return
        request = Ack(wake_id, generation)
        if token or not self.in_time(generation, wake_id):
            assert self.refuses(machine.release, generation + token, request) == "FENCED"
        else:
            self.step(machine.release, generation, request)
            assert (self.state.wake_id is not None) == self.pending()

    # --- what always holds ---

    @invariant()
    def links_are_what_the_streams_say(self) -> None:
        assert {path: link.acked for path, link in self.links.by_path.items()} == self.cursors
        assert self.links.pending == {path: tail for path, tail in self.tails.items() if tail > self.cursors[path]}

    @invariant()
    def a_state_is_whole(self) -> None:
        state = self.state
        if state.wake_id is None:
            assert (state.sent, state.holder, state.lease_until, dict(state.tails)) == (False, None, None, {})
        else:
            assert state.tails
            assert (state.lease_until is not None) == (self.webhook or state.holder is not None)
        assert (state.attempts > 0) == (state.next_attempt_at is not None)

    @invariant()
    def the_records_tell_the_same(self) -> None:
        stored = records.fold(map(json.loads, self.log))
        assert stored is not None
        assert stored.state == self.state
        acked = {path: link.acked for path, link in stored.links.items() if link.acked}
        assert acked == {path: offset for path, offset in self.cursors.items() if offset}


class Pulled(Subscribed):
    kind = "pull-wake"


STEPS = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestWebhook = Subscribed.TestCase
TestWebhook.settings = STEPS
TestPullWake = Pulled.TestCase
TestPullWake.settings = STEPS


@pytest.mark.parametrize(
    ("attempts", "least", "most"),
    [(1, 800, 1200), (2, 1600, 2400), (6, 25_600, 38_400), (7, 48_000, 60_000), (99, 48_000, 60_000)],
)
def test_delays_double_up_to_a_minute_with_a_fifth_of_jitter(attempts: int, least: int, most: int):
    assert machine.retry_delay_ms(attempts, 0.0) == least
    assert machine.retry_delay_ms(attempts, 1.0) == most


def test_one_wake_tells_of_a_thousand_streams_and_the_next_of_the_others():
    links = Links()
    for number in range(2500):
        links.put(f"{number}", Link(1, 0, False, True), 5)
    facts = Facts(START_MS, True, LEASE_MS, links, "w", 0.5)
    state, told = State(), []
    for _ in range(3):
        state = machine.look(state, facts).state
        told.append(list(state.tails))
        state, acked = machine.delivered(state, facts, state.generation, done=True)
        for path, offset in acked.items():
            links.ack(path, offset)
    assert [len(paths) for paths in told] == [1000, 1000, 500]
    assert sorted(path for paths in told for path in paths) == sorted(f"{number}" for number in range(2500))
    assert state.wake_id is None


def test_a_clock_that_was_ahead_holds_up_no_retry_and_no_lease():
    links = Links()
    links.put("a", Link(1, 0, False, True), 5)
    year_ms = 365 * 86_400_000
    ahead = Facts(START_MS + year_ms, True, LEASE_MS, links, "w", 0.5)
    state = machine.failed(machine.look(State(), ahead).state, ahead, 1).state
    facts = ahead._replace(now=START_MS)
    state = machine.look(state, facts).state
    assert (state.wake_id, state.attempts) == ("w", 1)
    assert state.next_attempt_at == START_MS + machine.retry_delay_ms(1, 1.0)
    assert state.lease_until == START_MS + LEASE_MS
    assert machine.look(state, facts._replace(now=START_MS + 1)).state == state
    held = machine.claim(State(), ahead._replace(webhook=False), "one").state
    assert machine.look(held, facts._replace(webhook=False)).state.lease_until == START_MS + LEASE_MS


def test_done_acknowledges_what_is_left_of_its_wake():
    links = Links()
    for path in ("a", "b", "c"):
        links.put(path, Link(1, 0, False, True), 5)
    facts = Facts(START_MS, True, LEASE_MS, links, "w", 0.5)
    state = machine.look(State(), facts).state
    links.moved("a", 9)
    state, acked = machine.ack(state, facts, 1, Ack("w", 1, {"a": 7, "b": 5, "c": 0}))
    assert acked == {"a": 7, "b": 5}
    for path, offset in acked.items():
        links.ack(path, offset)
    state, acked = machine.delivered(state, facts, 1, done=True)
    assert acked == {"c": 5}
    assert (state.generation, state.tails) == (2, {"a": (1, 9)})


def test_what_was_acknowledged_in_part_waits_behind_the_others():
    links = Links()
    for path in ("a", "b", "c"):
        links.put(path, Link(1, 0, False, True), 5)
    links.ack("a", 3)
    links.moved("b", 9)
    assert list(links.pending.items()) == [("b", 9), ("c", 5), ("a", 5)]
    links.ack("a", 2)
    assert links.by_path["a"].acked == 3


def identity() -> Identity:
    return Identity("s", "life", START_MS, "http://h/__ds", Config("webhook", "*", ("a",), "u", None, LEASE_MS, None))


def test_a_telling_that_was_broken_off_does_not_count():
    links = {f"{number}": Link(1, number, False, True) for number in range(2500)}
    whole = list(records.whole(Stored(identity(), State(generation=7), links)))
    assert len(whole) == 5
    other = list(records.whole(Stored(identity(), State(generation=8), {})))
    for cut in range(len(whole)):
        assert records.fold(whole[:cut]) is None
        assert records.fold(other + whole[:cut]).state.generation == 8
        later = records.fold([*other, *whole[:cut], {"state": {"generation": 9}}])
        assert (later.state.generation, later.links) == (9, {})
        assert records.fold([*other, *whole[:cut], *whole]) == Stored(identity(), State(generation=7), links)
