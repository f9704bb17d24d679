import contextlib
import errno
import io
import json
import re
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsa2c.observe.console import ASCII_BLOCKS, MAX_POINTS, Console, sparkline
from hsa2c.observe.runlog import JOURNAL, METRICS, Journal
from hsa2c.observe.shown import Field

FIELDS = [
    Field("agent steps", "agent_steps"),
    Field("agent steps/s", "speed"),
    Field("mean score", "score", "{:.1f}"),
    Field("mean delay", "tau", "{:.2f}"),
]
CURVE = Field("score", "score", "{:.1f}")
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Stage:
    """A run directory, a clock set by hand and a console that looks at them."""

    def __init__(self, run, *, terminal=False, limits=None, **options):
        self.run, self.now, self.out = run, 1000.0, io.StringIO()
        options.setdefault("file", self.out)
        self.journal = Journal(run, session=options.get("session", 0))
        self.session = options.get("session", 0)
        self.console = Console(
            run, "A run", FIELDS, limits, terminal=terminal, clock=lambda: self.now, curve=CURVE, **options
        )

    def row(self, step, *, session=None, **values):
        session = self.session if session is None else session
        with (self.run / METRICS).open("a") as file:
            file.write(json.dumps({"time": 0.0, "session": session, "step": step, **values}) + "\n")

    def after(self, seconds):
        """What one update shows, some seconds on."""
        self.now += seconds
        self.console.update()
        return self.shown()

    def shown(self):
        """What was written since the last call, without control codes and times of day."""
        text = ANSI.sub("", self.out.getvalue())
        self.out.seek(0)
        self.out.truncate()
        return re.sub(r"\d\d:\d\d:\d\d  ", "", text)


@pytest.fixture
def stage(tmp_path):
    with contextlib.ExitStack() as stack:

        def make(**options):
            stage = Stage(tmp_path, **options)
            stack.callback(stage.journal.close)
            return stage

        yield make


def test_plain_run_from_start_to_stop(stage):
    s = stage(nodes=2, limits={"elapsed_s": 100, "agent_steps": 100_000})
    s.journal.event("start", "2 nodes on this machine")
    s.console.start()
    assert s.shown() == "2 nodes on this machine\n"
    s.journal.event("node_ready", "", node=0, host="a", pid=1)
    assert s.after(9.9) == ""
    assert s.after(0.1) == "starting: 1 of 2 nodes ready, 10 s\n"
    s.journal.event("node_ready", "", node=1, host="b", pid=2)
    s.journal.event("training", "training began")
    assert re.fullmatch(r"2 of 2 nodes ready in 0 s\ntraining began\n", s.after(1.0))
    s.row(1000, elapsed_s=5.0, agent_steps=1000, speed=200.0, score=None)
    assert s.after(8.9) == ""  # a line of values at most each 10 s
    assert s.after(0.1) == (
        "elapsed 0:05 | left 1:34 | agent steps 1,000 | agent steps/s 200 | mean score - | mean delay -\n"
    )
    s.journal.event("checkpoint", "saved", path="x")
    assert s.after(30) == ""
    s.row(3000, elapsed_s=10.0, agent_steps=3000, speed=400.0, score=-20.25, tau=1.5)
    s.journal.event("stop", "stopped: interrupted", reason="interrupted")
    assert s.after(0) == (
        "stopped: interrupted\n"
        "elapsed 0:10 | agent steps 3,000 | agent steps/s 400 | mean score -20.2 | mean delay 1.50\n"
    )
    s.console.stop()
    assert s.shown() == ""


def test_plain_shows_the_last_values_at_stop(stage):
    s = stage()
    s.console.start()
    s.row(1, elapsed_s=1.0, agent_steps=50)
    assert s.after(1.0) == ""
    s.console.stop()
    assert s.shown() == "elapsed 0:01 | agent steps 50 | agent steps/s - | mean score - | mean delay -\n"


def test_plain_says_when_nothing_comes(stage):
    s = stage()
    s.console.start()
    s.row(1, elapsed_s=1.0)
    assert s.after(10).startswith("elapsed 0:01")
    assert s.after(59) == ""
    assert s.after(1) == "no new values for 60 s\n"
    assert s.after(59) == ""
    assert s.after(1) == "no new values for 120 s\n"


