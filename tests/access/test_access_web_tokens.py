"""JSON Web Tokens: which keys, algorithms and claims count, and where keys come from."""

from __future__ import annotations

import asyncio
import base64
import hmac
import http.server
import json
import logging
import os
import threading
import time

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from durable_log.access import Allow, JsonWebTokens, Request
from durable_log.errors import InvalidOption

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
ED = ed25519.Ed25519PrivateKey.generate()
STRANGER = ec.generate_private_key(ec.SECP256R1())

ALGORITHMS = {"rsa": jwt.algorithms.RSAAlgorithm, "p256": jwt.algorithms.ECAlgorithm, "ed": jwt.algorithms.OKPAlgorithm}


def public(kind, key, **more):
    return json.loads(ALGORITHMS[kind].to_jwk(key.public_key())) | more


KEYS = [public("rsa", RSA, kid="r"), public("p256", P256, kid="e"), public("ed", ED, kid="d")]


def document(*keys):
    return json.dumps({"keys": list(keys or KEYS)})


def token(key=RSA, algorithm="RS256", kid="r", **claims):
    claims = {"exp": time.time() + 86_400, "streams": ["read chat/**"]} | claims
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, key, algorithm, headers)


async def answer_to(hook, text, action="read", name="chat/1"):
    return await hook(Request(action, name, "GET", headers={"authorization": f"Bearer {text}"}))


def answer(hook, text, action="read", name="chat/1"):
    return asyncio.run(answer_to(hook, text, action, name))


def status(hook, text, action="read", name="chat/1"):
    found = answer(hook, text, action, name)
    return 200 if isinstance(found, Allow) else found.status


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "jwks.json"
    path.write_text(document())
    return path


@pytest.fixture
def hook(path):
    return JsonWebTokens(path)


@pytest.mark.parametrize(("key", "algorithm", "kid"), [(RSA, "RS256", "r"), (P256, "ES256", "e"), (ED, "EdDSA", "d")])
def test_a_token_that_a_key_of_the_set_signed_is_good_for_what_it_says(hook, key, algorithm, kid):
    good = token(key, algorithm, kid)
    assert status(hook, good) == 200
    assert status(hook, good, "append") == 403
    assert status(hook, good, "read", "other/1") == 403


def test_it_is_good_until_it_expires_and_some(hook):
    assert answer(hook, token(exp=time.time() + 100)).seconds == pytest.approx(130, abs=5)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(token(STRANGER, "ES256", "e"), id="another key"),
        pytest.param(token(kid="unknown"), id="an unknown key"),
        pytest.param(token(kid="e"), id="a key of another kind"),
        pytest.param(token(RSA, "RS512"), id="an algorithm that was not allowed"),
        pytest.param(token(RSA, "PS256"), id="another of the same key"),
        pytest.param(token(exp=None), id="no end"),
        pytest.param(token(exp=time.time() - 31), id="expired"),
        pytest.param(token(nbf=time.time() + 86_400), id="not yet"),
        pytest.param(token(aud="somebody"), id="for somebody"),
        pytest.param(token(streams="everything"), id="a claim that makes no sense"),
        pytest.param(token(streams=[""]), id="an empty grant"),
        pytest.param(token(streams=[7]), id="a claim of another type"),
        pytest.param(token(streams={"read": "chat/**"}), id="a claim of a mapping"),
        pytest.param("", id="nothing"),
        pytest.param("a.b.c", id="no token"),
        pytest.param("..", id="dots"),
        pytest.param(base64.urlsafe_b64encode(b"[" * 20_000).decode() + ".e30.e30", id="a deep header"),
    ],
)
def test_what_is_not_right_is_401(hook, text):
    assert status(hook, text) == 401


def test_a_token_that_signs_itself_with_a_public_key_is_401(path):
    """The confusion of algorithms: what is public is taken for a shared secret."""
    hook = JsonWebTokens(path, algorithms=["RS256"])
    pem = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for secret in (pem, json.dumps(KEYS[0]).encode(), KEYS[0]["n"].encode(), b""):
        assert status(hook, forged("HS256", secret)) == 401
    for algorithm in ("none", "None", "", "HS256", "nOnE"):
        assert status(hook, forged(algorithm, None)) == 401


def forged(algorithm, secret):
    parts = [{"alg": algorithm, "typ": "JWT", "kid": "r"}, {"exp": time.time() + 600, "streams": ["all"]}]
    said = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    signature = b"" if secret is None else base64.urlsafe_b64encode(hmac.digest(secret, said, "sha256")).rstrip(b"=")
    return (said + b"." + signature).decode()


def test_a_token_without_grants_is_good_for_nothing(hook):
    assert status(hook, token(streams=None)) == 403
    assert status(hook, token(streams=[])) == 403


