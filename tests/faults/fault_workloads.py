"""What stores are asked to do while their system calls fail: a table of stores to begin with, and one of workloads.

Law of this file: a base makes a store that is then copied for each run; a workload works on such a copy, by the calls
of a ``Session`` alone, so that whatever fails is judged there. All of it happens on the calling thread, in the same
order every time, but for the workloads that say otherwise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple
from unittest import mock

from session import OPTIONS, Session

from durable_log.engine import catalog, checkpoint, commit, compaction, reclaim
from durable_log.engine.keeper import Background

Work = Callable[[Session], None]
SIZES = (1, 900, 5000, 40, 12_000, 3)


@contextmanager
def by_itself_nothing_happens(**tuned: int) -> Iterator[None]:
    """Threads of the background sleep, written data and idle ends wait, and nothing pauses. ``tuned`` are bounds of
    compaction and of the catalog.
    """
    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(Background, "wake"))
        patches.enter_context(mock.patch.object(commit, "IDLE_SECONDS", 3600.0))
        patches.enter_context(mock.patch.object(commit, "WRITTEN_SECONDS_MAX", 3600.0))
        for module in (checkpoint, compaction, reclaim):
            patches.enter_context(mock.patch.object(module, "pause"))
        for name, bound in tuned.items():
            module: Any = catalog if name == "IDLE_MAX" else compaction
            patches.enter_context(mock.patch.object(module, name, bound))
        yield


# ---- stores to begin with


def nothing(session: Session) -> None:
    """No store at all."""


def young(session: Session) -> None:
    """A few streams."""
    session.create("a", b"first of a")
    session.create("b")
    session.create("done", b"the end")
    session.close_stream("done")


def full(session: Session) -> None:
    """Two segments of log, and some of a third."""
    young(session)
    for size in SIZES * 3:
        session.append("a", b"a" * size)
        session.append("b", b"b" * (size // 2 + 1))
    session.send("a", "p", b"produced")


def torn(session: Session) -> None:
    """The same, and an append that nobody was told of."""
    full(session)


def clustered(session: Session) -> None:
    """Segments of two checkpoints, two runs, and some log."""
    for turn in range(2):
        for number in range(6):
            name = f"s{number}"
            session.create(name)
            session.append(name, bytes([65 + turn]) * (700 * number + 1))
        session.send("s1", "p", b"produced")
        session.create(f"fork{turn}", fork_of="s5", fork_at=1000)
        session.cluster()
    session.delete("s2")
    session.append("s3", b"in the log" * 100)


def dead(session: Session) -> None:
    """Clustered segments of which most is deleted or trimmed."""
    clustered(session)
    session.delete("s4")
    session.trim("s5", len(session.truth["s5"][0].content) - 100)
    session.delete("fork1")


def expiring(session: Session) -> None:
    """Streams that expire, in memory and on disk."""
    for number in range(3):
        session.create(f"old{number}", b"x" * 500, ttl=100)
    session.create("fixed", b"y", expires_at=session.clock.now + 100)
    session.create("stays", b"z" * 100)
    session.cluster()
    session.create("young", b"w", ttl=100)


BASES: dict[str, Work] = {base.__name__: base for base in (nothing, young, full, torn, clustered, dead, expiring)}


# ---- workloads


def new_store(session: Session) -> None:
    session.open()
    session.create("a", b"1")
    session.append("a", b"22")
    session.close()


def new_store_in_new_directories(session: Session) -> None:
    session.path = session.path / "deep" / "deeper"
    new_store(session)


def small_appends(session: Session) -> None:
    session.open()
    for size in (1, 2, 3, 500):
        session.append("a", b"s" * size)
        session.append("b", b"t" * size, durability="written")
    session.append("b", b"end", close=True)
    session.read_all()


def large_appends_roll(session: Session) -> None:
    session.open()
    for size in (30_000, 9_000, 25_000, 31_000):
        session.append("a", b"l" * size)
    session.append_many("b", [b"m" * 4000] * 5)
    session.read_all()


def many_streams(session: Session) -> None:
    session.open()
    for number in range(12):
        session.create(f"many{number}", b"n" * (number * 300))
    for number in range(0, 12, 3):
        session.delete(f"many{number}")
    session.close_stream("many1")
    session.close()


def written_durability(session: Session) -> None:
    session.open()
    for size in SIZES * 2:
        session.append("a", b"w" * size, durability="written")
    session.append("b", b"synced")
    for size in SIZES * 2:
        session.append("b", b"v" * size, durability="written")
    session.close()


def close_and_reopen(session: Session) -> None:
    session.open()
    session.append("a", b"second")
    session.close()
    session.open()
    session.append("a", b"third")
    session.read_all()
    session.close()


def closing_without_clustering(session: Session) -> None:
    session.options = replace(OPTIONS, cluster_at_close=False)
    close_and_reopen(session)


def recovery(session: Session) -> None:
    session.open()
    session.read_all()
    session.append("a", b"after the kill")
    session.close()


def recovery_of_a_torn_log(session: Session) -> None:
    recovery(session)


def reading_cold(session: Session) -> None:
    session.open()
    session.read_all()
    session.stats()
    session.verify()
    for name in ("s0", "nobody", "s5"):
        session.create(name)
    session.read_all()


def checkpoints(session: Session) -> None:
    session.open()
    session.cluster()
    for number in range(6):
        session.append(f"s{number}", b"more" * 700)
    session.create("another", b"x")
    session.delete("s0")
    session.cluster()
    session.cluster()
    session.read_all()
    session.append("s1", b"end")


def compaction_on_demand(session: Session) -> None:
    session.open()
    session.compact()
    session.read_all()
    session.append("s1", b"after")


def compaction_between_appends(session: Session) -> None:
    session.open()
    for turn in range(2):
        session.append("s1", b"before %d" % turn)
        session.compact()
    session.read_all()


def runs_are_merged(session: Session) -> None:
    session.open()
    for turn in range(2):
        session.append("s1", b"m" * 50)
        session.create(f"merged{turn}")
        session.cluster()
        session.step()
    session.step()
    session.read_all()


def the_deadest_is_rewritten(session: Session) -> None:
    session.open()
    session.delete("s3")
    for _ in range(3):
        session.step()
    session.read_all()
    session.append("s1", b"after")


def small_segments_are_merged(session: Session) -> None:
    session.open()
    for turn in range(3):
        session.append("s1", bytes([97 + turn]) * 900)
        session.create(f"small{turn}", b"x" * 600)
        session.cluster()
    session.step()
    session.step()
    session.read_all()


def forks_and_trims(session: Session) -> None:
    session.open()
    session.create("f1", b"own", fork_of="a", fork_at=5)
    session.create("f2", fork_of="f1")
    session.trim("a", 4)
    session.delete("a")
    session.append("f2", b"tail")
    session.cluster()
    session.delete("f1")
    session.cluster()
    session.read_all()
    session.delete("f2")
    session.close()


def deleted_and_created_again(session: Session) -> None:
    session.open()
    for turn in range(2):
        session.delete("s1")
        session.create("s1", b"life %d" % turn)
        session.cluster()
    session.delete("s1")
    session.delete("s3")
    session.close()


def sweeping(session: Session) -> None:
    session.open()
    session.read("stays")
    session.clock.now += 1000
    session.sweep("old0", "old1", "old2", "fixed", "young")
    session.sweep()
    session.cluster()
    session.read_all()


def touching(session: Session) -> None:
    """Uses that renew a sliding expiry are written down."""
    session.open()
    session.clock.now += 70
    for name in ("old0", "old1", "old2"):
        if session.read(name) is None:
            session.truth[name].append(None)  # nobody knows whether that was a use
    session.append("stays", b"carries the touches")
    session.close()
    session.open()
    session.clock.now += 80
    session.truth["fixed"] = [None]
    session.truth["young"].append(None)  # unless an end that was not a good one gives it time
    session.read_all()
    session.close()


def backing_up(session: Session) -> None:
    session.open()
    session.append("s1", b"in the log")
    session.backup(session.path.parent / "backup")
    session.append("s1", b"not in the backup")
    session.close()


def recycling(session: Session) -> None:
    session.open()
    for _ in range(2):
        for size in (30_000, 30_000, 30_000, 30_000):
            session.append("a", b"r" * size)
        session.cluster()
    session.refill()
    for size in (30_000, 30_000):
        session.append("b", b"r" * size)
    session.close()


def spares_ahead(session: Session) -> None:
    session.open()
    session.refill()
    for size in (30_000, 30_000, 30_000, 30_000):
        session.append("a", b"s" * size)
        session.refill()
    session.close()


def json_streams(session: Session) -> None:
    session.open()
    session.create("json", content_type="application/json")
    session.append_json("json", {"n": 1}, [2], "three", stored=b'{"n":1},[2],"three",')
    session.append_json("json", *range(300), stored=b"".join(b"%d," % n for n in range(300)))
    session.read_all()
    session.trim("json", 8)
    session.append_json("json", None, stored=b"null,")
    session.close()


def producers(session: Session) -> None:
    session.open()
    for turn in range(3):
        session.send("a", "p", b"p%d" % turn)
        session.send("b", "p", b"p%d" % turn)
        session.send("a", "q", b"q" * 5000)
    session.cluster()
    session.send("a", "p", b"after the checkpoint")
    session.close()


def producers_over_restarts(session: Session) -> None:
    for turn in range(3):
        session.open()
        session.send("a", "p", b"p%d" % turn)
        session.send("s1", "p", b"p%d" % turn)
        session.close()


def going_on_after_a_failure(session: Session) -> None:
    """What latched is closed and opened again, in the same process."""
    for turn in range(4):
        session.open()
        session.append("a", b"%d" % turn)
        session.append("b", b"%d" % turn * 3000)
        session.send("a", "p", b"sent%d" % turn)
        session.close()


def evicting(session: Session) -> None:
    """Hardly any stream stays in memory."""
    session.open()
    for number in range(8):
        session.create(f"e{number}", b"x" * 200)
    session.cluster()
    session.sweep()
    for number in range(8):
        session.read(f"e{number}")
        session.append(f"e{number}", b"y")
    session.sweep()
    session.close()


def names_and_figures(session: Session) -> None:
    session.open()
    session.names()
    session.stats()
    session.delete("s1")
    session.create("t", b"x")
    session.names()
    session.cluster()
    session.names()
    session.stats()


def several_threads(session: Session) -> None:
    """Their calls share commits; which call comes when is not the same every time."""
    session.open()
    session.is_alone = False
    failures: list[BaseException] = []

    def write(name: str) -> None:
        try:
            session.create(name)
            for size in SIZES:
                session.append(name, name.encode() * size)
        except BaseException as failure:  # noqa: BLE001 - it is raised where the threads are joined
            failures.append(failure)

    threads = [threading.Thread(target=write, args=(f"{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    session.cluster()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    session.read_all()


class Workload(NamedTuple):
    """``base``: what it begins with. ``in_ci``: it is run every time, the others only in the long run."""

    work: Work
    base: str
    in_ci: bool = False
    tuned: tuple[tuple[str, int], ...] = ()
    """Bounds of the engine that are others here."""
    proof: tuple[str, str] = ("open", "")
    """A kind of call, and how the name of its file ends: one that shows that it does what it is called."""


WORKLOADS: dict[str, Workload] = {
    workload.work.__name__: workload
    for workload in (
        Workload(new_store, "nothing", in_ci=True),
        Workload(new_store_in_new_directories, "nothing"),
        Workload(small_appends, "young"),
        Workload(large_appends_roll, "young", in_ci=True, proof=("create", ".log.tmp")),
        Workload(many_streams, "young"),
        Workload(written_durability, "young", in_ci=True, proof=("sync", ".log")),
        Workload(close_and_reopen, "young", in_ci=True),
        Workload(closing_without_clustering, "full"),
        Workload(recovery, "full", proof=("write", ".log")),
        Workload(recovery_of_a_torn_log, "torn", in_ci=True, proof=("create", ".log.tmp")),
        Workload(reading_cold, "clustered", proof=("read", ".seg")),
        Workload(checkpoints, "clustered", in_ci=True, proof=("rename", ".run.tmp")),
        Workload(compaction_on_demand, "dead", in_ci=True, proof=("unlink", ".seg")),
        Workload(compaction_between_appends, "dead", proof=("unlink", ".seg")),
        Workload(runs_are_merged, "clustered", tuned=(("RUNS_MAX", 1),), proof=("unlink", ".run")),
        Workload(the_deadest_is_rewritten, "dead", proof=("unlink", ".seg")),
        Workload(small_segments_are_merged, "clustered", tuned=(("SMALL_MAX", 2),), proof=("unlink", ".seg")),
        Workload(forks_and_trims, "young", in_ci=True),
        Workload(deleted_and_created_again, "clustered"),
        Workload(sweeping, "expiring", proof=("read", ".run")),
        Workload(touching, "expiring"),
        Workload(backing_up, "clustered", in_ci=True, proof=("link", ".seg")),
        Workload(recycling, "young", proof=("rename", ".log")),
        Workload(spares_ahead, "young", proof=("create", ".log.tmp")),
        Workload(json_streams, "young"),
        Workload(producers, "full", in_ci=True),
        Workload(producers_over_restarts, "clustered"),
        Workload(going_on_after_a_failure, "young"),
        Workload(evicting, "clustered", tuned=(("IDLE_MAX", 2),), proof=("read", ".run")),
        Workload(names_and_figures, "clustered"),
        Workload(several_threads, "young"),
    )
}
