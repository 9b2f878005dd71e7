"""durable-log serve: who may do what, what it tells those who run it, and what it tells nobody."""

from __future__ import annotations

import json
import socket
import time

import jwt
import pytest
from cli_processes import SECONDS_MAX
from cryptography.hazmat.primitives.asymmetric import ec

from durable_log.access import ReadUrls

KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def files(tmp_path):
    """Tokens, keys and secrets, each in a file."""
    key = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(KEY.public_key())) | {"kid": "k"}
    (tmp_path / "tokens").write_text("s3cret-admin\ns3cret-viewer read chat/**\n")
    (tmp_path / "tokens").chmod(0o600)
    (tmp_path / "jwks").write_text(json.dumps({"keys": [key]}))
    (tmp_path / "secrets").write_text("s3cret-s3cret-new\ns3cret-s3cret-old\n")
    return tmp_path


def ask(server, method, path, token=None, body=None):
    headers = {"Content-Type": "text/plain"} if body else {}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return server.request(method, path, body, headers)


def status(*arguments):
    return ask(*arguments)[0]


CHAT = "/v1/stream/chat/1"


def test_tokens_say_who_may_do_what(serve, files):
    server = serve("store", 0, "--tokens", "tokens")
    assert status(server, "PUT", CHAT, None, b"text") == 401
    assert status(server, "PUT", CHAT, "s3cret-viewer", b"text") == 403
    assert status(server, "PUT", CHAT, "s3cret-admin", b"text") == 201
    assert ask(server, "GET", CHAT, "s3cret-viewer")[2] == b"text"
    assert status(server, "GET", "/v1/stream/other", "s3cret-viewer") == 403
    (files / "tokens").write_text("s3cret-fresh read\n")
    assert status(server, "GET", CHAT, "s3cret-fresh") == 200
    assert status(server, "GET", CHAT, "s3cret-admin") == 401


def test_web_tokens_and_signed_urls_are_accepted_beside_them(serve, files):
    options = ("--tokens", "tokens", "--jwks", "jwks", "--jwt-audience", "chats", "--url-secrets", "secrets")
    server = serve("store", 0, *options)
    claims = {"exp": time.time() + 60, "aud": "chats", "streams": "write chat/**"}
    signed = jwt.encode(claims, KEY, "ES256", {"kid": "k"})
    assert status(server, "PUT", CHAT, signed, b"text") == 201
    assert status(server, "GET", CHAT, signed) == 403
    other = jwt.encode(claims | {"aud": "others"}, KEY, "ES256", {"kid": "k"})
    assert status(server, "PUT", CHAT, other, b"text") == 401
    for secret in (b"s3cret-s3cret-new", b"s3cret-s3cret-old"):
        query = ReadUrls(secret).sign("chat/1", seconds=60)
        assert status(server, "GET", f"{CHAT}?{query}&offset=-1") == 200
        assert status(server, "DELETE", f"{CHAT}?{query}") == 403
    assert status(server, "GET", f"{CHAT}?{ReadUrls(b'another secret...').sign('chat/1', seconds=60)}") == 403


@pytest.mark.parametrize("command", [("cat",), ("tail",), ("tail", "-f")])
def test_a_stream_is_read_by_its_url_with_a_token(run, serve, files, command):
    server = serve("store", 0, "--tokens", "tokens")
    ask(server, "PUT", CHAT, "s3cret-admin", b"text")
    server.request("POST", CHAT, None, {"Authorization": "Bearer s3cret-admin", "Stream-Closed": "true"})
    shown = run(*command, server.url + "chat/1", DURABLE_LOG_TOKEN="s3cret-viewer")
    assert (shown.returncode, shown.stdout) == (0, b"text")
    refused = run(*command, server.url + "chat/1", DURABLE_LOG_TOKEN="s3cret-wrong")
    assert refused.returncode == 1
    assert b"HTTP 401" in refused.stderr
    assert b"s3cret" not in refused.stderr
    assert b"HTTP 401" in run(*command, server.url + "chat/1").stderr


def test_metrics_need_a_token_and_health_does_not(serve, files):
    server = serve("store", 0, "--tokens", "tokens", "--metrics")
    assert status(server, "GET", "/metrics") == 401
    assert status(server, "GET", "/metrics", "s3cret-viewer") == 403
    _, headers, body = ask(server, "GET", "/metrics", "s3cret-admin")
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"\ndurable_log_streams 0.0\n" in body
    assert ask(server, "GET", "/healthz")[::2] == ask(server, "GET", "/readyz")[::2] == (200, b'{"status":"ok"}\n')


