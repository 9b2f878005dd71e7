"""The producer of the demonstration, a process of its own: one generation, appended word by word.

Law of this room: it gets its words once, from a file or from a model, and sends each with a producer's claim until the
server has acknowledged it, however often that takes. It talks to the demonstration in JSON lines on stdout and to
nobody else; the key of a model's endpoint comes from the environment and goes into one header only.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from durable_log._cli.remote import AWAY, Refused, RemoteStream, parse_events, reason_of
from durable_log.model import Producer

PRODUCER_ID: Final = "demo-producer"
CONTENT_TYPE: Final = "text/plain; charset=utf-8"
RETRY_SECONDS: Final = 0.05
PATIENCE_SECONDS: Final = 60.0
UNAVAILABLE: Final = 503


class Job(NamedTuple):
    """What to produce: the words of ``file`` at a pace, or the answer of a model to ``prompt``."""

    url: str
    file: str | None
    words_per_second: float
    openai_url: str | None
    model: str | None
    prompt: str


class GenerationFailed(Exception):
    """The words did not come to their end."""


def words_of(text: str) -> list[str]:
    """The words of a text, each with the white space behind it; joined, they are the text.

    Line ends are made line feeds: server-sent events carry no others.
    """
    return re.findall(r"\S+\s*|^\s+", text.replace("\r\n", "\n").replace("\r", "\n"))


def paced(words: list[str], words_per_second: float) -> Iterator[str]:
    """The words, each when its time has come; what was held up follows at once."""
    started = time.monotonic()
    for number, word in enumerate(words):
        time.sleep(max(0.0, started + number / words_per_second - time.monotonic()))
        yield word


def generated(url: str, model: str, prompt: str, key: str | None) -> Iterator[str]:
    """The tokens of a chat completion, as they are generated. Raises :class:`GenerationFailed`."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc.rpartition("@")[2], timeout=PATIENCE_SECONDS)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    body = json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": prompt}]})
    try:
        target = path if path.endswith("/chat/completions") else path + "/chat/completions"
        connection.request("POST", target, body, headers)
        with connection.getresponse() as response:
            if response.status != http.client.OK:
                # What an endpoint says of a wrong key may quote it.
                raise GenerationFailed(
                    f"{parts.netloc} answered {response.status} {response.reason}; check the options"
                )
            yield from _tokens(response)
    except AWAY as error:
        raise GenerationFailed(f"{parts.netloc}: {reason_of(error)}") from error
    finally:
        connection.close()


def _tokens(response: http.client.HTTPResponse) -> Iterator[str]:
    for _, data in parse_events(response):
        if data == "[DONE]":
            return
        for choice in json.loads(data).get("choices", ()):
            token = choice.get("delta", {}).get("content")
            if token:
                yield token.replace("\r", "")
    raise GenerationFailed("the endpoint ended the answer before it was done")


def tell(event: str, **more: Any) -> None:
    """One line to whoever started this process."""
    sys.stdout.write(json.dumps({"event": event} | more) + "\n")
    sys.stdout.flush()


def produce(job: Job) -> None:
    """Append the whole answer and close the stream. Raises :class:`GenerationFailed`, :class:`Refused`, ``AWAY``."""
    if job.openai_url is None:
        assert job.file is not None
        words = paced(words_of(Path(job.file).read_text("utf-8")), job.words_per_second)
    else:
        words = generated(job.openai_url, job.model or "", job.prompt, os.environ.get("OPENAI_API_KEY"))
    tell("generation")
    with RemoteStream(job.url, PATIENCE_SECONDS) as stream:
        number = 0
        for number, word in enumerate(words, 1):
            retries = send(stream, word.encode("utf-8", "replace"), Producer(PRODUCER_ID, 0, number - 1), close=False)
            tell("word", text=word, retries=retries)
        tell("closed", retries=send(stream, b"", Producer(PRODUCER_ID, 0, number), close=True))


def send(stream: RemoteStream, data: bytes, claim: Producer, *, close: bool) -> int:
    """Send until it is acknowledged; returns how often it took more. The claim makes repeating safe."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    retries = 0
    while True:
        try:
            stream.append(data, CONTENT_TYPE, claim, close=close)
        except (Refused, *AWAY) as error:
            if time.monotonic() > give_up or (isinstance(error, Refused) and error.status != UNAVAILABLE):
                raise
            tell("waiting")  # each time, to find out whether anybody listens
            retries += 1
            time.sleep(RETRY_SECONDS)
        else:
            return retries


def main() -> None:
    """Do the job that the first argument describes."""
    try:
        try:
            produce(Job(**json.loads(sys.argv[1])))
        except BrokenPipeError:
            raise
        except (GenerationFailed, Refused, *AWAY) as error:
            tell("failed", reason=str(error) if isinstance(error, GenerationFailed) else reason_of(error))
            sys.exit(1)
    except BrokenPipeError:
        # Nobody listens any more: the demonstration is over.
        os._exit(1)


if __name__ == "__main__":
    main()
