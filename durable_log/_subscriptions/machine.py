"""What a subscription does: wakes, claims, acks, leases, retries.

Law of this room: pure decisions, ``(state, facts) → step``; no I/O, no clock, no randomness: time, wake ids and jitter
are facts. Generations only grow, and there is one wake at a time. What remains to be done, deliveries and timers, is
read off the state (``due_at``, ``unsent``), so that a server that starts again does what the one before it would have
done. Times are milliseconds since the epoch. Any thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Final, NamedTuple

from durable_log._subscriptions.links import Links
from durable_log.protocol import subscriptions
from durable_log.protocol.subscriptions import Ack

RETRY_MS_MIN: Final = 1_000
RETRY_MS_MAX: Final = 60_000
JITTER: Final = 0.2
STREAMS_MAX: Final = 1_000
"""How many streams one wake tells of. The others are told of by the next one."""

Tails = Mapping[str, tuple[int, int]]
"""By path: which life of the stream, and how far it reached."""
NO_TAILS: Final[Tails] = {}


class State(NamedTuple):
    """A subscription at one moment, but for its links.

    With a ``wake_id``, a wake is in flight, and ``tails`` is what it tells of. It is ``sent`` once a webhook has taken
    it, or its event is in the wake stream. ``lease_until``: when whoever works on it has lost it. ``attempts`` have
    failed in a row; the next one is made at ``next_attempt_at``.
    """

    generation: int = 0
    wake_id: str | None = None
    tails: Tails = NO_TAILS
    sent: bool = False
    holder: str | None = None
    lease_until: int | None = None
    attempts: int = 0
    next_attempt_at: int | None = None


class Facts(NamedTuple):
    """What a decision may look at. ``wake_id`` is for a wake that begins now; ``jitter`` is a number from 0 to 1;
    ``sending``: the wake is being sent at the moment; ``waiting``: a delivery waits for its turn, and will send
    whatever has to be sent by then.
    """

    now: int
    webhook: bool
    lease_ms: int
    links: Links
    wake_id: str
    jitter: float
    sending: bool = False
    waiting: bool = False


class Step(NamedTuple):
    """What comes of it: the next state, and how far which streams are acknowledged from now on. Cursors only move
    forward; those that stay where they are are not there.
    """

    state: State
    acked: Mapping[str, int] = {}


def retry_delay_ms(attempts: int, jitter: float) -> int:
    """How long to wait after so many failures in a row: from a second up to a minute, a fifth more or less."""
    doubled = RETRY_MS_MIN * 2 ** min(attempts - 1, 10)
    return min(RETRY_MS_MAX, int(min(RETRY_MS_MAX, doubled) * (1 + JITTER * (2 * jitter - 1))))


def due_at(state: State, links: Links, *, sending: bool, waiting: bool) -> int | None:
    """When there is something to do by itself; None if only an event can bring that about. ``sending`` and ``waiting``
    as in :class:`Facts`.
    """
    times = [None if waiting and not state.sent else state.lease_until]
    if links.pending if state.wake_id is None else not (state.sent or sending or waiting):
        times.append(state.next_attempt_at)
    return min((time for time in times if time is not None), default=None)


def unsent(state: State, now: int) -> bool:
    """Whether a wake has to be sent at this moment."""
    return state.wake_id is not None and not state.sent and (state.next_attempt_at or 0) <= now


def look(state: State, facts: Facts) -> Step:
    """End a lease that has run out, and a wake that nobody has claimed and that tells of nothing any more, as its
    streams are gone; begin a wake if there is work and nobody at it. Without work, there is nothing to be tried again.
    """
    state = _expired(_in_reach(state, facts), facts)
    if not facts.webhook and state.holder is None and not facts.links.pending:
        state = _ended(state)
    if state.wake_id is None and not facts.links.pending:
        state = _without_failures(state)
    if state.wake_id is None and (state.next_attempt_at or 0) <= facts.now:
        state = _woken(state, facts, {})
    return Step(state)


def issued(state: State, facts: Facts) -> Step:
    """The turn of a delivery has come. The lease of the wake that it sends, if there is one to be sent, starts now
    (PROTOCOL.md §7.3).
    """
    state = look(state, facts).state
    return Step(state._replace(lease_until=facts.now + facts.lease_ms) if unsent(state, facts.now) else state)


def claim(state: State, facts: Facts, worker: str) -> Step:
    """A worker takes the wake, or begins one. Raises :class:`Refusal`."""
    state = _expired(state, facts)
    if state.holder is not None:
        raise subscriptions.claimed(state.holder, state.generation)
    if not facts.links.pending:
        raise subscriptions.nothing_pending()
    if state.wake_id is None:
        state = _woken(state, facts, {})
    lease_until = facts.now + facts.lease_ms
    tails = _told(facts.links, {})
    return Step(_without_failures(state)._replace(sent=True, tails=tails, holder=worker, lease_until=lease_until))


def ack(state: State, facts: Facts, generation: int, request: Ack) -> Step:
    """Move cursors; go on, or end the wake: whoever acknowledges has got it, whatever became of the attempt to send it.
    ``generation`` is that of the token. Raises :class:`Refusal`.
    """
    state = _without_failures(_checked(state, facts, generation, request))
    acked = _acked(state, facts.links, request.acks)
    if request.done:
        return Step(_woken(_ended(state), facts, acked), acked)
    lease_until = facts.now + facts.lease_ms
    return Step(state._replace(sent=True, lease_until=lease_until), acked)


def hurried(state: State, _facts: Facts) -> Step:
    """What made attempts fail may have changed: the next one is due."""
    return Step(state._replace(next_attempt_at=None))


def release(state: State, facts: Facts, generation: int, request: Ack) -> Step:
    """Give the wake back: what is pending wakes again. Raises :class:`Refusal`."""
    return Step(_woken(_ended(_checked(state, facts, generation, request)), facts, {}))


def delivered(state: State, facts: Facts, generation: int, *, done: bool) -> Step:
    """The wake of that generation has arrived; with ``done``, all that it told of has been processed, at least."""
    if state.wake_id is None or generation != state.generation:
        return Step(state)
    state = _without_failures(state)._replace(sent=True)
    if not done:
        return Step(state)
    acked = {path: tail for path, (number, tail) in state.tails.items() if facts.links.advances(path, number, tail)}
    return Step(_woken(_ended(state), facts, acked), acked)


def failed(state: State, facts: Facts, generation: int) -> Step:
    """The wake of that generation could not be sent. If somebody has taken it nevertheless, that counts for nothing."""
    if state.wake_id is None or generation != state.generation or state.sent:
        return Step(state)
    return Step(_failed(state, facts))


def _failed(state: State, facts: Facts) -> State:
    attempts = state.attempts + 1
    return state._replace(attempts=attempts, next_attempt_at=facts.now + retry_delay_ms(attempts, facts.jitter))


def _in_reach(state: State, facts: Facts) -> State:
    """No time is further ahead than it can be: the clock was, when it was set."""
    lease_until, next_attempt_at = state.lease_until, state.next_attempt_at
    if lease_until is not None:
        lease_until = min(lease_until, facts.now + facts.lease_ms)
    if next_attempt_at is not None:
        next_attempt_at = min(next_attempt_at, facts.now + retry_delay_ms(state.attempts, 1.0))
    return state._replace(lease_until=lease_until, next_attempt_at=next_attempt_at)


def _without_failures(state: State) -> State:
    return state._replace(attempts=0, next_attempt_at=None)


def _expired(state: State, facts: Facts) -> State:
    """End a wake whose lease has run out. One that is still being sent has failed; one that waits for its turn has
    all the time that it takes.
    """
    if state.lease_until is None or facts.now < state.lease_until or (facts.waiting and not state.sent):
        return state
    return _ended(_failed(state, facts) if facts.sending and not state.sent else state)


def _ended(state: State) -> State:
    return state._replace(wake_id=None, tails=NO_TAILS, sent=False, holder=None, lease_until=None)


def _woken(state: State, facts: Facts, acked: Mapping[str, int]) -> State:
    """The next wake, if anything is pending once ``acked`` counts."""
    tails = _told(facts.links, acked)
    if not tails:
        return state
    # A webhook's lease starts with its wake, a worker's with its claim (PROTOCOL.md §7.3).
    lease_until = facts.now + facts.lease_ms if facts.webhook else None
    return state._replace(
        generation=state.generation + 1, wake_id=facts.wake_id, tails=tails, sent=False, lease_until=lease_until
    )


def _told(links: Links, acked: Mapping[str, int]) -> Tails:
    pending = (
        (path, (links.by_path[path].number, tail)) for path, tail in links.pending.items() if tail > acked.get(path, -1)
    )
    return dict(islice(pending, STREAMS_MAX))


def _checked(state: State, facts: Facts, generation: int, request: Ack) -> State:
    """The state, if token and request are those of the wake in flight, which a worker has to have claimed
    (PROTOCOL.md §7.3).
    """
    state = _expired(state, facts)
    current = generation == request.generation == state.generation and request.wake_id == state.wake_id
    if state.wake_id is None or not current or (state.holder is None and not facts.webhook):
        raise subscriptions.fenced(state.generation)
    return state


def _acked(state: State, links: Links, acks: Mapping[str, int]) -> dict[str, int]:
    """The acks that move a cursor. One of a stream that was deleted since it was told of counts for nothing; others
    have to be right.
    """
    acked = {}
    for name, offset in acks.items():
        # Clients write the slash before a path, too; but names may begin with one.
        path = name if name in links.by_path or name in state.tails else name.lstrip("/")
        link = links.by_path.get(path)
        told = state.tails.get(path)
        if told is not None and (link is None or link.number != told[0]):
            continue
        if link is None:
            raise subscriptions.invalid_offset(f"{path!r} is no stream of this subscription")
        tail = links.tail(path)
        if not link.acked <= offset <= tail:
            first, last, given = map(subscriptions.token_of, (link.acked, tail, offset))
            raise subscriptions.invalid_offset(
                f"{path!r}: {given} is not within {first}, acknowledged, and {last}, the tail"
            )
        if offset > link.acked:
            acked[path] = offset
    return acked
