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

    def stream(self, prompt):
        yield from TOKENS

    async def astream(self, prompt):
        for token in TOKENS:
            await asyncio.sleep(0)
            yield token


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
    exec(compile(textwrap.dedent(block.text), name_of(block), "exec"), namespace)
    if "show(" in block.text:
        assert b"".join(shown).decode() == "".join(TOKENS)
    if "app = Starlette(" in block.text:
        asyncio.run(use(namespace["app"]))


async def use(app):
    """The application of a block serves streams where the page says."""
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://docs") as client,
    ):
        created = await client.put("/v1/stream/a/b", content=b"text", headers={"Content-Type": "text/plain"})
        assert created.status_code == 201
        assert (await client.get("/v1/stream/a%2Fb?offset=-1")).content == b"text"


def test_the_first_block_is_the_ten_lines_of_the_readme():
    first = blocks("python")[0]
    readme = [block for block in blocks("python") if block.page == "README.md"]
    assert first == readme[0]
    assert len(first.text.strip().splitlines()) <= 10
    assert first.line < 10


def test_the_documentation_tells_the_version_of_the_package():
    from documents import text_of

    assert f"## [{durable_log.__version__}]" in text_of("CHANGELOG.md")