def test_without_the_option_there_are_no_metrics(serve):
    assert status(serve(), "GET", "/metrics") == 404


def test_nothing_that_is_logged_holds_a_secret(serve, files):
    options = ("--tokens", "tokens", "--jwks", "jwks", "--url-secrets", "secrets", "--access-log", "json")
    server = serve("store", 0, *options)
    query = ReadUrls(b"s3cret-s3cret-new").sign("chat/1", seconds=60)
    signed = jwt.encode({"exp": time.time() + 60, "streams": "read"}, KEY, "ES256", {"kid": "k"})
    told = [
        status(server, "PUT", CHAT, "s3cret-admin", b"text"),
        status(server, "GET", CHAT, "s3cret-wrong"),
        status(server, "GET", f"{CHAT}?{query}"),
        status(server, "GET", f"{CHAT}?{query}&offset=wrong"),
        status(server, "GET", f"{CHAT}?{query}x"),
        status(server, "GET", CHAT, signed),
        status(server, "GET", CHAT, signed[:-4]),
    ]
    with socket.create_connection(("127.0.0.1", server.port), SECONDS_MAX) as connection:
        lines = (f"GET {CHAT}?{query} HTTP/1.1", "Authorization: Bearer s3cret-admin", "broken", "", "")
        connection.sendall("\r\n".join(lines).encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")
    (files / "tokens").write_text("s3cret-admin s3cret-typo\n")
    told.append(status(server, "GET", CHAT, "s3cret-admin"))
    assert server.stop() == 0
    stdout, stderr = server.process.communicate()
    lines = [json.loads(line) for line in stdout.splitlines()]
    assert [line["status"] for line in lines] == told == [201, 401, 200, 400, 403, 200, 401, 200]
    assert {line["stream"] for line in lines} == {"chat/1", None}
    assert b"tokens: line 1: there is something that is no action" in stderr
    output = (stdout + stderr).decode()
    for secret in ("s3cret", query, query.rpartition("=")[2], signed, signed.split(".")[2]):
        assert secret not in output


def test_a_line_is_written_when_an_event_stream_is_over(serve):
    server = serve("store", 0, "--access-log", "json")
    server.put("s", b"text")
    server.post("s", b"more", **{"Stream-Closed": "true"})
    body = server.get("s", "?offset=-1&live=sse")
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.process.stdout.read().splitlines()]
    assert (lines[-1]["live"], lines[-1]["bytes_out"]) == ("sse", len(body))


def test_pages_of_named_origins_may_use_it(serve):
    server = serve("store", 0, "--cors-origin", "https://a.example", "--cors-origin", "https://b.example")
    for origin, allowed in (("https://b.example", "https://b.example"), ("https://c.example", None)):
        headers = server.request("OPTIONS", CHAT, None, {"Origin": origin})[1]
        assert headers.get("access-control-allow-origin") == allowed
    assert "access-control-allow-headers" not in serve("two", 0, "--cors-origin", "none").request("OPTIONS", CHAT)[1]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--tokens", "missing"), 1, "missing cannot be read: No such file or directory"),
        (("--tokens", "jwks"), 1, "jwks: the last line has no end"),
        (("--jwks", "tokens"), 1, "tokens: "),
        (("--jwks", "http://127.0.0.1:1/keys?s3cret"), 1, "the keys at http://127.0.0.1:1/keys can't be had"),
        (("--jwks", "jwks", "--jwt-algorithm", "HS256"), 1, "algorithms are some of "),
        (("--jwt-issuer", "me"), 2, "--jwt-algorithm, --jwt-audience and --jwt-issuer go with --jwks"),
        (("--url-secrets", "missing"), 1, "missing cannot be read"),
        (("--url-secrets", "empty"), 1, "there is no secret in it"),
        (("--url-secrets", "short"), 1, "secrets are 16 bytes at least, not 12"),
        (("--cors-origin", "a.example"), 1, "an origin is scheme://host[:port]"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_served(run, files, options, code, said):
    (files / "empty").write_text("\n")
    (files / "short").write_text("s3cret-s3cre\n")
    refused = run("serve", "--data", "store", "--port", 0, *options)
    message = refused.stderr.decode()
    assert (refused.returncode, refused.stdout) == (code, b"")
    assert said in message
    assert "s3cret" not in message
    assert "Traceback" not in message
