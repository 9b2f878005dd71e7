"""Making a damaged store whole again, but for what is lost.

Law of this room: the order of the steps. First everything is read; what is damaged is copied to the quarantine, and
what was found is noted there, durably; then new files are made of what verifies, and a manifest that names them takes
the place of the old one, in one rename; then the store is opened as always, and its log, which opening reads past all
damage, is clustered, so that nothing is left of it. Nothing that verifies is left out, nothing else is taken in. After
a kill at any moment the store is damaged as before, or less so, and the next repair goes on in the same quarantine.
One thread; the directory is locked by the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from math import ceil
from typing import Final, NamedTuple

from durable_log.engine.check import FileFault, check_tables
from durable_log.engine.cluster import ClusteredSegment, cluster_name
from durable_log.engine.files import Directory
from durable_log.engine.format import lsn_of, position_of, segment_of
from durable_log.engine.log_repair import mend_log
from durable_log.engine.manifest import MANIFEST_NAME, ClusteredFile, load_manifest, save_manifest
from durable_log.engine.mend import mend_clustered
from durable_log.engine.quarantine import Finding, Quarantine, begun, unfinished
from durable_log.engine.rebuild import Ground, Holes, holes_in, losses, rebuild
from durable_log.engine.reconstruct import NUMBERS_SKIPPED, census, manifest_of, reconstructed
from durable_log.engine.recovery import expect_newest, remove_leftovers
from durable_log.engine.room import room_for, within
from durable_log.engine.run import Run
from durable_log.engine.run_format import run_name
from durable_log.engine.run_writer import merge_runs, write_run
from durable_log.engine.salvage import open_damaged
from durable_log.engine.salvage_log import salvage_log
from durable_log.engine.salvage_run import SalvagedRun, salvage_run
from durable_log.engine.segment import segment_name
from durable_log.errors import Corruption


class Outcome(NamedTuple):
    """What a repair came to. ``number`` is that of its quarantine; 0 if nothing was damaged. ``lost``: name, start and
    end of all bytes of streams that are lost by what it found.
    """

    number: int
    findings: list[Finding]
    lost: list[tuple[str, int, int]]


_UNKNOWN: Final = "it may have held records of which nothing else tells: the newest of a stream, a close, a deletion"

Render = Callable[[Outcome], tuple[bytes, bytes]]


def repair(directory: Directory, clock: Callable[[], float], render: Render) -> Outcome:
    """Repair the store in a directory that is locked. ``render`` makes the reports: as text and as JSON.

    Raises :class:`NotAStore`, :class:`StoreFull`, which says how much room it takes, ``OSError``.
    """
    mending = _Repair(directory, clock)
    with within(directory, mending.room()):
        return mending.run(render)


class _Repair:
    def __init__(self, directory: Directory, clock: Callable[[], float]) -> None:
        self._directory, self._clock = directory, clock
        self._manifest, self._fault = manifest_of(directory)
        self._log = salvage_log(directory, self._manifest)
        if self._fault is None:
            try:
                expect_newest(directory, self._manifest, self._log.chain)
            except Corruption as error:
                self._log.close()
                self._manifest, self._fault = reconstructed(directory, self._manifest.uuid), error
                self._log = salvage_log(directory, self._manifest)
        try:
            self._faults = list(check_tables(directory, self._manifest))
            self._holes = self._known_holes()
        except BaseException:
            self._log.close()
            raise

    def _known_holes(self) -> Holes:
        """What the rows say to be lost, of the runs that hold."""
        bad = {fault.file for fault in self._faults}
        sound = [number for number in self._manifest.runs if run_name(number) not in bad]
        with ExitStack() as stack:
            return holes_in(_open_runs(self._directory, sound, stack))

    def room(self) -> int:
        """The most bytes that it takes on disk."""
        return room_for(self._directory, self._log, {fault.file for fault in self._faults})

    def run(self, render: Render) -> Outcome:
        remnant = unfinished(self._directory)
        reports = [report for holes in self._holes.values() for _, _, report in holes]
        tables_are_sound = self._fault is None and not self._faults
        log_is_sound = not self._log.chain.damage and not self._log.headless and 0 not in reports
        if remnant is None and log_is_sound and tables_are_sound:
            self._log.close()
            return Outcome(0, [], [])
        try:
            quarantine = remnant or begun(self._directory, reports)
            self._keep(quarantine)
            if not tables_are_sound:
                self._mend_tables(quarantine)
        finally:
            self._log.close()
        if not log_is_sound or not tables_are_sound:
            mend_log(self._directory, self._clock, self._log, quarantine, self._manifest)
        return self._report(quarantine, render)

    # --- the quarantine -------------------------------------------------------------------------------------------

    def _keep(self, quarantine: Quarantine) -> None:
        """Copies of all that is damaged, and notes of what is wrong with it."""
        there = set(self._directory.names())
        damaged = sorted({fault.file for fault in self._faults} & there)
        if self._fault is not None and MANIFEST_NAME in there:
            damaged.append(MANIFEST_NAME)
        for name in damaged:
            quarantine.keep(name, changes=False)
        for name in self._log.damaged:
            quarantine.keep(name, changes=True)
        findings = [_finding(fault) for fault in self._faults]
        if self._fault is not None:
            findings.append(Finding("damage", self._fault.file, self._fault.position, self._fault.reason))
        findings += [Finding("damage", name, 0, "the file header fails its checksum") for name in self._log.headless]
        places = [(segment_name(segment_of(each.start)), position_of(each.start)) for each in self._log.chain.damage]
        findings += [
            Finding("damage", *place, damage.reason)
            for place, damage in zip(places, self._log.chain.damage, strict=True)
        ]
        places += [(name, 0) for name, holds_blocks in self._log.headless.items() if not holds_blocks]
        findings += [Finding("unknown", *place, _UNKNOWN) for place in places]
        findings += [Finding("moved", name, 0, "a copy is kept here") for name in [*damaged, *self._log.damaged]]
        quarantine.add(findings)

    def _report(self, quarantine: Quarantine, render: Render) -> Outcome:
        with ExitStack() as stack:
            runs = _open_runs(self._directory, load_manifest(self._directory, 0).runs, stack)
            lost = [(name, start, end) for name, start, end, report in losses(runs) if report == quarantine.number]
        outcome = Outcome(quarantine.number, list(quarantine.findings), lost)
        quarantine.finish(*render(outcome))
        return outcome

    # --- clustered segments, runs, the manifest -------------------------------------------------------------------

    def _mend_tables(self, quarantine: Quarantine) -> None:
        remove_leftovers(self._directory, self._manifest)
        bad = {fault.file for fault in self._faults}
        with ExitStack() as stack:
            findings: list[Finding] = []
            sound, moved = self._mend_clustered(bad, findings, stack)
            layers = self._layers(bad, stack)
            ground = Ground(
                layers, [*sound, *moved], moved, self._log.created, self._log.deleted, self._log.logged,
                lsn_of(self._manifest.log_first, 0), quarantine.number, self._clock(),
                [*findings, *map(_finding, self._faults)],
            )  # fmt: skip
            rebuilt = rebuild(ground)
            quarantine.add([*findings, *rebuilt.findings])
            runs = self._write_runs(layers, rebuilt.salvaged, list(rebuilt.newer.values()), stack)
            live = {file.number: file.live_bytes for file in self._manifest.clustered}
            clustered = tuple(
                ClusteredFile(segment.number, live.get(segment.number) or segment.payload_bytes)
                for segment in [*sound, *moved]
            )
            self._manifest = self._manifest._replace(clustered=clustered, runs=tuple(run.number for run in runs))
            if self._fault is not None:
                self._count(runs, [*sound, *moved])
        save_manifest(self._directory, self._manifest, int(self._clock() * 1000))
        remove_leftovers(self._directory, self._manifest)
        self._directory.sync()

    def _count(self, runs: list[Run], clustered: list[ClusteredSegment]) -> None:
        """What a manifest that was lost knew, from the rows."""
        streams, lsn, number = census(runs)
        numbers = [number, *(max(segment.streams()[0], default=0) for segment in clustered)]
        self._manifest = self._manifest._replace(
            lsn=lsn, streams=streams, next_stream=max(numbers) + NUMBERS_SKIPPED,
            crashed_ms=ceil(self._clock() * 1000), crashed_lsn=lsn,  # whether there was one, it knew
        )  # fmt: skip

    def _mend_clustered(
        self, bad: set[str], findings: list[Finding], stack: ExitStack
    ) -> tuple[list[ClusteredSegment], list[ClusteredSegment]]:
        """The segments that hold, and those that were made for others."""
        sound, moved = [], []
        directory, uuid = self._directory, self._manifest.uuid
        for file in self._manifest.clustered:
            name = cluster_name(file.number)
            segment = open_damaged(directory, name, uuid, file.number) if name in directory.names() else None
            if segment is not None:
                stack.callback(segment.close)
            if segment is not None and name not in bad:
                sound.append(segment)
                continue
            if segment is None:
                findings.append(Finding("damage", name, 0, "nothing can be read of the file"))
                continue
            made = mend_clustered(directory, segment, uuid, self._new_number, findings)
            for each in made:
                stack.callback(each.close)
            moved += made
        return sound, moved

    def _layers(self, bad: set[str], stack: ExitStack) -> list[Run | SalvagedRun]:
        layers: list[Run | SalvagedRun] = []
        for number in self._manifest.runs:
            run = None if run_name(number) in bad else Run.open(self._directory, run_name(number))
            if run is None:
                layers.append(salvage_run(self._directory, run_name(number), self._manifest.uuid))
            else:
                stack.callback(run.close)
                layers.append(run)
        return layers

    def _write_runs(
        self, layers: list[Run | SalvagedRun], salvaged: dict[int, list[bytes]], newer: list[bytes], stack: ExitStack
    ) -> list[Run]:
        """The runs that count from now on. If any was damaged, all become one: so their numbers say which is newer."""
        runs = []
        for layer in layers:
            if isinstance(layer, Run):
                runs.append(layer)
            elif salvaged[layer.number]:
                runs.append(self._write_run(salvaged[layer.number], stack))
        if newer:
            runs.insert(0, self._write_run(newer, stack))
        if not salvaged or len(runs) < 2:
            return runs
        merged = merge_runs(
            self._directory, self._new_number(), self._manifest.uuid, runs, drop_tombstones=False, pause=_no_pause
        )
        stack.callback(merged.close)
        return [merged]

    def _write_run(self, rows: list[bytes], stack: ExitStack) -> Run:
        run = write_run(self._directory, self._new_number(), self._manifest.uuid, rows, pause=_no_pause)
        stack.callback(run.close)
        return run

    def _new_number(self) -> int:
        number = self._manifest.next_file
        self._manifest = self._manifest._replace(next_file=number + 1)
        return number


def _open_runs(directory: Directory, numbers: Sequence[int], stack: ExitStack) -> list[Run]:
    runs = []
    for number in numbers:
        run = Run.open(directory, run_name(number))
        if run is None:
            raise Corruption(run_name(number), 0, "the file header or the trailer fails its checksum")
        stack.callback(run.close)
        runs.append(run)
    return runs


def _finding(fault: FileFault) -> Finding:
    reason = f"{fault.reason} (stream number {fault.stream})" if fault.stream else fault.reason
    return Finding("damage", fault.file, fault.position, reason, start=fault.start, end=fault.end)


def _no_pause() -> None:
    """Nobody else is there to be let in."""
