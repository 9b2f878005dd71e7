"""Writes the golden stores of the format as it is now: ``python tests/golden/write.py``.

Stores of a version that was released are never written again; a format that changed gets a new folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "engine"))

from stories import FOLDER, STORIES, VERSION, encoded, made


def main() -> None:
    folder = FOLDER / VERSION
    if folder.exists() and "--replace" not in sys.argv:
        sys.exit(f"{folder} is there; --replace writes it anew, which is right only until {VERSION} is released")
    folder.mkdir(exist_ok=True)
    for name in STORIES:
        path = folder / f"{name}.json"
        path.write_text(encoded(made(name)), "utf-8")
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
