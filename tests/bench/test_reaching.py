"""The panel of seconds to a score, and the Fig. 6 made of what was measured before."""

import contextlib
import json

from matplotlib.figure import Figure

from bench import network
from bench.testbed.reaching import draw_seconds


def test_a_line_for_each_B_and_a_cross_where_the_score_was_not_reached():
    axes = Figure().subplots()
    rows = [
        {"nodes": 1, "B": 4, "seconds": 50.0},
        {"nodes": 2, "B": 4, "seconds": 30.0},
        {"nodes": 1, "B": 1, "seconds": 70.0},
        {"nodes": 2, "B": 1, "seconds": None},
    ]
    draw_seconds(axes, rows, 100.0)
    drawn = [(line.get_label(), line.get_xydata().tolist()) for line in axes.lines if line.get_marker() == "o"]
    assert drawn == [("B = 1", [[1.0, 70.0]]), ("B = 4", [[1.0, 50.0], [2.0, 30.0]])]
    crosses = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "x"]
    assert crosses == [[[2.0, 100.0]], []]


def test_fig6_is_drawn_of_what_is_kept(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(network, "why_not", lambda: None)
    monkeypatch.setattr(network, "EmulatedHosts", lambda number, **link: contextlib.nullcontext())
    kept = [
        {"link": "slow", "exchange": exchange, "nodes": nodes, "B": 8, "game": game, "score": -18.0, "minutes": 15.0}
        | {"seconds": seconds / nodes}
        for game, seconds in (("Boxing", 90.0), ("Pong", 60.0))
        for exchange in ("paper", "overlap")
        for nodes in (1, 2)
    ]
    (tmp_path / "fig6.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    arguments = ["--part", "fig6", "--nodes", "1", "2", "--B", "8", "--run-dir", str(tmp_path), "--json"]
    assert network.main(arguments) == 0
    assert json.loads(capfd.readouterr().out)["results"] == kept[4:]  # not the other game's
    assert (tmp_path / "fig6.png").stat().st_size > 10_000