def test_plain_has_no_control_codes_whatever_the_environment_and_the_text(stage, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    s = stage(terminal=None)
    s.console.start()
    s.journal.event("warning", "\x1b[31mred\x1b[0m [bold]not markup[/bold] \x07")
    s.journal.event("error", "node 3: failed", traceback="Traceback:\n  \x1b[1mfile\x1b[0m\nValueError: x\n")
    s.console.update()
    s.console.say("a line of\x1b[2J the launcher")
    raw = s.out.getvalue()
    assert "\x1b" not in raw
    assert "\x07" not in raw
    assert s.shown() == (
        "warning: red [bold]not markup[/bold] \nerror: node 3: failed\nTraceback:\n  file\nValueError: x\n"
        "a line of the launcher\n"
    )


def test_events_bear_local_time(stage):
    s = stage()
    s.console.start()
    s.journal.event("warning", "look")
    at = json.loads((s.run / JOURNAL).read_text())["time"]
    s.console.update()
    assert s.out.getvalue() == time.strftime("%H:%M:%S", time.localtime(at)) + "  warning: look\n"


def test_failure_in_start_up_says_how_many_nodes_there_were(stage):
    s = stage(nodes=3)
    s.console.start()
    s.journal.event("node_ready", "", node=0)
    s.journal.event("node_ready", "", node=0)  # the same one again
    s.journal.event("error", "node 2: no sign of life")
    assert s.after(40) == "1 of 3 nodes ready in 40 s\nerror: node 2: no sign of life\n"


def test_earlier_sessions_are_seen_only_in_the_curve(stage):
    s = stage(session=2, terminal=True)
    with Journal(s.run, session=1) as old:
        old.event("error", "of yesterday")
    for step in range(1, 6):
        s.row(step, session=1, score=float(step), agent_steps=777)
    s.journal.event("resume", "goes on from step 3")
    s.row(3)  # where session 2 starts
    s.console.start()
    shown = s.shown()
    assert "goes on from step 3" in shown
    assert "yesterday" not in shown
    assert "777" not in shown
    assert "score  1.0 ▁▅█ 3.0" in shown  # 4 and 5 are void


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({"elapsed_s": 60}, "0:40 left"),
        ({"agent_steps": 10_000}, "0:10 left"),  # 3,000 to go at 3,000 in 10 s
        ({"elapsed_s": 60, "agent_steps": 10_000}, "0:10 left"),
        ({"elapsed_s": 25, "agent_steps": 10_000}, "0:05 left"),
        ({"elapsed_s": 10}, "0:00 left"),
        ({"other": 5}, None),
        ({}, None),
    ],
)
def test_time_left_is_to_the_nearest_limit(stage, limits, left):
    s = stage(terminal=True, limits=limits)
    s.console.start()
    s.row(1, elapsed_s=10.0, agent_steps=4000)
    s.row(2, elapsed_s=20.0, agent_steps=7000)
    shown = s.after(1)
    assert "training  0:20 elapsed" in shown
    assert re.findall(r"\d+:\d+ left", shown) == ([left] if left else [])


def test_panel_from_start_to_end(stage):
    s = stage(terminal=True, nodes=40, limits={"elapsed_s": 3600})
    s.console.start()
    assert "starting: 0 of 40 nodes ready, 0 s" in s.shown()
    for node in range(12):
        s.journal.event("node_ready", f"node {node}", node=node)
    assert "starting: 12 of 40 nodes ready, 8 s" in s.after(8)
    for node in range(40):
        s.journal.event("node_ready", f"node {node}", node=node)
    s.journal.event("training", "training began")
    shown = s.after(8)
    assert shown.count("40 of 40 nodes ready in 16 s") == 1
    assert "training  0:00 elapsed  1:00:00 left" in shown
    assert "0:03 elapsed" in s.after(3)  # before the first row too
    s.row(10, elapsed_s=5.0, agent_steps=1_234_567, speed=9.6)
    s.journal.event("checkpoint", "saved to x", path="x")
    shown = s.after(2)
    assert "saved to x" not in shown
    assert "0:05 elapsed" in shown
    assert re.search(r"agent steps +1,234,567 ", shown)
    assert re.search(r"agent steps/s +10 ", shown)
    assert re.search(r"mean score +- ", shown)
    shown = s.after(34)
    assert "0:39 elapsed" in shown  # goes on between rows
    assert "40 of 40 nodes ready, checkpoint 34 s ago" in shown
    assert "no new values for 64 s" in s.after(30)
    s.journal.event("stop", "stopped: enough", reason="score")
    assert "stopping  1:09 elapsed" in s.after(0)
    s.now += 500
    s.console.stop()
    assert "ended  1:09 elapsed" in s.shown()  # the clock stood still


