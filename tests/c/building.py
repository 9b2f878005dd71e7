"""The C core built in other ways than the one that is installed: with counters, with a sanitizer, without Python.

Law of this room: commands for the compiler, and nothing of what is done with the results. The binding comes from
``durable_log/_build.py`` as for the installed one.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from durable_log import _build

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
UNITS = sorted((ROOT / "csrc").glob("*.c"))

_INCLUDE = "import sysconfig; print(sysconfig.get_path('include'))"
_USED = "from durable_log import _core; print(_core.__file__)"


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What the command prints. Raises with all of it if the command fails."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise AssertionError(f"{shlex.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def compile_c(folder: Path, *arguments: str | Path) -> None:
    """One call of the compiler, which writes into ``folder`` what it is not told to write elsewhere."""
    run(*shlex.split(os.environ.get("CC", "cc")), "-std=gnu11", f"-I{ROOT / 'csrc'}", *arguments, cwd=folder)


def core(folder: Path, flags: Sequence[str]) -> list[Path]:
    """The objects of the core."""
    folder.mkdir(parents=True, exist_ok=True)
    for unit in UNITS:
        compile_c(folder, *flags, "-fPIC", "-c", unit)
    return [folder / f"{unit.stem}.o" for unit in UNITS]


def package(folder: Path, flags: Sequence[str], objects: Iterable[Path], **environment: str) -> dict[str, str]:
    """The package with an extension of these objects, and the environment in which Python takes it for its own.

    ``environment`` is what Python needs besides to load it.
    """
    lib = folder / "lib"
    shutil.rmtree(lib, ignore_errors=True)
    shutil.copytree(
        ROOT / "durable_log", lib / "durable_log", ignore=shutil.ignore_patterns("_core*.so", "__pycache__")
    )
    _build.ffi.emit_c_code(str(folder / "binding.c"))
    include = run(sys.executable, "-c", _INCLUDE, cwd=folder).strip()
    made = lib / "durable_log" / "_core.abi3.so"
    compile_c(folder, f"-I{include}", "-DPy_LIMITED_API=0x030A0000", "-fPIC", "-c", "binding.c")
    compile_c(folder, "-shared", *flags, "binding.o", *objects, "-o", made)
    environment["PYTHONPATH"] = str(lib)
    used = run(sys.executable, "-c", _USED, cwd=folder, **environment).strip()
    if used != str(made):
        raise AssertionError(f"Python took {used}, not {made}")
    return environment


def pytest_command(*arguments: str | Path) -> list[str | Path]:
    """Tests from another working directory than the root, whose package would be taken before any other."""
    return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", ROOT, "-c", ROOT / "pyproject.toml",
            *arguments]  # fmt: skip


def driver(source: Path, flags: Sequence[str], objects: Iterable[Path], made: Path) -> Path:
    """A C program with the core. A line "wraps: …" of its source names the functions that it puts in the place of the
    system's.
    """
    text = source.read_text("utf-8")
    names = text.partition("wraps: ")[2].partition("\n")[0].split()
    wrapped = [f"-Wl,--wrap={name}" for name in names]
    compile_c(made.parent, *flags, source, *objects, *wrapped, "-o", made)
    return made
