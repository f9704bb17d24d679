from pathlib import Path

import pytest

from hsa2c.commands import plot

PNG = b"\x89PNG\r\n\x1a\n"


def rows(count, **more):
    return [{"step": 100 * i, "elapsed_s": 60.0 * i, "score/mean_100": -20.0 + i} | more for i in range(count)]


@pytest.fixture
def drawn(monkeypatch):
    """What would be drawn: runs, tags and axis."""
    calls = []
    monkeypatch.setattr(plot, "plot", lambda runs, output, *, tags, x, **_: calls.append((runs, output, tags, x)))
    return calls


def test_picture_of_runs(write_rows, tmp_path, capsys):
    a, b = write_rows("a", rows(3)), write_rows("b", rows(5))
    output = tmp_path / "out" / "curves.png"
    assert plot.main([str(a), str(b / "metrics.jsonl"), "--output", str(output)]) == 0
    assert output.read_bytes().startswith(PNG)
    assert capsys.readouterr() == (f"{output}\n", "")


def test_options_reach_the_picture(write_rows, drawn):
    a = write_rows("a", rows(3, speed=1.0))
    assert plot.main([str(a), "-o", "x.svg", "--x", "minutes", "--tags", "speed", "score/mean_100"]) == 0
    ((runs, output, tags, x),) = drawn
    assert (runs, str(output), tags, x) == ([a], "x.svg", ["speed", "score/mean_100"], "minutes")


def test_runs_with_nothing_to_draw_are_left_out(write_rows, tmp_path, drawn, capsys):
    good, empty = write_rows("good", rows(3)), write_rows("empty", [{"step": 1, "score/mean_100": None}])
    (tmp_path / "README.md").write_text("no run, but runs/* matches it")
    (tmp_path / "folder").mkdir()
    given = [good, empty, tmp_path / "README.md", tmp_path / "folder"]
    assert plot.main([str(path) for path in given]) == 0
    ((runs, *_),) = drawn
    assert runs == [good]
    out, err = capsys.readouterr()
    assert out == f"{good / 'curves.png'}\n"
    assert err.splitlines() == [
        f"hsa2c plot: {path}: no value of score/mean_100 yet, left out" for path in (empty, tmp_path / "folder")
    ]


def test_picture_is_beside_the_runs_and_over_no_older_one(write_rows, tmp_path, capsys, monkeypatch):
    runs, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    runs.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    a, b = write_rows("runs/a", rows(3)), write_rows("runs/b", rows(3))
    for given, picture in [
        ([a], a / "curves.png"),
        ([a / "metrics.jsonl"], a / "curves-2.png"),
        (["../runs/a", b], Path("../runs/curves.png")),
        ([a, b], Path("../runs/curves-2.png")),
    ]:
        assert plot.main([*map(str, given)]) == 0
        assert capsys.readouterr() == (f"{picture}\n", "")
        assert picture.read_bytes().startswith(PNG)
    assert not list(elsewhere.iterdir())


def test_older_picture_is_replaced_where_it_was_asked_for_and_told(write_rows, tmp_path, capsys):
    run, output = write_rows("a", rows(3)), tmp_path / "mine.png"
    output.write_text("older")
    assert plot.main([str(run), "-o", str(output)]) == 0
    assert capsys.readouterr() == (f"{output}\n", f"hsa2c plot: {output}: an older file was replaced\n")
    output.write_text("older")
    assert plot.main([str(run), "-o", str(output), "--tags", "nosuch"]) == 2
    assert output.read_text() == "older"
    assert capsys.readouterr().err == f"hsa2c plot: {run}: no value of nosuch yet, nothing to plot\n"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("empty", "no rows yet, nothing to plot"),
        ("other", "no value of score/mean_100 yet"),
        ("none", "cannot be read"),
    ],
)
def test_single_run_with_nothing_to_draw(refused, write_rows, tmp_path, name, what):
    write_rows("empty", [])
    write_rows("other", [{"step": 1, "games": 3}])
    assert what in refused(plot.main, tmp_path / name, "-o", tmp_path / "x.png")


def test_none_of_several_runs_has_anything(write_rows, tmp_path, capsys):
    runs = [write_rows("a", []), write_rows("b", [])]
    assert plot.main([*map(str, runs), "-o", str(tmp_path / "x.png")]) == 2
    *left_out, last = capsys.readouterr().err.splitlines()
    assert len(left_out) == 2
    assert last == f"hsa2c plot: {runs[0]}: no rows yet, nothing to plot"
    assert not (tmp_path / "x.png").exists()


def test_no_run_at_all(refused, tmp_path):
    (tmp_path / "README.md").write_text("")
    assert refused(plot.main, tmp_path / "README.md") == "hsa2c plot: plot: needs at least one run and one tag"
    assert refused(plot.main).startswith("hsa2c plot: the following arguments are required: RUN")
    assert "invalid choice" in refused(plot.main, tmp_path, "--x", "furlongs")


def test_format_that_cannot_be_written(refused, write_rows, tmp_path):
    assert "cannot write .xyz; known are" in refused(plot.main, write_rows("a", rows(2)), "-o", tmp_path / "x.xyz")
