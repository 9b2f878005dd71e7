"""The verdict of the demonstration finds what is lost and what is doubled, and says no when it has to."""

from __future__ import annotations

import pytest

from durable_log._cli.verdict import Outcome, Story, differences, judge, table

ANSWER = b"the quick brown fox jumps over the lazy dog"
STORY = Story(words=9, generations=1, retries=3, kills=1, away_seconds=0.5)


def verdict_on(*outcomes, story=STORY, answer=ANSWER):
    return judge(answer, story, outcomes)


def viewer(text, joined=0, finished=True):
    return Outcome("viewer", joined, text, 2, finished)


@pytest.mark.parametrize(
    ("got", "lost", "doubled"),
    [
        (ANSWER, 0, 0),
        (b"", len(ANSWER), 0),
        (ANSWER[:-4], 4, 0),
        (ANSWER[4:], 4, 0),
        (ANSWER + b" dog", 0, 4),
        (ANSWER.replace(b"brown ", b""), 6, 0),
        (ANSWER.replace(b"brown ", b"brown brown "), 0, 6),
        (ANSWER.replace(b"q", b"Q"), 1, 1),
    ],
)
def test_differences_are_counted_in_bytes(got, lost, doubled):
    assert differences(ANSWER, got) == (lost, doubled)


def test_the_same_text_for_all_is_good():
    verdict = verdict_on(viewer(ANSWER), viewer(ANSWER[10:], joined=10))
    assert verdict.good
    lines = list(table(verdict))
    assert "bytes lost           0" in lines
    assert "bytes doubled        0" in lines
    assert "generations run      1" in lines
    assert lines[-1] == "Everybody holds exactly the same text."


@pytest.mark.parametrize(
    "bad",
    [
        verdict_on(viewer(ANSWER), viewer(ANSWER[:-1])),
        verdict_on(viewer(ANSWER), viewer(ANSWER + b"!")),
        verdict_on(viewer(ANSWER, joined=10)),
        verdict_on(viewer(ANSWER[10:], joined=9)),
        verdict_on(viewer(ANSWER[::-1])),
        verdict_on(viewer(ANSWER, finished=False)),
        verdict_on(viewer(b"", joined=None, finished=False)),
        verdict_on(viewer(ANSWER), story=STORY._replace(generations=2)),
        verdict_on(viewer(b""), answer=b""),
    ],
)
def test_anything_else_is_not(bad):
    assert not bad.good
    assert list(table(bad))[-1] == "NOT everybody holds the same text."


def test_the_table_says_who_lacks_what():
    lines = list(table(verdict_on(viewer(ANSWER), viewer(ANSWER[:-4]), viewer(ANSWER[:9], finished=False))))
    assert f"bytes lost           {4 + len(ANSWER) - 9}" in lines
    assert [line.split("  ")[-1] for line in lines[7:10]] == ["yes", "NO", "NO, it never saw the end"]
