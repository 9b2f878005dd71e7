"""``make torture KILLS=1000 SEED=1``: kills until that many are done, or until something is wrong."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from torture_runs import Torture


def say(words: str) -> None:
    print(time.strftime("%H:%M:%S"), words, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make torture")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None, help="what was planned for a run; when things happen, varies")
    parser.add_argument("--kind", choices=("server", "library"), default="", help="only such stores; both by default")
    parser.add_argument("--directory", type=Path, default=None, help="where the stores are; a temporary one by default")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    root = Path(tempfile.mkdtemp(prefix="durable-log-torture-", dir=options.directory))
    torture, began = Torture(root, seed, options.kills, kind=options.kind, progress=say), time.monotonic()
    say(f"seed {seed}, {options.kills} kills, in {root}")
    try:
        figures = torture.run()
    except Exception:  # noqa: BLE001 - whatever it is, this is where it is told
        traceback.print_exc()
        say(f"seed {seed}: {torture.life}; then a promise was broken, as it says above")
        say(f"the store, the servers' log and the ledger are in {root}")
        say("the seed fixes what is planned, not when it happens, so this may take several attempts:")
        say(f"make torture SEED={seed} KILLS={options.kills}")
        return 1
    shutil.rmtree(root)
    seconds = time.monotonic() - began
    say(f"{figures}; killed at: {figures.at()}")
    say(f"nothing was lost: {figures.kills} kills in {seconds:.0f} s, {figures.kills / seconds:.1f} a second")
    return 0


if __name__ == "__main__":
    sys.exit(main())
