"""The log of a damaged store, clustered as far as it can be read.

Law of this room: headers that are lost are written anew; then the store is opened by the rules of recovery, what these
find lost is noted in the quarantine, and so that streams remember it; and everything that is left is clustered. What
belongs to a stream whose creation is lost comes into one in ``lost+found/``. The thread that repairs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from durable_log.engine.catalog import Catalog
from durable_log.engine.chain import Damage
from durable_log.engine.files import Directory
from durable_log.engine.format import position_of, segment_of
from durable_log.engine.index import LOST, is_clustered, is_lost, lost_in, marked, places_of
from durable_log.engine.log import LogEngine
from durable_log.engine.manifest import Manifest
from durable_log.engine.quarantine import Finding, Quarantine, report_name
from durable_log.engine.rebuild import REVIVED, UNKNOWN_TYPE, holes_in, names_in
from durable_log.engine.room import SEGMENT_BYTES
from durable_log.engine.salvage_log import SalvagedLog, write_header
from durable_log.engine.segment import segment_name
from durable_log.engine.state import StreamState
from durable_log.model import Options, StreamConfig

_REST_SECONDS: Final = 30 * 86_400.0
_CALM: Final = Options(
    segment_bytes=SEGMENT_BYTES, record_bytes_max=SEGMENT_BYTES // 2, preallocate=False, sweep_seconds=_REST_SECONDS
)


def mend_log(
    directory: Directory, clock: Callable[[], float], log: SalvagedLog, quarantine: Quarantine, manifest: Manifest
) -> None:
    """Leave nothing in the log, and nothing of its damage. Raises ``OSError``."""
    for name, holds_blocks in log.headless.items():
        if holds_blocks:
            write_header(directory, name, manifest.uuid)
        else:
            directory.remove(name)
    engine = LogEngine(directory, _CALM, clock)
    try:
        engine.start()
        damage = engine.report.damage
        engine.upkeep.cluster_damaged(lambda catalog: _prepare(catalog, log, damage, quarantine))
        engine.close()
    except BaseException:
        engine.give_up()
        raise
    finally:
        directory.lock()  # the engine has let go of it


def _prepare(catalog: Catalog, log: SalvagedLog, damage: list[Damage], quarantine: Quarantine) -> None:
    findings = _revive(catalog, log)
    for number, holes in holes_in(catalog.runs).items():
        if any(place == LOST for _, _, place in holes):
            catalog.find_number(number)
    for state in catalog.states():
        first = 0 if state.forks else state.first
        if any(place == LOST for _, _, place in lost_in(state.index, first)):
            findings += _causes(state, first, damage, quarantine.number)
            state.index = marked(state.index, quarantine.number, first)
            catalog.change(state)
    catalog.count = _count(catalog)
    quarantine.add(findings)


def _count(catalog: Catalog) -> int:
    """How many streams there are: whoever counted them may have been damaged, too."""
    states = catalog.states()
    told = {state.name for state in (*states, *catalog.removed())}
    return len(states) + sum(name not in told for name in names_in(catalog.runs))


def _revive(catalog: Catalog, log: SalvagedLog) -> list[Finding]:
    """Streams that the log has records of, and nobody knows: neither a row nor a creation of them is left.

    Those that were deleted before the log begins have no records in it: a deletion comes after all of them.
    """
    findings = []
    catch_up = catalog.catch_up
    for number in () if catch_up is None else catch_up.streams():
        known = number in log.created or number in log.deleted
        if catalog.find_number(number) is not None or known or catch_up is None:
            continue
        name = f"{REVIVED}{number}"
        state = StreamState(number, name, StreamConfig(UNKNOWN_TYPE), 0)
        note = catch_up.apply(state, 0)
        assert note is not None, "it has records"
        note()
        state.closed = state.durable_closed = True
        catalog.add(state)
        findings.append(Finding("revived", "the log", 0, "its creation is lost; it is closed", name, 0, state.tail))
    return findings


def _causes(state: StreamState, first: int, damage: list[Damage], report: int) -> list[Finding]:
    """What is to blame for each range that a stream has lost: a damaged place between its neighbours in the log."""
    findings, entries = [], list(places_of(state.index))
    for at, (start, end, place) in enumerate(entries):
        if place != LOST or end <= first:
            continue
        before = max((entry[2] for entry in entries[:at] if _in_log(entry[2])), default=0)
        after = min((entry[2] for entry in entries[at:] if _in_log(entry[2])), default=2**64)
        blamed = [one for one in damage if one.end > before and one.start < after]
        file, position, reason = report_name(report), 0, "nothing is left that holds them"
        if blamed:
            file, position = segment_name(segment_of(blamed[0].start)), position_of(blamed[0].start)
            reason = blamed[0].reason
        findings.append(Finding("lost", file, position, reason, state.name, max(start, first), end))
    return findings


def _in_log(place: int) -> bool:
    return not is_clustered(place) and not is_lost(place)