def test_panel_of_a_failed_run(stage):
    s = stage(terminal=True)
    s.console.start()
    s.journal.event("error", "node 1: gone", traceback="Traceback (most recent call last):\nValueError: [red]x[/red]")
    shown = s.after(1)
    assert "\rerror: node 1: gone\n" in shown
    assert "\rTraceback (most recent call last):\nValueError: [red]x[/red]\n" in shown
    s.journal.event("stop", "stopped")
    s.console.stop()
    assert "! failed" in s.shown()


def test_terminal_keeps_stdout_for_results(tmp_path, capsys):
    with Console(tmp_path, "A run", FIELDS, terminal=True) as console:
        print('{"score": 1}')
        console.update()
    out, err = capsys.readouterr()
    assert out == '{"score": 1}\n'
    assert "A run" in err
    assert err.rstrip().endswith("\x1b[?25h")  # the cursor is back


def test_only_ascii_where_the_terminal_knows_no_more(stage):
    raw = io.BytesIO()
    s = stage(terminal=True, file=io.TextIOWrapper(raw, "ascii"), limits={"elapsed_s": 60})
    for step in range(5):
        s.row(step, elapsed_s=float(step), score=float(step))
    s.console.start()
    s.console.stop()
    assert "score  0.0 _-+*# 4.0" in ANSI.sub("", raw.getvalue().decode("ascii"))


@pytest.mark.parametrize("terminal", [False, True])
def test_terminal_that_has_gone_does_not_end_the_run(stage, terminal):
    class Gone(io.StringIO):
        def write(self, text):
            raise OSError(errno.EIO, "hung up")

    s = stage(terminal=terminal, file=Gone())
    s.journal.event("start", "begun")
    s.console.start()
    s.console.say("anyone?")
    s.after(20)
    s.console.stop()


