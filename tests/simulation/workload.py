"""What is done to the store, and what whoever does it remembers.

Law of this room: one operation a step, chosen by the seed. What a commit makes of a request is compared in ``history``;
here, what is read, listed, watched and told. A failure is tolerated if the disk has failed, a refusal where the model
refuses, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from reference import JSON, Life
from simulated_disk import SimulatedDisk

from durable_log.engine.commit import WRITTEN_SECONDS_MAX
from durable_log.engine.opening import open_in
from durable_log.errors import (
    BackupFailed,
    CommitFailed,
    DurableLogError,
    OffsetOutOfRange,
    StoreFull,
    StoreUnreadable,
)
from durable_log.model import NOW, Append, Create, Delete, Producer, Request, StreamConfig, Trim
from durable_log.store import Store

if TYPE_CHECKING:
    from simulation import Simulation

NAMES = ("a", "a/b", "a/c", "ab", "b", "b\U0010ffff", "c", "d", "ä/日", "z" * 200)
SIZES = (1, 2, 5, 30, 100, 1000, 4000, 4008, 4009, 4072, 4073, 8168, 20_000, 32_000, 2**16)
CONTENT_MAX = 100_000
SEQS = (None, None, None, "1", "10", "2", "é", "3")
PRODUCERS = ("p", "q", "long" * 20)
TYPES = ("application/octet-stream", "application/octet-stream", "text/plain", JSON)
PASSING = (0.0, 0.125, 1.0, 3.0, 30.0, 70.0, 400.0)


class Follower(NamedTuple):
    """Somebody who reads a stream on from somewhere, and remembers."""

    number: int
    name: str
    start: int
    seen: bytes = b""

    @property
    def offset(self) -> int:
        """Where he goes on."""
        return self.start + len(self.seen)


class Watch(NamedTuple):
    number: int
    name: str
    offset: int
    handle: Any


class Port:
    """Where results are delivered."""

    def __init__(self) -> None:
        self.told: dict[object, Any] = {}

    def deliver(self, results: list[tuple[Any, Any]]) -> None:
        for token, result in results:
            assert token not in self.told, token
            self.told[token] = result


class Workload:
    """The operations of one simulation."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.chance, self.counts = simulation.chance, simulation.counts
        self.history = simulation.history
        chance = self.chance
        self.names = NAMES[: chance.randint(2, len(NAMES))]
        self.port = Port()
        self.tokens = 0
        self.full = False
        self.followers: list[Follower] = []
        self.watches: dict[int, Watch] = {}
        self.retries: list[Append] = []
        requests: dict[Callable[[], None], int] = {
            self.create: 6, self.fork: 4, self.append: 20, self.append_many: 3, self.append_json: 4,
            self.append_by_producer: 8, self.retry: 2, self.close_stream: 2, self.delete: 3, self.trim: 4,
            self.stage: 6, self.read: 6, self.list_names: 2, self.follow: 6, self.watch: 3,
            self.time_passes: 4, self.commit_staged: 4, self.sweep_resident: 2, self.forge: 1, self.info: 2,
        }  # fmt: skip
        others: dict[Callable[[], None], int] = {
            self.refill: 3, self.sweep: 3, self.background: 5, self.cluster: 4, self.compact: 2, self.check: 2,
            self.backup: 1, self.stats: 2, self.doom: 2, self.check_files: 1,
        }  # fmt: skip
        weigh = lambda weight: weight * chance.choice((0, 1, 1, 1, 4))  # noqa: E731 - swarms: some do some things only
        self.requests = {one: weigh(weight) for one, weight in requests.items()}
        self.requests[self.create] = max(4, self.requests[self.create])
        self.requests[self.append] = max(4, self.requests[self.append])
        self.all = self.requests | {one: weigh(weight) for one, weight in others.items()}

    # --- steps --------------------------------------------------------------------------------------------------------

    def step(self, *, nested: bool = False) -> None:
        choices = self.requests if nested else self.all
        (operation,) = self.chance.choices(list(choices), list(choices.values()))
        self.counts[f"operation: {operation.__name__}"] += 1
        operation()
        self._check_watches()
        self._check_failure()

    def _check_failure(self) -> None:
        """A store latches for a write or a sync that failed, and for nothing else."""
        simulation = self.simulation
        broken = simulation.disk.broken or simulation.disk.syncs_failed
        assert simulation.failure is None or broken, f"latched without a reason: {simulation.failure!r}"
        self.counts["latch"] += simulation.failure is not None

    def reopened(self) -> None:
        """Another process: who waited is gone, who read has what he saw."""
        lives = self.history.visible.lives
        for follower in self.followers:
            life = lives.get(follower.number)
            if life is not None:
                seen = life.content[follower.start : follower.offset]
                assert seen == follower.seen, f"{life.name}: bytes that were seen are gone"
        self.followers = [follower for follower in self.followers if follower.number in lives]
        self.watches.clear()
        self.port.told.clear()

    def _note(self, what: str, *details: object) -> None:
        self.simulation.note(f"{what} {' '.join(map(str, details))}")

    def _name(self) -> str:
        return self.chance.choice(self.names)

    def _find(self, name: str) -> Life | None:
        return self.history.current.find(name)

    def _data(self) -> bytes:
        return self.chance.randbytes(min(self.chance.choice(SIZES), self.simulation.options.record_bytes_max))

    def _try(self, work: Callable[[], Any]) -> tuple[Any, Exception | None]:
        """What ``work`` returns, or the refusal or tolerable failure that it raises."""
        simulation = self.simulation
        try:
            return work(), None
        except OSError as error:
            raise AssertionError(f"a bare {error!r} from a call of the API") from error
        except (StoreFull, StoreUnreadable, BackupFailed) as error:
            simulation.disk.demand_a_reason(error)
            self.counts[f"failure: {type(error).__name__}"] += 1
            return None, error
        except CommitFailed as error:
            assert simulation.failure is not None
            self.counts["failure: CommitFailed"] += 1
            return None, error
        except DurableLogError as error:
            self.counts[f"refusal: {type(error).__name__}"] += 1
            return None, error

    def _request(self, request: Request, call: Callable[[], Any] | None = None) -> None:
        """One that a commit decides on, where it is compared."""
        groups = self.history.groups
        _result, error = self._try(call or (lambda: self.simulation.store.engine.execute(request)))
        if isinstance(error, StoreFull):
            self.full = True
        if error is None:
            self.counts["requests that were carried out"] += 1
            self.counts["full disks that had room again"] += self.full and not isinstance(request, Delete | Trim)
            self.full = False
            assert self.history.groups > groups
        elif isinstance(error, CommitFailed) and isinstance(request, Append) and request.producer:
            self.retries.append(request)

    # --- requests -----------------------------------------------------------------------------------------------------

    def _config(self) -> StreamConfig:
        chance, now = self.chance, self.simulation.time.now
        ttl = chance.choice((None, None, None, 0, 5, 100, 1000))
        expires = chance.choice((None, None, None, -1, 50)) if ttl is None else None
        return StreamConfig(chance.choice(TYPES), ttl, None if expires is None else now + expires)

    def _new(self) -> Create:
        chance, config = self.chance, self._config()
        data = self._data() if chance.random() < 0.5 else b""
        if config.content_type == JSON and data:
            data = _messages(self._values())
        return Create(self._name(), config, data, chance.random() < 0.05)

    def create(self) -> None:
        request = self._new()
        life = self._find(request.name)
        if life is not None and self.chance.random() < 0.3:  # as it is
            request = request._replace(
                config=StreamConfig(life.content_type, life.ttl, life.expires_at), closed=life.closed
            )
            if life.content_type == JSON and request.data:
                request = request._replace(data=_messages(self._values()))
        self._note("create", request.name, request.config, len(request.data), request.closed)
        self._request(request, lambda: self.simulation.store.submit(request))

    def _fork(self) -> Create | None:
        chance, of = self.chance, self._name()
        source = self._find(of)
        if source is None:
            return Create(self._name(), self._config(), fork_of=of)
        config = self._config()._replace(content_type=source.content_type)
        if chance.random() < 0.6:
            config = config._replace(ttl=None, expires_at=None)
        at = source.boundary(chance.randint(source.first, source.tail)) if chance.random() < 0.7 else None
        if at is not None and at < source.first:
            at = source.first
        return Create(self._name(), config, fork_of=of, fork_at=at)

    def fork(self) -> None:
        self._let_staged_go()
        request = self._fork()
        self._note("fork", request.name, request.fork_of, request.fork_at, request.config)
        self._request(request, lambda: self.simulation.store.submit(request))

    def _append(self, data: bytes | None = None, producer: Producer | None = None) -> Append | None:
        chance, name = self.chance, self._name()
        life = self._find(name)
        data = self._data() if data is None else data
        kind = "application/octet-stream"
        if life is not None:
            kind = life.content_type
            if life.tail + len(data) > CONTENT_MAX:
                data = data[:10]
            if kind == JSON:
                data = _messages(self._values())
            elif chance.random() < 0.03:
                kind = "text/other"
        durability = chance.choice(("sync", "written", self.simulation.options.durability))
        return Append(name, data, producer, chance.choice(SEQS), chance.random() < 0.03, durability, kind)

    def append(self) -> None:
        request = self._append()
        self._note("append", request.name, len(request.data), request.seq, request.close, request.durability)
        call = None
        if self.chance.random() < 0.5 and request.content_type != "text/other" and request.content_type != JSON:
            stream = self.simulation.store.stream(request.name)
            call = lambda: stream.append(  # noqa: E731
                request.data, seq=request.seq, close=request.close, durability=request.durability
            )
        self._appended(request, call)

    def _appended(self, request: Append, call: Callable[[], Any] | None) -> None:
        if call is None:
            self._request(request)
            return
        groups = self.history.groups
        _, error = self._try(call)
        if error is None:
            assert self.history.groups > groups
        elif not isinstance(error, CommitFailed | StoreFull | StoreUnreadable):
            refused = self._refusal(request.name)
            assert self.history.groups > groups or refused == type(error).__name__, (refused, error)

    def _refusal(self, name: str) -> str | None:
        """What readers of that name are told."""
        return self.history.visible.refusal(name, self.history.living)

    def append_many(self) -> None:
        name = self._name()
        life = self._find(name)
        if life is not None and (life.content_type == JSON or life.tail > CONTENT_MAX):
            return
        items = [self.chance.randbytes(self.chance.randint(0, 300)) for _ in range(self.chance.randint(1, 5))]
        items.append(b"x")
        self._note("append_many", name, [len(item) for item in items])
        stream = self.simulation.store.stream(name)
        self._appended(Append(name, b"".join(items)), lambda: stream.append_many(items))

    def _values(self) -> list[Any]:
        chance = self.chance
        kinds = (
            lambda: chance.randint(-9, 10**12), lambda: 'äöü, "quoted" \\ ' * chance.randint(0, 5),
            lambda: [chance.random(), {"a": [1, 2], "b": "},{"}], lambda: None, lambda: "x" * chance.randint(0, 5000),
        )  # fmt: skip
        return [chance.choice(kinds)() for _ in range(chance.randint(1, 4))]

    def append_json(self) -> None:
        found = [life.name for life in self.history.visible.lives.values() if life.content_type == JSON]
        if not found:
            return
        name, values = self.chance.choice(found), self._values()
        self._note("append_json", name, len(values))
        stream = self.simulation.store.stream(name)
        self._appended(Append(name, _messages(values)), lambda: stream.append_json(*values))

    def append_by_producer(self) -> None:
        chance, request = self.chance, self._append()
        life, producer = self._find(request.name), chance.choice(PRODUCERS)
        epoch, seq = (life.producer(producer) if life else None) or (0, -1)
        step = chance.choice((0, 0, 0, 0, 0, 1, -1))
        # An epoch begins with number 0; the store refuses another one.
        following = seq + 1 if step == 0 else 0
        beside = chance.choice((0, 0, 1) if step == 1 else (0, 0, 0, 0, 0, -1, 1, -3))
        claim = Producer(producer, max(0, epoch + step), max(0, following + beside))
        request = request._replace(producer=claim)
        self._note("append", request.name, len(request.data), claim, request.seq, request.close, request.durability)
        self._request(request)

    def retry(self) -> None:
        """Somebody whose append came to an unknown end sends it again."""
        if not self.retries:
            return
        request = self.retries.pop(self.chance.randrange(len(self.retries)))
        self._note("retry", request.name, len(request.data), request.producer)
        self.counts["retries"] += 1
        self._request(request)

    def forge(self) -> None:
        """Bytes of the log as data."""
        disk = self.simulation.disk
        logs = [name for name in disk.names() if name.endswith(".log")]
        if not logs:
            return
        raw = disk.contents()[self.chance.choice(logs)]
        at = 4096 * self.chance.randrange(max(1, len(raw) // 4096))
        data = raw[at : at + 8192] or b"x"
        request = self._append(data)
        self._note("forge", request.name, len(request.data))
        self._request(request)

    def close_stream(self) -> None:
        name = self._name()
        life = self._find(name)
        claim = None
        if life is not None and self.chance.random() < 0.3:
            epoch, seq = life.producer("p") or (0, -1)
            claim = Producer("p", epoch, seq + 1)
        self._note("close stream", name, claim)
        self._request(
            Append(name, b"", claim, close=True), lambda: self.simulation.store.stream(name).close(producer=claim)
        )

    def delete(self) -> None:
        name = self._name()
        self._note("delete", name)
        self._request(Delete(name), lambda: self.simulation.store.delete(name))

    def _let_staged_go(self) -> None:
        """What is staged may move the boundaries of messages, at which the next request is going to cut."""
        if self.simulation.store.engine._committer._staging:
            self.commit_staged()

    def trim(self) -> None:
        self._let_staged_go()
        chance, name = self.chance, self._name()
        life = self._find(name)
        before = 0 if life is None else life.boundary(chance.randint(life.first, life.tail))
        if chance.random() < 0.1:
            before = before + 10**6
        self._note("trim", name, before)
        self._request(Trim(name, before))

    def stage(self) -> None:
        """Requests that share a commit with whatever comes next."""
        for _ in range(self.chance.randint(1, 6)):
            make = self.chance.choice(
                (self._new, self._fork, self._append, self._append, self._append, lambda: Delete(self._name()))
            )
            request = make()
            if isinstance(request, Create):
                request = request._replace(fork_at=None)
            self.tokens += 1
            token = self.tokens
            self._note("stage", request._replace(data=len(request.data)) if hasattr(request, "data") else request)
            self._try(
                lambda request=request, token=token: self.simulation.store.engine.submit(request, self.port, token)
            )

    # --- readers ------------------------------------------------------------------------------------------------------

    def _limit(self) -> int | None:
        return self.chance.choice((None, 1, 7, 1000, 4096, 50_000))

    def read(self) -> None:
        chance, name = self.chance, self._name()
        life = self.history.visible.find(name)
        offset = 0 if life is None else chance.randint(0, life.tail + life.tail // 20)
        if life is not None and chance.random() < 0.9:
            offset = life.boundary(max(offset, life.first))
        if chance.random() < 0.1:
            offset = NOW
        self._note("read", name, offset)
        self._read(name, offset, self._limit(), None)

    def _read(self, name: str, offset: int, limit: int | None, number: int | None) -> Any:
        """A chunk that was compared, or None."""
        simulation, history = self.simulation, self.history
        life, refused = history.visible.find(name), self._refusal(name)
        if (
            number is not None
            and refused in (None, "StreamNotFound")
            and (life is None or life.number != number or refused)
        ):
            refused = "StreamGone"
        stream = simulation.store.stream(name)
        chunk, error = self._try(lambda: stream._read(offset, limit, number))
        if isinstance(error, StoreUnreadable):
            if life is not None and refused is None:
                history.uses.may_use(life.number, simulation.time.now)
            return None
        assert not isinstance(error, CommitFailed | StoreFull)
        if refused is not None:
            assert type(error).__name__ == refused, (error, refused, chunk)
            return None
        assert life is not None
        history.uses.use(life.number, simulation.time.now)
        if offset == NOW:
            offset = life.tail
        inside = life.content_type == JSON and life.first < offset < life.tail and offset not in life.ends
        if not life.first <= offset <= life.tail or inside:
            assert isinstance(error, OffsetOutOfRange), (life.first, offset, life.tail, error)
            return None
        assert error is None, error
        most = simulation.options.chunk_bytes_max
        life.compare(chunk, offset, most if limit is None else min(limit, most), whole=not simulation.disk.fired)
        return chunk

    def follow(self) -> None:
        chance, lives = self.chance, self.history.visible.lives
        if self.followers and chance.random() < 0.8:
            at = chance.randrange(len(self.followers))
            follower = self.followers.pop(at)
        else:
            found = [life for life in lives.values() if not life.deleted]
            if not found:
                return
            life = chance.choice(found)
            follower = Follower(life.number, life.name, life.first)
        life = lives.get(follower.number)
        if life is not None and life.first > follower.offset:
            follower = Follower(life.number, life.name, life.first)  # what comes next was trimmed
        self._note("follow", follower.name, follower.offset)
        chunk = self._read(follower.name, follower.offset, self._limit(), follower.number)
        if chunk is not None:
            follower = follower._replace(seen=follower.seen + chunk.data)
        if follower.number in lives:
            self.followers.append(follower)

    def watch(self) -> None:
        name = self._name()
        life = self.history.visible.find(name)
        if self._refusal(name) is not None or life is None:
            return
        self.tokens += 1
        offset, token = max(0, life.tail - self.chance.choice((0, 0, 1))), self.tokens
        self._note("watch", name, offset)
        handle, error = self._try(
            lambda: self.simulation.store.engine.watch(name, offset, self.port, ("watch", token), life.number)
        )
        if error is None:
            assert (handle is None) == (life.closed or life.tail > offset), (life, handle)
            if handle is not None:
                self.watches[token] = Watch(life.number, name, offset, handle)
        elif not isinstance(error, StoreUnreadable):
            raise error

    def _check_watches(self) -> None:
        """Whoever waits was told if something has happened, and only then."""
        lives = self.history.visible.lives
        for token, watch in list(self.watches.items()):
            life = lives.get(watch.number)
            happened = life is None or life.deleted or life.closed or life.tail > watch.offset
            told = ("watch", token) in self.port.told
            assert told == happened, f"{watch.name}: told {told}, happened {happened}: {watch[:3]}"
            if told:
                del self.watches[token]
                self.counts["watchers that were told"] += 1

    def info(self) -> None:
        name = self._name()
        refused, life = self._refusal(name), self.history.visible.find(name)
        if refused is None and life is not None:
            _, error = self._try(lambda: self.compare_info(life))
            assert error is None or isinstance(error, StoreUnreadable), error
        else:
            _, error = self._try(lambda: self.simulation.store.stream(name).info())
            assert isinstance(error, StoreUnreadable) or type(error).__name__ == refused, (error, refused)

    def compare_info(self, life: Life) -> None:
        info = self.simulation.store.stream(life.name).info()
        source = None if life.source is None else self.history.visible.lives[life.source].name
        expected = (
            life.number, life.content_type, life.tail, life.closed, life.ttl, life.expires_at, life.first, source,
        )  # fmt: skip
        found = (
            info.number, info.content_type, info.tail, info.closed, info.ttl, info.expires_at, info.first, info.fork_of,
        )  # fmt: skip
        assert found == expected, (found, expected)
        assert (info.fork_at or 0) == life.base

    def list_names(self) -> None:
        prefix = self.chance.choice(("", "", "a", "a/", "b", "x", "ä"))
        expected = [name for name in self.history.visible.readable(self.history.living) if name.startswith(prefix)]
        self._note("names", prefix)
        listed, error = self._try(lambda: list(self.simulation.store.names(prefix)))
        if error is None:
            assert listed == expected, (listed, expected)
        else:
            assert isinstance(error, StoreUnreadable), error

    # --- what goes on beside them -------------------------------------------------------------------------------------

    def time_passes(self) -> None:
        seconds = self.chance.choice(PASSING)
        self._note("time passes", seconds)
        self.simulation.time.move(seconds)

    def _work(self, what: str, work: Callable[[], Any]) -> Exception | None:
        """Something of the background, which may meet any failure of the disk."""
        self._note(what)
        simulation = self.simulation
        try:
            work()
        except (OSError, StoreFull, StoreUnreadable, CommitFailed) as error:
            simulation.disk.demand_a_reason(error)
            self.counts[f"{what} failed"] += 1
            return error
        self.counts[what] += 1
        return None

    def commit_staged(self) -> None:
        """A step of the committer thread, now or after a while."""
        seconds = self.chance.choice((0.0, 0.005, 0.02, 0.1))
        self.simulation.time.passed += seconds
        self._work("committer", self.simulation.commit_waiting)
        committer = self.simulation.store.engine._committer
        if self.simulation.failure is None:
            assert not committer._staging
        if seconds > WRITTEN_SECONDS_MAX:
            self.simulation.time.passed += seconds
            self._work("committer", self.simulation.commit_waiting)
            if self.simulation.failure is None:
                self._check_all_visible()

    def _check_all_visible(self) -> None:
        """Written data is synced in time, whoever the last request was."""
        current, visible = self.history.current.lives, self.history.visible.lives
        assert current == visible, "what was written is not visible in time"

    def sweep_resident(self) -> None:
        self._swept("sweep of memory", self.simulation.store.engine.upkeep._sweep_resident)

    def sweep(self) -> None:
        self._swept("sweep", self.simulation.store.engine.upkeep.sweep)

    def _swept(self, what: str, work: Callable[[], Any]) -> None:
        self._work(what, work)

    def refill(self) -> None:
        self._work("refill", self.simulation.store.engine._spares.refill)

    def background(self) -> None:
        """What the clusterer does when it looks round."""
        self._work("cluster if due", self.simulation.store.engine.upkeep._cluster_if_due)

    def cluster(self) -> None:
        self._work("cluster", self.simulation.store.engine.upkeep.cluster)

    def compact(self) -> None:
        self._note("compact")
        _, error = self._try(self.simulation.store.compact)
        if error is None:
            self.counts["compact"] += 1
            assert self.simulation.store.stats()["catalog_runs"] <= 1

    def check(self) -> None:
        self._work("check", self.simulation.store.engine.check)

    def check_files(self) -> None:
        self._note("check files")
        found: list[Any] = []
        error = self._work("check files", lambda: found.extend(self.simulation.store.engine.upkeep.check_files()))
        assert error is not None or found == [], found

    def stats(self) -> None:
        simulation = self.simulation
        figures = simulation.store.stats()
        assert figures["streams"] == len(self.history.visible.lives), (figures, self.history.visible.names)
        assert (figures["failure"] is None) == (simulation.failure is None)
        assert figures["disk_bytes"] == sum(simulation.disk.sizes().values())
        assert figures["watched_streams"] == len({watch.number for watch in self.watches.values()})

    def doom(self) -> None:
        """The power goes during one of the next changes, which are many."""
        disk = self.simulation.disk
        if not disk.crash_at:
            disk.crash_at = disk.changes + self.chance.randint(1, 25)
        self.chance.choice((self.cluster, self.background, self.compact, self.sweep))()

    def backup(self) -> None:
        """A copy, which is opened and compared."""
        simulation = self.simulation
        self._note("backup")
        target = SimulatedDisk(
            self.chance, self.counts, simulation.trace, grows_in_place=simulation.disk.grows_in_place
        )
        try:
            _, error = self._try(lambda: simulation.store.engine.upkeep.backups.fill(target, verify=True))
            if error is None:
                self.counts["backup"] += 1
                self._compare_backup(target)
            else:
                assert isinstance(error, BackupFailed | CommitFailed | StoreUnreadable), error
        finally:
            target.discard_all()

    def _compare_backup(self, target: SimulatedDisk) -> None:
        simulation, model = self.simulation, self.history.current
        image = target.image() if self.chance.random() < 0.5 else target.contents()
        disk = SimulatedDisk(self.chance, self.counts, simulation.trace, image, grows_in_place=target.grows_in_place)
        copy = Store(open_in(disk, simulation.options, simulation.time.time))
        try:
            now, uses = simulation.time.now, self.history.uses
            lives = [model.lives[number] for number in model.names.values()]
            sure = [life.name for life in lives if not life.deleted and uses.alive(life, now)]
            assert set(sure) <= set(copy.names())
            for name in sure:
                life = model.lives[model.names[name]]
                offset = life.first
                while offset < life.tail:
                    chunk = copy.stream(name).read(offset)
                    life.compare(chunk, offset, simulation.options.chunk_bytes_max)
                    offset = chunk.next_offset
        finally:
            copy.close()
            disk.discard_all()


def _messages(values: list[Any]) -> bytes:
    texts = [json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")) for value in values]
    return b"".join(text.encode() + b"," for text in texts)
