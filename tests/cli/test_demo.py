"""durable-log demo: the whole promise, in one command."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from cli_processes import COMMAND, SECONDS_MAX, environment, first_line

from durable_log._cli import demo
from durable_log._cli.children import ServerProcess
from durable_log._cli.producer import words_of
from durable_log._cli.remote import RemoteStream
from durable_log._cli.viewers import Viewer

KEY = "sk-do-not-print-me"


def test_the_demonstration_loses_and_doubles_nothing(run):
    finished = run("demo", "--seconds", 3)
    shown = finished.stdout.decode()
    assert (finished.returncode, finished.stderr) == (0, b""), shown
    assert re.search(r"^generations run +1$", shown, re.MULTILINE)
    assert re.search(r"^bytes lost +0$", shown, re.MULTILINE)
    assert re.search(r"^bytes doubled +0$", shown, re.MULTILINE)
    assert re.search(r"^time without server +[0-9.]+ s, killed 1 x with SIGKILL", shown, re.MULTILINE)
    assert re.search(r"^word [0-9]+: SIGKILL to the server$", shown, re.MULTILINE)
    viewers = re.findall(
        r"^(from the start|drops every second|joined late|what the store holds) .*  yes$", shown, re.MULTILINE
    )
    assert len(viewers) == 4
    assert shown.endswith("Everybody holds exactly the same text.\n")


def test_the_text_that_ships_is_prose_with_more_than_ascii():
    text = (Path(__file__).parents[2] / "durable_log" / "demo.txt").read_text("utf-8")
    words = words_of(text)
    assert "".join(words) == text
    assert 300 <= len(words) <= 400
    assert not text.isascii()


@pytest.mark.parametrize("text", ["word", " \n leading\r\nline\rends \n\n", "日本 ✨"])
def test_any_text_will_do(run, tmp_path, text):
    (tmp_path / "text.txt").write_bytes(text.encode())
    finished = run("demo", "--words-per-second", "50", "text.txt")
    assert finished.returncode == 0, finished.stdout.decode()
    size = len(text.replace("\r\n", "\n").encode())
    assert f"({size} bytes)" in finished.stdout.decode()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("empty.txt",), 1, "empty.txt holds no words"),
        (("binary.txt",), 1, "binary.txt is not UTF-8 text at byte 1"),
        (("missing.txt",), 2, "missing.txt"),
        (("--seconds", "0"), 2, "--seconds"),
        (("--model", "m"), 2, "go with --openai-url"),
        (("--openai-url", "http://127.0.0.1:1/v1"), 2, "needs --model"),
        (("--openai-url", "ftp://x", "--model", "m"), 2, "http(s) URL"),
        (("--openai-url", "http://127.0.0.1:1/v1", "--model", "m"), 1, "Connection refused"),
    ],
)
def test_what_cannot_be_shown_is_said(run, tmp_path, arguments, code, said):
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "binary.txt").write_bytes(b"a\xff")
    finished = run("demo", *arguments)
    assert finished.returncode == code
    assert said in finished.stderr.decode()
    assert "Traceback" not in finished.stderr.decode()


class Endpoint(http.server.BaseHTTPRequestHandler):
    """A chat-completions endpoint that streams."""

    tokens = ()
    status = 200
    done = True
    seen: list

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((self.path, self.headers["Authorization"], body))
        self.send_response(self.status)
        self.end_headers()
        if self.status != 200:
            self.wfile.write(f"the key {KEY} is wrong".encode())
            return
        for token in ({"role": "assistant"}, *({"content": token} for token in self.tokens)):
            self.wfile.write(b"data: %b\r\n\r\n" % json.dumps({"choices": [{"delta": token}]}).encode())
        self.wfile.write(b'data: {"choices": []}\r\n\r\n' + (b"data: [DONE]\r\n\r\n" if self.done else b""))

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def endpoint(**attributes):
    handler = type("Handler", (Endpoint,), {"seen": [], **attributes})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", handler
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("path", ["/v1", "/v1/chat/completions"])
def test_a_model_can_be_the_producer_and_is_asked_once(run, path):
    tokens = [f"token {number} é ✨ \r\n" for number in range(80)]
    with endpoint(tokens=tokens) as (url, handler):
        finished = run("demo", "--openai-url", url + path, "--model", "small", "--prompt", "why?", OPENAI_API_KEY=KEY)
    shown = finished.stdout.decode()
    assert (finished.returncode, finished.stderr) == (0, b""), shown
    assert handler.seen == [
        (
            "/v1/chat/completions",
            f"Bearer {KEY}",
            {"model": "small", "stream": True, "messages": [{"role": "user", "content": "why?"}]},
        )
    ]
    assert f"80 ({len(''.join(tokens).replace(chr(13), '').encode())} bytes)" in shown
    assert "killed 1 x" in shown
    assert KEY not in shown


def test_an_endpoint_that_refuses_is_reported_without_the_key(run):
    with endpoint(status=401) as (url, _):
        finished = run("demo", "--openai-url", url, "--model", "m", OPENAI_API_KEY=KEY)
    assert finished.returncode == 1
    assert b"answered 401" in finished.stderr
    assert KEY.encode() not in finished.stdout + finished.stderr


def test_an_answer_that_breaks_off_is_not_passed_off_as_whole(run):
    with endpoint(tokens=["half "], done=False) as (url, _):
        finished = run("demo", "--openai-url", url, "--model", "m")
    assert finished.returncode == 1
    assert b"the endpoint ended the answer before it was done" in finished.stderr


class Forgetful(Viewer):
    """Loses the first byte of what it is given for the third time."""

    pages = 0

    def _take(self, page):
        if page.data:
            self.pages += 1
        super()._take(page._replace(data=page.data[1:]) if self.pages == 3 and page.data else page)


@pytest.mark.parametrize(("viewers", "good"), [(Viewer, True), (Forgetful, False)])
def test_a_viewer_whose_text_differs_fails_the_demonstration(monkeypatch, capfdbinary, viewers, good):
    monkeypatch.setattr(demo, "Viewer", viewers)
    assert demo.run_once(demo.source_of_file(demo.ANSWER_FILE, 1, 300)) is good
    shown = capfdbinary.readouterr().out
    assert (b"bytes lost           0\n" in shown) is good
    assert (b"bytes lost           3\n" in shown) is not good
    assert shown.endswith(
        b"Everybody holds exactly the same text.\n" if good else b"NOT everybody holds the same text.\n"
    )


def processes_below(pid):
    """The numbers of the processes that ``pid`` has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.append(int(status.parent.name))
    return found