def test_long_curve_is_thinned_not_cut(stage):
    s = stage(terminal=True)
    lines = [{"session": 0, "step": i, "score": float(i)} for i in range(3 * MAX_POINTS)]
    (s.run / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    s.console.start()
    assert re.search(r"score  0\.0 ▁+▂+▃+▄+▅+▆+▇+█+ 122[0-9]{2}\.0", s.shown())


@pytest.mark.parametrize("width", [20, 45, 80, 200])
def test_panel_fits_the_terminal(stage, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    s = stage(terminal=True, nodes=1, limits={"elapsed_s": 60})
    for step in range(300):
        s.row(step, elapsed_s=float(step), agent_steps=10**step, score=float(step))
    s.console.start()
    lines = s.shown().replace("\r", "\n").splitlines()
    assert any("training" in line for line in lines)
    assert {len(line) for line in lines if line.startswith("│")} == {width}


@pytest.mark.parametrize("width", [20, 30, 45, 80])
def test_no_number_and_no_name_is_cut(stage, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    s = stage(terminal=True, nodes=4000, limits={"elapsed_s": 60})
    s.row(1, elapsed_s=3725.0, agent_steps=123_456_789_012, score=-17_624.5)
    s.row(2, elapsed_s=3726.0, agent_steps=123_456_789_012, score=-17_624.5)
    s.console.start()
    lines = [line.strip("│ ") for line in s.shown().replace("\r", "\n").splitlines()]
    shown = " ".join(lines)
    assert "…" not in shown
    for word in ("123,456,789,012", "-17624.5", "1:02:06"):
        assert word in shown
    assert str(s.run) in "".join(lines).replace(" ", "")


EXTREMES = st.sampled_from([1.7e308, -1.7e308, 5e-324, 10**308, -(10**308), 10**400, 0, 1])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | EXTREMES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
row_keys = st.sampled_from(["session", "step", "elapsed_s", "agent_steps", "speed", "score", "nodes_ready", "time"])
event_keys = st.sampled_from(["session", "time", "message", "node", "traceback", "path"])
kinds = st.sampled_from(["start", "node_ready", "training", "checkpoint", "warning", "error", "stop", "resume"])


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.dictionaries(row_keys, json_values) | st.dictionaries(row_keys, EXTREMES, min_size=4), max_size=6),
    events=st.lists(st.tuples(kinds | json_values, st.dictionaries(event_keys, json_values)), max_size=4),
    terminal=st.booleans(),
)
def test_no_row_or_event_is_too_odd(rows, events, terminal):
    with tempfile.TemporaryDirectory() as folder:
        s = Stage(Path(folder), terminal=terminal, nodes=1, limits={"agent_steps": 1e300})
        s.journal.close()
        s.console.start()
        for i in range(max(len(rows), len(events))):
            for name, lines in ((METRICS, rows[i : i + 1]), (JOURNAL, [e | {"kind": k} for k, e in events[i : i + 1]])):
                with (s.run / name).open("a") as file:
                    file.write("".join(json.dumps(line) + "\n" for line in lines))
            s.after(20)
        s.console.stop()


@pytest.mark.parametrize(
    ("elapsed_s", "agent_steps", "score"),
    [
        ((0.0, 1.7e308), (0, 1), (-1.7e308, 1.7e308)),
        ((0, 10**308), (0, 1), (1.7e308, 1.7e308)),
        ((0, 5e-324), (0, 10**308), (0, 5e-324)),
        ((-1.7e308, 1.7e308), (-(10**308), 10**308), (0, 0)),
        ((1.7e308, 1.7e308), (0, 1), (0, 1)),
    ],
)
@pytest.mark.parametrize("terminal", [False, True])
def test_numbers_at_the_limits_of_a_float(stage, terminal, elapsed_s, agent_steps, score):
    s = stage(terminal=terminal, limits={"agent_steps": 1.7e308})
    for i in range(2):
        s.row(agent_steps[i], elapsed_s=elapsed_s[i], agent_steps=agent_steps[i], score=score[i], nodes_ready=10**308)
        s.row(agent_steps[i], elapsed_s=elapsed_s[i], agent_steps=agent_steps[i], score=score[i])
    s.console.start()
    shown = s.after(20)
    s.console.stop()
    assert ("training" if terminal else "agent steps") in shown


def test_odd_times_of_events(stage):
    s = stage(nodes=1)
    with (s.run / JOURNAL).open("a") as file:
        for kind, at in (("start", -(10**308)), ("node_ready", "now"), ("training", 10**308), ("stop", [])):
            file.write(json.dumps({"kind": kind, "time": at}) + "\n")
    s.console.start()
    assert re.sub(r"in (inf|\d+) s", "in x s", s.shown()) == (
        "--:--:--  start\n--:--:--  1 of 1 node ready in x s\n--:--:--  training\nstop\n"
    )


def test_sparkline_worked_by_hand():
    # Parts of [0, 8] in 4: {0, 1}, {2, 3}, {4}, {6, 8}; means 0.5, 2.5, 4, 7.
    points = [(x, float(x)) for x in (0, 1, 2, 3, 4, 6, 8)]
    assert sparkline(points, 4, "01234567") == "0247"
    assert sparkline([(0, 0.0), (10, 1.0)], 30) == "▁█"
    assert sparkline([(0, 3.0), (1, 3.0)], 5) == "▁▁"
    assert sparkline([(5, 3.0)], 1, ASCII_BLOCKS) == "_"


def test_field_writes_what_it_can():
    assert Field("x", "x", "{:d}").text({"x": 2.5}) == "2.5"
    assert Field("x", "x").text({}) == "-"
    assert Field("x", "x", "{:.1f} s").text({"x": 2}) == "2.0 s"
