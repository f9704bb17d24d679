"""What is read out of ``nodes.jsonl``, and the shapes that are drawn of it."""

import json
from collections import Counter

import pytest

from hsa2c.observe import node_pictures
from hsa2c.observe.node_pictures import pictures, read_totals


@pytest.fixture
def totals(tmp_path):
    """Those of a run whose second session goes on from step 20."""

    def line(session, step, *nodes):
        return {"session": session, "step": step, "seconds": 10.0, "nodes": list(nodes)}

    def node(number, updates, **more):
        return {"node": number, "host": f"h{number}", "updates": updates, "wall_s": 20.0} | more

    lines = [
        line(1, 10, node(1, 50, tau={"0": 2}, delta_norm=1.0), node(0, 100)),
        line(1, 20, node(0, 100, exchanging_s=2.5, computing_s=12.0, waiting_s=2.0)),
        line(1, 30, node(0, 9000), node(5, 9000)),
        {"session": 2, "step": 20},
        line(2, 40, node(1, 70, tau={"0": 1, "3": 1}, delta_norm=3.0), node(0, 100)),
    ]
    (tmp_path / "nodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_totals(tmp_path)


def test_totals_are_of_the_run_as_one(totals):
    assert list(totals) == [0, 1]
    assert (totals[0].updates, totals[0].seconds, totals[0].speed) == (300, 30.0, 10.0)
    assert (totals[1].speed, totals[1].taus, totals[1].norms) == (6.0, Counter({0: 3, 3: 1}), [1.0, 3.0])


def test_run_without_the_file_has_none(tmp_path):
    assert read_totals(tmp_path) == {}
    assert pictures({}) == {}


def test_bars_of_time_are_shares(totals):
    (axes,) = pictures(totals)["Where the time goes"][1].axes
    bars = {bars.get_label(): [bar.get_height() for bar in bars] for bars in axes.containers}
    assert bars["processes: computing"] == pytest.approx([12 / 60, 0])
    assert bars["processes: waiting"] == pytest.approx([2 / 60, 0])
    assert bars["processes: without a core"] == pytest.approx([46 / 60, 1])
    assert bars["node: exchanging"] == pytest.approx([2.5 / 30, 0])


def test_slowest_has_another_colour(totals):
    text, figure = pictures(totals)["Speed"]
    fast, slow = figure.axes[0].patches[:2]
    assert fast.get_facecolor() != slow.get_facecolor()
    assert text.startswith("Slowest: node 1 on h1, 6.0 updates/s, 0.60 of the median of the others;")


@pytest.mark.parametrize(
    ("counts", "heights", "places"),
    [
        ({0: 3, 2: 1}, [0.75, 0, 0.25], [0, 1, 2]),
        ({0: 1, 1: 1, 99: 2}, [0.5, *[0] * 32, 0.5], [1, *range(4, 99, 3), 100]),
    ],
)
def test_histogram_by_hand(counts, heights, places):
    axes = node_pictures.new_figure().add_subplot()
    node_pictures.histogram(axes, counts, "x", "updates", "#000000")
    assert [bar.get_height() for bar in axes.patches] == pytest.approx(heights)
    assert [bar.get_x() + bar.get_width() / 2 for bar in axes.patches] == pytest.approx(places)
    low, high = axes.get_xlim()
    assert low < 0
    assert high > max(counts)
