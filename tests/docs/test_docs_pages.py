"""What the pages point at is there, and what they list is complete."""

from __future__ import annotations

import fnmatch
import json
import re

import pytest
from documents import PAGES, ROOT, prose, text_of

import durable_log
from durable_log import asgi, errors
from durable_log.access.grants import ACTIONS
from durable_log.operations import collector
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


def test_every_figure_of_the_metrics_is_on_the_page_of_operations():
    with durable_log.open(":memory:") as store:
        metrics = list(collector(asgi.app(store)).collect())
    told = {metric.name + ("_total" if metric.type == "counter" else "") for metric in metrics}
    told |= {"durable_log_append_rate_max", "durable_log_disk_free_bytes"}  # a store in memory has neither
    table = text_of("docs/operations.md").partition("Names of streams")[0]
    assert told == set(re.findall(r"`(durable_log_\w+)`", table))


def test_every_action_is_on_the_page_of_access():
    table = re.search(r"^\| word .*?\n\n", text_of("docs/access.md"), re.MULTILINE | re.DOTALL)[0]
    assert set(ACTIONS) == set(re.findall(r"`(\w+)`", table))


def test_the_line_of_the_access_log_is_one():
    shown = json.loads(re.search(r"```json\n(.*?)```", text_of("docs/operations.md"), re.DOTALL)[1])
    source = text_of("durable_log/_http/access_log.py")
    assert list(shown) == re.findall(r'^        "(\w+)":', source, re.MULTILINE)


def test_every_decision_has_its_four_parts():
    decisions = [page for page in PAGES if page.startswith("docs/decisions/")]
    assert [page.rpartition("/")[2][:4] for page in decisions] == [f"{n + 1:04}" for n in range(len(decisions))]
    for page in decisions:
        parts = re.findall(r"^\*\*([^*]+)\.\*\*", text_of(page), re.MULTILINE)
        assert parts == ["Context", "Choice", "Cost", "What would change our mind"], page


def test_the_parts_of_the_readme_come_in_their_order():
    headings = re.findall(r"^## (.*)$", text_of("README.md"), re.MULTILINE)
    assert headings[:3] == ["What is guaranteed, and when", "What it does not do", "Try it"]
    assert headings[-3:] == ["Numbers", "Where the bytes go", "The rooms of the code"]
