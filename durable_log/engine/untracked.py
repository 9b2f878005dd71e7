"""Objects that the garbage collector does not walk through.

Law of this room: one function, for objects of which there are as many as there are active streams. Python's collector
visits every object that could be part of a cycle, again and again: with a million streams that took a third of all
processor time. A state is part of none: the catalog holds it, and what it refers to does not refer back, but for those
who wait on it, and they are told before the store lets go of them. Where Python has no such call, nothing happens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    import ctypes

    untrack: Callable[[Any], object] = ctypes.pythonapi.PyObject_GC_UnTrack
    untrack.argtypes = [ctypes.py_object]  # type: ignore[attr-defined]
    untrack.restype = None  # type: ignore[attr-defined]
except (ImportError, AttributeError):

    def untrack(_object: Any) -> object:
        """Nothing to do."""
        return None
