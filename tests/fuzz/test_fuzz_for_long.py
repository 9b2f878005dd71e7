"""New inputs for the C decoders, as long as ``DURABLE_LOG_FUZZ_SECONDS`` says: a minute of each in ``make test``."""

from __future__ import annotations

import os

import fuzzing
import pytest

SECONDS = int(os.environ.get("DURABLE_LOG_FUZZ_SECONDS", "5"))


@pytest.mark.parametrize("target", fuzzing.TARGETS)
def test_no_input_breaks_a_decoder_however_long_they_are_changed(target, record_property):
    program = fuzzing.build(target, fuzzing.bare_fuzzer())
    result = fuzzing.fuzz(target, program, seconds=SECONDS, seed=2, keeps=False, nice=19)
    assert not result.failure, result.failure
    record_property(f"inputs of {target}", result.runs)
    assert result.runs > 0
