"""docs/openapi.yaml says what docs/protocol.md and the server say, and the server keeps to it whatever it is sent."""

from __future__ import annotations

import fnmatch
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from attacked import COMMAND, LONG, SEED, Attacked, attacked

from durable_log.model import NAME_BYTES_MAX, PRODUCER_INT_MAX, SEQ_BYTES_MAX, Chunk
from durable_log.protocol import request, subscriptions
from durable_log.protocol.cors import Cors
from durable_log.protocol.response import entity_tag

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "docs/openapi.yaml").read_text("utf-8"))
PAGE = (ROOT / "docs/protocol.md").read_text("utf-8")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
EXAMPLES = 500 if LONG else 20
SECONDS_MAX = 3600 if LONG else 120


def codes(value: Any) -> list[str]:
    """The codes of errors in a schema."""
    if isinstance(value, dict):
        own = value["code"].get("enum", []) if isinstance(value.get("code"), dict) else []
        return own + [code for each in value.values() for code in codes(each)]
    return [code for each in value for code in codes(each)] if isinstance(value, list) else []


def documented() -> dict[int, set[str]]:
    """The codes of each status, in the responses of all operations."""
    found: dict[int, set[str]] = {}
    for path in DOCUMENT["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items() if isinstance(operation, dict) else ():
                name = response.get("$ref", "").rpartition("/")[2]
                answer = DOCUMENT["components"]["responses"].get(name, {})
                found.setdefault(int(status), set()).update(codes(answer))
    found[405] = set(codes(DOCUMENT["components"]["responses"]["MethodNotAllowed"]))
    return {status: names for status, names in found.items() if names}


def table() -> dict[int, set[str]]:
    """Those of the page of the protocol, some as patterns."""
    rows: dict[int, set[str]] = {}
    rest = PAGE.partition("## Errors")[2]
    for statuses, cells in re.findall(r"^\| ([\d, ]+) \| (.*) \|$", rest, re.MULTILINE):
        for status in statuses.split(", "):
            named = re.findall(r"`([a-z_*]+|[A-Z_]+)`", re.sub(r"\(with [^)]*\)", "", cells))
            rows.setdefault(int(status), set()).update(named)
    return rows


def test_every_status_and_code_is_on_the_page_of_the_protocol_and_the_other_way_round():
    shown, told = table(), documented()
    assert set(told) == set(shown)
    for status, names in told.items():
        for name in names:
            assert any(fnmatch.fnmatchcase(name, pattern) for pattern in shown[status]), (status, name)
    every = set().union(*told.values())
    for status, patterns in shown.items():
        for pattern in patterns:
            assert fnmatch.filter(every if pattern.isupper() else told[status], pattern), (status, pattern)


def test_every_code_that_the_source_knows_is_in_the_document():
    source = "".join(path.read_text("utf-8") for path in (ROOT / "durable_log").rglob("*.py"))
    refusals = set(re.findall(r'Refusal\(\s*(?:\d{3}), "(\w+)"', source))
    every = set().union(*documented().values())
    assert refusals <= every
    assert len(refusals) > 30


def test_the_headers_are_those_that_browsers_may_send_and_see():
    shown = {each["name"].lower() for each in DOCUMENT["components"]["parameters"].values() if each["in"] == "header"}
    ours = {each.decode() for each in request._ONCE} - {"content-type"}
    assert shown == ours | {"if-none-match", "content-encoding"}
    headers = {
        name.lower() for answer in DOCUMENT["components"]["responses"].values() for name in answer.get("headers", {})
    }
    exposed = dict(Cors().of_all())[b"access-control-expose-headers"].decode().lower().split(", ")
    assert headers == set(exposed) | {"allow", "accept-encoding"}


def test_the_parameters_are_those_of_the_protocol():
    named = {each["name"] for each in DOCUMENT["components"]["parameters"].values() if each["in"] == "query"}
    assert named == request._PARAMETERS


def test_the_methods_are_those_of_streams():
    assert {method.upper() for method in DOCUMENT["paths"]["/v1/stream/{name}"]} - {"PARAMETERS"} == set(
        request.METHODS
    )


def schema(*path: str) -> dict[str, Any]:
    """A part of the document; what it refers to is followed."""
    found: Any = DOCUMENT["components"]
    for key in path:
        found = found[key]
        if "$ref" in found:
            found = schema(*found["$ref"].removeprefix("#/components/").split("/"))
    assert isinstance(found, dict)
    return found


def fits(text: str, *path: str) -> bool:
    """Whether the document allows that."""
    allowed = schema(*path)
    sized = allowed.get("minLength", 0) <= len(text) <= allowed.get("maxLength", len(text))
    return sized and re.search(allowed.get("pattern", ""), text) is not None


CONFIG = ("schemas", "SubscriptionConfig", "properties")
ACK = ("requestBodies", "Ack", "content", "application/json", "schema", "properties")


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        (("parameters", "Name", "schema"), NAME_BYTES_MAX),
        (("parameters", "Id", "schema"), subscriptions.ID_BYTES_MAX),
        (("parameters", "StreamSeq", "schema"), SEQ_BYTES_MAX),
        (("parameters", "ProducerId", "schema"), NAME_BYTES_MAX),
        (("schemas", "StreamPath"), NAME_BYTES_MAX),
        ((*CONFIG, "pattern"), NAME_BYTES_MAX),
        ((*CONFIG, "wake_stream"), NAME_BYTES_MAX),
        ((*CONFIG, "webhook", "properties", "url"), subscriptions.TEXT_BYTES_MAX),
        ((*CONFIG, "description"), subscriptions.TEXT_BYTES_MAX),
        ((*ACK, "wake_id"), subscriptions.ID_BYTES_MAX),
    ],
)
def test_the_limits_of_texts_are_those_of_the_source(path: tuple[str, ...], limit: int):
    assert schema(*path)["maxLength"] == limit
    assert fits("A" * limit, *path)