def test_grants_are_a_string_or_several_in_the_claim_that_was_said(path):
    hook = JsonWebTokens(path, claim="may")
    assert status(hook, token(may="read,append chat/** x"), "append", "x") == 200
    assert status(hook, token(may=["read a", "delete b"]), "delete", "b") == 200
    assert status(hook, token(may=["read a", "delete b"]), "delete", "a") == 403
    assert status(hook, token(may=None)) == 403


def test_who_made_a_token_and_for_whom_is_looked_at(path):
    hook = JsonWebTokens(path, audience=["us", "them"], issuer="login")
    assert status(hook, token(aud="us", iss="login")) == 200
    assert status(hook, token(aud=["others", "them"], iss="login")) == 200
    for wrong in ({"aud": "others", "iss": "login"}, {"iss": "login"}, {"aud": "us"}, {"aud": "us", "iss": "logout"}):
        assert status(hook, token(**wrong)) == 401


def test_clocks_may_differ_by_the_leeway(path):
    assert status(JsonWebTokens(path), token(exp=time.time() - 20, nbf=time.time() + 20)) == 200
    assert status(JsonWebTokens(path, leeway_seconds=5), token(exp=time.time() - 20)) == 401


def test_a_token_that_names_no_key_is_of_the_only_one_that_can_be_meant(path):
    assert status(JsonWebTokens(path), token(kid=None)) == 200
    path.write_text(document(KEYS[0], public("rsa", rsa.generate_private_key(65537, 2048), kid="other")))
    assert status(JsonWebTokens(path), token(kid=None)) == 401


@pytest.mark.parametrize("algorithms", [[], ["none"], ["HS256"], ["RS256", "HS512"], ["RS255"], "RS256"])
def test_algorithms_with_shared_secrets_cannot_be_chosen(path, algorithms):
    with pytest.raises(InvalidOption, match="algorithms are some of"):
        JsonWebTokens(path, algorithms=algorithms)


def test_keys_that_are_for_something_else_do_not_count(path):
    private = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA)) | {"kid": "r"}
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "r", "alg": "HS256"}
    usable = public("ed", ED, kid="d")
    others = [
        private,
        secret,
        KEYS[0] | {"use": "enc"},
        KEYS[0] | {"alg": "RS512"},
        {"kty": "RSA", "kid": "r"},
        {"kty": "EC", "crv": "P-256", "x": "!", "y": "!", "kid": "r"},
        {"kty": 7},
        {},
        7,
        None,
    ]
    path.write_text(json.dumps({"keys": [*others, usable]}))
    hook = JsonWebTokens(path)
    assert status(hook, token()) == 401
    assert status(hook, token(ED, "EdDSA", "d")) == 200


def test_a_key_of_one_curve_is_for_its_algorithm(path):
    path.write_text(document(public("p256", P384, kid="e")))
    hook = JsonWebTokens(path, algorithms=["ES256", "ES384"])
    assert status(hook, token(P384, "ES384", "e")) == 200


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"keys": []}', '{"keys": 7}', '{"keys": [{"kty": "oct"}]}', "\udcff", "[" * 100_000]
)
def test_a_set_without_a_usable_key_is_refused(path, text):
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidOption, match=r"jwks\.json"):
        JsonWebTokens(path)


def test_a_file_that_changed_counts_and_a_broken_one_does_not(path, hook, caplog):
    path.write_text(document(public("p256", STRANGER, kid="s")))
    assert status(hook, token()) == 401
    assert status(hook, token(STRANGER, "ES256", "s")) == 200
    path.write_text("{")
    assert status(hook, token(STRANGER, "ES256", "s")) == 200
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@pytest.fixture
def verified(monkeypatch):
    """Each token that is verified, as that takes long."""
    tokens, decode = [], jwt.decode
    monkeypatch.setattr(jwt, "decode", lambda text, *rest, **more: tokens.append(text) or decode(text, *rest, **more))
    return tokens


def test_a_token_is_verified_once_and_looked_at_each_time(path, verified):
    os.utime(path, (1_000_000_000, 1_000_000_000))
    hook, good = JsonWebTokens(path), token()
    assert [status(hook, good), status(hook, good, "append"), status(hook, good, "read", "other")] == [200, 403, 403]
    assert len(verified) == 1
    forged = good[:-2]
    assert [status(hook, forged), status(hook, forged)] == [401, 401]
    assert len(verified) == 3


def test_a_token_that_was_verified_does_not_outlive_its_key(path):
    os.utime(path, (1_000_000_000, 1_000_000_000))
    hook, good = JsonWebTokens(path), token()
    assert status(hook, good) == 200
    path.write_text(document(public("p256", STRANGER, kid="s")))
    assert status(hook, good) == 401


def test_a_token_is_verified_again_when_its_time_is_over(path, monkeypatch, verified):
    os.utime(path, (1_000_000_000, 1_000_000_000))
    hook, good, began = JsonWebTokens(path), token(exp=time.time() - 20), time.time()
    for seconds, times in ((0, 1), (9, 1), (11, 2)):
        monkeypatch.setattr("time.time", lambda later=seconds: began + later)
        answer(hook, good)
        assert len(verified) == times


