"""Paths that would be files, control APIs or other streams if somebody were careless: each is one name, or refused."""

from __future__ import annotations

import os
import re
from itertools import product
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

import pytest
from attacked import LONG, ROOT, Attacked, attacked, seeded

ESCAPES = (
    "../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/etc/passwd",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "%252e%252e%252fetc",
    "..\\..\\etc",
    "..%5c..%5cetc",
    "....//....//etc",
    "./././a",
    "a/../b",
    "/etc/passwd",
    "//etc/passwd",
    "%2fetc%2fpasswd",
    "C:%5cWindows",
    "file:%2f%2f%2fetc%2fpasswd",
    "a%00b",
    "a%0d%0aSet-Cookie:%20x=y",
    "a%0ab",
    "~root",
    "%24%7bHOME%7d",
    "MANIFEST",
    "LOCK",
    "log/00000001.log",
    "CON",
    "a.",
    "a/",
    "a//",
    "a//b",
    "%20",
    "%20a%20",
    "%e2%80%ae",
    "e%cc%81",
    "%c3%a9",
    "%f0%9f%92%a9",
    "%ef%bb%bf",
    "healthz",
    ";a=b",
    "a;b=c/d",
    "a+b",
    "-1",
    "now",
)
"""Names like any other: what is stored by such a path is found by it again, and nowhere else."""

REFUSED = (
    ("", 404),
    ("%", 400),
    ("%2", 400),
    ("a%zz", 400),
    ("%u0041", 400),
    ("%c0%ae%c0%ae%c0%af", 400),  # overlong
    ("%e0%80%af", 400),
    ("%f8%80%80%80%af", 400),
    ("%ed%a0%80", 400),  # a surrogate
    ("%f4%90%80%80", 400),  # beyond Unicode
    ("%ff%fe", 400),
    ("a" * 1025, 400),
    ("%61" * 1025, 400),
    ("a" * 8192, 400),
    ("%c3%a4" * 513, 400),
)

SEGMENT = re.compile(r"[0-9a-f]{8}\.log(\.tmp)?")


def put(server: Attacked, path: str) -> int:
    """As it stands here, as no client would send it."""
    head = f"PUT {ROOT}/{path} HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\n"
    body = unquote_to_bytes(path)
    return server.replies(head.encode("latin-1") + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))[0]


def get(server: Attacked, path: str) -> tuple[int, bytes]:
    with server.raw(f"GET {ROOT}/{path} HTTP/1.1\r\nHost: h\r\n\r\n".encode("latin-1")) as client:
        status, _, body = client.response()
        return status, body


def tree(directory: Path) -> set[str]:
    """All that is there but the segments of the log: a spare one may come at any moment."""
    found = {path for path in directory.rglob("*") if not SEGMENT.fullmatch(path.name)}
    return {str(path.relative_to(directory)) for path in found}


def test_each_odd_path_is_one_stream_and_no_file(tmp_path: Path):
    (tmp_path / "inside").mkdir()
    with attacked(tmp_path / "inside") as server:
        before = tree(tmp_path)
        for path in ESCAPES:
            assert put(server, path) in (200, 201), path  # some are the same name in another spelling
        for path in ESCAPES:
            assert get(server, path) == (200, unquote_to_bytes(path)), path
        assert tree(tmp_path) == before
    assert server.log().count("\n") == 1


@pytest.mark.parametrize(("path", "status"), REFUSED)
def test_a_path_that_is_no_name_is_refused_and_stores_nothing(server: Attacked, path: str, status: int):
    before = server.figures()
    assert put(server, path) == status
    assert get(server, path)[0] == status
    assert server.figures() == before


def spellings(text: str) -> list[str]:
    """Every way to escape some of its characters."""
    return ["".join(parts) for parts in product(*((each, f"%{ord(each):02x}", f"%{ord(each):02X}") for each in text))]


def test_no_spelling_of_the_reserved_segment_reaches_a_stream(server: Attacked):
    body = b'{"type":"pull-wake","pattern":"a/*","wake_stream":"wake"}'
    assert server.http.put("/__ds/subscriptions/kept", content=body).status_code == 201
    before = server.figures()
    described = server.http.get("/__ds/subscriptions/kept").json()
    reserved = sorted(set(spellings("__ds")))
    text = b"".join(
        f"{method} {ROOT}/{segment}{rest} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n".encode()
        for segment in reserved
        for rest in ("", "/", "%2f", "/secrets", "%2Fsubscriptions", "//subscriptions/kept")
        for method in ("PUT", "POST", "GET", "HEAD", "DELETE")
    )
    requests = text.split(b"PUT ")
    for some in range(1, len(requests), 10):  # no more ahead than a connection may send
        statuses = server.replies(b"".join(b"PUT " + each for each in requests[some : some + 10]))
        assert set(statuses[:-1]) <= {404, 405}, statuses
    assert server.figures() == before
    assert server.http.get("/__ds/subscriptions/kept").json() == described


@pytest.mark.parametrize("path", ["__DS", "__ds2", "_%5fdS", "a/__ds/b", "%5f_ds%00", "__ds%20", "%2f__ds/x"])
def test_what_only_looks_like_it_is_a_name_like_any_other(server: Attacked, path: str):
    assert put(server, path) == 201
    assert get(server, path) == (200, unquote_to_bytes(path))


@pytest.mark.parametrize("source", ["__ds", "%5f%5fds/secrets", "%5F_ds%2fsubscriptions%2fkept"])
def test_nothing_reserved_can_be_forked(server: Attacked, source: str):
    answer = server.http.put("/fork", headers={"stream-forked-from": f"{ROOT}/{source}"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "reserved")


def test_any_bytes_are_a_name_or_a_refusal(server: Attacked):
    numbers = seeded("paths")
    for _ in range(5_000 if LONG else 200):
        raw = numbers.randbytes(numbers.choice((1, 2, 5, 40)))
        path = "".join(f"%{each:02x}" for each in raw)
        status = put(server, path)
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            assert status == 400, path
            continue
        assert status in ((404,) if name == "__ds" or name.startswith("__ds/") else (200, 201, 409)), path
        assert get(server, quote(name, safe=""))[0] == 200


def test_no_file_of_the_store_is_served(server: Attacked):
    data = server._directory / "data"
    for file in sorted(data.rglob("*")):
        relative = os.path.relpath(file, data)
        for path in (relative, str(file), f"../data/{relative}", f"..%2fdata%2f{quote(relative, safe='')}"):
            assert get(server, path)[0] == 404, path