def gone(pid):
    return not Path(f"/proc/{pid}").exists()


def listens_to_ctrl_c():
    """A shell without a terminal starts what is to run in the background deaf to it, and so are these tests then."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_producer_that_nobody_listens_to_ends_without_a_word_though_its_server_is_away(tmp_path):
    answer = tmp_path / "answer"
    answer.write_text("some words")
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1/stream/away"
    job = {"url": url, "file": str(answer), "words_per_second": 100.0, "openai_url": None, "model": None, "prompt": ""}
    command = [sys.executable, "-m", "durable_log._cli.producer", json.dumps(job)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as started:
        while b"waiting" not in started.stdout.readline():
            assert started.poll() is None, started.stderr.read()
        started.stdout.close()
        assert started.wait(SECONDS_MAX) == 1
        assert started.stderr.read() == b""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ending_the_demonstration_ends_all_that_it_started(tmp_path, number, code):
    with subprocess.Popen(
        [*COMMAND, "demo", "--seconds", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(TMPDIR=str(tmp_path)),
        preexec_fn=listens_to_ctrl_c,  # noqa: PLW1509 - no other thread is there
    ) as started:
        assert first_line(started).startswith("a server runs at http://127.0.0.1:")
        deadline = time.monotonic() + SECONDS_MAX
        while len(children := processes_below(started.pid)) < 2:
            assert time.monotonic() < deadline, "server and producer did not start"
            time.sleep(0.02)
        started.send_signal(number)
        assert started.wait(SECONDS_MAX) == code
        assert started.stderr.read() == b""
    deadline = time.monotonic() + SECONDS_MAX
    while not all(gone(child) for child in children):  # they end by themselves once it has
        assert time.monotonic() < deadline, "a child outlives the demonstration"
        time.sleep(0.02)
    assert list(tmp_path.iterdir()) == []


def test_the_page_for_browsers_shows_answers_until_ctrl_c(tmp_path):
    with subprocess.Popen(
        [*COMMAND, "demo", "--open", "--seconds", "60"],
        stdout=subprocess.PIPE,
        env=environment(TMPDIR=str(tmp_path)),
        preexec_fn=listens_to_ctrl_c,  # noqa: PLW1509 - no other thread is there
    ) as started:
        root = re.search(r"open (http://127\.0\.0\.1:[0-9]+)/ ", first_line(started))[1]
        with RemoteStream(root + "/") as page:
            assert b"<title>durable_log</title>" in page.read("-1").data
        with RemoteStream(root + "/v1/stream/demo/answers") as answers:
            assert json.loads(answers.read("-1", wait=True).data) == [{"stream": "demo/answer-1"}]
        with RemoteStream(root + "/v1/stream/demo/answer-1") as answer:
            assert answer.read("-1", wait=True).data
        os.kill(started.pid, signal.SIGINT)
        assert started.wait(SECONDS_MAX) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("way", ["sse", "long-poll"])
def test_a_viewer_goes_on_from_its_offset_after_any_interruption(tmp_path, way):
    with ServerProcess(tmp_path) as server:
        url, expected = server.root + "chat", b""
        with RemoteStream(url) as stream:
            stream.create("text/plain")
        viewer = Viewer("viewer", url, way)
        viewer.start()
        try:
            for number in range(5):
                word = f"word {number} ✨ ".encode()
                with RemoteStream(url) as stream:
                    stream.append(word, "text/plain")
                expected += word
                deadline = time.monotonic() + SECONDS_MAX
                while viewer.text != expected:
                    assert time.monotonic() < deadline, viewer.text
                    time.sleep(0.005)
                server.kill()
                server.start()
            with RemoteStream(url) as stream:
                stream.append(b"", "text/plain", close=True)
            viewer.join(SECONDS_MAX)
            assert viewer.outcome() == ("viewer", 0, expected, viewer.resumed, True)
            assert viewer.resumed >= 1
        finally:
            viewer.stop()


def test_a_viewer_of_a_stream_that_is_not_there_says_so(tmp_path):
    with ServerProcess(tmp_path) as server:
        viewer = Viewer("viewer", server.root + "nothing", "sse")
        viewer.start()
        viewer.join(SECONDS_MAX)
        assert "HTTP 404" in viewer.trouble
        assert not viewer.outcome().finished
