"""The C core under address, undefined-behaviour and thread sanitizers, and under valgrind: ``make sanitize``.

Law of this room: each of them first has to tell a mistake that is made on purpose, so that its silence means something;
then it watches tests that exist anyway. What is watched is the C core; Python itself is not, and what it does wrong is
not told. valgrind is installed if it is missing and may be.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path += [str(ROOT / "tests" / "c"), str(ROOT / "tests" / "fuzz")]

import building  # noqa: E402
import fuzzing  # noqa: E402

BUILD = ROOT / "build" / "sanitize"
TESTS = ROOT / "tests"
WATCHED = ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"]

ADDRESS_TESTS = ("c", "engine", "store", "forks")
"""Folders, but what builds the core itself."""

THREAD_TESTS = (
    "store/test_store_races.py", "store/test_store_waking.py", "store/test_store_crowds.py",
    "engine/test_engine_background.py", "engine/test_engine_chain.py",
)  # fmt: skip

READS_BEYOND = """
from durable_log._core import ffi, lib
lib.dl_crc32c(0, ffi.new("uint8_t[]", 4000), 4001)
"""
MISALIGNED = """
from durable_log._core import ffi, lib
memory = ffi.new("uint8_t[]", 100)
lib.dl_records_streams(ffi.cast("dl_record *", memory + 1), 1, ffi.new("uint64_t[]", 1))
"""
RACES = """
import threading, time
from durable_log._core import ffi, lib
size = 1 << 24
block, both = ffi.new("uint8_t[]", size), threading.Barrier(2)
def seal():
    info = ffi.new("dl_block *", {"lsn": 4096, "body_length": 0, "nonce": 1})
    both.wait()
    until = time.monotonic() + 3  # they race only where both are in C, which a busy machine may put off
    while time.monotonic() < until:
        lib.dl_block_seal(block, size, info)
threads = [threading.Thread(target=seal) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
UNINITIALISED = """
#include "durable_log.h"
#include <stdlib.h>
int main(void) {
    uint8_t *bytes = malloc(100);
    return dl_crc32c(0, bytes, 101) == 5;
}
"""


class Failure(Exception):
    """What a sanitizer told, or that it told nothing."""


def run_time(name: str) -> str:
    """Where the compiler has a sanitizer's library, which has to be there before Python is."""
    return building.run("gcc", f"-print-file-name={name}", cwd=ROOT).strip()


def say(text: str) -> None:
    print(text, flush=True)


def expect_told(command: list[str | Path], told: str, cwd: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode == 0 or told not in done.stdout + done.stderr:
        raise Failure(f"a mistake that was made on purpose is not told as {told!r}:\n{done.stdout}{done.stderr}")


def watch(command: list[str | Path], cwd: Path, environment: dict[str, str]) -> None:
    started = time.monotonic()
    done = subprocess.run([str(part) for part in command], cwd=cwd, env={**os.environ, **environment}, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))}: status {done.returncode}")
    say(f"  silent, {time.monotonic() - started:.0f} s")


def address() -> None:
    say("address and undefined behaviour: tests of " + ", ".join(ADDRESS_TESTS))
    folder, flags = BUILD / "address", [*WATCHED, "-fsanitize=address,undefined"]
    objects = building.core(folder, flags)
    environment = building.package(
        folder, flags, objects, LD_PRELOAD=run_time("libasan.so"), PYTHONMALLOC="malloc",
        ASAN_OPTIONS="detect_leaks=0", UBSAN_OPTIONS="print_stacktrace=1",
    )  # fmt: skip
    expect_told([sys.executable, "-c", READS_BEYOND], "heap-buffer-overflow", folder, environment)
    expect_told([sys.executable, "-c", MISALIGNED], "misaligned address", folder, environment)
    for source in sorted((TESTS / "c").glob("*.c")):
        watch([building.driver(source, flags, objects, folder / source.stem)], folder, {})
    folders = [TESTS / name for name in ADDRESS_TESTS]
    leave_out = f"--ignore={TESTS / 'c' / 'test_coverage.py'}"
    watch(building.pytest_command("-q", "-x", "--capture=sys", leave_out, *folders), folder, environment)


def threads() -> None:
    say("threads: a store that all work on at once, and " + ", ".join(THREAD_TESTS))
    folder, flags = BUILD / "threads", [*WATCHED, "-fsanitize=thread"]
    environment = building.package(
        folder, flags, building.core(folder, flags), LD_PRELOAD=run_time("libtsan.so"),
        TSAN_OPTIONS="ignore_noninstrumented_modules=1",
    )  # fmt: skip
    expect_told([sys.executable, "-c", RACES], "data race", folder, environment)
    watch([sys.executable, TESTS / "sanitizers" / "threads.py"], folder, environment)
    watch(building.pytest_command("-q", "--capture=sys", *(TESTS / name for name in THREAD_TESTS)), folder, environment)


def valgrind() -> None:
    say("valgrind: the C drivers, and the inputs of every fuzz target")
    program = shutil.which("valgrind") or install_valgrind()
    checked = [program, "--quiet", "--error-exitcode=99", "--leak-check=full"]
    folder, flags = BUILD / "valgrind", ["-O1", "-g"]
    objects = building.core(folder, flags)
    (folder / "mistake.c").write_text(UNINITIALISED)
    mistake = building.driver(folder / "mistake.c", flags, objects, folder / "mistake")
    expect_told([*checked, mistake], "Invalid read of size 1", folder, {})
    expect_told([*checked, mistake], "uninitialised byte", folder, {})
    for source in sorted((TESTS / "c").glob("*.c")):
        watch([*checked, building.driver(source, flags, objects, folder / source.stem)], folder, {})
    for target in fuzzing.TARGETS:
        say(f"  {target}")
        inputs = [path for inputs in fuzzing.inputs_of(target) for path in sorted(inputs.iterdir())]
        watch([*checked, fuzzing.build(target, fuzzing.gcc("plain", "-O1")), *inputs], folder, {})


def install_valgrind() -> str:
    if os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        subprocess.run(["apt-get", "install", "-y", "-qq", "valgrind"], check=False)
    program = shutil.which("valgrind")
    if program is None:
        raise Failure("valgrind is not here and can't be installed; install it, then run make sanitize again")
    return program


KINDS = {"address": address, "threads": threads, "valgrind": valgrind}


def main() -> None:
    wanted = sys.argv[1:] or list(KINDS)
    if unknown := set(wanted) - set(KINDS):
        sys.exit(f"there is no sanitizer {min(unknown)!r}; there are {', '.join(KINDS)}")
    try:
        for name in wanted:
            KINDS[name]()
    except Failure as failure:
        sys.exit(f"sanitize: {failure}")


if __name__ == "__main__":
    main()
