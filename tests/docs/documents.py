"""The pages, and the blocks and links in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
_BLOCK = re.compile(r"^```([a-z]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: where it stands, its language, its text."""

    page: str
    line: int
    language: str
    text: str


def text_of(page):
    return (ROOT / page).read_text("utf-8")


def blocks(language):
    """All blocks of a language, over all pages."""
    return [
        Block(page, text[: match.start()].count("\n") + 1, match[1], match[2])
        for page in PAGES
        for text in [text_of(page)]
        for match in _BLOCK.finditer(text)
        if match[1] == language
    ]


def prose(page):
    """The page less its blocks."""
    return _BLOCK.sub("", text_of(page))


def name_of(block):
    return f"{block.page}:{block.line}"
