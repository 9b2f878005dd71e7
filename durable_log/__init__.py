"""durable_log: append-only streams on disk that survive everything.

Law of this module: the public names, and nothing else. ``open`` a store, ``create`` streams, ``append``, ``read`` from
any offset ever handed out, ``follow`` live. ``durable_log.aio`` has the same names for asyncio, ``durable_log.asgi``
speaks the Durable Streams HTTP protocol.
"""

from durable_log._face import Data
from durable_log.engine.figures import Stats
from durable_log.engine.recovery import Report
from durable_log.errors import (
    BackupFailed,
    CommitFailed,
    ContentTypeMismatch,
    Corruption,
    DurableLogError,
    InvalidData,
    InvalidName,
    InvalidOption,
    InvalidProducer,
    NotAStore,
    OffsetOutOfRange,
    RecordTooLarge,
    SequenceConflict,
    SequenceGap,
    StaleEpoch,
    StoreClosed,
    StoreFull,
    StoreLocked,
    StoreUnreadable,
    StreamClosed,
    StreamExists,
    StreamGone,
    StreamNotFound,
    UnsupportedFormat,
)
from durable_log.model import EARLIEST, NOW, START, Appended, Backup, Chunk, Durability, Options, Producer, StreamInfo
from durable_log.store import Store, Stream, open  # noqa: A004 - durable_log.open reads like open

__version__ = "0.1.0"

__all__ = [
    "EARLIEST",
    "NOW",
    "START",
    "Appended",
    "Backup",
    "BackupFailed",
    "Chunk",
    "CommitFailed",
    "ContentTypeMismatch",
    "Corruption",
    "Data",
    "Durability",
    "DurableLogError",
    "InvalidData",
    "InvalidName",
    "InvalidOption",
    "InvalidProducer",
    "NotAStore",
    "OffsetOutOfRange",
    "Options",
    "Producer",
    "RecordTooLarge",
    "Report",
    "SequenceConflict",
    "SequenceGap",
    "StaleEpoch",
    "Stats",
    "Store",
    "StoreClosed",
    "StoreFull",
    "StoreLocked",
    "StoreUnreadable",
    "Stream",
    "StreamClosed",
    "StreamExists",
    "StreamGone",
    "StreamInfo",
    "StreamNotFound",
    "UnsupportedFormat",
    "open",
]
