"""Every shell block of the documentation runs as it stands, against real servers; only the port is another."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from select import select

import pytest
from documents import ROOT, blocks, name_of, text_of

SECONDS_MAX = 60
PORT = "4437"
NOT_HERE = ("make ", "pip install")
"""What builds and tests the checkout is checked for being there, not run from within the tests."""

SHELL = [block for block in blocks("shell") if not block.text.startswith(NOT_HERE)]
README = [block for block in SHELL if block.page == "README.md"]

pytestmark = pytest.mark.skipif(shutil.which("bash") is None or shutil.which("curl") is None, reason="bash and curl")


def environment():
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONWARNINGS": "error"}


def run(text, directory):
    finished = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=directory,
        env=environment(),
        capture_output=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr.decode()
    return finished.stdout.decode()


@contextlib.contextmanager
def served(command, directory):
    """The server of a block, at a free port."""
    process = subprocess.Popen(
        [*shlex.split(command), "--port", "0"], cwd=directory, env=environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        readable, _, _ = select([process.stdout], [], [], SECONDS_MAX)
        assert readable, "the server said nothing in time"
        line = process.stdout.readline()
        yield line, re.search(r":(\d+)/", line)[1]
    finally:
        process.terminate()
        assert process.wait(SECONDS_MAX) == 0
        process.stdout.close()


def test_the_readme_serves_and_its_curl_lines_work(tmp_path):
    serve, curl, subscribe = [
        block.text for block in README if "durable-log serve" in block.text or "curl" in block.text
    ]
    with served(serve.strip(), tmp_path) as (line, port):
        said = re.search(r"prints `(durable-log serves .*)` when", text_of("README.md"))[1]
        assert line.strip().replace(port, PORT) == said
        shown = run(curl.replace(PORT, port), tmp_path)
        woken = run(subscribe.replace(PORT, port), tmp_path)
    assert "Hello, world" in shown
    assert "stream-next-offset: 0000000000000000_0000000000000012" in shown.lower()
    assert shown.count("world") == 3
    assert shown.rstrip().endswith('"streamClosed":true}')
    assert '{"type":"wake","subscription_id":"titles","stream":"chat/8","generation":1,' in woken
    assert '"path": "chat/8"' in woken.splitlines()[-1]


def test_the_page_on_access_serves_and_its_curl_lines_are_answered_as_it_says(tmp_path):
    begin, curl = [block.text for block in SHELL if block.page == "docs/access.md"]
    prepare, serve = begin.rstrip().rsplit("\n", 1)
    run(prepare, tmp_path)
    with served(serve, tmp_path) as (_, port):
        shown = run(curl.replace(PORT, port), tmp_path)
    assert re.findall("Hello, world|forbidden|unauthorized", shown) == ["Hello, world", "forbidden", "unauthorized"]
    assert 'durable_log_http_requests_total{action="create",status="201"} 1.0' in shown


@pytest.mark.parametrize(
    "block", [block for block in SHELL if "serve" not in block.text and "curl" not in block.text], ids=name_of
)
def test_a_shell_block_runs(block, tmp_path):
    shown = run(block.text, tmp_path)
    assert "Dear diary, a pipe works, too" in shown


def test_all_shell_blocks_are_run():
    run_here = [block for block in SHELL if "serve" in block.text or "curl" in block.text]
    assert [block.page for block in run_here] == ["README.md"] * 3 + ["docs/access.md"] * 2


def test_the_words_of_make_are_in_the_makefile():
    makefile = text_of("Makefile")
    for page in ("README.md", "CONTRIBUTING.md"):
        words = set(
            re.findall(r"\bmake ([a-z]+)\b", "\n".join(re.findall(r"`[^`]+`|^make .*$", text_of(page), re.MULTILINE)))
        )
        assert words
        for word in words:
            assert re.search(rf"^{word}:", makefile, re.MULTILINE), f"{page} names make {word}"


def test_the_extra_that_is_to_be_installed_is_there():
    assert "pip install '.[server]'" in text_of("README.md")
    for page, extra in [
        ("README.md", "metrics"),
        ("README.md", "subscriptions"),
        ("docs/access.md", "jwt"),
        ("docs/access.md", "metrics"),
        ("docs/operations.md", "metrics"),
    ]:
        assert f"the extra `{extra}`" in text_of(page)
        assert re.search(rf"^{extra} = \[", text_of("pyproject.toml"), re.MULTILINE)
    server = re.search(r"^server = \[(.*)\]$", text_of("pyproject.toml"), re.MULTILINE)[1]
    assert {"click", "httptools", "uvicorn", "uvloop"} == set(re.findall(r'"([a-z]+)', server))


@pytest.mark.parametrize("example", ["llm_answer.py", "async_viewers.py"])
def test_an_example_runs(example, tmp_path):
    shown = run(f"python {shlex.quote(str(ROOT / 'examples' / example))}", tmp_path)
    assert ("generated twice. ✨" if example == "llm_answer.py" else "from now on") in shown


def test_an_answer_that_was_killed_half_way_is_told_as_such(tmp_path):
    command = [sys.executable, str(ROOT / "examples" / "llm_answer.py")]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE)
    assert process.stdout.read(4) == b"The "
    process.kill()
    process.wait(SECONDS_MAX)
    process.stdout.close()
    shown = run(shlex.join(command), tmp_path)
    assert shown.startswith("The ")
    assert "[the answer was interrupted]" in shown
    assert "twice" not in shown
