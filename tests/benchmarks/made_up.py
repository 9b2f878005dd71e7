"""Made-up passes, in the form that pytest-benchmark and the benchmarks' own conftest write."""

from __future__ import annotations

ORIGIN = {
    "command": "python -m benchmarks",
    "revision": "abc",
    "date": "2026-01-31",
    "machine": {"processor": "P", "cores": 2, "system": "S", "file_system": "ext4", "python": "CPython"},
}


def figure(contestant, values, case="c", unit="appends/s", **more):
    return {"case": case, "contestant": contestant, "unit": unit, "better": "more", "values": values, **more}


def one_pass(*figures, subject="append", absent=()):
    """What one pass wrote of a subject; ``absent``: contestants and why."""
    return {
        "benchmarks": [
            {"fullname": f"benchmarks/test_{subject}.py::test_it[x]", "extra_info": {"figures": [each]}}
            for each in figures
        ],
        "absent": [{"subject": subject, "contestant": name, "reason": reason} for name, reason in absent],
    }
