"""The demonstration: one answer, generated once, read by three viewers while the server is killed under them.

Law of this room: it starts the others, kills the server half-way, and compares at the end. What it shows is measured in
this very run. Main thread only.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import click

from durable_log._cli.children import ProducerProcess, ServerProcess
from durable_log._cli.producer import CONTENT_TYPE, Job, words_of
from durable_log._cli.remote import AWAY, START, Refused, RemoteStream, reason_of
from durable_log._cli.screen import Screen, last_words
from durable_log._cli.verdict import Outcome, Story, Verdict, judge, table
from durable_log._cli.viewers import Viewer

PACKAGE: Final = Path(__file__).parent.parent
ANSWER_FILE: Final = PACKAGE / "demo.txt"
PAGE_FILE: Final = PACKAGE / "demo.html"

START_UP_SECONDS: Final = 1.0
"""What starting, restarting and comparing take of the time that was asked for, about."""

DROP_SECONDS: Final = 1.0
WORDS_UNKNOWN: Final = 120
"""How long a model's answer is taken to be, as nobody knows before its end."""

CATCH_UP_SECONDS_MAX: Final = 15.0
PAUSE_SECONDS: Final = 2.0
PROMPT: Final = "In about 200 words: why should a language model's answer be a stream that outlives its connection?"


class Source(NamedTuple):
    """Where the words come from, and how fast."""

    file: Path | None
    words_per_second: float
    openai_url: str | None
    model: str | None
    prompt: str
    words: int


def source_of_file(path: Path, seconds: float, words_per_second: float | None) -> Source:
    """The words of a text file, over ``seconds`` in all or at a pace. Raises :class:`click.ClickException`."""
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{path} is not UTF-8 text at byte {error.start}; name another file") from error
    if not text.strip():
        raise click.ClickException(f"{path} holds no words; name another file")
    count = len(words_of(text))
    pace = words_per_second or count / max(seconds - START_UP_SECONDS, seconds / 4)
    return Source(path, pace, None, None, "", count)


def source_of_model(url: str, model: str, prompt: str) -> Source:
    """The answer of a model behind a chat-completions endpoint."""
    return Source(None, 0, url, model, prompt, WORDS_UNKNOWN)


