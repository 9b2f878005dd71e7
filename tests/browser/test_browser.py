"""What a person sees in a browser, whatever happens to tab, network and server: the answer, byte for byte."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest
from front_ends import Server
from network import Network
from playwright.sync_api import BrowserContext, Page

WORDS = ["An ", "answer ", "in\n\n", "ünïcödé 😀", ", <b>with</b> ", "&amp;\n", "  blanks  ", "and ", "an ", "end."]
ANSWER = "".join(WORDS)
HALF = "".join(WORDS[:5])
VIEWERS = ["sse", "long-poll", "EventSource"]
PATIENCE_MS = 15_000
ROOT = Path(__file__).resolve().parents[2]
[LINES] = re.findall(r"^```js\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
INTERRUPTED = "\n[the answer was interrupted]"


class Answer:
    """One generation, which appends each word once."""

    def __init__(self, server: Server, network: Network, name: str) -> None:
        self.url = f"{server.url}/v1/stream/{name}"
        self.seen_at = f"http://127.0.0.1:{network.port}/v1/stream/{name}"
        self._written = 0
        httpx.put(self.url, headers={"content-type": "text/plain"}).raise_for_status()

    def write(self, words: int) -> None:
        for word in WORDS[self._written : self._written + words]:
            self._append(word)

    def finish(self) -> None:
        self.write(len(WORDS))
        httpx.post(self.url, headers={"stream-closed": "true"}).raise_for_status()

    def _append(self, word: str) -> None:
        claim = {"producer-id": "model", "producer-epoch": "0", "producer-seq": str(self._written)}
        headers = {"content-type": "text/plain", **claim}
        httpx.post(self.url, content=word.encode(), headers=headers).raise_for_status()
        self._written += 1


@pytest.fixture
def answer(server: Server, network: Network, request: pytest.FixtureRequest) -> Answer:
    return Answer(server, network, f"browser/{request.node.name}")


View = Callable[..., Page]


@pytest.fixture
def view(context: BrowserContext, pages: str, answer: Answer) -> View:
    """Opens the page on the answer."""

    def view(by: str, since: str = "-1") -> Page:
        page = context.new_page()
        page.goto(f"{pages}/viewer.html?{urlencode({'url': answer.seen_at, 'from': since, 'by': by})}")
        return page

    return view


def shows(page: Page, text: str) -> None:
    """Wait until the page shows exactly that."""
    seen = "text => document.querySelector('pre').textContent === text"
    try:
        page.wait_for_function(seen, arg=text, timeout=PATIENCE_MS)
    except Exception:
        assert page.text_content("pre") == text
        raise


def becomes(page: Page, state: str) -> None:
    page.wait_for_function("state => document.body.className === state", arg=state, timeout=PATIENCE_MS)


def ends_well(page: Page) -> None:
    becomes(page, "closed")
    assert page.text_content("pre") == ANSWER


@pytest.mark.parametrize("by", VIEWERS)
def test_a_page_that_is_refreshed_goes_on(view: View, answer: Answer, by: str):
    page = view(by)
    for words in range(1, len(WORDS)):
        answer.write(1)
        shows(page, "".join(WORDS[:words]))
        page.reload()
    answer.finish()
    ends_well(page)
    page.reload()
    ends_well(page)


@pytest.mark.parametrize("by", VIEWERS)
def test_a_page_that_was_offline_catches_up(
    context: BrowserContext, network: Network, view: View, answer: Answer, by: str
):
    page = view(by)
    answer.write(5)
    shows(page, HALF)
    with page.expect_event("requestfailed"):
        context.set_offline(True)
        network.cut()
    answer.write(2)
    assert page.text_content("pre") == HALF
    context.set_offline(False)
    answer.finish()
    ends_well(page)


@pytest.mark.parametrize("by", VIEWERS[:2])
def test_a_hidden_tab_rests_and_goes_on_when_it_is_shown(view: View, answer: Answer, by: str):
    page = view(by)
    answer.write(5)
    shows(page, HALF)
    with page.expect_event("requestfailed"):  # the client ends its request itself
        turn(page, hidden=True)
    with page.expect_request(lambda _: True) as resumed:
        answer.write(3)
        assert page.text_content("pre") == HALF
        turn(page, hidden=False)
    assert f"offset={0:016}_{len(HALF.encode()):016}" in resumed.value.url
    answer.finish()
    ends_well(page)


def turn(page: Page, *, hidden: bool) -> None:
    """As a browser with a window does when another tab is chosen; one without has no such thing."""
    page.evaluate(
        "hidden => { Object.defineProperty(document, 'hidden', { get: () => hidden, configurable: true });"
        " document.dispatchEvent(new Event('visibilitychange')) }",
        hidden,
    )


def test_two_see_the_same_and_who_comes_late_sees_the_rest(view: View, answer: Answer):
    first, second = (view(by) for by in ("sse", "long-poll"))
    answer.write(5)
    for page in (first, second):
        shows(page, HALF)
    late = view("sse", "now")
    becomes(late, "live")
    answer.finish()
    for page in (first, second):
        ends_well(page)
    becomes(late, "closed")
    assert late.text_content("pre") == ANSWER.removeprefix(HALF)


def test_a_server_that_is_killed_and_started_again_is_not_noticed(server: Server, view: View, answer: Answer):
    pages = [view(by) for by in VIEWERS]
    answer.write(5)
    for page in pages:
        shows(page, HALF)
    with ExitStack() as noticed:
        for page in pages:
            noticed.enter_context(page.expect_event("requestfailed"))
        server.kill()
    server.start()
    answer.finish()
    for page in pages:
        ends_well(page)


def test_a_page_writes_and_is_told_what_went_wrong(view: View, answer: Answer):
    page = view("sse")
    fenced = page.evaluate(
        """async ([url, words]) => {
            const { DurableStream, IdempotentProducer } = await import("./client.js")
            const stream = await DurableStream.connect({ url })
            const producer = new IdempotentProducer(stream, "page", { epoch: 1, lingerMs: 0, maxBatchBytes: 1 })
            for (const word of words) producer.append(word)
            await producer.flush()
            let told
            const zombie = new IdempotentProducer(stream, "page", { epoch: 0, onError: (error) => (told = error) })
            zombie.append("late")
            await zombie.flush()
            await producer.close()
            return told.currentEpoch
        }""",
        [answer.seen_at, WORDS],
    )
    assert fenced == 1
    ends_well(page)


def is_over(page: Page) -> None:
    """Wait until the page has closed the last of its event sources."""
    page.wait_for_function("sources.at(-1).readyState === EventSource.CLOSED", timeout=PATIENCE_MS)


def noting_sources(context: BrowserContext) -> Page:
    page = context.new_page()
    page.add_init_script("""
        window.sources = []
        const Source = EventSource
        window.EventSource = class extends Source { constructor(url) { super(url); sources.push(this) } }
    """)
    return page


def test_the_lines_of_the_readme_show_an_answer_once_though_the_server_is_killed(
    context: BrowserContext, pages: str, server: Server, answer: Answer
):
    page = noting_sources(context)
    page.goto(f"{pages}/empty.html")
    lines = LINES.replace("http://127.0.0.1:4437/v1/stream/chat/7", answer.url)
    assert lines != LINES
    page.evaluate("lines => eval(lines)", lines)
    answer.write(5)
    shows(page, HALF)
    server.kill()
    server.start()
    answer.write(2)
    shows(page, "".join(WORDS[:7]))
    answer.finish()
    shows(page, ANSWER)
    is_over(page)
    assert page.text_content("pre") == ANSWER
    assert page.evaluate("sources.length") > 1


@pytest.fixture
def chats(tmp_path: Path) -> Iterator[Server]:
    made = Server("uvicorn starlette_app:app --port {port}", tmp_path, ROOT / "examples")
    made.start()
    yield made
    made.stop()


def test_the_page_of_the_example_has_the_lines_of_the_readme():
    page = (ROOT / "examples" / "page.html").read_text("utf-8")
    function = LINES.partition("\n}\n")[0].replace("\n", "\n  ")
    assert f"  {function}\n  }}\n" in page


def test_the_page_of_the_example_asks_shows_the_answer_and_shows_it_again(context: BrowserContext, chats: Server):
    page = noting_sources(context)
    page.goto(chats.url)
    page.fill("input", "Why?")
    page.click("button")
    whole = "You asked: Why? Because an answer should outlive its connection. "
    shows(page, whole)
    is_over(page)
    page.reload()
    shows(page, whole)
    is_over(page)


def test_the_page_of_the_example_shows_once_what_was_made_before_a_kill(context: BrowserContext, chats: Server):
    prompt = " ".join(str(number) for number in range(1000))
    page = noting_sources(context)
    page.goto(chats.url)
    page.fill("input", prompt)
    page.click("button")
    page.wait_for_function("() => document.querySelector('pre').textContent.includes('5 ')", timeout=PATIENCE_MS)
    chats.kill()
    chats.start()
    page.wait_for_function(
        "last => document.querySelector('pre').textContent.endsWith(last)", arg=INTERRUPTED, timeout=PATIENCE_MS
    )
    is_over(page)
    half = page.text_content("pre").removesuffix(INTERRUPTED)
    assert half.startswith("You asked: 0 1 2 3 4 5 ")
    assert f"You asked: {prompt} ".startswith(half)
