"""Real servers and real processes, killed with SIGKILL again and again. Longer: ``make torture KILLS=1000``."""

from __future__ import annotations

import pytest
import torture_mutants
from torture_ledger import Violation
from torture_runs import Torture

SEED = 8
SERVED_KILLS, USED_KILLS, MUTANT_KILLS_MAX = 32, 10, 60


def test_servers_that_are_killed_again_and_again_keep_what_they_promised_to_all_clients(tmp_path, record_property):
    torture = Torture(tmp_path, SEED, SERVED_KILLS, kind="server")
    figures = torture.run()
    record_property("kills", figures.kills)
    assert figures.kills == SERVED_KILLS
    counts = figures.counts
    assert counts["acks"] > SERVED_KILLS * 10
    for what in ("created", "closed", "deleted", "forked", "duplicates", "unknown", "retries", "viewers' returns"):
        assert counts[what] > 0, (what, figures)
    assert figures.checks > 1
    assert len(+figures.moments) > 5, figures.at()
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_killed_while_everything_moves_keeps_what_it_promised(tmp_path, record_property):
    torture = Torture(tmp_path, SEED, USED_KILLS, kind="library")
    figures = torture.run()
    record_property("kills", figures.kills)
    assert figures.kills == USED_KILLS
    for what in ("create", "append", "produced"):
        assert figures.counts[what] > USED_KILLS, (what, figures)


@pytest.mark.parametrize("mutant", list(torture_mutants.ALL))
def test_a_torture_finds_a_bug_that_was_put_in(tmp_path, mutant):
    with pytest.raises(Violation):
        Torture(tmp_path, SEED, MUTANT_KILLS_MAX, kind="server", mutant=mutant).run()
    assert list(tmp_path.glob("*.ledger")), "what was known is kept"
