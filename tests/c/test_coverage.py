"""Every line and every branch of the C core is taken by the tests of this folder and the inputs of the fuzz targets.

The core is built once more, without optimisation and with counters, and all of them run on it. Nothing is left out: a
branch that no test can take is one that should not be there.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from durable_log import _build

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.append(str(ROOT / "tests" / "fuzz"))
import fuzzing  # noqa: E402

UNITS = sorted((ROOT / "csrc").glob("*.c"))
COUNTED = ["-std=gnu11", "-O0", "-g", "--coverage", f"-I{ROOT / 'csrc'}"]
Lines = dict[tuple[str, int], list[int]]
"""Of a file and a line: how often it was reached, then how often each of its branches was taken."""


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{shlex.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def compiler() -> list[str]:
    return shlex.split(os.environ.get("CC", "cc"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the counters are: objects of the core, the extension and the drivers that are made of them."""
    folder = tmp_path_factory.mktemp("coverage")
    for unit in UNITS:
        run(*compiler(), *COUNTED, "-fPIC", "-c", unit, cwd=folder)
    return folder


def python_tests(folder: Path) -> None:
    """The tests beside this one, with an extension that counts."""
    package = folder / "lib" / "durable_log"
    shutil.copytree(ROOT / "durable_log", package, ignore=shutil.ignore_patterns("_core*.so", "__pycache__"))
    _build.ffi.emit_c_code(str(folder / "binding.c"))
    flags = shlex.split(run(sys.executable, "-c", INCLUDE, cwd=folder))
    run(*compiler(), *flags, f"-I{ROOT / 'csrc'}", "-DPy_LIMITED_API=0x030A0000", "-fPIC", "-c", "binding.c", cwd=folder)
    objects = [f"{unit.stem}.o" for unit in UNITS]
    run(*compiler(), "-shared", "--coverage", "binding.o", *objects, "-o", package / "_core.abi3.so", cwd=folder)
    tests = [path for path in HERE.glob("test_*.py") if path.name != Path(__file__).name]
    path = {"PYTHONPATH": str(folder / "lib")}
    used = run(sys.executable, "-c", "from durable_log import _core; print(_core.__file__)", cwd=folder, **path)
    assert used.strip() == str(package / "_core.abi3.so")
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", ROOT, "-c", ROOT / "pyproject.toml"]
    run(sys.executable, "-m", "pytest", *options, *tests, cwd=folder, **path)


INCLUDE = "import sysconfig; print('-I' + sysconfig.get_path('include'))"


def drivers(folder: Path) -> None:
    """What Python can't have happen: system calls that fail or do half of what they should."""
    objects = [f"{unit.stem}.o" for unit in UNITS]
    for source in sorted(HERE.glob("*.c")):
        wrapped = [f"-Wl,--wrap={name}" for name in source.read_text("utf-8").split("wraps: ", 1)[1].split("\n")[0].split()]
        run(*compiler(), *COUNTED, source, *objects, *wrapped, "-o", source.stem, cwd=folder)
        run(folder / source.stem, cwd=folder)


def fuzz_inputs(folder: Path) -> None:
    objects = [folder / f"{unit.stem}.o" for unit in UNITS]
    driver = fuzzing.gcc("counted")
    for target in fuzzing.TARGETS:
        source = fuzzing.HERE / "targets" / f"{target}.c"
        inputs = [path for inputs in fuzzing.inputs_of(target) for path in sorted(inputs.iterdir())]
        run(*compiler(), *COUNTED[:3], COUNTED[4], source, *driver.driver, *objects, "--coverage", "-o", target, cwd=folder)
        run(folder / target, *inputs, cwd=folder)


def counts(folder: Path) -> Lines:
    """What all that ran comes to, line by line; of a header, in all units that it is part of."""
    found: Lines = defaultdict(list)
    for unit in UNITS:
        report = json.loads(run("gcov", "--json-format", "--stdout", "--branch-probabilities", unit.stem, cwd=folder))
        for file in report["files"]:
            path = Path(file["file"])
            if path.parent == ROOT / "csrc":
                for line in file["lines"]:
                    add(found[path.name, line["line_number"]], line)
    return found


def add(total: list[int], line: dict[str, Any]) -> None:
    new = [line["count"], *(branch["count"] for branch in line["branches"])]
    total += [0] * (len(new) - len(total))
    for index, count in enumerate(new):
        total[index] += count


def uncovered(lines: Lines) -> list[str]:
    missing = []
    for (name, number), (reached, *branches) in sorted(lines.items()):
        code = (ROOT / "csrc" / name).read_text("utf-8").splitlines()[number - 1].strip()
        if not reached:
            missing.append(f"csrc/{name}:{number}: never reached: {code}")
        elif not all(branches):
            missing.append(f"csrc/{name}:{number}: branch {branches.index(0)} of {len(branches)} never taken: {code}")
    return missing


def test_every_line_and_branch_of_the_core_is_taken(folder):
    drivers(folder)
    fuzz_inputs(folder)
    python_tests(folder)
    lines = counts(folder)
    assert {name for name, _ in lines} >= {unit.name for unit in UNITS}
    missing = uncovered(lines)
    assert not missing, "\n".join([f"{len(missing)} places", *missing])
