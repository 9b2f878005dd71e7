"""Pictures show what the results hold, and are the same for the same results."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from made_up import ORIGIN, figure, one_pass

from benchmarks.bars import BARE
from benchmarks.plots import PLOTS, Plot, draw, lines
from benchmarks.results import merge

PLOT = Plot("writers", "Title", "append", "appends/s", "writers")


@pytest.fixture
def subject():
    told = [figure(name, [at * factor], at=at) for name, factor in (("Redis", 1), ("durable_log", 2)) for at in (1, 64)]
    other = [figure("durable_log", [1], at=1, unit="s"), figure("durable_log", [1])]
    return merge([one_pass(*told, figure(BARE, [7]), *other)] * 2, ORIGIN)["append"]


def test_lines_are_the_rows_with_a_place_on_the_axis_and_the_limits(subject):
    found = lines(PLOT, subject)
    assert {name: [row.at for row in rows] for (name, _), rows in found.items()} == {
        "durable_log": [1, 64],
        "Redis": [1, 64],
        BARE: [None],
    }
    assert next(iter(found)) == ("durable_log", "")


def test_a_plot_is_a_picture_with_every_contestant_in_it(subject, tmp_path):
    draw(PLOT, subject, tmp_path / "a.svg")
    texts = {element.text for element in ET.parse(tmp_path / "a.svg").iter() if element.text}
    assert {"Title", "writers", "appends/s", "durable_log", "Redis", BARE} <= texts


def test_the_same_results_give_the_same_bytes(subject, tmp_path):
    for name in ("a.svg", "b.svg"):
        draw(PLOT, subject, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_plots_have_names_of_their_own():
    assert len({plot.name for plot in PLOTS}) == len(PLOTS)
