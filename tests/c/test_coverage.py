"""Every line and every branch of the C core is taken by the tests of this folder and the inputs of the fuzz targets.

The core is built once more, without optimisation and with counters, and all of them run on it. A branch that no test
can take is one that should not be there; left out is only what this processor can't run.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import building
import pytest

from durable_log._core import lib

sys.path.append(str(building.ROOT / "tests" / "fuzz"))
import fuzzing

CSRC = building.ROOT / "csrc"
COUNTED = ["-O0", "-g", "--coverage"]
Lines = dict[tuple[str, int], list[int]]
"""Of a file and a line: how often it was reached, then how often each of its branches was taken."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the objects of the core are, and what they count, whoever runs them."""
    return tmp_path_factory.mktemp("coverage")


def run_drivers(folder: Path, objects: list[Path]) -> None:
    """What Python can't have happen: system calls that fail or do half of what they should."""
    for source in sorted(building.HERE.glob("*.c")):
        building.run(building.driver(source, COUNTED, objects, folder / source.stem), cwd=folder)


def run_fuzz_inputs(folder: Path, objects: list[Path]) -> None:
    building.compile_c(folder, "-O1", "-c", *fuzzing.DRIVER)
    units = [*objects, *(folder / f"{unit.stem}.o" for unit in fuzzing.DRIVER)]
    for target in fuzzing.TARGETS:
        inputs = [path for inputs in fuzzing.inputs_of(target) for path in sorted(inputs.iterdir())]
        source = fuzzing.HERE / "targets" / f"{target}.c"
        building.run(building.driver(source, COUNTED, units, folder / target), *inputs, cwd=folder)


def run_python_tests(folder: Path, objects: list[Path]) -> None:
    """The tests beside this one."""
    environment = building.package(folder, COUNTED, objects)
    tests = [path for path in building.HERE.glob("test_*.py") if path.name != Path(__file__).name]
    building.run(*building.pytest_command("-q", *tests), cwd=folder, **environment)


def counts(folder: Path) -> Lines:
    """What all that ran comes to, line by line; of a header, in all units that it is part of."""
    found: Lines = defaultdict(list)
    for unit in building.UNITS:
        report = json.loads(
            building.run("gcov", "--json-format", "--stdout", "--branch-probabilities", unit.stem, cwd=folder)
        )
        for file in report["files"]:
            path = Path(file["file"])
            if path.parent == CSRC:
                for line in file["lines"]:
                    add(found[path.name, line["line_number"]], line)
    return found


def add(total: list[int], line: dict[str, Any]) -> None:
    new = [line["count"], *(branch["count"] for branch in line["branches"])]
    total += [0] * (len(new) - len(total))
    for index, count in enumerate(new):
        total[index] += count


def folding() -> set[tuple[str, int]]:
    """The lines of checksums by wide products, if this processor has none."""
    if lib.dl_crc32c_hardware() == 2:
        return set()
    before, inside, _ = re.split("(?=/[*] begin: folding|/[*] end: folding)", (CSRC / "crc32c.c").read_text("utf-8"))
    first = before.count("\n") + 1
    return {("crc32c.c", number) for number in range(first, first + inside.count("\n"))}


def uncovered(lines: Lines) -> list[str]:
    missing, left_out = [], folding()
    for (name, number), (reached, *branches) in sorted(lines.items()):
        if (name, number) in left_out:
            continue
        code = (CSRC / name).read_text("utf-8").splitlines()[number - 1].strip()
        if not reached:
            missing.append(f"csrc/{name}:{number}: never reached: {code}")
        elif not all(branches):
            missing.append(f"csrc/{name}:{number}: branch {branches.index(0)} of {len(branches)} never taken: {code}")
    return missing


def test_every_line_and_branch_of_the_core_is_taken(folder):
    objects = building.core(folder, COUNTED)
    run_drivers(folder, objects)
    run_fuzz_inputs(folder, objects)
    run_python_tests(folder, objects)
    lines = counts(folder)
    assert {name for name, _ in lines} >= {unit.name for unit in building.UNITS}
    missing = uncovered(lines)
    assert not missing, "\n".join([f"{len(missing)} places", *missing])


def test_what_was_not_taken_is_named():
    text = "static inline int is_hex(int byte) {"
    number = (CSRC / "json.c").read_text("utf-8").splitlines().index(text) + 1
    lines = {("json.c", number): [5], ("json.c", number + 1): [5, 3, 0, 1], ("json.c", number + 2): [0]}
    first, second = uncovered(lines)
    assert first.startswith(f"csrc/json.c:{number + 1}: branch 1 of 3 never taken: return (byte >= '0'")
    assert second == f"csrc/json.c:{number + 2}: never reached: }}"
