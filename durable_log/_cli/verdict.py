"""Did everybody get the whole answer, once?

Law of this room: pure. What was produced and what each viewer holds go in; counts, a table and a yes or no come out.
Nothing here believes an offset: the bytes themselves are compared. Any thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple


class Outcome(NamedTuple):
    """What one viewer holds at the end. ``joined``: the offset that it began at, None if it never came that far.

    ``finished``: it saw the end of the stream. ``resumed``: how often it went on after its connection broke.
    """

    name: str
    joined: int | None
    text: bytes
    resumed: int
    finished: bool


class Row(NamedTuple):
    """One viewer, judged."""

    outcome: Outcome
    lost: int
    doubled: int

    @property
    def same(self) -> bool:
        """Whether it holds exactly what was produced from the offset on at which it joined."""
        return self.outcome.finished and not self.lost and not self.doubled


class Story(NamedTuple):
    """What happened meanwhile. Times in seconds; ``kills``: how often the server was killed."""

    words: int
    generations: int
    retries: int
    kills: int
    away_seconds: float


class Verdict(NamedTuple):
    """The whole run, judged."""

    answer: bytes
    story: Story
    rows: list[Row]

    @property
    def lost(self) -> int:
        """Bytes that were produced and that somebody lacks, over all viewers."""
        return sum(row.lost for row in self.rows)

    @property
    def doubled(self) -> int:
        """Bytes that somebody holds and that were not produced at that place, over all viewers."""
        return sum(row.doubled for row in self.rows)

    @property
    def good(self) -> bool:
        """Whether one generation reached everybody, whole and once."""
        return bool(self.answer) and self.story.generations == 1 and all(row.same for row in self.rows)


def judge(answer: bytes, story: Story, outcomes: Sequence[Outcome]) -> Verdict:
    """Compare what each viewer holds with the ``answer`` that was produced."""
    rows = []
    for outcome in outcomes:
        expected = answer if outcome.joined is None else answer[outcome.joined :]
        rows.append(Row(outcome, *differences(expected, outcome.text)))
    return Verdict(answer, story, rows)


def differences(expected: bytes, got: bytes) -> tuple[int, int]:
    """How many bytes of ``expected`` are lost in ``got``, and how many of ``got`` are too many."""
    if expected == got:
        return 0, 0
    start = 0
    while start < min(len(expected), len(got)) and expected[start] == got[start]:
        start += 1
    lost = doubled = 0
    matcher = SequenceMatcher(None, expected[start:], got[start:], autojunk=False)
    for kind, left, left_end, right, right_end in matcher.get_opcodes():
        if kind != "equal":
            lost += left_end - left
            doubled += right_end - right
    return lost, doubled


def table(verdict: Verdict) -> Iterator[str]:
    """The verdict for people, line by line."""
    story = verdict.story
    killed = f"{story.away_seconds:.2f} s, killed {story.kills} x with SIGKILL" if story.kills else "0 s, not killed"
    yield f"words produced       {story.words} ({len(verdict.answer)} bytes)"
    yield f"generations run      {story.generations}"
    yield f"bytes lost           {verdict.lost}"
    yield f"bytes doubled        {verdict.doubled}"
    yield f"time without server  {killed}; the producer tried again {story.retries} times"
    yield ""
    yield f"{'viewer':<24} {'joined at':>9} {'bytes':>7} {'resumed':>7} {'lost':>6} {'doubled':>7}  same text"
    for row in verdict.rows:
        outcome = row.outcome
        joined = "never" if outcome.joined is None else str(outcome.joined)
        same = "yes" if row.same else "NO" if outcome.finished else "NO, it never saw the end"
        yield (
            f"{outcome.name:<24} {joined:>9} {len(outcome.text):>7} {outcome.resumed:>7} "
            f"{row.lost:>6} {row.doubled:>7}  {same}"
        )
    yield ""
    yield "Everybody holds exactly the same text." if verdict.good else "NOT everybody holds the same text."
