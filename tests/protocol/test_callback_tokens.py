"""Tokens of wakes and claims."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_log.protocol import callback_tokens
from durable_log.protocol.callback_tokens import TOKEN_SECONDS, Grant, issue, thumbprint, verify
from durable_log.protocol.refusal import Refusal

SECRET = b"s" * 32
GRANT = Grant("sub", "life", 7)
NOW_MS = 1_900_000_000_000


def refused(token: str, name: str = "sub", secret: bytes = SECRET, now_ms: int = NOW_MS) -> str:
    with pytest.raises(Refusal) as refusal:
        verify(secret, token, name, now_ms)
    assert refusal.value.status == 401
    assert len(token) < 40 or token not in refusal.value.message
    return refusal.value.code


@given(st.text(min_size=1), st.text(), st.integers(0, 2**53))
def test_a_token_says_what_it_was_issued_for(name: str, life: str, generation: int):
    grant = Grant(name, life, generation)
    assert verify(SECRET, issue(SECRET, grant, NOW_MS), name, NOW_MS) == grant


def test_a_token_expires_after_a_day():
    token = issue(SECRET, GRANT, NOW_MS)
    assert verify(SECRET, token, "sub", NOW_MS + TOKEN_SECONDS * 1000 - 1) == GRANT
    assert refused(token, now_ms=NOW_MS + TOKEN_SECONDS * 1000) == "TOKEN_EXPIRED"


def test_a_token_is_of_one_secret_and_of_one_subscription():
    token = issue(SECRET, GRANT, NOW_MS)
    assert refused(token, secret=b"t" * 32) == "TOKEN_INVALID"
    assert refused(token, name="other") == "TOKEN_INVALID"


@given(st.data())
def test_no_byte_of_a_token_can_be_changed(data: st.DataObject):
    token = issue(SECRET, GRANT, NOW_MS)
    position = data.draw(st.integers(0, len(token) - 2))  # the last character of a MAC has bits that say nothing
    other = data.draw(st.characters().filter(lambda character: character != token[position]))
    assert refused(token[:position] + other + token[position + 1 :]) == "TOKEN_INVALID"


@given(st.text())
def test_what_is_no_token_is_refused(text: str):
    assert refused(text) == "TOKEN_INVALID"


def test_a_token_cannot_choose_its_algorithm():
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    payload = part({"sub": "sub", "life": "life", "generation": 7, "exp": 2**40})
    for header in ({"alg": "none", "typ": "JWT"}, {"alg": "HS512", "typ": "JWT"}):
        signed = f"{part(header)}.{payload}"
        for mac in ("", callback_tokens.base64url(callback_tokens._mac(SECRET, signed))):
            assert refused(f"{signed}.{mac}") == "TOKEN_INVALID"


def test_a_key_id_is_the_thumbprint_of_rfc_8037():
    """Appendix A.3."""
    public = base64.urlsafe_b64decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
    assert thumbprint(public) == "ds_kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
