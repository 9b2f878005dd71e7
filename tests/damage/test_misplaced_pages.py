"""Pages and sectors that are zeroes, or another's, or older; files that are too short, too long, missing or another's.

Whatever differs from what was written costs what stood there, and no more; nothing that is valid elsewhere is believed
where it came to stand. A sample by default, all of it with ``DURABLE_LOG_DAMAGE=all``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from anatomy import UNUSED, Anatomy, anatomy
from judging import judge
from shapes import SHAPES
from stores import Files, quiet

ALL = os.environ.get("DURABLE_LOG_DAMAGE") == "all"
PAGE, SECTOR = 4096, 512
IMAGES = 160
"""So many of each kind of damage and of each store, unless all are wanted."""


@pytest.fixture(scope="module", params=SHAPES)
def store(request: pytest.FixtureRequest) -> Anatomy:
    with pytest.MonkeyPatch.context() as patch:
        quiet(patch)
        return anatomy(SHAPES[request.param]())


def spans(files: Files, size: int) -> list[tuple[str, int]]:
    return [(name, at) for name in sorted(files) for at in range(0, len(files[name]), size)]


def replaced(files: Files, name: str, at: int, data: bytes) -> Files:
    """``data`` in that place of a file, as far as the file goes."""
    old = files[name]
    data = data[: len(old) - at]
    return {**files, name: old[:at] + data + old[at + len(data) :]}


def filled(files: Files, size: int) -> Iterator[tuple[str, Files]]:
    for name, at in spans(files, size):
        for byte in (b"\0", b"\xff"):
            yield f"{name} {at} filled with {byte!r}", replaced(files, name, at, byte * size)


def doubled(files: Files, size: int) -> Iterator[tuple[str, Files]]:
    """A misdirected write: what belongs to one place stands at another one, of the same file or of another, too."""
    for name, at in spans(files, size):
        for source, position in spans(files, size):
            if (name, at) != (source, position):
                moved = files[source][position : position + size]
                yield f"{name} {at} is {source} {position}", replaced(files, name, at, moved)


def swapped(files: Files, size: int) -> Iterator[tuple[str, Files]]:
    every = spans(files, size)
    for first, (name, at) in enumerate(every):
        for other, position in every[first + 1 :]:
            one, two = files[name][at : at + size], files[other][position : position + size]
            if len(one) == len(two):
                yield (
                    f"{name} {at} and {other} {position}",
                    replaced(replaced(files, name, at, two), other, position, one),
                )


def truncated(files: Files, _size: int) -> Iterator[tuple[str, Files]]:
    for name, content in files.items():
        for length in range(len(content)):
            yield f"{name} ends at {length}", {**files, name: content[:length]}


KINDS: dict[str, tuple[Callable[[Files, int], Iterator[tuple[str, Files]]], int]] = {
    "filled pages": (filled, PAGE),
    "filled sectors": (filled, SECTOR),
    "doubled pages": (doubled, PAGE),
    "doubled sectors": (doubled, SECTOR),
    "swapped pages": (swapped, PAGE),
    "swapped sectors": (swapped, SECTOR),
    "truncated files": (truncated, 0),
}


def chosen(images: Iterator[tuple[str, Files]], total: int) -> Iterator[tuple[str, Files]]:
    stride = 1 if ALL else total // IMAGES | 1
    for number, image in enumerate(images):
        if number % stride == stride // 2:
            yield image


@pytest.mark.parametrize("kind", KINDS)
def test_misplaced_bytes_cost_what_stood_there_and_are_told(store, kind):
    make, size = KINDS[kind]
    total = sum(1 for _ in make(store.shape.files, size)) if not ALL else 0
    for what, files in chosen(make(store.shape.files, size), total):
        try:
            judge_files(store, files)
        except AssertionError as error:
            raise AssertionError(f"{store.shape.name}: {what}: {error}") from error


def judge_files(store: Anatomy, files: Files) -> None:
    hit = store.hit(files)
    findings = judge(store, files, store.cost(hit))
    if all(region.kind in UNUSED for region in hit):
        assert not findings.said, findings.said
