"""A run's page: whole, self-contained, and safe to open whatever the run's files hold."""

import base64
import json
import re

import pytest
from matplotlib.figure import Figure

from hsa2c.__main__ import main as hsa2c
from hsa2c.errors import ConfigError
from hsa2c.observe import report

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def make_run(tmp_path):
    """A run directory with such rows (after the session's and the time's) and events."""

    def make_run(rows, events=(), name="run", nodes=()):
        run = tmp_path / name
        run.mkdir()
        lines = [
            json.dumps({"time": 100.0 + 5 * k, "session": 1, "step": 10 * k, "elapsed_s": 5.0 * k} | row) + "\n"
            for k, row in enumerate(rows)
        ]
        (run / "metrics.jsonl").write_text("".join(lines))
        if nodes:
            (run / "nodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in nodes))
        if events:
            (run / "journal.jsonl").write_text("".join(json.dumps({"time": 100.0} | event) + "\n" for event in events))
        return run

    return make_run


ROWS = [
    {
        "score/mean_100": 1.0 * k,
        "speed/node_00": 100.0,
        "speed/node_01": 60.0 + k,
        "time/emulator_share": 0.5,
        "time/acting_share": 0.3,
        "staleness/mean": 1.0,
        "faults/nodes_lost": int(k > 2),
        "faults/deltas_refused": 0,
        "games": k,
    }
    for k in range(5)
]


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures that nobody looks at, which take a second to draw."""
    monkeypatch.setattr(Figure, "savefig", lambda _, file, **__: file.write(PNG))


def sections(page):
    return re.findall(r"<h2>([^<]*)</h2>", page)


def test_every_section_has_a_picture_of_its_own(make_run):
    page = report.render(make_run(ROWS))
    assert sections(page) == [
        *("Learning", "Speed", "Where the time goes", "Staleness", "Nodes and faults", "Counters and others")
    ]
    pictures = re.findall(r'src="data:image/png;base64,([^"]*)"', page)
    assert len(pictures) == 6
    assert all(base64.b64decode(picture).startswith(PNG) for picture in pictures)
    assert len(set(pictures)) == 6


@pytest.mark.usefixtures("undrawn")
def test_page_needs_nothing_from_elsewhere(make_run):
    page = report.render(make_run(ROWS))
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "<script" not in page


NODES = [
    {
        "session": 1,
        "step": 10 * k,
        "seconds": 10.0,
        "nodes": [
            {
                "node": node,
                "host": f"h{node}",
                "updates": 100 if node else 70,
                "exchanging_s": 1.0,
                "wall_s": 10.0,
                "computing_s": 7.0,
                "waiting_s": 2.0,
                "tau": {"0": 3, "4": 1},
                "overlap": {"1": 9},
                "delta_norm": 0.5,
                "delta_cosine": -0.1,
            }
            for node in range(3)
        ],
    }
    for k in range(1, 3)
]
LOADS = {"delta/norm_mean": 0.5, "delta/cosine_mean": 0.1, "master/busy": 0.2, "master/processor": 0.1}


@pytest.mark.slow
def test_sections_have_pictures_of_the_nodes(make_run):
    page = report.render(make_run([row | LOADS for row in ROWS], nodes=NODES))
    assert sections(page)[1:6] == ["Speed", "Where the time goes", "Staleness", "Deltas", "The master"]
    pictures = re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)"', page)
    of_nodes = [title for title, _ in pictures if title.endswith(", by node")]
    assert of_nodes == [f"{title}, by node" for title in ("Speed", "Where the time goes", "Staleness", "Deltas")]
    assert len({picture for _, picture in pictures}) == len(pictures) == 8 + 4
    assert "the largest delay seen, D&#x27;, is 4; the largest overlap, D, is 1." in page


@pytest.mark.usefixtures("undrawn")
def test_slowest_node_is_named_with_its_host(make_run):
    events = [{"kind": "node_ready", "node": node, "host": f"h{node}", "message": "ready"} for node in range(2)]
    page = report.render(make_run(ROWS, events, nodes=NODES))
    slowest = "Slowest: node 0 on h0, 7.0 updates/s, 0.70 of the median of the others; fastest: node 1 on h1, 10.0"
    assert slowest in page
    assert "h0, h1" in page


@pytest.mark.usefixtures("undrawn")
def test_p_that_differs_is_told_by_the_nodes_themselves(make_run):
    ready = {"kind": "node_ready", "message": "ready"}
    events = [ready | {"node": node, "actor_learners": [7] * p} for node, p in ((0, 9), (0, 2), (1, 3), (2, 1))]
    run = make_run(ROWS, events)
    (run / "config.yaml").write_text("cluster: {nodes: 3, processes: null}\n")
    assert "<td>3 of 1 to 3</td>" in report.render(run)
    (run / "config.yaml").write_text("cluster: {nodes: 3, processes: 2}\n")
    assert "<td>3 of 2</td>" in report.render(run)


@pytest.mark.usefixtures("undrawn")
def test_one_node_has_no_slowest(make_run):
    alone = [line | {"nodes": line["nodes"][:1]} for line in NODES]
    page = report.render(make_run(ROWS, nodes=alone))
    assert "Slowest" not in page
    assert 'alt="Speed, by node"' not in page
    assert 'alt="Staleness, by node"' in page


@pytest.mark.usefixtures("undrawn")
def test_nodes_file_may_hold_anything(make_run):
    evil = "<b>$x_</b>"
    bad = {
        "node": 1, "host": evil, "updates": "many", "wall_s": None, "delta_norm": 1e999,
        "tau": {"x": 1, "2": "y", "-1": 3, "9" * 50: 1, "0": 1}, "overlap": [1, 2],
    }  # fmt: skip
    strange = [{"nodes": 3}, {"nodes": [7, {"node": "1"}, {"node": True}, {"node": -1}, bad]}, {}, {"seconds": "x"}]
    lines = [{"session": 1, "step": 5} | line for line in strange]
    page = report.render(make_run(ROWS, nodes=[*NODES, *lines]))
    assert evil not in page
    assert f"node 1 on {evil}".replace("<", "&lt;").replace(">", "&gt;") in page


@pytest.mark.usefixtures("undrawn")
def test_what_a_run_says_cannot_become_part_of_the_page(make_run):
    evil = "<script>alert(1)</script>"
    run = make_run(ROWS, [{"kind": "warning", "message": evil}, {"kind": evil, "message": "x"}], name="a&b")
    (run / "config.yaml").write_text(f"game: '{evil}'\n")
    page = report.render(run)
    assert evil not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 3
    assert "<title>a&amp;b</title>" in page


@pytest.mark.usefixtures("undrawn")
def test_story_leaves_checkpoints_out_and_says_how_much_it_leaves_out(make_run):
    events = [{"kind": "warning", "message": f"warning {k}"} for k in range(310)]
    page = report.render(make_run(ROWS, [*events, {"kind": "checkpoint", "message": "checkpoint x"}]))
    assert "warning 309" in page
    assert "warning 9<" not in page
    assert "10 earlier events are in journal.jsonl" in page
    assert "checkpoint x" not in page


def test_run_with_one_row_and_nothing_else(make_run):
    page = report.render(make_run([{"score/mean_100": None, "games": 0}]))
    assert sections(page) == ["Counters and others"]
    assert "no word of its end" in page


def test_long_runs_are_thinned():
    history = [{"elapsed_s": 0.1 * k, "games": k} for k in range(20_000)]
    (axes,) = report.draw(history, ["games"], {}).axes
    assert [len(line.get_xdata()) for line in axes.lines] == [2000]


def test_command_writes_beside_the_run_by_default(make_run, capsys):
    run = make_run(ROWS)
    before = set(run.iterdir())
    assert _run(["report", str(run)]) == 0
    assert set(run.iterdir()) - before == {run / "report.html"}
    assert capsys.readouterr().out.strip() == str(run / "report.html")


@pytest.mark.parametrize("missing", ["run", "rows"])
def test_run_that_has_nothing_to_show(make_run, tmp_path, missing, capsys):
    run = tmp_path / "nosuch" if missing == "run" else make_run([])
    assert _run(["report", str(run)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("hsa2c report: ")
    assert not (run / "report.html").exists()


@pytest.mark.usefixtures("undrawn")
def test_page_that_cannot_be_written(make_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written"):
        report.write(make_run(ROWS), tmp_path / "file" / "report.html")


def _run(arguments):
    """The exit code of ``python -m hsa2c`` with these arguments."""
    import sys

    before, sys.argv = sys.argv, ["hsa2c", *arguments]
    try:
        return hsa2c()
    finally:
        sys.argv = before


def test_older_page_is_replaced_and_told(make_run, capsys, monkeypatch):
    run = make_run(ROWS)
    monkeypatch.setattr(report, "render", lambda *_: "page")
    page = run / "report.html"
    for said in ("", f"hsa2c report: {page}: an older file was replaced\n"):
        monkeypatch.setattr("sys.argv", ["hsa2c", "report", str(run)])
        assert hsa2c() == 0
        assert capsys.readouterr() == (f"{page}\n", said)