def test_the_limits_of_numbers_are_those_of_the_source():
    for header in ("StreamTtl", "StreamForkSubOffset", "ProducerEpoch", "ProducerSeq"):
        assert [
            text for text in ("0", "42", str(PRODUCER_INT_MAX)) if not fits(text, "parameters", header, "schema")
        ] == []
        assert [text for text in ("", "-1", "042", "1e3") if fits(text, "parameters", header, "schema")] == []
    lease = schema(*CONFIG, "lease_ttl_ms")
    assert (lease["minimum"], lease["maximum"]) == (subscriptions.LEASE_MS_MIN, subscriptions.LEASE_MS_MAX)


@pytest.mark.parametrize(
    ("path", "allowed", "refused"),
    [
        (
            ("parameters", "StreamForkedFrom", "schema"),
            ["/v1/stream/chats/7", "/v1/stream/chats%2F7", "/v1/stream/A-1_~!"],
            ["", "chats/7", "/v1/stream/", "/v1/stream/a?b", "/v1/stream/a#b", "/v1/stream/a b"],
        ),
        (("schemas", "StreamPath"), ["Wake-1", "chats/7", "a b/\u00e9"], [""]),
        ((*CONFIG, "pattern"), ["**", "Chats/*", "a-b/**/c d"], ["", "cha*", "a/***"]),
        (("parameters", "IfNoneMatch", "schema"), ["*", '"a"', 'W/"a:t", "b:c"'], ["", "a", '"a" "b"']),
    ],
)
def test_what_the_server_takes_the_document_allows(path: tuple[str, ...], allowed: list[str], refused: list[str]):
    assert [text for text in allowed if not fits(text, *path)] == []
    assert [text for text in refused if fits(text, *path)] == []


@pytest.mark.parametrize(("up_to_date", "closed"), [(False, False), (True, False), (True, True)])
def test_a_client_may_send_every_entity_tag_back(up_to_date: bool, closed: bool):
    tag = entity_tag("0a1b2c3d", 7, Chunk(b"abc", 0, 3, up_to_date, closed))
    assert fits(tag.decode(), "parameters", "IfNoneMatch", "schema")


@pytest.fixture
def filled(tmp_path: Path):
    """A server that holds what the requests are about."""
    with attacked(tmp_path, COMMAND.replace("timeout 0.5", "timeout 0.02")) as server:
        server.put("text", b"some text")
        server.put("messages", b'[{"a":1},{"a":2}]', "application/json")
        server.put("bytes", bytes(range(256)), "application/octet-stream")
        config = {"type": "pull-wake", "pattern": "**", "wake_stream": "wake"}
        assert server.http.put("/__ds/subscriptions/digest", json=config).status_code == 201
        yield server


def test_the_server_keeps_to_the_document_whatever_it_is_sent(filled: Attacked, tmp_path: Path):
    command = [
        *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
        *("run", str(ROOT / "docs/openapi.yaml"), "--url", filled.url, "--checks", CHECKS, "--mode", "all"),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES), "--seed", str(SEED)),
        *("--workers", "1", "--no-color", "--generation-database", "none", "--suppress-health-check", "all"),
    ]
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "schema_hooks", "PYTHONPATH": str(Path(__file__).parent)}
    run = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=SECONDS_MAX, check=False
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert re.search(r"Tested: 19\n", run.stdout), run.stdout[-3000:]
    print(run.stdout[-1500:])
