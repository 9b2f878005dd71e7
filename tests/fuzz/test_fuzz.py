"""The C decoders take whatever comes: the inputs of the repository, and new ones from a seed.

And the fuzzer is one: it finds bugs that were put in, inputs that hang and memory without bound.
"""

from __future__ import annotations

from pathlib import Path

import fuzzing
import pytest

RUNS = {"json": 20_000, "cluster": 1_500, "stage": 2_500}
"""About two seconds each."""

PLANTED = {
    "a length used before it is compared": (
        "block", "frame.c", "return rest > length - DL_FRAME_HEADER ? 0 : DL_FRAME_HEADER + rest;",
        "return DL_FRAME_HEADER + rest;",
    ),
    "a length trusted because its checksum is right": (
        "block", "frame.c",
        "if (row->seq_length > DL_SEQ_MAX || size - used < row->seq_length) return DL_BAD_FRAME;", "",
    ),
    "a surrogate taken for a character": (
        "json", "json.c", "first == 0xed ? 0x9f", "first == 0xed ? 0xbf",
    ),
    "a record behind the end of its row": (
        "cluster", "cluster_write.c", "if (records.end > job->plan.end) return DL_CLUSTER_ENTRY;", "",
    ),
    "the older of two rows kept": (
        "run_merge", "run_build.c", "return order != 0 ? order < 0 : a < b;", "return order != 0 ? order < 0 : a > b;",
    ),
}  # fmt: skip
"""Target, unit, what stands there, and what stands there instead."""


@pytest.fixture(scope="module")
def programs() -> dict[str, Path]:
    return fuzzing.build_all(fuzzing.bare_fuzzer())


@pytest.mark.parametrize("target", fuzzing.TARGETS)
def test_the_inputs_of_the_repository_break_nothing(target, programs):
    inputs = [path for folder in fuzzing.inputs_of(target) for path in sorted(folder.iterdir())]
    assert inputs
    done = fuzzing.replay(programs[target], inputs)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("target", fuzzing.TARGETS)
def test_new_inputs_from_a_seed_break_nothing(target, programs):
    result = fuzzing.fuzz(target, programs[target], runs=RUNS.get(target, 8_000), seed=1, keeps=False)
    assert not result.failure, result.failure
    assert result.runs >= RUNS.get(target, 8_000)
    assert result.corpus > len(list((fuzzing.HERE / "corpus" / target).iterdir()))


def test_the_same_seed_tries_the_same_inputs(programs):
    first, again, other = (
        fuzzing.fuzz("json", programs["json"], runs=3_000, seed=seed, keeps=False) for seed in (5, 5, 6)
    )
    assert first[:4] == again[:4]
    assert first[:3] != other[:3]


@pytest.mark.parametrize("bug", PLANTED)
def test_the_fuzzer_finds_a_bug_that_was_put_in(bug, tmp_path):
    target, unit, there, instead = PLANTED[bug]
    source = (fuzzing.ROOT / "csrc" / unit).read_text("utf-8")
    assert source.count(there) == 1, f"{unit} has changed: put the bug in where it belongs now"
    (tmp_path / unit).write_text(source.replace(there, instead), "utf-8")
    units = [tmp_path / unit if path.name == unit else path for path in fuzzing.UNITS]
    program = fuzzing.build(target, fuzzing.bare_fuzzer(), units)
    result = fuzzing.fuzz(
        target, program, runs=200_000, keeps=False, extra=[f"-artifact_prefix={tmp_path}/", "-max_total_time=60"]
    )
    assert result.failure, f"not found in {result.runs} runs"
    found = list(tmp_path.glob("crash-*"))
    assert len(found) == 1
    assert fuzzing.replay(program, found).returncode != 0, "the input that was saved does not repeat it"


BAD_TARGETS = {
    "hangs": ("while (size > 2 && data[0] == 'h') seen = data[1];", "longer than -timeout"),
    "takes memory": ("if (size > 2 && data[0] == 'm') memset(malloc(600u << 20), seen, 9);", "requested allocation"),
    "dies": ('if (size > 3 && !memcmp(data, "die", 3)) raise(SIGKILL);', "again:"),
}


@pytest.mark.parametrize("kind", BAD_TARGETS)
def test_an_input_that_hangs_or_dies_or_takes_all_memory_is_saved(kind, tmp_path):
    code, told = BAD_TARGETS[kind]
    source = tmp_path / "bad.c"
    source.write_text(
        "#include <signal.h>\n#include <stdint.h>\n#include <stdlib.h>\n#include <string.h>\nvolatile int seen;\n"
        f"int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {{ {code} return 0; }}\n"
    )
    (tmp_path / "words").write_text('"hh"\n"mm"\n"die"\n')
    program = fuzzing.build_program(source, fuzzing.bare_fuzzer(), [])
    result = fuzzing.fuzz(
        "bad", program, runs=10**7, keeps=False,
        extra=[f"-artifact_prefix={tmp_path}/", "-timeout=1", f"-dict={tmp_path / 'words'}"],
    )  # fmt: skip
    assert told in result.failure
    assert len(list(tmp_path.glob("crash-*"))) == 1
