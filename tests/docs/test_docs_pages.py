"""What the pages point at is there, and what they list is complete."""

from __future__ import annotations

import fnmatch
import re

import pytest
from documents import PAGES, ROOT, prose, text_of

from durable_log import errors
from durable_log.protocol.cors import Cors
from durable_log.protocol.response import Responses


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / page).parent / path if path else ROOT / page
        assert found.exists(), f"{page} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page):
    for name in re.findall(r"`((?:tests|csrc|durable_log|docs|examples)/[\w./-]+)`", text_of(page)):
        assert (ROOT / name).exists(), f"{page} names {name}"


def test_every_error_of_http_is_on_the_page_of_the_protocol():
    table = text_of("docs/protocol.md").partition("## Errors")[2]
    rows = {
        int(status): re.findall(r"`([a-z_*]+)`", cells)
        for status, cells in re.findall(r"^\| (\d{3}) \| (.*) \|$", table, re.MULTILINE)
    }
    responses = Responses(cors=Cors(), cache="private")
    examples = [
        errors.StreamNotFound("a"),
        errors.StreamExists("a", "closed", True, False),
        errors.StreamClosed("a", 1),
        errors.StreamGone("a"),
        errors.ContentTypeMismatch("a", "b", "c"),
        errors.SequenceConflict("a", "2", "1"),
        errors.StaleEpoch("a", "p", 2, 1),
        errors.SequenceGap("a", "p", 2, 3),
        errors.InvalidProducer("no"),
        errors.InvalidName("no"),
        errors.InvalidData("no"),
        errors.OffsetOutOfRange("a", 9, 0, 1),
        errors.RecordTooLarge(9, 1),
        errors.Corruption("a", 1, "no"),
        errors.CommitFailed("no"),
        errors.StoreClosed("no"),
        errors.StoreFull("a", 1),
    ]
    for error in examples:
        status = responses.failed(error, "GET").status
        assert any(fnmatch.fnmatch(error.code, pattern) for pattern in rows[status]), (status, error.code)


def test_every_decision_has_its_four_parts():
    decisions = [page for page in PAGES if page.startswith("docs/decisions/")]
    assert [page.rpartition("/")[2][:4] for page in decisions] == [f"{n + 1:04}" for n in range(len(decisions))]
    for page in decisions:
        parts = re.findall(r"^\*\*([^*]+)\.\*\*", text_of(page), re.MULTILINE)
        assert parts == ["Context", "Choice", "Cost", "What would change our mind"], page


def test_the_parts_of_the_readme_come_in_their_order():
    headings = re.findall(r"^## (.*)$", text_of("README.md"), re.MULTILINE)
    assert headings[:4] == ["What is guaranteed, and when", "What it does not do", "Try it", "Numbers"]
