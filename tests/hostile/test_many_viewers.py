"""A thousand idle viewers of one server, ten thousand with DURABLE_LOG_HOSTILE=long: what each costs, and how soon one
append reaches all.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from attacked import LONG, PATIENCE_SECONDS, ROOT, Attacked, attacked, may_open
from serving import until

VIEWERS = 10_000 if LONG else 1_000
COMMAND = "durable_log.cli serve --port {port} --data {data} --metrics --long-poll-timeout 60"
BYTES_MAX = 32 * 2**10
"""For one viewer that waits: a connection, a request and two tasks."""
SECONDS_MAX = 20.0 if LONG else 5.0
AT_ONCE = 200
MODES = {"sse": (b"event: control\n", b"data:news\n"), "long-poll": (b"", b"\r\n\r\nnews")}
"""By mode: what shows that a viewer waits, and that it was told."""


async def view(
    server: Attacked, mode: str, gate: asyncio.Semaphore
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with gate:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"GET {ROOT}/crowd?offset=now&live={mode} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        if MODES[mode][0]:
            await reader.readuntil(MODES[mode][0])
        return reader, writer


async def append(server: Attacked) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = f"POST {ROOT}/crowd HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\n"
    writer.write(head.encode() + b"news")
    assert b" 204 " in await reader.readline()
    writer.close()


async def crowd(server: Attacked, mode: str) -> tuple[float, float]:
    """Bytes for each viewer, and seconds until the last of them had the news."""
    before, gate = server.resident_bytes(), asyncio.Semaphore(AT_ONCE)
    viewers = await asyncio.gather(*(view(server, mode, gate) for _ in range(VIEWERS)))
    await asyncio.to_thread(until, lambda: server.viewers() == VIEWERS, "all viewers")
    each = (server.resident_bytes() - before) / VIEWERS
    began = time.monotonic()
    await append(server)
    await asyncio.wait_for(
        asyncio.gather(*(reader.readuntil(MODES[mode][1]) for reader, _ in viewers)), PATIENCE_SECONDS + SECONDS_MAX
    )
    took = time.monotonic() - began
    for _, writer in viewers:
        writer.transport.abort()
    await asyncio.to_thread(until, lambda: server.viewers() == 0, "the end of all responses")
    return each, took


@pytest.mark.parametrize("mode", MODES)
def test_a_crowd_of_idle_viewers_costs_little_and_is_told_at_once(tmp_path: Path, mode: str):
    may_open(VIEWERS + 500)
    with attacked(tmp_path, COMMAND) as server:
        assert server.put("crowd").status_code == 201
        sockets, spent = server.sockets(), server.cpu_seconds()
        each, took = asyncio.run(crowd(server, mode))
        spent = server.cpu_seconds() - spent
        print(
            f"{VIEWERS} viewers by {mode}: {each:.0f} bytes each, {took:.3f} s to reach all, {spent:.1f} s of its CPU"
        )
        assert each < BYTES_MAX
        assert took < SECONDS_MAX
        until(lambda: server.sockets() <= sockets + 1, "the end of all connections")
