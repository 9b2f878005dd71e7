"""Hooks of either kind, and several of them together."""

from __future__ import annotations

import asyncio

import pytest

from durable_log.access import Allow, Deny, Headers, Request, any_of
from durable_log.access.hook import ask
from durable_log.errors import InvalidOption

REQUEST = Request("read", "a", "GET")


def says(answer):
    return lambda _request: answer


def says_later(answer):
    async def hook(_request):
        await asyncio.sleep(0)
        return answer

    return hook


def run(hook):
    return asyncio.run(ask(hook, REQUEST))


@pytest.mark.parametrize("kind", [says, says_later])
def test_a_hook_of_either_kind_is_asked(kind):
    assert run(kind(Allow())) == Allow()
    assert run(kind(Deny())) == Deny()


@pytest.mark.parametrize("answer", [True, None, "yes", Allow, 200])
@pytest.mark.parametrize("kind", [says, says_later])
def test_what_is_no_answer_is_no_permission(kind, answer):
    with pytest.raises(TypeError, match="a hook returns Allow or Deny, not"):
        run(kind(answer))


def test_one_that_allows_is_enough_and_those_behind_it_are_not_asked():
    def never(_request):
        raise AssertionError

    assert run(any_of(says(Deny(401)), says_later(Allow(7)), never)) == Allow(7)


def test_of_denials_that_of_a_hook_that_knew_the_credentials_counts():
    assert run(any_of(says(Deny(401)), says(Deny(403, "expired")), says(Deny(404)))) == Deny(403, "expired")
    assert run(any_of(says(Deny(401, "first")), says(Deny(401, "second")))) == Deny(401, "first")


def test_a_hook_that_fails_is_not_passed_over():
    """It may have been the one that would have to deny."""

    def fails(_request):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        run(any_of(fails, says(Allow())))


def test_any_of_nothing_is_refused():
    with pytest.raises(InvalidOption):
        any_of()


@pytest.mark.parametrize("status", [200, 400, 500, 302])
def test_a_denial_has_a_status_that_denies(status):
    with pytest.raises(InvalidOption, match="401, 403 or 404"):
        Deny(status)


def test_headers_are_found_by_names_of_any_case_and_repeated_ones_joined():
    headers = Headers([(b"x-one", b" a "), (b"X-Two", b"b"), (b"x-one", b"c")])
    assert (headers["X-ONE"], headers["x-two"], headers.get("none")) == ("a, c", "b", None)
    assert sorted(headers) == ["x-one", "x-two"]
    assert len(headers) == 2
    with pytest.raises(KeyError):
        headers["none"]
