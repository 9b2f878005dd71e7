"""Viewers who are written to together: each gets every event once, and goes on by himself where he has to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from durable_log import aio
from durable_log._http.audience import AT_ONCE, Audience, Position
from durable_log.aio import AsyncStream
from durable_log.model import Chunk

START = Position(0, 0)


class Member:
    """A viewer that keeps what it gets, of which it takes ``room`` parts."""

    def __init__(self, room: int = 1000) -> None:
        self.position, self.bytes_written = START, 0
        self.parts: list[bytes] = []
        self.room = room
        self.on_write: Callable[[], None] = lambda: None

    def write(self, part: bytes) -> bool:
        self.on_write()
        if len(self.parts) == self.room:
            return False
        self.parts.append(part)
        return True


def encode(chunk: Chunk) -> tuple[bytes, int]:
    """Whole words: what follows the last space is held back."""
    taken = chunk.data.rfind(b" ") + 1
    return chunk.data[:taken], chunk.offset + taken


def run(test: Callable[[AsyncStream, Callable[[], Audience]], Awaitable[None]]) -> None:
    async def prepared() -> None:
        async with aio.open(":memory:") as store:
            stream = await store.create("s")
            number = (await stream.info()).number
            await asyncio.wait_for(test(stream, lambda: Audience(stream, number, 1000, encode, START)), 10)

    asyncio.run(prepared())


async def attending(audience: Audience, *members: Member, seconds: float = 60) -> list[asyncio.Task[bool]]:
    tasks = [asyncio.ensure_future(audience.attend(member, seconds)) for member in members]
    await asyncio.sleep(0)
    return tasks


async def settled(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for says nothing by itself
        await asyncio.sleep(0.001)


def test_each_member_gets_every_event_once_and_is_told_when_the_stream_ends():
    async def test(stream: AsyncStream, begin: Callable[[], Audience]) -> None:
        audience, members = begin(), [Member() for _ in range(3 * AT_ONCE)]
        tasks = await attending(audience, *members)
        for word in (b"a ", b"b ", b"c "):
            await stream.append(word)
            await settled(lambda word=word: all(member.parts[-1:] == [word] for member in members))
        await stream.close()
        assert await asyncio.gather(*tasks) == [True] * len(members)
        assert {b"".join(member.parts) for member in members} == {b"a b c "}
        assert {(member.position, member.bytes_written) for member in members} == {(Position(6, 6), 6)}
        assert audience.ended

    run(test)


def test_what_is_held_back_comes_with_what_releases_it():
    async def test(stream: AsyncStream, begin: Callable[[], Audience]) -> None:
        audience, member = begin(), Member()
        (task,) = await attending(audience, member)
        await stream.append(b"a b")
        await settled(lambda: audience.position == Position(2, 3))
        assert (member.parts, member.position) == ([b"a "], Position(2, 3))
        await stream.append(b"c ")
        await settled(lambda: len(member.parts) == 2)
        assert member.parts == [b"a ", b"bc "]
        task.cancel()

    run(test)


def test_who_takes_no_more_goes_on_from_where_he_is_and_the_others_stay():
    async def test(stream: AsyncStream, begin: Callable[[], Audience]) -> None:
        audience, full, other = begin(), Member(room=1), Member()
        first, second = await attending(audience, full, other)
        await stream.append(b"a ")
        await settled(lambda: len(other.parts) == 1)
        await stream.append(b"b ")
        assert await first
        assert (full.parts, full.position) == ([b"a "], Position(2, 2))
        await settled(lambda: len(other.parts) == 2)
        assert not second.done()
        second.cancel()

    run(test)


def test_who_leaves_and_comes_back_in_the_middle_of_an_event_does_not_get_it_twice():
    async def test(stream: AsyncStream, begin: Callable[[], Audience]) -> None:
        audience, members = begin(), [Member() for _ in range(9 * AT_ONCE)]
        tasks = await attending(audience, *members)
        first, last = members[0], members[-1]

        async def leave_and_come_back() -> None:
            tasks[-1].cancel()
            await asyncio.wait(tasks[-1:])
            assert (last.parts, last.position) == ([], START)
            assert members[1].parts
            last.position = audience.position  # he reads by himself what the others are just getting
            tasks.extend(await attending(audience, last))
            assert not members[-2].parts, "the event went to everybody before he was back"

        first.on_write = lambda: returns or returns.append(asyncio.ensure_future(leave_and_come_back()))
        returns: list[asyncio.Task[None]] = []
        await stream.append(b"a ")
        await settled(lambda: bool(members[-2].parts))
        await returns[0]
        await stream.append(b"b ")
        await settled(lambda: bool(last.parts))
        assert last.parts == [b"b "]
        for task in tasks:
            task.cancel()

    run(test)


def test_after_his_time_a_member_is_let_go_and_the_last_one_ends_the_audience():
    async def test(_stream: AsyncStream, begin: Callable[[], Audience]) -> None:
        audience = begin()
        (task,) = await attending(audience, Member(), seconds=0.01)
        assert not await task
        assert audience.ended

    run(test)


def test_a_stream_that_is_deleted_is_left_to_each_member():
    async def test(stream: AsyncStream, begin: Callable[[], Audience]) -> None:
        tasks = await attending(begin(), Member(), Member())
        await stream.delete()
        assert await asyncio.gather(*tasks) == [True, True]

    run(test)
