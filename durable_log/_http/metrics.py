"""Figures for Prometheus. Needs the extra ``metrics``.

Law of this room: nothing is counted here. What others count anyway is read when somebody asks, on whichever thread that
is. Labels have few values: actions, statuses, modes; never names of streams.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from durable_log._http.tally import SECONDS
from durable_log.errors import DurableLogError, InvalidOption

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from durable_log._http.live import LiveSet
    from durable_log._http.tally import Tally
    from durable_log.aio import AsyncStore

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_GAUGES: Final[Mapping[str, str]] = {
    "streams": "Streams that exist",
    "resident_streams": "Streams whose state is in memory",
    "log_segments": "Segments of the log that are in use",
    "log_bytes": "Sizes of the segments of the log",
    "spare_segments": "Empty segments that are ready for the log",
    "clustering_debt_bytes": "Sizes of the log segments that wait to be clustered",
    "held_streams": "Streams for whose sake the log is kept",
    "append_rate_max": "Bytes a second to which appends are slowed down; absent if they are not",
    "clustered_segments": "Immutable segments, grouped by stream",
    "clustered_live_bytes": "Stream bytes in them that are needed",
    "clustered_dead_bytes": "Stream bytes in them that nobody needs any more",
    "catalog_runs": "Immutable files of the catalog",
    "catalog_bytes": "Sizes of these files",
    "disk_bytes": "What all files of the store take on disk",
    "disk_free_bytes": "What the file system has left",
    "recent_bytes": "Stream bytes that are kept in memory",
    "damaged_places": "Places in the log that opening found damaged",
}
_COUNTERS: Final[Mapping[str, tuple[str, str]]] = {
    "commits": ("commits", "Group commits"),
    "records": ("appends", "Records with data that were committed"),
    "bytes_appended": ("appended_bytes", "Bytes of these records"),
    "bytes_written": ("written_bytes", "Bytes that went into the log for them, without padding"),
}


def check_installed() -> None:
    """Raise :class:`InvalidOption` if the extra is not there."""
    try:
        import prometheus_client  # noqa: F401, PLC0415 - an extra
    except ImportError as error:
        raise InvalidOption("metrics need the extra metrics: pip install 'durable-log[metrics]'") from error


class Collector:
    """All figures of one application, for a registry of ``prometheus_client``."""

    def __init__(self, store: AsyncStore, live: LiveSet, tally: Tally) -> None:
        check_installed()
        self._store, self._live, self._tally = store, live, tally

    def describe(self) -> Iterable[Metric]:
        """What there is; that of a store is there only while it is open."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Figures of this moment."""
        yield from self._of_requests()
        try:
            figures = self._store.stats()
        except DurableLogError:
            return  # closed, or its directory is out of reach: /readyz tells that
        yield from _of_store(figures)

    def _of_requests(self) -> Iterator[Metric]:
        from prometheus_client.core import (  # noqa: PLC0415 - an extra
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        tally = self._tally
        requests = CounterMetricFamily(
            "durable_log_http_requests",
            "Requests that are over; status 0: the client left",
            labels=("action", "status"),
        )
        for (action, status), count in tally.requests.copy().items():
            requests.add_metric((action, str(status)), count)
        yield requests
        durations = HistogramMetricFamily(
            "durable_log_http_request_seconds", "Time that requests took, live ones left out", labels=("action",)
        )
        for action, each in tuple(tally.durations.items()):
            durations.add_metric((action,), _classes(SECONDS, each.classes), each.seconds)
        yield durations
        yield CounterMetricFamily("durable_log_http_received_bytes", "Bytes of request bodies", tally.bytes_in)
        yield CounterMetricFamily("durable_log_http_sent_bytes", "Bytes of response bodies", tally.bytes_out)
        viewers = GaugeMetricFamily("durable_log_viewers", "Live responses at the moment", labels=("mode",))
        modes = self._live.modes()
        for mode in ("long-poll", "sse"):
            viewers.add_metric((mode,), modes[mode])
        yield viewers
        yield CounterMetricFamily(
            "durable_log_viewers_cut_off", "Viewers that were cut off, as they took nothing", self._live.cut_off
        )


def _of_store(figures: Mapping[str, Any]) -> Iterator[Metric]:
    from prometheus_client.core import (  # noqa: PLC0415 - an extra
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    for key, text in _GAUGES.items():
        if figures[key] is not None:
            yield GaugeMetricFamily(f"durable_log_{key}", text, figures[key])
    for key, (name, text) in _COUNTERS.items():
        yield CounterMetricFamily(f"durable_log_{name}", text, figures[key])
    failed = 0 if figures["failure"] is None else 1
    yield GaugeMetricFamily("durable_log_failed", "1 if the store takes no changes any more", failed)
    within = {int(key.split("_")[2]): count for key, count in figures.items() if key.startswith("syncs_within_")}
    buckets = [(str(us / 1e6), count) for us, count in sorted(within.items())]
    yield HistogramMetricFamily(
        "durable_log_sync_seconds",
        "Time that the syncs of commits took",
        buckets=[*buckets, ("+Inf", figures["syncs"])],
        sum_value=figures["sync_seconds"],
    )


def _classes(ends: Iterable[float], counts: Iterable[int]) -> list[tuple[str, float]]:
    """A histogram as Prometheus has it: cumulative, by the upper ends."""
    return list(zip([*map(str, ends), "+Inf"], accumulate(counts), strict=True))


def exposition(collector: Collector) -> tuple[str, bytes]:
    """The content type and the text of all figures."""
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - an extra

    registry = CollectorRegistry()
    registry.register(collector)
    return CONTENT_TYPE, generate_latest(registry)