class Answer:
    """One answer: produced, watched, interrupted, compared."""

    def __init__(self, server: ServerProcess, name: str, source: Source, screen: Screen) -> None:
        self._server, self._source, self._screen = server, source, screen
        self._url = server.root + name
        self._viewers: list[Viewer] = []
        self._answer = bytearray()
        self._words = self._generations = self._retries = self._kills = 0
        self._away = 0.0

    def run(self) -> Verdict:
        """All of it. Raises :class:`click.ClickException` if the producer fails."""
        with RemoteStream(self._url) as stream:
            stream.create(CONTENT_TYPE)
        source = self._source
        file = None if source.file is None else str(source.file)
        job = Job(self._url, file, source.words_per_second, source.openai_url, source.model, source.prompt)
        try:
            self._watch(Viewer("from the start", self._url, "sse"))
            self._watch(Viewer("drops every second", self._url, "sse", drop_seconds=DROP_SECONDS))
            with ProducerProcess(job) as producer:
                self._follow(producer)
            self._let_catch_up()
            stored = Outcome("what the store holds", 0, self._stored(), 0, True)
            outcomes = [*(viewer.outcome() for viewer in self._viewers), stored]
        finally:
            for viewer in self._viewers:
                viewer.stop()
        story = Story(self._words, self._generations, self._retries, self._kills, self._away)
        return judge(bytes(self._answer), story, outcomes)

    def _watch(self, viewer: Viewer) -> None:
        self._viewers.append(viewer)
        viewer.start()

    def _follow(self, producer: ProducerProcess) -> None:
        """What happens between the first word and the last."""
        to_come = iter(
            [(self._source.words // 4, self._join_late), (self._source.words // 2, self._kill), (2**62, lambda: None)]
        )
        at, step = next(to_come)
        while True:
            event = producer.event(0.1)
            self._draw()
            if event is None:
                continue
            self._retries += event.get("retries", 0)
            if event["event"] == "generation":
                self._generations += 1
            elif event["event"] == "closed":
                return
            elif event["event"] == "word":
                self._words += 1
                self._answer += event["text"].encode("utf-8", "replace")
                if self._words >= at:
                    step()
                    at, step = next(to_come)

    def _join_late(self) -> None:
        self._screen.note(f"word {self._words}: a third viewer joins, with offset=now")
        self._watch(Viewer("joined late", self._url, "long-poll", offset="now"))

    def _kill(self) -> None:
        self._screen.note(f"word {self._words}: SIGKILL to the server")
        killed = time.monotonic()
        self._server.kill()
        self._kills += 1
        self._draw()
        self._server.start()
        self._away += time.monotonic() - killed
        self._screen.note(f"the server is back after {self._away:.2f} s; producer and viewers go on where they were")

    def _let_catch_up(self) -> None:
        give_up = time.monotonic() + CATCH_UP_SECONDS_MAX
        for viewer in self._viewers:
            viewer.join(max(0.0, give_up - time.monotonic()))
            if viewer.trouble is not None:
                self._screen.note(f"viewer {viewer.name!r}: {viewer.trouble}")
        self._draw()

    def _stored(self) -> bytes:
        """What a reader finds who comes when all is over."""
        with RemoteStream(self._url) as stream:
            pages = [stream.read(START)]
            while not pages[-1].up_to_date:
                pages.append(stream.read(pages[-1].next_offset))
        return b"".join(page.data for page in pages)

    def _draw(self) -> None:
        if not self._screen.live:
            return
        of = f" of {self._source.words}" if self._source.file else ""
        lines = [f"producer            word {self._words}{of}"]
        for viewer in self._viewers:
            state = "done" if viewer.finished else "live" if viewer.connected else "away"
            lines.append(
                f"{viewer.name:<19} {state} {len(viewer.text):>6} B, resumed {viewer.resumed:>2} x  "
                f"{last_words(viewer.text, 40)}"
            )
        self._screen.show(lines)


@contextmanager
def _server(page: Path | None = None) -> Iterator[ServerProcess]:
    with (
        tempfile.TemporaryDirectory(prefix="durable-log-demo-") as directory,
        ServerProcess(Path(directory), page) as server,
    ):
        yield server


def run_once(source: Source) -> bool:
    """One answer, and the table. False if not everybody got it whole and once."""
    screen = Screen()
    with _server() as server:
        screen.note(f"a server runs at {server.root} on a directory of its own")
        verdict = _attempt(server, "demo/answer", source, screen)
    screen.show([])
    screen.note("")
    for line in table(verdict):
        screen.note(line)
    return verdict.good


def run_for_browser(source: Source) -> bool:
    """Answers until Ctrl-C, and a page to watch them on. False as soon as one did not reach everybody."""
    screen = Screen()
    with _server(PAGE_FILE) as server:
        with RemoteStream(server.root + "demo/answers") as answers:
            answers.create("application/json")
        try:
            screen.note(f"open http://127.0.0.1:{server.port}/ and refresh it as often as you like; Ctrl-C ends it")
            for number in itertools.count(1):
                verdict = _announced(server, f"demo/answer-{number}", source, screen)
                screen.note(f"answer {number}: bytes lost {verdict.lost}, bytes doubled {verdict.doubled}")
                if not verdict.good:
                    return False
                time.sleep(PAUSE_SECONDS)
        except KeyboardInterrupt:
            screen.show([])
    return True


def _announced(server: ServerProcess, name: str, source: Source, screen: Screen) -> Verdict:
    """An answer that the page is told of before it begins."""
    with RemoteStream(server.root + name) as answer, RemoteStream(server.root + "demo/answers") as answers:
        answer.create(CONTENT_TYPE)
        answers.append(json.dumps({"stream": name}).encode(), "application/json")
    return _attempt(server, name, source, screen)


def _attempt(server: ServerProcess, name: str, source: Source, screen: Screen) -> Verdict:
    try:
        return Answer(server, name, source, screen).run()
    except BrokenPipeError:
        raise  # of stdout: nobody looks any more
    except (Refused, *AWAY) as error:
        raise click.ClickException(f"{server.root}{name}: {reason_of(error)}") from error
