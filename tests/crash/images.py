"""Stores on disk as a crash or a bad disk leaves them, and what to demand of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import oracle
from twins import SMALL

import durable_log
from durable_log.errors import Corruption
from durable_log.store import Store

HEADER = 4096


def open_at(path: Path) -> Store:
    """With a log that stays what it is when the store is closed."""
    return durable_log.open(path, options=replace(SMALL, cluster_at_close=False))


class Image(NamedTuple):
    """A store's directory after a kill, and what had been acknowledged of each stream: its records."""

    path: Path
    truth: dict[str, list[bytes]]

    def copy(self, to: Path) -> Image:
        if to.exists():
            shutil.rmtree(to)
        shutil.copytree(self.path, to)
        return Image(to, self.truth)

    def content(self, name: str) -> bytes:
        return b"".join(self.truth[name])

    def segment(self, number: int) -> Path:
        return self.path / f"{number:08x}.log"

    def blocks(self, number: int) -> list[oracle.OracleBlock]:
        raw = self.segment(number).read_bytes()
        return oracle.decode_segment(raw, number, oracle.nonce_in(raw))

    def overwrite(self, number: int, position: int, data: bytes) -> None:
        with self.segment(number).open("r+b") as file:
            file.seek(position)
            file.write(data)

    def flip(self, number: int, position: int, length: int = 1) -> None:
        raw = self.segment(number).read_bytes()[position : position + length]
        self.overwrite(number, position, bytes(byte ^ 0xFF for byte in raw))


def position(block: oracle.OracleBlock) -> int:
    return block.lsn & 0xFFFFFFFF


def end(block: oracle.OracleBlock) -> int:
    return position(block) + oracle.size_of(block)


def kill(live: Path, to: Path) -> None:
    """The files of a store at work as they are now. Taken anew if one of them goes away meanwhile."""
    while True:
        to.mkdir()
        names = sorted(file.name for file in live.iterdir())
        try:
            for name in names:
                shutil.copyfile(live / name, to / name)
        except FileNotFoundError:
            shutil.rmtree(to)
            continue
        if sorted(file.name for file in live.iterdir()) == names:
            return
        shutil.rmtree(to)


def build(path: Path, write: Callable[[Store, dict[str, list[bytes]]], None]) -> Image:
    """Have ``write`` fill a store and note what was acknowledged; then take its files as a kill would leave them."""
    truth: dict[str, list[bytes]] = {}
    live = path.with_name(path.name + "-live")
    with open_at(live) as store:
        write(store, truth)
        kill(live, path)
    shutil.rmtree(live)
    return Image(path, truth)


def append(store: Store, truth: dict[str, list[bytes]], name: str, data: bytes) -> None:
    if name not in truth:
        store.create(name)
        truth[name] = []
    store.stream(name).append(data)
    truth[name].append(data)


def assert_whole(store: Store, image: Image, names: set[str] | None = None) -> None:
    """These streams, or all, hold exactly what was acknowledged."""
    for name in image.truth if names is None else names:
        assert store.stream(name).read().data == image.content(name), name


def assert_nothing_wrong(store: Store, image: Image) -> set[str]:
    """No stream returns a byte that was not acknowledged at its offset. Returns the names of those that miss some."""
    missing = set()
    alive = set(store.names())
    assert alive <= set(image.truth)
    for name in image.truth:
        if name not in alive:
            missing.add(name)
            continue
        content, offset, tail = image.content(name), 0, store.stream(name).info().tail
        assert tail <= len(content)
        if tail < len(content):
            missing.add(name)
        for record in image.truth[name]:
            if offset > tail:
                break
            try:
                chunk = store.stream(name).read(offset)
            except Corruption:
                missing.add(name)
            else:
                assert chunk.data == content[offset : chunk.next_offset], (name, offset)
            offset += len(record)
    return missing


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.glob("*.log"))}
