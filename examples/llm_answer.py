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
INTERRUPTED = "\n[the answer was interrupted]"


def generate() -> Iterator[str]:
    """Stands for a model."""
    for word in ANSWER.split(" "):
        time.sleep(0.02)
        yield word + " "


def produce(stream: durable_log.Stream) -> None:
    """However the generation ends, the stream does."""
    last_words = INTERRUPTED
    try:
        for token in generate():
            if token:  # an empty append is refused
                stream.append(token)  # returns when it is on disk
        last_words = ""
    finally:
        stream.append(last_words, close=True)


def main(directory: str) -> None:
    with durable_log.open(directory) as store:
        answer = store.stream("chat/42")
        try:
            store.create(answer.name, content_type="text/plain", exist_ok=False)
            threading.Thread(target=produce, args=(answer,)).start()
        except durable_log.StreamExists:
            if not answer.info().closed:  # whoever generated it was killed
                answer.append(INTERRUPTED, close=True)

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
