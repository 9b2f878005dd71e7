"""An answer that outlives its reader: it is generated once, whoever reads, leaves and comes back.

python examples/llm_answer.py [DIRECTORY]
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import durable_log

ANSWER = "The answer goes on while nobody looks, and nothing of it is generated twice. ✨"


def generate() -> Iterator[str]:
    """Stands for a model."""
    for word in ANSWER.split(" "):
        time.sleep(0.02)
        yield word + " "


def produce(stream: durable_log.Stream) -> None:
    for token in generate():
        stream.append(token)  # returns when it is on disk
    stream.close()


def main(directory: str) -> None:
    with durable_log.open(directory) as store:
        answer = store.stream("chat/42")
        if not any(name == answer.name for name in store.names(answer.name)):
            store.create(answer.name, content_type="text/plain")
            threading.Thread(target=produce, args=(answer,)).start()

        offset = durable_log.START
        for chunk in answer.follow(offset):
            print(chunk.text, end="", flush=True)
            offset = chunk.next_offset
            if offset > 30:
                break
        print(f"\n-- the reader leaves at offset {offset} and comes back a moment later --")
        time.sleep(0.2)
        for chunk in answer.follow(offset):
            print(chunk.text, end="", flush=True)
        print()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "durable-log-data")
