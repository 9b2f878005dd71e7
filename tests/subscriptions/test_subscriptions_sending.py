"""Where webhooks are sent: to addresses that were checked, whatever a name stands for a moment later."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from receivers import Receiver

from durable_log import asgi
from durable_log._subscriptions import posting, webhooks
from durable_log._subscriptions.webhooks import DeliveryFailed, Webhooks
from durable_log.protocol.refusal import Refusal

PUBLIC = "93.184.215.14"
DEVELOPMENT = asgi.Subscriptions(webhook_development=True)


class Names:
    """A resolver that gives one answer after the other, the last for ever."""

    def __init__(self, *answers: Sequence[str] | OSError) -> None:
        self._answers, self.asked = list(answers), list[tuple[str, int]]()

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, OSError):
            raise answer
        return answer


def send(hooks: Webhooks, url: str) -> bool:
    return asyncio.run(hooks.send(url, b"{}", lambda _: b"signature"))


@pytest.mark.parametrize(
    "addresses",
    [
        ["10.0.0.1"],
        ["127.0.0.1"],
        ["169.254.169.254"],
        ["::1"],
        ["::ffff:10.0.0.1"],
        ["fe80::1%1"],
        [PUBLIC, "10.0.0.1"],
    ],
)
def test_a_name_that_stands_for_something_local_is_refused_when_it_is_set_up(
    addresses: list[str], caplog: pytest.LogCaptureFixture
):
    """For what, is for the log: who sets it up need not know the addresses of a network that is not theirs."""
    names = Names(addresses)
    with pytest.raises(Refusal, match=r"hooks\.example stands for what is no public address") as refused:
        asyncio.run(Webhooks(asgi.Subscriptions(), names).check("https://hooks.example:8443/x"))
    assert refused.value.code == "WEBHOOK_URL_REJECTED"
    assert addresses[-1] not in refused.value.message
    assert f"'hooks.example' stands for {addresses[-1]}, which is no public address" in caplog.text
    assert names.asked == [("hooks.example", 8443)]


def test_a_name_that_stands_for_nothing_is_refused_when_it_is_set_up():
    for answer in (OSError(-2, "Name or service not known"), ()):
        with pytest.raises(Refusal) as refused:
            asyncio.run(Webhooks(asgi.Subscriptions(), Names(answer)).check("https://hooks.example/"))
        assert refused.value.code == "WEBHOOK_URL_REJECTED"


def test_a_resolver_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(webhooks, "RESOLVE_SECONDS", 0.05)

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        await asyncio.sleep(3600)
        raise AssertionError

    with pytest.raises(Refusal, match=r"within 0\.05 s"):
        asyncio.run(Webhooks(asgi.Subscriptions(), resolve).check("https://hooks.example/"))


def test_names_that_are_looked_up_for_long_keep_no_read_of_the_store_waiting(monkeypatch: pytest.MonkeyPatch):
    """Both had the loop's threads. No more names are looked up at once than may be, and later ones have their turn."""
    answers, asked = threading.Event(), []

    def look_up(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        asked.append(host)
        assert answers.wait(60)
        return [(None, None, None, "", (PUBLIC, 443))]

    async def work() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        hooks = Webhooks(asgi.Subscriptions())
        checks = [hooks.check(f"https://hooks{number}.example/") for number in range(webhooks.LOOKUPS_AT_ONCE + 3)]
        refusals = await asyncio.gather(*checks, return_exceptions=True)
        assert {type(refusal) for refusal in refusals} == {Refusal}
        assert len(asked) == webhooks.LOOKUPS_AT_ONCE
        try:
            assert await asyncio.wait_for(loop.run_in_executor(None, lambda: "read"), 10) == "read"
        finally:
            answers.set()
        monkeypatch.setattr(webhooks, "RESOLVE_SECONDS", 60)
        for number in range(2 * webhooks.LOOKUPS_AT_ONCE):
            await hooks.check(f"https://later{number}.example/")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(webhooks, "RESOLVE_SECONDS", 0.05)
    asyncio.run(work())


def test_a_name_that_is_looked_up_for_long_keeps_no_other_from_being_looked_up(monkeypatch: pytest.MonkeyPatch):
    """Each look-up of it took a turn."""
    answers, asked = threading.Event(), []

    def look_up(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        asked.append(host)
        if host == "slow.example":
            assert answers.wait(60)
        return [(None, None, None, "", (PUBLIC, 443))]

    async def work() -> None:
        hooks = Webhooks(asgi.Subscriptions())
        monkeypatch.setattr(webhooks, "RESOLVE_SECONDS", 0.05)
        slow = [hooks.check("https://slow.example/") for _ in range(webhooks.LOOKUPS_AT_ONCE + 3)]
        refusals = await asyncio.gather(*slow, return_exceptions=True)
        assert {type(refusal) for refusal in refusals} == {Refusal}
        monkeypatch.setattr(webhooks, "RESOLVE_SECONDS", 60)
        later = asyncio.ensure_future(hooks.check("https://slow.example/"))
        try:
            await asyncio.wait_for(hooks.check("https://hooks.example/"), 10)
        finally:
            answers.set()
        await later
        await hooks.check("https://slow.example/")
        assert asked == ["slow.example", "hooks.example", "slow.example"]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    asyncio.run(work())


def test_a_name_that_can_not_be_looked_up_is_refused_and_keeps_no_turn(monkeypatch: pytest.MonkeyPatch):
    failures = [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long")]

    def fail(*_: object, **__: object) -> None:
        raise failures[0]

    async def work() -> None:
        hooks = Webhooks(asgi.Subscriptions())
        while failures:
            for _ in range(webhooks.LOOKUPS_AT_ONCE + 1):
                with pytest.raises(Refusal, match=str(failures[0].args[-1])):
                    await hooks.check("https://hooks.example/")
            failures.pop(0)

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    asyncio.run(work())


def test_a_name_that_stands_for_something_else_later_is_refused_then(monkeypatch: pytest.MonkeyPatch):
    hooks = Webhooks(asgi.Subscriptions(), Names([PUBLIC], ["127.0.0.1"]))
    connected: list[object] = []
    monkeypatch.setattr(posting, "_Pinned", connected.append)
    asyncio.run(hooks.check("https://hooks.example/"))
    with pytest.raises(DeliveryFailed, match="what is no public address"):
        send(hooks, "https://hooks.example/")
    assert connected == []


def test_a_name_for_development_that_stands_for_another_machine_is_refused():
    with pytest.raises(Refusal, match="no loopback address"):
        asyncio.run(Webhooks(DEVELOPMENT, Names([PUBLIC])).check("http://localhost/"))


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(receiver: Receiver):
    """The name would be looked up anew by whoever connects by name."""
    names = Names(["127.0.0.1"], ["127.0.0.9"])
    url = receiver.url.replace("127.0.0.1", "localhost")
    assert send(Webhooks(DEVELOPMENT, names), url) is False
    assert len(names.asked) == 1
    assert receiver.delivery().headers["host"] == url.split("/")[2]
    with pytest.raises(DeliveryFailed):
        send(Webhooks(DEVELOPMENT, names), url)


def test_the_next_address_is_tried_when_one_does_not_answer(receiver: Receiver):
    hooks = Webhooks(DEVELOPMENT, Names(["127.0.0.9", "127.0.0.1"]))
    send(hooks, receiver.url.replace("127.0.0.1", "localhost"))
    assert len(receiver.deliveries) == 1


def certificate(directory: Path, name: str) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.timezone.utc)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = directory / "certificate.pem"
    path.write_bytes(plain + made.public_bytes(pem))
    return path


class TlsHandler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the interface
        pass


class QuietServer(HTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that trusts nobody here has left."""


def test_certificates_are_verified_for_the_name_though_an_address_is_connected_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = certificate(tmp_path, "hooks.example")
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(path)
    server = QuietServer(("127.0.0.1", 0), TlsHandler)
    server.socket = server_side.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        monkeypatch.setattr(webhooks, "is_public", lambda _: True)
        hooks, port = Webhooks(asgi.Subscriptions(), Names(["127.0.0.1"])), server.server_port
        with pytest.raises(DeliveryFailed, match="CERTIFICATE_VERIFY_FAILED"):
            send(hooks, f"https://hooks.example:{port}/")
        trusting = ssl.create_default_context(cafile=path)
        monkeypatch.setattr(posting, "_tls", lambda: trusting)
        send(hooks, f"https://hooks.example:{port}/")
        with pytest.raises(DeliveryFailed, match=r"other\.example"):
            send(hooks, f"https://other.example:{port}/")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
