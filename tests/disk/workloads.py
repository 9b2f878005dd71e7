"""What stores do while they crash: each workload is about one way in which the engine changes its files.

Law of this room: a workload is a function of a script; sizes come from the script's chance, so that every seed writes
other bytes to other places, while the operations stay the same. It ends with the store open, or closed. Steps that an
engine takes in the background are asked for by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from script import CALM, Ended, Script, WatchedDirectory

from durable_log.model import Append, Create, Delete, Options, Producer, StreamConfig, Trim

PREALLOCATED = replace(CALM, preallocate=True)
KIB = 1024


def new_store(s: Script) -> None:
    s.open()
    s.create("a")
    s.append("a", s.bytes(1, 900))
    s.create("b", s.bytes(1, 100), closed=True)
    s.close()


def small_appends(s: Script) -> None:
    s.open()
    for name in "abc":
        s.create(name)
    for _ in range(4):
        for name in "abc":
            s.append(name, s.bytes(1, 600))
        s.keep_time()


def large_appends(s: Script) -> None:
    s.open()
    s.create("a")
    s.create("b", s.bytes(3 * KIB, 9 * KIB))
    for _ in range(3):
        s.append("a", s.bytes(5 * KIB, 14 * KIB))
        s.append("b", s.bytes(300, 6 * KIB))


def groups(s: Script) -> None:
    s.open()
    config = StreamConfig("a/b")
    for turn in range(5):
        new = [Create(f"{turn}{name}", config, s.bytes(0, 300)) for name in "abcd"]
        s.do(*new, *(Append(create.name, s.bytes(1, 900)) for create in new))
        s.do(*(Append(f"{turn}{name}", s.bytes(1, 2 * KIB), close=name == "c") for name in "abc"), Delete(f"{turn}d"))


def rolls(s: Script) -> None:
    s.options = PREALLOCATED
    s.open()
    s.create("a")
    for turn in range(14):
        s.append("a", s.bytes(7 * KIB, 20 * KIB))
        if turn % 3 == 1:
            s.refill()


def rolls_without_spares(s: Script) -> None:
    s.directory.grows_in_place = False
    s.open()
    s.create("a")
    s.create("b")
    for turn in range(12):
        s.append("a", s.bytes(8 * KIB, 22 * KIB))
        s.append("b", s.bytes(1, 100))
        if turn % 4 == 3:
            s.cluster()


def written(s: Script) -> None:
    s.open()
    s.create("a")
    s.create("b")
    for turn in range(4):
        for _ in range(3):
            s.append("a", s.bytes(1, 3 * KIB), durability="written")
            s.append("b", s.bytes(1, 700), durability="written", producer=None)
        if turn % 2:
            s.append("a", s.bytes(1, 200))
        else:
            s.keep_time()
    s.append("b", s.bytes(9 * KIB, 12 * KIB), durability="written")
    s.append("a", s.bytes(1, 900), durability="written")


def written_over_a_roll(s: Script) -> None:
    s.options = PREALLOCATED
    s.open()
    s.create("a")
    for turn in range(9):
        s.append("a", s.bytes(10 * KIB, 25 * KIB), durability="written")
        s.append("a", s.bytes(1, 600), durability="written")
        if turn == 4:
            s.refill()


def lives(s: Script) -> None:
    s.open()
    for name in "abcd":
        s.create(name, s.bytes(1, 500))
    s.end("a")
    s.fork("f", "b", s.world["b"].tail // 2)
    s.fork("g", "f")
    s.append("f", s.bytes(1, 700))
    s.append("b", s.bytes(1, 700))
    s.trim("c", s.world["c"].tail // 2)
    s.delete("b")
    s.append("g", s.bytes(1, 700), close=True)
    s.delete("d")
    s.create("d", s.bytes(1, 100))
    s.do(Delete("f"), Trim("c", s.world["c"].tail), Append("c", s.bytes(1, 100)))
    s.delete("g")
    s.create("b")
    s.append("c", b"", close=True)


def producers(s: Script) -> None:
    s.open()
    s.create("a")
    s.create("b")
    for seq in range(4):
        s.claim("a", s.bytes(1, 900), ("p", 0, seq), seq=f"s{seq}")
        s.claim("b", s.bytes(1, 5 * KIB), ("p", 0, seq))
        s.claim("a", b"again", ("p", 0, seq))
        s.claim("a", s.bytes(1, 90), ("q", 1, seq), durability="written")
        if seq % 2:
            s.claim("a", b"again", ("q", 1, seq), durability="written")
    s.claim("b", b"again", ("p", 0, 2), durability="written")
    s.claim("a", s.bytes(1, 900), ("p", 1, 0))
    s.claim("b", s.bytes(1, 900), ("q", 0, 0), close=True)
    s.claim("b", b"again", ("q", 0, 0), close=True)
    s.do(*(Append("a", s.bytes(1, 300), Producer("p", 1, seq)) for seq in range(1, 5)))


def messages(s: Script) -> None:
    s.open()
    s.create("j", content_type="application/json")
    for turn in range(5):
        many = b"".join(b'{"turn":%d,"text":"%s"},' % (turn, s.bytes(1, 300).hex().encode()) for _ in range(turn + 1))
        s.append("j", many, seq=f"{turn}")
    s.append("j", b"[1,2],", close=True)


def expiry(s: Script) -> None:
    s.open()
    s.create("t", s.bytes(1, 300), ttl=800)
    s.create("u", s.bytes(1, 300), ttl=80)
    s.create("x", s.bytes(1, 300), expires_at=s.clock() + 5000.5)
    s.wait(70)
    s.use("t")
    s.use("u")
    s.wait(70)
    s.use("u")
    s.append("x", s.bytes(1, 100))
    s.use("t")
    s.cluster()
    s.wait(60)
    s.use("u")
    s.append("t", s.bytes(1, 100))
    s.use("t")
    s.close()
    s.open()
    s.use("t")
    s.wait(100)
    s.use("t")
    s.expire("u")
    s.expire("t")
    s.expire("x")


def checkpoints(s: Script) -> None:
    s.open()
    for turn in range(3):
        for number in range(6):
            if f"s{number}" not in s.world:
                s.create(f"s{number}")
            s.append(f"s{number}", s.bytes(1, 3 * KIB))
        s.fork(f"f{turn}", "s3", s.world["s3"].tail // 2)
        s.claim("s1", s.bytes(1, 200), ("p", turn, 0))
        s.delete(f"s{turn}")
        s.cluster()
        s.append("s5", s.bytes(1, 100))
    s.trim("s4", s.world["s4"].tail // 2)
    s.cluster()


def compaction(s: Script) -> None:
    s.open()
    for turn in range(2):
        for number in range(4):
            s.create(f"{turn}{number}", s.bytes(2 * KIB, 9 * KIB))
        s.cluster()
    s.append("10", s.bytes(1, 500))
    for name in ("00", "01", "12"):
        s.delete(name)
    s.trim("03", s.world["03"].tail - 10)
    s.compact()
    s.append("11", s.bytes(1, 500))
    s.delete("02")
    s.compact()


def merges(s: Script) -> None:
    s.open()
    for turn in range(9):
        s.create(f"s{turn}", s.bytes(1, 2 * KIB))
        s.append("s0", s.bytes(1, 200))
        if turn % 3 == 2:
            s.delete(f"s{turn}")
        s.cluster()
        s.tidy()


def recycling(s: Script) -> None:
    s.options = PREALLOCATED
    s.open()
    s.create("a")
    s.create("b")
    for turn in range(4):
        for _ in range(3):
            s.append("a", s.bytes(8 * KIB, 20 * KIB), durability="written" if turn % 2 else "sync")
            s.append("b", s.bytes(1, 200))
        s.cluster()
        s.refill()
    s.append("b", s.bytes(1, 2 * KIB))


def background(s: Script) -> None:
    s.options = PREALLOCATED
    s.open()
    s.create("a")
    for turn in range(5):
        s.create(f"{turn}", s.bytes(1, 2 * KIB))
        for _ in range(4):
            s.append("a", s.bytes(6 * KIB, 15 * KIB), durability="written")
        s.claim("0", s.bytes(1, 200), ("p", 0, turn), durability="written")
        s.refill()
        s.checkpoint()
        s.append("a", s.bytes(1, 200), durability="written")
        if turn:
            s.delete(f"{turn}")
        if turn == 2:
            s.trim("a", s.world["a"].tail // 2)
        s.tidy()
        if turn == 3:
            s.kill()
            s.open()


def clustered_lives(s: Script) -> None:
    s.open()
    s.create("a", s.bytes(1, 3 * KIB))
    s.create("b", s.bytes(1, 3 * KIB))
    s.cluster()
    s.fork("f", "a", s.world["a"].tail // 2)
    s.append("f", s.bytes(1, 500))
    s.delete("a")
    s.cluster()
    s.fork("g", "f")
    s.trim("b", s.world["b"].tail // 2)
    s.delete("b")
    s.create("b", s.bytes(1, 500), closed=True)
    s.kill()
    s.open()
    s.delete("f")
    s.cluster()
    s.append("g", s.bytes(1, 500), close=True)
    s.compact()
    s.delete("g")
    s.kill()
    s.open()
    s.create("a", s.bytes(1, 500))
    s.cluster()
    s.compact()


def closes(s: Script) -> None:
    for turn in range(3):
        s.open()
        s.create(f"s{turn}", s.bytes(1, 4 * KIB))
        s.append("s0", s.bytes(1, 400), durability="written")
        s.close(cluster=turn != 1)
    s.open()
    s.close(cluster=True)


def kills(s: Script) -> None:
    s.open()
    s.create("a")
    s.append("a", s.bytes(1, 3 * KIB), durability="written")
    s.kill()
    s.open()
    s.append("a", s.bytes(1, 3 * KIB), durability="written")
    s.append("a", s.bytes(1, 300), durability="written")
    s.kill()
    s.open()
    s.append("a", s.bytes(1, 300))
    s.cluster()
    s.append("a", s.bytes(1, 300))
    s.kill()
    s.open()
    s.create("b", s.bytes(1, 200))
    s.close()


def generations(s: Script) -> None:
    s.options = PREALLOCATED
    for turn in range(4):
        s.open()
        s.create(f"s{turn}", s.bytes(1, 3 * KIB))
        s.append("s0", s.bytes(1, 20 * KIB), durability="written")
        if turn % 2:
            s.cluster()
        s.append("s0", s.bytes(1, 400), durability="written")
        if turn == 1:
            s.kill()
        else:
            s.close(cluster=turn == 2)


WORKLOADS: dict[str, Callable[[Script], None]] = {
    workload.__name__: workload
    for workload in (
        new_store, small_appends, large_appends, groups, rolls, rolls_without_spares, written, written_over_a_roll,
        lives, producers, messages, expiry, checkpoints, compaction, merges, recycling, background,
        clustered_lives, closes, kills, generations,
    )
}  # fmt: skip


def perform(name: str, seed: int, directory: WatchedDirectory | None = None, options: Options = CALM) -> Script:
    """Run a workload, up to its end or to that of the store."""
    script = Script(Random(f"{name} {seed}"), directory, options)
    try:
        WORKLOADS[name](script)
    except Ended:
        assert script.failing
    return script
