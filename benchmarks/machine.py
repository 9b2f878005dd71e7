"""Which machine this is, and which state of the code is measured.

Law of this room: it tells; nothing is measured here. The machine has no name but what it is made of.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def file_system(path: Path) -> str:
    """The kind of file system that ``path`` lies on."""
    return _told("df", "--output=fstype", str(path)).rpartition("\n")[2] or "unknown"


def processor() -> str:
    """What the kernel calls the processor."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.machine()


def describe(directory: Path) -> dict[str, object]:
    """What figures depend on."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "system": platform.platform(),
        "file_system": file_system(directory),
        "python": f"{platform.python_implementation()} {platform.python_version()}, {platform.python_compiler()}",
    }


def slug() -> str:
    """The name of the files with this machine's results."""
    return f"{platform.system()}-{platform.machine()}-{os.cpu_count()}-cores".lower()


def revision() -> str:
    """The commit that is measured; with a + if files differ from it."""
    commit = _told("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
    changed = _told("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return (commit or "unknown") + ("+" if changed else "")


def _told(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        sys.stderr.write(f"{command[0]} is not installed\n")
        return ""
