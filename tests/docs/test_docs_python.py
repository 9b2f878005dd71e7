"""Every Python block of the documentation runs as it stands."""

from __future__ import annotations

import asyncio
import textwrap

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from documents import blocks, name_of
from jwt.algorithms import OKPAlgorithm

import durable_log

TOKENS = ["To", "ken", "s ", "– ✨"]  # noqa: RUF001 - more than ASCII


class Llm:
    """Stands for a model."""

    def __init__(self, error=None):
        self.error = error

    def stream(self, prompt):
        yield from TOKENS

    async def astream(self, prompt):
        for token in TOKENS:
            await asyncio.sleep(0)
            yield token
        if self.error is not None:
            raise self.error


@pytest.fixture
def shown():
    return []


@pytest.fixture
def namespace(shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tokens").write_text("token-of-the-admin\n")
    (tmp_path / "tokens").chmod(0o600)
    key = OKPAlgorithm.to_jwk(Ed25519PrivateKey.generate().public_key())
    (tmp_path / "jwks.json").write_text(f'{{"keys": [{key}]}}')
    return {"llm": Llm(), "prompt": "why?", "offset": 0, "show": shown.append, "remember": lambda offset: None}


@pytest.mark.parametrize("block", blocks("python"), ids=name_of)
def test_a_python_block_runs(block, namespace, shown):
    run(block, namespace)
    if "show(" in block.text:
        assert b"".join(shown).decode() == "".join(TOKENS)
    if "app = Starlette(" in block.text:
        for name in ("a", "b"):
            asyncio.run(use(namespace["app"], name))


def run(block, namespace):
    exec(compile(textwrap.dedent(block.text), name_of(block), "exec"), namespace)


def test_the_first_block_can_be_run_again(namespace, shown):
    for _ in range(2):
        run(blocks("python")[0], namespace)
    assert b"".join(shown).decode() == "".join(TOKENS) * 2


ASYNC_ANSWERS = [block for block in blocks("python") if "llm.astream(" in block.text]


@pytest.mark.parametrize("block", ASYNC_ANSWERS, ids=name_of)
def test_a_model_that_fails_leaves_no_viewer_waiting(block, namespace, shown):
    namespace["llm"] = Llm(RuntimeError("tired"))
    with pytest.raises(RuntimeError, match="tired"):
        run(block, namespace)
    assert b"".join(shown).decode() == "".join(TOKENS) + namespace.get("INTERRUPTED", "")


def test_what_a_killed_process_left_open_is_closed_at_the_next_start(namespace, shown):
    with durable_log.open("data") as store:
        store.create("chat/1", content_type="text/plain", data="half")
        store.create("chat/2", content_type="text/plain", data="whole", closed=True)
    run(ASYNC_ANSWERS[-1], namespace)
    with durable_log.open("data") as store:
        texts = [store.stream(name).read().text for name in store.names()]
        assert texts == ["half" + namespace["INTERRUPTED"], "whole", "".join(TOKENS)]
        assert all(store.stream(name).info().closed for name in store.names())


async def use(app, name):
    """The application of a block serves streams where the page says, in each of its lives."""
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://docs") as client,
    ):
        created = await client.put(f"/v1/stream/{name}/b", content=b"text", headers={"Content-Type": "text/plain"})
        assert created.status_code == 201
        assert (await client.get(f"/v1/stream/{name}%2Fb?offset=-1")).content == b"text"


def test_the_first_block_is_the_ten_lines_of_the_readme():
    first = blocks("python")[0]
    readme = [block for block in blocks("python") if block.page == "README.md"]
    assert first == readme[0]
    assert len(first.text.strip().splitlines()) <= 10
    assert first.line < 10


def test_the_documentation_tells_the_version_of_the_package():
    from documents import text_of

    assert f"## [{durable_log.__version__}]" in text_of("CHANGELOG.md")
