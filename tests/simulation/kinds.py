"""What has to occur in a run of some hundred seeds, so that the simulation cannot become toothless unnoticed."""

from __future__ import annotations

OPERATIONS = """
    append append_by_producer append_json append_many background backup check check_files close_stream cluster
    commit_staged compact create delete doom follow forge fork info list_names read refill retry stage stats sweep
    sweep_resident time_passes trim watch
"""
REFUSALS = """
    ContentTypeMismatch InvalidProducer OffsetOutOfRange SequenceConflict SequenceGap StaleEpoch StreamClosed
    StreamExists StreamGone StreamNotFound
"""
FAILURES = "CommitFailed StoreFull StoreUnreadable"

KINDS = (
    *(f"operation: {name}" for name in OPERATIONS.split()),
    *(f"refusal: {name}" for name in REFUSALS.split()),
    *(f"failure: {name}" for name in FAILURES.split()),
    "fault: EIO commit fail",
    "fault: EIO commit short",
    "fault: EIO read fail",
    "fault: EIO rename fail",
    "fault: EIO sync directory fail",
    "fault: EIO sync fail",
    "fault: EIO sync lost",
    "fault: EIO write short",
    "fault: ENOSPC commit fail",
    "fault: ENOSPC commit short",
    "fault: ENOSPC create fail",
    "fault: ENOSPC write short",
    "backup",
    "checkpoint",
    "close",
    "cluster failed",
    "compact",
    "crash in recovery",
    "crash in work",
    "cut",
    "doubts settled",
    "end of the process",
    "full disks that had room again",
    "hardening",
    "latch",
    "loss of power",
    "merge of runs",
    "merge of segments",
    "opening failed",
    "operations between slices",
    "recycled segment",
    "requests that were carried out",
    "retries",
    "rewrite",
    "roll",
    "rot: harmless",
    "rot: kept from opening",
    "rot: told",
    "watchers that were told",
)
