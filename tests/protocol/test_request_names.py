"""Paths and the streams that they name."""

from __future__ import annotations

import pytest

from durable_log.protocol.names import Mount, stream_name
from durable_log.protocol.refusal import Refusal


@pytest.mark.parametrize(
    ("path", "root", "prefix", "name"),
    [
        (b"/a/b", "", "", "a/b"),
        (b"/a%2Fb", "", "", "a/b"),
        (b"/a%2fb", "", "", "a/b"),
        (b"/v1/stream/a", "", "/v1/stream", "a"),
        (b"/v1/stream/a", "", "/v1/stream/", "a"),
        (b"/v1%2Fstream/a", "", "/v1/stream", "a"),
        (b"/ds/a", "/ds", "", "a"),
        (b"/ds/a", "/ds/", "", "a"),
        (b"/a", "/ds", "", "a"),
        (b"/dsx/a", "/ds", "", "dsx/a"),
        (b"/ds/v1/stream/a/b", "/ds", "/v1/stream", "a/b"),
        (b"/v1/stream/a", "/ds", "/v1/stream", "a"),
        (b"//a", "", "", "/a"),
        (b"/a/", "", "", "a/"),
        (b"/a%2525", "", "", "a%25"),
        (b"/%E2%82%AC", "", "", "€"),
        ("/€".encode(), "", "", "€"),
        (b"/" + b"n" * 1024, "", "", "n" * 1024),
        (b"/x/__ds", "", "", "x/__ds"),
        (b"/__dsx", "", "", "__dsx"),
    ],
)
def test_a_path_names_a_stream_wherever_the_application_is_mounted(path: bytes, root: str, prefix: str, name: str):
    assert stream_name(path, Mount(root, prefix)) == name


@pytest.mark.parametrize(
    ("path", "outer", "root", "name"),
    [
        (b"/out/v1/s", "/out", "/out/v1", "s"),
        (b"/v1/s", "/out", "/out/v1", "s"),
        (b"/v1/v1/s", "/out", "/out/v1", "v1/s"),
        (b"/v1/out/v1/s", "/out", "/out/v1", "out/v1/s"),
        (b"/v1/s", "/out/", "/out//v1", "s"),
        (b"/out/v1/s", "/out/", "/out//v1", "s"),
        (b"/v1/s", "", "/v1", "s"),
        (b"/out/s", "/out", "/out", "s"),
        (b"/s", "/out", "/out", "s"),
        (b"/s", "/ou", "/out", "s"),
        (b"/s", "/elsewhere", "/out", "s"),
    ],
)
def test_a_path_may_lack_what_was_there_before_the_mount(path: bytes, outer: str, root: str, name: str):
    assert stream_name(path, Mount.below(outer, root, "")) == name


@pytest.mark.parametrize("path", [b"/s", b"/out/s", b"/v1", b"/v1s/s", b"/out/v1s/s", b"/stream/s", b"*"])
def test_a_path_that_lacks_more_than_was_there_before_the_mount_is_refused(path: bytes):
    with pytest.raises(Refusal, match="streams are at /out/v1/<name>"):
        stream_name(path, Mount.below("/out", "/out/v1", ""))


@pytest.mark.parametrize(
    ("path", "root", "prefix", "status", "code"),
    [
        (b"", "", "", 404, "not_found"),
        (b"/", "", "", 404, "not_found"),
        (b"*", "", "", 404, "not_found"),
        (b"/ds", "/ds", "", 404, "not_found"),
        (b"/ds/", "/ds", "", 404, "not_found"),
        (b"/other/a", "", "/v1/stream", 404, "not_found"),
        (b"/v1/streamer/a", "", "/v1/stream", 404, "not_found"),
        (b"/__ds", "", "", 404, "reserved"),
        (b"/__ds/subscriptions/x", "", "", 404, "reserved"),
        (b"/%5F_ds/x", "", "", 404, "reserved"),
        (b"/v1/__ds/x", "", "/v1", 404, "reserved"),
        (b"/" + b"n" * 1025, "", "", 400, "invalid_name"),
        (b"/\xff", "", "", 400, "invalid_name"),
        (b"/%FF", "", "", 400, "invalid_name"),
        (b"/%ED%A0%80", "", "", 400, "invalid_name"),
        (b"/a%", "", "", 400, "invalid_name"),
        (b"/a%2", "", "", 400, "invalid_name"),
        (b"/a%zz", "", "", 400, "invalid_name"),
    ],
)
def test_a_path_that_names_no_stream_is_refused(path: bytes, root: str, prefix: str, status: int, code: str):
    with pytest.raises(Refusal) as caught:
        stream_name(path, Mount(root, prefix))
    assert (caught.value.status, caught.value.code) == (status, code)
