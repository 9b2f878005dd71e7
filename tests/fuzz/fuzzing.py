"""Builds the fuzz targets and runs them: ``make fuzz`` from the command line, and the tests of this folder.

Law of this room: it needs a C compiler, and nothing else that is not in the repository. Where clang is, its libFuzzer
does the work; else this folder's own driver does, with GCC. Whatever depends on the same inputs being tried everywhere
is done by that one in any case. What is built and found lies in ``build/fuzz``; inputs that broke a target are copied
by hand to ``tests/fuzz/regressions/<target>``, where tests run them for ever after.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "fuzz"
TARGETS = sorted(path.stem for path in (HERE / "targets").glob("*.c"))
UNITS = sorted((ROOT / "csrc").glob("*.c"))

LENGTH_MAX = 12288
"""Of inputs: three pages of a log."""

SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
EDGES = ("-fsanitize-coverage=trace-pc,trace-cmp",)
DRIVER = (HERE / "driver.c", HERE / "driver_change.c")
_RESULT = re.compile(r"edges (\d+) corpus (\d+) runs (\d+) seconds (\d+)")
_LIBFUZZER = re.compile(r"#(\d+)\s+DONE\s+cov: (\d+).*corp: (\d+)")


class Result(NamedTuple):
    """What a run of a target came to. ``failure`` is what it printed if it broke."""

    target: str
    edges: int = 0
    corpus: int = 0
    runs: int = 0
    seconds: float = 0.0
    failure: str = ""


class Engine(NamedTuple):
    """How targets are compiled. ``driver``: what drives them, compiled without the flags in ``watching``."""

    name: str
    compiler: tuple[str, ...]
    flags: tuple[str, ...]
    watching: tuple[str, ...] = ()
    driver: tuple[Path, ...] = ()
    linked: tuple[str, ...] = ()


def gcc(name: str, *flags: str, watching: Iterable[str] = ()) -> Engine:
    """Targets with this folder's own driver."""
    compiler = tuple(shlex.split(os.environ.get("CC", "cc")))
    return Engine(name, compiler, ("-std=gnu11", "-g", *flags), tuple(watching), DRIVER)


def fuzzer() -> Engine:
    """libFuzzer if clang is here, and has it, else this folder's own driver."""
    flags = ("-std=gnu11", "-O1", "-g")
    watching = (*SANITIZERS, "-fsanitize=fuzzer-no-link")
    engine = Engine("libfuzzer", ("clang",), flags, watching, linked=("-fsanitize=fuzzer",))
    if shutil.which("clang") is None:
        return bare_fuzzer()
    try:
        build(TARGETS[0], engine)
    except CompilerError as error:
        print(f"clang is here, but not all of libFuzzer: {str(error).strip().splitlines()[-1]}", flush=True)
        return bare_fuzzer()
    return engine


def bare_fuzzer() -> Engine:
    """This folder's own driver in any case: the same inputs everywhere."""
    return gcc("driver", "-O1", "-no-pie", "-fno-pie", watching=(*SANITIZERS, *EDGES))


def _compile(engine: Engine, *arguments: str | Path) -> None:
    run_quietly([*engine.compiler, *engine.flags, f"-I{ROOT / 'csrc'}", *map(str, arguments)])


def _digest(engine: Engine, files: Iterable[Path]) -> str:
    found = hashlib.sha256(repr(engine).encode())
    for path in files:
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def build(target: str, engine: Engine, units: Iterable[Path] = UNITS) -> Path:
    """The program of a target."""
    return build_program(HERE / "targets" / f"{target}.c", engine, units)


def build_program(source: Path, engine: Engine, units: Iterable[Path]) -> Path:
    """The program of a source, built anew if anything that it is made of has changed."""
    headers = sorted([*(ROOT / "csrc").glob("*.h"), *HERE.glob("*.h")])
    folder = BUILD / engine.name / _digest(engine, headers)
    parts = [*((unit, engine.watching) for unit in units), *((unit, ()) for unit in engine.driver)]
    program = folder / f"{source.stem}-{_digest(engine, [source, *(unit for unit, _ in parts)])}"
    if program.exists():
        return program
    folder.mkdir(parents=True, exist_ok=True)
    objects = [_object(folder, engine, unit, watching) for unit, watching in parts]
    temporary = program.with_suffix(f".{os.getpid()}")
    _compile(engine, *engine.watching, source, *objects, *engine.linked, "-o", temporary)
    temporary.rename(program)
    return program


