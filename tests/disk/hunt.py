"""The hunt for an image of a crash that breaks a promise.

    .venv/bin/python tests/disk/hunt.py --images 1000000 --recoveries 100000 --syncs 100000 --seed 7
    .venv/bin/python tests/disk/hunt.py --repeat 'crash rolls 7 57 512/0.1.1'

Law of this room: it walks from workloads to moments, from moments to images, and has each of them examined. A trail of
words leads to every image, so that what is found can be looked at again, alone. The same seed hunts the same images.
``DURABLE_LOG_IMAGES`` and ``DURABLE_LOG_SEED`` say how many, and which, where nobody else does.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parent.parent / "engine"))

from crashes import ALL_OF, Decision, Files, Moment, Past, decisions, examine, moments, promised_at_the_end
from failing import ERRORS, KEPT, FailingDirectory, Failure, assert_latched, assert_shows_only_what_is_sure
from quiet import quiet
from recorded import RecordedDirectory
from recoveries import crashes_after_a_kill, crashes_after_opening, crashes_while_opening, open_twice
from script import Script
from workloads import WORKLOADS, perform

from durable_log.errors import CommitFailed

IMAGES = int(os.environ.get("DURABLE_LOG_IMAGES", "20000"))
SEED = int(os.environ.get("DURABLE_LOG_SEED", "0"))
EVENTS = 2000
"""After about so many events of all workloads, there is something to decide."""
ROUND = 250_000
"""So many images are hunted with one seed."""


class Trail(NamedTuple):
    """The moments that some words lead to."""

    words: tuple[str, ...]
    past: Past
    moments: Iterator[Moment]


class Broken(AssertionError):
    """A promise is broken."""


@contextmanager
def telling(*words: str) -> Iterator[None]:
    """Whatever fails in here is told by these words."""
    try:
        yield
    except Broken:
        raise
    except Exception as error:
        again = f".venv/bin/python tests/disk/hunt.py --repeat '{' '.join(words)}'"
        raise Broken(f"{' '.join(words)}: {type(error).__name__}: {error}\nThis one again: {again}") from error


# --- trails --------------------------------------------------------------------------------------------------------


def crash_trail(workload: str, seed: int) -> Trail:
    """Crashes at any event of a workload."""
    script = perform(workload, seed)
    return Trail(("crash", workload, str(seed)), Past.of(script), moments(script.directory.trace))


def opening_trail(trail: Trail, moment: Moment, decision: Decision) -> Trail:
    """Crashes while a store is opened on what a crash has left."""
    words = ("opening", *trail.words[1:], str(moment.event), decision.word())
    files = moment.media.crash(decision.grain, torn=decision.torn).image(decision.digits)
    with telling(*words):
        open_twice(files, trail.past, moment.promise)
        return Trail(words, trail.past, crashes_while_opening(files, trail.past, moment.promise))


def kill_trail(trail: Trail, moment: Moment) -> Trail:
    """Crashes while a store is opened after a kill, and after that."""
    words = ("kill", *trail.words[1:], str(moment.event))
    with telling(*words):
        return Trail(words, trail.past, crashes_after_a_kill(moment.media, trail.past, moment.promise))


def sync_trail(workload: str, seed: int, failure: Failure) -> tuple[Trail, Script]:
    """Crashes after a sync has failed. The store has been looked at."""
    words = ("sync", workload, str(seed), failure.word())
    directory = FailingDirectory(failure, Random(" ".join(words)))
    with telling(*words):
        script = perform(workload, seed, directory)
        if script.is_open:
            assert_shows_only_what_is_sure(script)
            if isinstance(script.store.engine._committer.failure, CommitFailed):
                assert_latched(script)
    since = (moment for moment in moments(directory.trace) if moment.event >= directory.failed_at - 1)
    return Trail(words, Past.of(script), since), script


def reopened_trail(trail: Trail, script: Script) -> Trail:
    """Crashes while the store is opened again after a sync has failed, on what the page cache shows, and after that."""
    disk, promise = script.directory, promised_at_the_end(script.directory.trace)
    again, words = RecordedDirectory(disk.shown(), media=disk.media.copy()), ("reopened", *trail.words[1:])
    with telling(*words):
        return Trail(words, trail.past, crashes_after_opening(again, trail.past, promise))


# --- hunting -------------------------------------------------------------------------------------------------------


def hunt(trail: Trail, random: Random, each: int, all_of: int = 0, part: float = 1.0) -> int:
    """Examine ``each`` images of each moment, in the mean, or of a ``part`` of the moments and of the last one; where
    there are not more than ``all_of``, all. Returns how many that were.
    """
    count = left = 0
    for moment in trail.moments:
        if part < 1.0 and not moment.is_last and random.random() >= part:
            continue
        left += each
        for decision, files in decisions(moment.media, random, max(left, each), all_of):
            count, left = count + 1, left - 1
            look_at(trail, moment, decision, files, onwards=count % 4 == 0)
        left = max(left, 0)
    return count


def look_at(trail: Trail, moment: Moment, decision: Decision, files: Files, *, onwards: bool = True) -> None:
    """Examine one image, and say which it is if it breaks a promise."""
    with telling(*trail.words, str(moment.event), decision.word()):
        try:
            examine(files, trail.past, moment.promise, onwards=onwards)
        except Exception as error:
            told = moment.media.crash(decision.grain, torn=decision.torn).told(decision.digits)
            raise AssertionError("\n  ".join([f"{error}\n  the crash:", *told])) from error


def hunt_images(workload: str, seed: int, each: int, all_of: int = 0) -> int:
    """Images of crashes at every event of a workload."""
    return hunt(crash_trail(workload, seed), Random(f"images {workload} {seed}"), each, all_of)


def hunt_recoveries(workload: str, seed: int, part: float) -> int:
    """Images of crashes while opening what a crash or a kill has left, from a ``part`` of a workload's moments."""
    random, trail, count = Random(f"recoveries {workload} {seed}"), crash_trail(workload, seed), 0
    for moment in trail.moments:
        if random.random() >= part:
            continue
        decision, _ = random.choice(list(decisions(moment.media, random, 6)))
        count += hunt(opening_trail(trail, moment, decision), random, 2)
        count += hunt(kill_trail(trail, moment), random, random.choice((2, 12)))
    return count


