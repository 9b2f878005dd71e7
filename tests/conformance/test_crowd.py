"""Five hundred viewers of one server, ten of which take nothing."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
from front_ends import Server, running

VIEWERS, DEAF = 490, 10
HISTORY_BYTES = 32 * 2**20
PART_BYTES = 2**18
GROWTH_BYTES_MAX = HISTORY_BYTES * DEAF // 5
PATIENCE_SECONDS = 15
"""Half of the time after which a viewer that takes nothing is cut off: whoever waits for one of them is seen."""

ROOT = "/v1/stream"
TEXT = {"content-type": "text/plain"}


def resident_bytes(server: Server) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


@contextlib.asynccontextmanager
async def viewer(server: Server, path: str, offset: str) -> AsyncIterator[asyncio.StreamReader]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {path}?offset={offset}&live=sse HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    try:
        await reader.readuntil(b"event: control\n")
        yield reader
    finally:
        writer.close()


@contextlib.contextmanager
def deaf(server: Server, path: str):
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(f"GET {path}?offset=-1&live=sse HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        client.recv(100)
        yield


async def watch(server: Server, http: httpx.AsyncClient) -> int:
    """How much more memory the server has once it serves those that take nothing, too."""
    path = f"{ROOT}/crowd"
    part = b"x" * PART_BYTES
    await http.put(path, headers=TEXT)
    for _ in range(HISTORY_BYTES // PART_BYTES):
        (await http.post(path, content=part, headers=TEXT)).raise_for_status()
    async with contextlib.AsyncExitStack() as everybody:
        readers = [await everybody.enter_async_context(viewer(server, path, "now")) for _ in range(VIEWERS)]
        before = resident_bytes(server)
        for _ in range(DEAF):
            everybody.enter_context(deaf(server, path))
        for number in range(10):
            (await http.post(path, content=b"word %d" % number, headers=TEXT)).raise_for_status()
            words = asyncio.gather(*(reader.readuntil(b"data:word %d\n" % number) for reader in readers))
            await asyncio.wait_for(words, PATIENCE_SECONDS)
        return resident_bytes(server) - before


def test_viewers_that_take_nothing_delay_nobody_and_cost_little_memory(tmp_path: Path):
    async def main(server: Server) -> int:
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_SECONDS) as http:
            return await watch(server, http)

    with running("durable-log serve", tmp_path) as server:
        assert asyncio.run(main(server)) < GROWTH_BYTES_MAX