def _object(folder: Path, engine: Engine, unit: Path, watching: Iterable[str]) -> Path:
    made = folder / f"{unit.stem}-{_digest(engine, [unit])}.o"
    if not made.exists():
        temporary = made.with_suffix(f".{os.getpid()}")
        _compile(engine, *watching, "-c", unit, "-o", temporary)
        temporary.rename(made)
    return made


class CompilerError(Exception):
    """All that the compiler printed."""


def run_quietly(command: list[str]) -> None:
    """Raises with all that the command printed if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CompilerError(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")


def build_all(engine: Engine) -> dict[str, Path]:
    """Every target's program; the first one is built alone, and with it what they share."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda _: build(TARGETS[0], engine), [0]))
        return dict(zip(TARGETS, pool.map(lambda target: build(target, engine), TARGETS), strict=True))


def inputs_of(target: str) -> list[Path]:
    """The folders of inputs that the repository has."""
    folders = (HERE / "corpus" / target, HERE / "regressions" / target)
    return [folder for folder in folders if folder.is_dir()]


def fuzz(
    target: str, program: Path, *, seconds: int = 0, runs: int = 0, seed: int = 1, keeps: bool = True,
    nice: int = 0, extra: Iterable[str | Path] = (),
) -> Result:  # fmt: skip
    """One run, of so many seconds or runs. ``keeps``: what is found is kept, and the next run goes on from there.
    ``nice``: by how much others come first.
    """
    artifacts = BUILD / "crashes" / target
    artifacts.mkdir(parents=True, exist_ok=True)
    corpus = BUILD / "corpus" / target
    corpus.mkdir(parents=True, exist_ok=True)
    limit = f"-max_total_time={seconds}" if seconds else f"-runs={runs}"
    dictionary = HERE / "dictionaries" / f"{target}.dict"
    words = [f"-dict={dictionary}"] if dictionary.exists() else []
    command = ["nice", f"-n{nice}", program, limit, f"-seed={seed}", f"-max_len={LENGTH_MAX}", "-timeout=20"]
    command.append(f"-artifact_prefix={artifacts}/")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as dropped:
        # What is found is written to the first folder.
        folders = [corpus if keeps else dropped, *inputs_of(target)]
        done = subprocess.run(
            [str(part) for part in (*command, *words, *extra, *folders)], capture_output=True, text=True, check=False
        )
    took = time.monotonic() - started
    output = done.stdout + done.stderr
    if done.returncode != 0:
        return Result(target, failure=output, seconds=took)
    found = _RESULT.search(output)
    if found is not None:
        return Result(target, int(found[1]), int(found[2]), int(found[3]), took)
    theirs = _LIBFUZZER.search(output)
    if theirs is None:
        return Result(target, failure=f"no result in:\n{output}", seconds=took)
    return Result(target, int(theirs[2]), int(theirs[3]), int(theirs[1]), took)


def replay(program: Path, inputs: Iterable[Path]) -> subprocess.CompletedProcess[str]:
    """Just these inputs, one after the other."""
    return subprocess.run([str(program), *map(str, inputs)], capture_output=True, text=True, check=False)


def report(result: Result) -> str:
    """A line for people."""
    if result.failure:
        return f"{result.target}: BROKEN\n{result.failure}"
    rate = result.runs / max(result.seconds, 0.001)
    figures = f"{result.edges:6} edges  {result.corpus:5} inputs kept  {result.runs:10} runs  {rate:8.0f}/s"
    return f"{result.target:10} {figures}"


def run_for(seconds: int, targets: list[str], seed: int) -> bool:
    """Every target for so long, as many at a time as there are processors. True if all held."""
    engine = fuzzer()
    print(f"{len(targets)} targets, {seconds} s each, with {engine.name}, seed {seed}", flush=True)
    programs = build_all(engine)
    held = True
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for result in pool.map(lambda target: fuzz(target, programs[target], seconds=seconds, seed=seed), targets):
            print(report(result), flush=True)
            held = held and not result.failure
    if not held:
        print(f"the inputs are in {BUILD / 'crashes'}; put them into tests/fuzz/regressions when the bug is mended")
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz the decoders of the C core.")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="printed; repeats a run")
    parser.add_argument("targets", nargs="*", default=TARGETS, help=", ".join(TARGETS))
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"there is no target {min(unknown)}; there are {', '.join(TARGETS)}")
    sys.exit(0 if run_for(options.seconds, options.targets, options.seed) else 1)


if __name__ == "__main__":
    main()
