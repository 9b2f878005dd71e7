"""Requests that are refused, and what they are told; requests that are nearly refused."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from receivers import Receiver
from serving import Served, serving
from worlds import World, ack_of, code, world

from durable_log import asgi
from durable_log.errors import InvalidOption

PULL = {"type": "pull-wake", "pattern": "events/*", "wake_stream": "wake/s"}
HOOK = {"type": "webhook", "pattern": "events/*", "webhook": {"url": "http://127.0.0.1:9/hook"}}


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"[]", "object"),
        (b"[" * 100_000, "JSON"),
        (b"\xff", "JSON"),
        ({}, "type"),
        (PULL | {"type": "pull"}, "type"),
        (PULL | {"type": None}, "type"),
        ({"type": "pull-wake", "wake_stream": "w"}, "pattern or streams"),
        (PULL | {"pattern": ""}, "pattern"),
        (PULL | {"pattern": "/"}, "pattern"),
        (PULL | {"pattern": 7}, "pattern"),
        (PULL | {"pattern": "agent-*"}, "star"),
        (PULL | {"pattern": "a/***"}, "star"),
        (PULL | {"pattern": "x" * 1025}, "1024"),
        (PULL | {"pattern": "\ud800"}, "Unicode"),
        (PULL | {"streams": "a"}, "array"),
        (PULL | {"streams": [7]}, "path"),
        (PULL | {"streams": [""]}, "1024"),
        (PULL | {"streams": ["__ds/keys"]}, "reserved"),
        (PULL | {"streams": ["/__ds"]}, "reserved"),
        (PULL | {"streams": ["wake/s"]}, "wake stream"),
        (PULL | {"wake_stream": None}, "wake_stream"),
        (PULL | {"wake_stream": "__ds/x"}, "reserved"),
        (PULL | {"lease_ttl_ms": 999}, "lease_ttl_ms"),
        (PULL | {"lease_ttl_ms": 600_001}, "lease_ttl_ms"),
        (PULL | {"lease_ttl_ms": 1500.5}, "lease_ttl_ms"),
        (PULL | {"lease_ttl_ms": True}, "lease_ttl_ms"),
        (PULL | {"description": 7}, "description"),
        (PULL | {"description": "x" * 4097}, "description"),
        (HOOK | {"webhook": None}, "webhook.url"),
        (HOOK | {"webhook": {"url": 7}}, "webhook.url"),
        (HOOK | {"webhook": "https://example.com"}, "webhook.url"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(at_work: World, body: Any, word: str):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = at_work.http.put(at_work.path("s"), content=raw)
    assert code(response) == (400, "INVALID_REQUEST")
    assert word in response.json()["error"]["message"]
    assert code(at_work.http.get(at_work.path("s"))) == (404, "SUBSCRIPTION_NOT_FOUND")


@pytest.mark.parametrize(
    "config",
    [
        PULL | {"lease_ttl_ms": 1000},
        PULL | {"lease_ttl_ms": 600_000, "description": ""},
        PULL | {"streams": ["b", "a", "/a"], "description": "x" * 4096},
        {"type": "pull-wake", "pattern": None, "streams": ["a"], "wake_stream": "w", "webhook": {"url": "no"}},
        PULL | {"pattern": "/**/**/x"},
        HOOK | {"wake_stream": "ignored"},
    ],
)
def test_a_configuration_at_the_limits_is_accepted_and_confirmed_again(at_work: World, config: dict[str, Any]):
    for status in (201, 200, 200):
        assert at_work.http.put(at_work.path("s"), json=config).status_code == status
    told = at_work.get("s")
    assert told["id"] == told["subscription_id"] == "s"
    assert told["status"] == "active"
    assert (told["webhook"] is None) == (config["type"] != "webhook")
    assert (told["wake_stream"] is None) == (config["type"] == "webhook")


@pytest.mark.parametrize(
    ("differently", "status"),
    [
        ({}, 200),
        ({"streams": ["b", "a", "b"]}, 200),
        ({"lease_ttl_ms": 30_000}, 200),
        ({"unknown": 1}, 200),
        ({"pattern": "events/**"}, 409),
        ({"streams": ["a"]}, 409),
        ({"lease_ttl_ms": 30_001}, 409),
        ({"description": "other"}, 409),
        ({"wake_stream": "wake/t"}, 409),
        ({"type": "webhook", "webhook": {"url": "http://localhost:1/"}}, 409),
    ],
)
def test_another_configuration_of_an_id_that_is_taken_is_refused(
    at_work: World, differently: dict[str, Any], status: int
):
    config = PULL | {"streams": ["a", "b"], "description": "one"}
    assert at_work.http.put(at_work.path("s"), json=config).status_code == 201
    before = at_work.get("s")
    response = at_work.http.put(at_work.path("s"), json=config | differently)
    assert response.status_code == status
    if status == 409:
        assert code(response) == (409, "SUBSCRIPTION_ALREADY_EXISTS")
    assert at_work.get("s") == before


@pytest.mark.parametrize(
    ("method", "path", "status", "expected"),
    [
        ("GET", "", 404, "reserved"),
        ("GET", "/subscriptions", 404, "reserved"),
        ("GET", "/subscriptions/", 404, "reserved"),
        ("GET", "/subscriptions/s/other", 404, "reserved"),
        ("DELETE", "/subscriptions/s/streams/", 404, "reserved"),
        ("POST", "/jwks.json", 405, "method_not_allowed"),
        ("POST", "/subscriptions/s", 405, "method_not_allowed"),
        ("GET", "/subscriptions/s/claim", 405, "method_not_allowed"),
        ("PUT", "/subscriptions/s/streams", 405, "method_not_allowed"),
        ("POST", "/subscriptions/s/streams/a", 405, "method_not_allowed"),
        ("PATCH", "/subscriptions/s", 405, "method_not_allowed"),
        ("GET", "/subscriptions/" + "x" * 257, 400, "INVALID_REQUEST"),
        ("GET", "/subscriptions/never", 404, "SUBSCRIPTION_NOT_FOUND"),
        ("POST", "/subscriptions/never/claim", 404, "SUBSCRIPTION_NOT_FOUND"),
        ("POST", "/subscriptions/never/streams", 404, "SUBSCRIPTION_NOT_FOUND"),
        ("DELETE", "/subscriptions/never/streams/a", 404, "SUBSCRIPTION_NOT_FOUND"),
        ("POST", "/subscriptions/s/ack", 401, "TOKEN_INVALID"),
        ("POST", "/subscriptions/s/release", 401, "TOKEN_INVALID"),
        ("POST", "/subscriptions/s/callback", 401, "TOKEN_INVALID"),
    ],
)
def test_paths_and_methods_that_are_not_there(at_work: World, method: str, path: str, status: int, expected: str):
    at_work.pull("s")
    response = at_work.http.request(method, f"{at_work.url}/__ds{path}", json={})
    assert code(response) == (status, expected)
    assert (status == 405) == ("allow" in response.headers)
    assert (status == 401) == ("www-authenticate" in response.headers)
    assert response.headers["access-control-allow-origin"] == "*"
    assert response.headers["cache-control"] == "no-store"


def test_deleting_what_is_not_there_is_as_good_as_deleting_it(at_work: World):
    for _ in range(2):
        assert at_work.http.delete(at_work.path("never")).status_code == 204


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE", "HEAD"])
@pytest.mark.parametrize("path", ["__ds/keys", "%5f%5fds/keys", "__ds%2Fkeys", "__ds"])
def test_no_stream_operation_reaches_what_is_reserved(at_work: World, method: str, path: str):
    at_work.hook("s", "http://127.0.0.1:9/hook")
    response = at_work.http.request(method, f"{at_work.url}/{path}", content=b"1", headers={"stream-closed": "true"})
    assert response.status_code == 404
    assert not at_work.store.stream("__ds/keys").info().closed


@pytest.mark.parametrize("body", [{}, {"worker": ""}, {"worker": 7}, {"worker": "x" * 257}, {"worker": None}])
def test_a_claim_says_who_claims(at_work: World, body: object):
    at_work.pull("s")
    assert code(at_work.action("s", "claim", body)) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("body", [{}, {"streams": []}, {"streams": [7]}, {"streams": ["__ds/x"]}, {"streams": "a"}])
def test_streams_that_are_added_have_names(at_work: World, body: object):
    at_work.pull("s")
    assert code(at_work.action("s", "streams", body)) == (400, "INVALID_REQUEST")
    assert at_work.cursors("s") == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"wake_id": None}, {"wake_id": 7}, {"generation": None}, {"generation": "1"}, {"generation": True},
        {"done": 1}, {"acks": {}}, {"acks": [7]}, {"acks": [{"offset": "0000000000000000_0000000000000001"}]},
        {"acks": [{"stream": "events/a"}]}, {"acks": [{"stream": "events/a", "offset": 1}]},
        {"acks": [{"stream": "__ds/x", "offset": "0000000000000000_0000000000000001"}]},
    ],
)  # fmt: skip
def test_an_ack_that_is_not_one_is_refused_and_the_claim_goes_on(at_work: World, wrong: dict[str, object]):
    at_work.pull("s")
    at_work.put("events/a", 1)
    claim = at_work.claimed("s")
    assert code(at_work.action("s", "ack", ack_of(claim) | wrong, claim["token"])) == (400, "INVALID_REQUEST")
    assert at_work.action("s", "ack", ack_of(claim), claim["token"]).is_success


def test_what_is_for_the_other_kind_is_refused(at_work: World, receiver: Receiver):
    at_work.pull("s")
    at_work.hook("t", receiver.url)
    at_work.put("events/a", 1)
    assert code(at_work.claim("t")) == (400, "INVALID_REQUEST")
    assert code(at_work.action("s", "callback", {}, at_work.claimed("s")["token"])) == (400, "INVALID_REQUEST")
    wake = receiver.delivery().wake
    for action in ("ack", "release"):
        assert code(at_work.action("t", action, {}, wake["callback_token"])) == (400, "INVALID_REQUEST")


def test_without_a_genuine_token_nobody_learns_which_subscriptions_there_are(at_work: World, receiver: Receiver):
    """The answer told ids that are there, and of which kind, from those that are not."""
    at_work.pull("pulled")
    at_work.hook("sent", receiver.url)
    for action in ("ack", "release", "callback"):
        for name in ("pulled", "sent", "never"):
            answer = at_work.action(name, action, {}, "token")
            assert code(answer) == (401, "TOKEN_INVALID")
            assert answer.text.replace(name, "") == at_work.action("other", action, {}, "x").text.replace("other", "")


def test_a_body_beyond_the_limit_is_refused(at_work: World):
    assert at_work.http.put(at_work.path("s"), content=b" " * (2**20 + 1)).status_code == 413


@pytest.mark.parametrize("host", ["a b", "a/b", "a@b", "", "a?b", "[::1", "a\\b"])
def test_the_address_that_webhooks_are_told_of_is_an_address(at_work: World, host: str):
    response = at_work.http.put(at_work.path("s"), json=PULL, headers={"host": host})
    assert response.status_code == 400
    assert code(at_work.http.get(at_work.path("s")))[0] == 404


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/hook", "http://example.com/", "https://localhost/", "https://127.0.0.1/", "https://10.0.0.1/x",
        "https://169.254.169.254/latest/meta-data", "ftp://example.com/", "https://user@example.com/", "no url",
    ],
)  # fmt: skip
def test_a_webhook_that_is_not_allowed_is_refused(at_work: World, url: str):
    assert code(at_work.hook("s", url)) == (400, "WEBHOOK_URL_REJECTED")
    assert code(at_work.http.get(at_work.path("s")))[0] == 404


def test_without_development_nothing_on_this_machine_is_allowed(receiver: Receiver):
    with world(webhook_development=False) as running:
        assert code(running.hook("s", receiver.url)) == (400, "WEBHOOK_URL_REJECTED")


def test_with_a_list_of_hosts_no_others_are_allowed(receiver: Receiver):
    with world(webhook_hosts=frozenset(("127.0.0.1",))) as running:
        assert running.hook("s", receiver.url).status_code == 201
        assert code(running.hook("t", receiver.url.replace("127.0.0.1", "localhost"))) == (400, "WEBHOOK_URL_REJECTED")


def test_without_the_extra_a_webhook_is_told_what_to_install_and_workers_are_woken(
    at_work: World, monkeypatch: pytest.MonkeyPatch
):
    import durable_log._subscriptions as package

    for missing in ("durable_log._subscriptions.posting", "cryptography.hazmat.primitives.asymmetric"):
        with monkeypatch.context() as hidden:
            hidden.delattr(package, "posting", raising=False)
            hidden.setitem(sys.modules, missing, None)
            refused = at_work.hook("s", "http://127.0.0.1:9/hook")
            assert code(refused) == (501, "WEBHOOKS_UNAVAILABLE")
            assert "durable-log[subscriptions]" in refused.json()["error"]["message"]
    at_work.pull("t")
    at_work.put("events/a", 1)
    claim = at_work.claimed("t")
    assert at_work.action("t", "ack", ack_of(claim), claim["token"]).is_success


@pytest.mark.parametrize(
    "wrong",
    [
        {"webhook_seconds": 0}, {"webhook_seconds": -1}, {"webhooks_at_once": 0}, {"public_url": "streams.example"},
        {"webhook_hosts": frozenset(("Hooks.example",))}, {"signing_key": b""}, {"signing_key": b"-----BEGIN KEY-----"},
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_meant_is_refused(wrong: dict[str, Any]):
    with pytest.raises(InvalidOption):
        asgi.Subscriptions(**wrong)


def test_a_signing_key_needs_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    with pytest.raises(InvalidOption, match=r"durable-log\[subscriptions\]"):
        asgi.Subscriptions(signing_key=b"key")


@pytest.fixture(scope="module")
def without() -> Any:
    with serving(subscriptions=None) as running:
        yield running


@pytest.mark.parametrize("path", ["/__ds/subscriptions/s", "/__ds/jwks.json", "/__ds/x"])
def test_an_application_can_do_without_subscriptions(without: Served, path: str):
    response = without.http.get(path)
    assert code(response) == (404, "reserved")


@pytest.mark.parametrize(
    ("settings", "root"),
    [
        ({"prefix": "/v1/stream"}, "/v1/stream"),
        ({"root": "/mount"}, "/mount"),
        ({"root": "/mö unt", "prefix": "/v1"}, "/m%C3%B6%20unt/v1"),
    ],
)
def test_addresses_are_those_that_the_client_used(settings: dict[str, str], root: str, receiver: Receiver):
    app = {"prefix": settings["prefix"]} if "prefix" in settings else {}
    if "root" in settings:
        from starlette.applications import Starlette
        from starlette.routing import Mount

        mount = settings["root"]
        app["wrap"] = lambda inner: Starlette(routes=[Mount(mount, inner)])
    with world(app=app) as running:
        running.url = f"http://localhost:{running.served.port}{root}"
        signing = running.hook("a b", receiver.url).json()["webhook"]["signing"]
        assert running.http.get(signing["jwks_url"]).json()["keys"][0]["kid"] == signing["kid"]
        running.put("events/a", 1)
        wake = receiver.delivery().wake
        assert wake["callback_url"] == f"{running.url}/__ds/subscriptions/a%20b/callback"
        token = {"authorization": f"Bearer {wake['callback_token']}"}
        assert running.http.post(wake["callback_url"], json=ack_of(wake), headers=token).is_success


def test_a_public_address_is_told_instead_if_there_is_one(receiver: Receiver):
    with world(public_url="https://streams.example/v1/") as running:
        signing = running.hook("s", receiver.url).json()["webhook"]["signing"]
        assert signing["jwks_url"] == "https://streams.example/v1/__ds/jwks.json"
        running.put("events/a", 1)
        assert receiver.delivery().wake["callback_url"] == "https://streams.example/v1/__ds/subscriptions/s/callback"