def test_what_is_remembered_is_bounded(path, monkeypatch, verified):
    monkeypatch.setattr("durable_log.access.web_tokens.REMEMBERED_MAX", 2)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    hook, tokens = JsonWebTokens(path), [token(jti=str(number)) for number in range(3)]
    for good in tokens:
        assert status(hook, good) == 200
    assert len(hook._good) <= 2
    assert status(hook, tokens[2]) == 200
    assert len(verified) == 3


class Issuer:
    """A server of keys, which counts how often it was asked."""

    def __init__(self):
        self.body, self.status, self.asked, self.held = document(), 200, 0, threading.Event()
        self.held.set()
        self.came = threading.Semaphore(0)
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                issuer.asked += 1
                issuer.came.release()
                issuer.held.wait(10)
                self.send_response(issuer.status)
                self.end_headers()
                self.wfile.write(issuer.body.encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def stop(self):
        self.held.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def issuer():
    issuer = Issuer()
    yield issuer
    issuer.stop()


def test_keys_of_a_url_are_fetched_at_once_and_kept(issuer):
    hook = JsonWebTokens(issuer.url)
    assert issuer.asked == 1
    for _ in range(3):
        assert status(hook, token()) == 200
    assert issuer.asked == 1


def test_a_key_that_is_not_known_is_looked_for_but_not_too_often(issuer):
    fresh = token(STRANGER, "ES256", "s")
    impatient = JsonWebTokens(issuer.url, retry_seconds=0)
    patient = JsonWebTokens(issuer.url, retry_seconds=1000)
    assert status(impatient, fresh) == 401
    assert issuer.asked == 3
    issuer.body = document(public("p256", STRANGER, kid="s"))
    assert status(impatient, fresh) == 200
    assert [status(patient, fresh) for _ in range(5)] == [401] * 5
    assert issuer.asked == 4


def test_nobody_is_asked_for_a_key_of_an_algorithm_that_never_counts(issuer):
    hook = JsonWebTokens(issuer.url, retry_seconds=0)
    assert status(hook, forged("HS256", b"secret")) == 401
    assert issuer.asked == 1


def test_many_tokens_with_unknown_keys_cause_one_look_and_the_loop_stays_free(issuer):
    hook = JsonWebTokens(issuer.url, retry_seconds=0)
    assert issuer.came.acquire(timeout=10)
    issuer.held.clear()

    async def main():
        asking = [asyncio.create_task(answer_to(hook, token(kid=f"unknown{n}"))) for n in range(20)]
        assert await asyncio.to_thread(issuer.came.acquire, timeout=10)
        assert isinstance(await answer_to(hook, token()), Allow)  # with a known key, meanwhile
        asking[0].cancel()  # who leaves takes nothing from the others
        await asyncio.sleep(0)
        issuer.held.set()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert {each.status for each in answers[1:]} == {401}

    asyncio.run(main())
    assert issuer.asked == 2


def test_old_keys_are_replaced_beside_the_requests(issuer):
    hook = JsonWebTokens(issuer.url, refresh_seconds=0)
    issuer.body = document(public("p256", STRANGER, kid="s"))

    async def main():
        assert isinstance(await answer_to(hook, token()), Allow)
        deadline = time.monotonic() + 10
        while isinstance(await answer_to(hook, token()), Allow):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.001)
        assert isinstance(await answer_to(hook, token(STRANGER, "ES256", "s")), Allow)

    asyncio.run(main())


@pytest.mark.parametrize("trouble", ["status", "body", "size"])
def test_keys_that_can_not_be_had_leave_the_known_ones(issuer, caplog, trouble):
    hook = JsonWebTokens(issuer.url + "?key=s3cret", retry_seconds=0)
    if trouble == "status":
        issuer.status = 503
    else:
        issuer.body = "{" if trouble == "body" else document() + " " * 2**20
    with caplog.at_level(logging.INFO):
        assert status(hook, token(kid="unknown")) == 401
        assert status(hook, token()) == 200
    assert "can't be had" in caplog.text
    assert "s3cret" not in caplog.text


def test_a_url_that_does_not_answer_is_told_at_once(issuer):
    issuer.status = 404
    with pytest.raises(InvalidOption, match=r"the keys at http://127\.0\.0\.1:\d+/keys can't be had: .*404"):
        JsonWebTokens(issuer.url)
    with pytest.raises(InvalidOption, match="can't be had"):
        JsonWebTokens("http://127.0.0.1:1/keys")


def test_without_the_extra_it_is_said_what_to_install(path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jwt", None)
    with pytest.raises(InvalidOption, match=r"pip install 'durable-log\[jwt\]'"):
        JsonWebTokens(path)
