"""Threads that append, read, follow, list, trim and cluster one store on disk, all at once, and then count.

Run by ``sanitize.py`` with an extension that tells races: every path by which C works on memory that others may have.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable

import durable_log
from durable_log import Options, Producer, Store

WRITERS, RECORDS, SHARED = 4, 400, 3
OPTIONS = Options(
    segment_bytes=256 * 1024, record_bytes_max=64 * 1024, cluster_segments=1, cluster_seconds=0.2,
    stream_recent_bytes_max=4096,
)  # fmt: skip


def record(writer: int, number: int) -> bytes:
    return f"{writer}:{number};".encode().ljust(10 + number % 9 * 700, b".")


def write(store: Store, writer: int) -> None:
    """Records of one producer in a stream of its own, and in streams that all share."""
    own = store.stream(f"own/{writer}")
    for number in range(RECORDS):
        data = record(writer, number)
        own.append(data, producer=Producer(f"writer {writer}", 0, number))
        shared = store.stream(f"shared/{number % SHARED}")
        if number % 4:
            shared.append(data)
        else:
            shared.append_many([data, data])


def read(store: Store, name: str, done: threading.Event) -> None:
    """From the beginning to wherever the tail is, again and again."""
    while not done.is_set():
        offset, stream = 0, store.stream(name)
        while True:
            chunk = stream.read(offset, limit=50_000)
            assert chunk.offset == offset
            offset = chunk.next_offset
            if chunk.up_to_date:
                break


def follow(store: Store, name: str, found: list[bytes]) -> None:
    """Until the stream is closed."""
    found.extend(chunk.data for chunk in store.stream(name).follow())


def come_and_go(store: Store, done: threading.Event) -> None:
    """Streams that live shortly, forks of those that are written to, and everything's names."""
    turn = 0
    while not done.is_set():
        name = f"short/{turn % 7}"
        stream = store.create(name, fork_of=f"own/{turn % WRITERS}", fork_at=0)
        stream.append(b"x" * 3000)
        assert name in set(store.names("short/"))
        stream.delete()
        turn += 1


def compact(store: Store, done: threading.Event) -> None:
    while not done.wait(0.3):
        store.compact()


def run(store: Store) -> None:
    for name in (*(f"own/{writer}" for writer in range(WRITERS)), *(f"shared/{index}" for index in range(SHARED))):
        store.create(name)
    failed: list[BaseException] = []

    def guarded(work: Callable[..., None], *arguments: object) -> threading.Thread:
        def target() -> None:
            try:
                work(store, *arguments)
            except BaseException as error:  # noqa: BLE001 - it is raised where the threads are joined
                failed.append(error)

        thread = threading.Thread(target=target)
        thread.start()
        return thread

    done, followed = threading.Event(), [[] for _ in range(WRITERS)]
    others = [guarded(read, f"shared/{index}", done) for index in range(SHARED)]
    others += [guarded(come_and_go, done), guarded(compact, done)]
    followers = [guarded(follow, f"own/{writer}", followed[writer]) for writer in range(WRITERS)]
    for thread in [guarded(write, writer) for writer in range(WRITERS)]:
        thread.join()
    done.set()
    for writer in range(WRITERS):
        store.stream(f"own/{writer}").close()
    for thread in (*others, *followers):
        thread.join()
    if failed:
        raise failed[0]
    for writer in range(WRITERS):
        assert b"".join(followed[writer]) == b"".join(record(writer, number) for number in range(RECORDS))


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        with durable_log.open(directory, options=OPTIONS) as store:
            run(store)
        with durable_log.open(directory, options=OPTIONS) as store:
            total = sum(store.stream(f"shared/{index}").info().tail for index in range(SHARED))
    expected = sum(
        len(record(writer, number)) * (1 if number % 4 else 2) for writer in range(WRITERS) for number in range(RECORDS)
    )
    sys.exit(0 if total == expected else f"{total} bytes in shared streams, not {expected}")


if __name__ == "__main__":
    main()