def hunt_failing_syncs(workload: str, seed: int, part: float) -> int:
    """Images of crashes after a ``part`` of a workload's syncs has failed, each in some way, and after opening then."""
    random, count, number = Random(f"syncs {workload} {seed}"), 0, 0
    while True:
        number += 1
        if random.random() >= part:
            continue
        failure = Failure(number, random.choice(ERRORS), random.choice(KEPT), random.random() < 0.5)
        trail, script = sync_trail(workload, seed, failure)
        if not script.failing:
            return count
        count += hunt(trail, random, 3, part=0.1)
        count += hunt(reopened_trail(trail, script), random, 3)


# --- again ---------------------------------------------------------------------------------------------------------


def repeat(words: str) -> None:
    """Look again at what some words lead to: one image, or all that comes before one."""
    kind, workload, seed, *rest = words.split()
    trail = crash_trail(workload, int(seed))
    if kind in ("sync", "reopened"):
        trail, script = sync_trail(workload, int(seed), Failure.of(rest.pop(0)))
        trail = trail if kind == "sync" else reopened_trail(trail, script)
    elif kind == "opening":
        trail = opening_trail(trail, _at(trail, rest.pop(0)), Decision.of(rest.pop(0)))
    elif kind == "kill":
        trail = kill_trail(trail, _at(trail, rest.pop(0)))
    if rest:
        moment, decision = _at(trail, rest[0]), Decision.of(rest[1])
        look_at(trail, moment, decision, moment.media.crash(decision.grain, torn=decision.torn).image(decision.digits))


def _at(trail: Trail, event: str) -> Moment:
    return next(moment for moment in trail.moments if moment.event == int(event))


# --- the command ---------------------------------------------------------------------------------------------------


def hunt_all(images: int, recoveries: int, syncs: int, seed: int) -> bool:
    """At least so many images of each kind, workload by workload and seed by seed. Tells how many there were, and what
    broke; False if anything did.
    """
    each, all_of = min(images, ROUND) // EVENTS, ALL_OF if images >= ROUND else 0
    hunts: list[tuple[str, int, Callable[[str, int], int]]] = [
        ("crashes", images, lambda workload, turn: hunt_images(workload, turn, each, all_of)),
        ("crashes while opening", recoveries, lambda workload, turn: hunt_recoveries(workload, turn, 1.0)),
        ("crashes after failing syncs", syncs, lambda workload, turn: hunt_failing_syncs(workload, turn, 1.0)),
    ]
    unbroken = True
    for what, wanted, work in hunts:
        started, count, turn = time.monotonic(), 0, seed
        while count < wanted:
            for workload in WORKLOADS:
                try:
                    count += work(workload, turn)
                except AssertionError as broken:
                    print(f"BROKEN: {workload}, seed {turn}: {broken}", flush=True)
                    unbroken = False
                took = time.monotonic() - started
                print(f"{what}: {count} images after {workload}, seed {turn}, {took:.0f} s", flush=True)
            turn += 1
    return unbroken


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for what, count in (("images", IMAGES), ("recoveries", IMAGES // 10), ("syncs", IMAGES // 10), ("seed", SEED)):
        parser.add_argument(f"--{what}", type=int, default=count)
    parser.add_argument("--repeat", metavar="WORDS", help="look at one image again")
    chosen = parser.parse_args()
    logging.disable()
    with quiet():
        if chosen.repeat:
            repeat(chosen.repeat)
        elif not hunt_all(chosen.images, chosen.recoveries, chosen.syncs, chosen.seed):
            sys.exit(1)


if __name__ == "__main__":
    main()
