import json
from pathlib import Path

import pytest

from hsa2c.agents.application import APPLICATION
from hsa2c.errors import ConfigError
from hsa2c.observe.plot import COLOURS, draw_curves, looks_of, names_of, plot, read_run, setting_of
from hsa2c.observe.runlog import METRICS

TAGS = ("score/mean_100", "speed/agent_steps_per_s", "policy/entropy")


@pytest.fixture
def make_run(tmp_path):
    def make(name, rows):
        run = tmp_path / name
        run.mkdir(parents=True)
        (run / METRICS).write_text("".join(json.dumps({"time": 0.0, "session": 1} | row) + "\n" for row in rows))
        return run

    return make


def rows(count, **more):
    return [
        {"step": 1_000_000 * i, "elapsed_s": 120.0 * i, "score/mean_100": -20.0 + i if i else None} | more
        for i in range(count)
    ]


def draw(runs, x="work", title=None):
    looks = dict(zip([run.name for run in runs], looks_of([setting_of(run) for run in runs]), strict=True))
    return draw_curves(
        {run.name: read_run(run, TAGS, x) for run in runs},
        looks,
        TAGS,
        x,
        title,
        "agent steps",
        APPLICATION.pictures.labels,
    )


def test_picture_is_written_whole_over_an_older_one(make_run, tmp_path):
    output = tmp_path / "made" / "curves.png"
    runs = [make_run("a", rows(5, **{"policy/entropy": 1.5})), make_run("b", rows(3)) / METRICS]
    for _ in range(2):
        plot(runs, output, tags=TAGS)
        assert output.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert output.read_bytes().endswith(b"IEND\xaeB`\x82")
        assert list(output.parent.iterdir()) == [output]


def test_characters_that_the_font_lacks_are_boxes_and_no_warning(make_run, tmp_path):
    plot([make_run("数", rows(3))], tmp_path / "curves.png", tags=TAGS)
    assert (tmp_path / "curves.png").exists()


def test_curves_labels_and_panels(make_run):
    runs = [make_run("a", rows(5)), make_run("b", rows(3, **{"policy/entropy": 1.5}))]
    large, small = draw(runs, title="Pong").axes  # no panel for the speed that nobody has
    assert [line.get_label() for line in large.lines] == ["a", "b"]
    assert large.lines[0].get_xydata().tolist() == [[1, -19], [2, -18], [3, -17], [4, -16]]
    assert (large.get_title("left"), large.get_xlabel()) == ("Pong", "agent steps (millions)")
    assert large.get_ylabel() == "mean score of the last 100 games"
    assert [text.get_text() for text in large.get_legend().get_texts()] == ["a", "b"]
    assert small.get_ylabel() == "policy entropy (nats)"
    (entropy,) = small.lines
    assert entropy.get_xydata().tolist() == [[0, 1.5], [1, 1.5], [2, 1.5]]
    assert entropy.get_color() == large.lines[1].get_color() != large.lines[0].get_color()


def test_minutes(make_run):
    (large,) = draw([make_run("a", rows(4))], x="minutes").axes
    assert large.lines[0].get_xdata().tolist() == [2, 4, 6]
    assert large.get_xlabel() == "wall-clock minutes"


@pytest.mark.parametrize(("most", "label"), [(500, "agent steps"), (5000, "agent steps (thousands)")])
def test_unit_of_a_short_run(make_run, most, label):
    (large,) = draw([make_run("a", [{"step": most, "score/mean_100": 1.0}])]).axes
    assert large.get_xlabel() == label
    assert large.lines[0].get_marker() == "o"  # one point is seen


def test_every_run_of_many_looks_different(make_run):
    figure = draw([make_run(f"run-{i}", rows(3)) for i in range(20)])
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == 20


@pytest.mark.parametrize(("B", "colours"), [((8, 8, 8), [0, 1, 2]), ((8, 4, 1), [0, 1, 2]), ((8, 4, 8), [0, 1, 0])])
def test_seeds_of_one_setting_among_several_share_a_colour(make_run, B, colours):
    runs = [make_run(f"run-{seed}", rows(3)) for seed in range(3)]
    for seed, run in enumerate(runs):
        config = f"seed: {seed}\noutput: {{name: {run.name}}}\ndpsgd: {{local_updates: {B[seed]}}}\n"
        (run / "config.yaml").write_text(config)
    lines = draw(runs).axes[0].lines
    assert [line.get_color() for line in lines] == [COLOURS[i] for i in colours]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 3


def test_names():
    assert names_of([Path("/r/a"), Path("/r/b")]) == ["a", "b"]
    assert names_of([Path("/r/a"), Path("/s/a")]) == ["r/a", "s/a"]
    assert names_of([Path("/r/a"), Path("/r/a")]) == ["r/a (1)", "r/a (2)"]
    assert names_of([Path("/r/$a$")]) == [r"\$a\$"]


@pytest.mark.parametrize(
    ("lines", "rule"),
    [
        ([], "empty: no rows yet, nothing to plot"),
        ([{"step": 3}], "empty: no rows yet, nothing to plot"),
        ([{"step": 3, "games": 0}], "empty: no value of score/mean_100 yet, nothing to plot"),
    ],
)
def test_run_with_nothing_to_show_is_named_and_no_picture_is_written(make_run, tmp_path, lines, rule):
    with pytest.raises(ConfigError) as error:
        plot([make_run("good", rows(3)), make_run("empty", lines)], tmp_path / "out.png", tags=TAGS)
    assert str(error.value).endswith(rule)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out.png").exists()


def test_bad_input_is_one_line(make_run, tmp_path):
    run = make_run("a", rows(3))
    with pytest.raises(ConfigError, match=r"no-run/metrics\.jsonl: cannot be read"):
        plot([tmp_path / "no-run"], tmp_path / "out.png", tags=TAGS)
    with pytest.raises(ConfigError, match=r"out\.xyz: cannot write \.xyz; known are .*png"):
        plot([run], tmp_path / "out.xyz", tags=TAGS)
    with pytest.raises(ConfigError, match=r"metrics\.jsonl/out\.png: cannot be written"):
        plot([run], run / METRICS / "out.png", tags=TAGS)
    with pytest.raises(ConfigError, match="at least one run"):
        plot([], tmp_path / "out.png", tags=TAGS)
