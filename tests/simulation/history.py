"""What a store may hold: the model of every moment that a crash could bring back, and the one that readers see.

Law of this room: it watches the groups of one committer. The model carries out every group as the store does, and each
result is compared. ``versions`` are the models since the last sync: readers see the first, admission the last, and each
is what a loss of power may leave. ``doubts`` are models of groups that were broken off: one of them may be there, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from reference import Life, Model, Refused, Uses

from durable_log.engine.commit import Committer
from durable_log.engine.group import wants_sync
from durable_log.engine.staging import PENDING, Submission
from durable_log.engine.state import StreamState
from durable_log.errors import StoreFull, StoreUnreadable
from durable_log.model import Append, Create, Delete, Trim


class History:
    """The models of one store. ``deadline`` says when a stream expires by what the store believes, ``is_there`` whether
    it has a life that was not deleted.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.versions, self.doubts = [Model()], list[Model]()
        self.uses, self._clock = Uses(), clock
        self.deadline: Callable[[str], float] = lambda name: 0.0
        self.is_there: Callable[[Life], bool] = lambda life: True
        self.groups = 0
        self.tell: Callable[[str], None] = lambda line: None

    @property
    def visible(self) -> Model:
        """What readers see."""
        return self.versions[0]

    @property
    def current(self) -> Model:
        """What admission sees."""
        return self.versions[-1]

    @property
    def candidates(self) -> list[Model]:
        """All that may be there after a loss of power."""
        return [*self.doubts, *reversed(self.versions)]

    def living(self, life: Life) -> bool:
        """Whether a stream has not expired; where either is right, as the store sees it."""
        now = self._clock()
        alive = self.uses.alive(life, now)
        return now < self.deadline(life.name) if alive is None else alive

    def synced(self) -> None:
        """All that was written is durable, and visible."""
        self.versions = [self.current]

    def commit(self, original: Callable[[], None], batch: list[Submission]) -> None:
        """A group commit: carry it out in the model, too, and compare."""
        self.groups += 1
        before = self.current
        # Decided before, as they are there: who has expired.
        living = {life.number: self.living(life) for life in before.lives.values()}
        sync = not batch or any(map(wants_sync, batch))
        try:
            original()
        except BaseException:
            whole, deletions = (self._applied(before, part, living).model for part in (batch, _deletions(batch)))
            self.doubts += [whole, deletions]
            self.tell(f"    in doubt: {[_short(one.request) for one in batch]}")
            raise
        self.tell(
            "    " + "; ".join(f"{type(one.request).__name__} {one.request.name}: {one.result!r}" for one in batch)
        )
        carried_out = [one for one in batch if not isinstance(one.result, StoreFull | StoreUnreadable)]
        after, expected, owes_sync = self._applied(before, carried_out, living)
        for submission, result in zip(carried_out, expected, strict=True):
            _same(submission, result)
        self.versions.append(after)
        full = [one for one in batch if _found_no_segment(one.result)]
        # Deletions are tried without the others, and synced. If these have no room either, nothing was written.
        if _deletions(full):
            self.versions.pop()
        elif sync or full or owes_sync:
            self.synced()
        if len(carried_out) < len(batch):
            self._forget_expired(after, living)

    def _forget_expired(self, model: Model, living: dict[int, bool]) -> None:
        """One that has expired may have been deleted for a request that failed then."""
        for number, alive in living.items():
            life = model.lives.get(number)
            if life is not None and not alive and not life.deleted and not self.is_there(life):
                model.delete(life)

    def _applied(self, before: Model, batch: list[Submission], living: dict[int, bool]) -> Applied:
        now, after = self._clock(), before.copy()
        expected, owes_sync = [], False
        for submission in batch:
            request = submission.request
            expected.append(after.apply(request, now, lambda life: living.get(life.number, _lives(life, now))))
            life = after.find(request.name)
            if isinstance(expected[-1], Refused):
                continue
            if getattr(expected[-1], "duplicate", False):
                owes_sync = owes_sync or self._is_unsynced(life)
                continue
            if (
                life is not None
                and isinstance(request, Append | Create)
                and not getattr(expected[-1], "existed", False)
            ):
                self.uses.use(life.number, now)
        return Applied(after, expected, owes_sync)

    def _is_unsynced(self, life: Life | None) -> bool:
        synced = life and self.visible.lives.get(life.number)
        return life is not None and (synced is None or synced.tail != life.tail)


class Applied(NamedTuple):
    """What a batch makes of a model, and what each of its requests is told. ``owes_sync``: a duplicate among them is
    told of what may not be durable yet, and is acknowledged when it is, whatever it asked for.
    """

    model: Model
    results: list[Any]
    owes_sync: bool


def _lives(life: Life, now: float) -> bool:
    """Whether a stream that was created just now has not expired yet."""
    return life.ttl != 0 and (life.expires_at is None or now < life.expires_at)


def _found_no_segment(result: object) -> bool:
    """Whether that was refused because the log could not go on: no room, or no more files. All of its group was."""
    return isinstance(result, StoreFull) or (isinstance(result, StoreUnreadable) and result.file.endswith(".log.tmp"))


def _deletions(batch: list[Submission]) -> list[Submission]:
    return [submission for submission in batch if isinstance(submission.request, Delete | Trim)]


def _same(submission: Submission, expected: Any) -> None:
    found = submission.result
    kind = type(found).__name__ if isinstance(found, BaseException) else found
    assert found is not PENDING
    wanted = expected.kind if isinstance(expected, Refused) else expected
    assert kind == wanted, f"{_short(submission.request)}: {found!r}, not {expected!r}"


def _short(request: Any) -> str:
    if isinstance(request, Append | Create):
        request = request._replace(data=request.data[:10])
    return str(request)


def seen_of(state: StreamState) -> tuple[Any, ...]:
    """What the store has of a stream."""
    fork, config = state.fork, state.config
    producers = tuple((name, known.epoch, known.seq) for name, known in (state.producers or {}).items())
    return (
        state.number, state.gone, state.first, state.durable, state.durable_closed, state.forks, state.last_seq,
        producers, config.content_type, config.ttl, config.expires_at,
        None if fork is None else (fork.source.number, fork.base),
    )  # fmt: skip


def seen_in(life: Life) -> tuple[Any, ...]:
    """The same of the model."""
    return (
        life.number, life.deleted, life.first, life.tail, life.closed, life.forks, life.last_seq, life.producers,
        life.content_type, life.ttl, life.expires_at, None if life.source is None else (life.source, life.base),
    )  # fmt: skip


class Watched:
    """Hooks in the committer, which has no idea. Committers without a history are left alone."""

    def __init__(self) -> None:
        self.histories: dict[Committer, History] = {}

    def hooks(self) -> dict[str, Callable[..., None]]:
        """What to put in the place of the committer's methods."""
        commit, sync_written = Committer._commit, Committer._sync_written

        def on_commit(committer: Committer, batch: list[Submission], deliveries: Any) -> None:
            history = self.histories.get(committer)
            if history is None:
                commit(committer, batch, deliveries)
            else:
                history.commit(lambda: commit(committer, batch, deliveries), batch)

        def on_sync(committer: Committer) -> None:
            sync_written(committer)
            if committer in self.histories:
                self.histories[committer].synced()

        return {"_commit": on_commit, "_sync_written": on_sync}
