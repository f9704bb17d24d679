import json
import math
import subprocess
import sys

import numpy as np
import pytest

from hsa2c.errors import ConfigError
from hsa2c.observe.runlog import (
    JOURNAL,
    METRICS,
    NODES,
    Journal,
    RunLog,
    Tail,
    append_row,
    number,
    read_curve,
    read_history,
    read_rows,
)


def write_rows(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def curve_row(session, step, value, elapsed_s=None):
    return {"time": 0.0, "session": session, "step": step, "elapsed_s": elapsed_s, "score": value}


@pytest.fixture
def board():
    """Reads a run directory as TensorBoard does."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def load(directory):
        accumulator = EventAccumulator(str(directory), size_guidance={"scalars": 0, "histograms": 0})
        return accumulator.Reload()

    return load


def test_row_is_on_file_and_in_tensorboard_before_the_log_is_closed(tmp_path, board):
    with RunLog(tmp_path / "run", session=1) as log:
        log.row(
            400,
            {"elapsed_s": 5, "score/mean_100": np.float32(-20.5), "games": np.int64(7), "loss/value": None},
            {"staleness/tau": [0, 1, 1, 2], "staleness/none": []},
        )
        (row,) = read_rows(tmp_path / "run" / METRICS)
        assert row.pop("time") > 1.7e9
        assert row == {
            "session": 1, "step": 400, "elapsed_s": 5, "score/mean_100": -20.5, "games": 7, "loss/value": None,
        }  # fmt: skip

        seen = board(tmp_path / "run")
        assert sorted(seen.Tags()["scalars"]) == ["elapsed_s", "games", "score/mean_100"]
        (score,) = seen.Scalars("score/mean_100")
        assert (score.step, score.value) == (400, -20.5)
        assert seen.Tags()["histograms"] == ["staleness/tau"]
        (tau,) = seen.Histograms("staleness/tau")
        assert (tau.step, tau.histogram_value.num, tau.histogram_value.sum) == (400, 4, 4)


def test_nodes_have_a_file_of_their_own(tmp_path, board):
    with RunLog(tmp_path, session=1) as log:
        for step in (10, 20, 30):
            log.nodes(step, {"seconds": 5.0}, [{"node": 0, "tau": {0: 3}}, {"node": 1, "norm": math.nan}])
    with RunLog(tmp_path, session=2, purge_step=20) as log:  # what was after that never happened
        log.nodes(40, {"seconds": 6.0}, [])
        assert board(tmp_path).Tags()["scalars"] == []
    history = [row for row in read_history(tmp_path / NODES) if "nodes" in row]
    assert [(row["step"], row["session"], row["seconds"]) for row in history] == [(10, 1, 5), (20, 1, 5), (40, 2, 6)]
    assert history[0]["nodes"] == [{"node": 0, "tau": {"0": 3}}, {"node": 1, "norm": None}]
    assert [row["step"] for row in read_rows(tmp_path / METRICS)] == [20], "the seam"


def test_what_is_not_finite_is_null_and_not_in_tensorboard(tmp_path, board):
    with RunLog(tmp_path, session=1) as log:
        log.row(1, {"a": math.nan, "b": math.inf, "c": 1.0}, {"h": [math.nan, 3.0], "none": [math.inf]})
    text = (tmp_path / METRICS).read_text()
    assert json.loads(text, parse_constant=pytest.fail) | {"time": 0} == {
        "time": 0, "session": 1, "step": 1, "a": None, "b": None, "c": 1.0,
    }  # fmt: skip
    seen = board(tmp_path)
    assert seen.Tags()["scalars"] == ["c"]
    assert seen.Tags()["histograms"] == ["h"]
    assert seen.Histograms("h")[0].histogram_value.num == 1


def test_values_cannot_take_the_place_of_the_rows_own_keys(tmp_path):
    with RunLog(tmp_path, session=1) as log, pytest.raises(AssertionError, match="step"):
        log.row(1, {"step": 2})


def test_resume_from_an_older_step_gives_the_same_curve_in_file_and_tensorboard(tmp_path, board):
    with RunLog(tmp_path, session=1) as log:
        for step in (0, 10, 20, 30):
            log.row(step, {"score": float(step), "elapsed_s": step / 10})
    with RunLog(tmp_path, session=2, purge_step=10) as log:  # rows 20 and 30 are void, 10 is not
        log.row(25, {"score": 2500.0, "elapsed_s": 2.5})

    steps, elapsed_s, values = read_curve(tmp_path, "score")
    assert steps.tolist() == [0, 10, 25]
    assert elapsed_s.tolist() == [0, 1, 2.5]
    assert values.tolist() == [0, 10, 2500]
    assert [(point.step, point.value) for point in board(tmp_path).Scalars("score")] == [(0, 0), (10, 10), (25, 2500)]


def test_resume_without_a_row_of_its_own_still_voids_what_came_after(tmp_path):
    with RunLog(tmp_path, session=1) as log:
        log.row(10, {"score": 1.0})
        log.row(20, {"score": 2.0})
    RunLog(tmp_path, session=2, purge_step=10).close()
    assert read_curve(tmp_path, "score")[0].tolist() == [10]


def test_events_of_launcher_and_master_share_the_journal(tmp_path):
    launcher = Journal(tmp_path / "run", session=3)
    master = Journal(tmp_path / "run", session=3)
    launcher.event("start", "begun", path=tmp_path)
    master.event("checkpoint", "saved", loss=[math.nan, 1.0], inner={"x": math.inf})
    launcher.event("error", "line one\nline two", traceback="Traceback…")
    launcher.close()
    launcher.close()
    master.close()
    events = read_rows(tmp_path / "run" / JOURNAL)
    assert [event["kind"] for event in events] == ["start", "checkpoint", "error"]
    assert all(event["session"] == 3 and event["time"] > 1.7e9 for event in events)
    assert events[0]["path"] == str(tmp_path)
    assert (events[1]["loss"], events[1]["inner"]) == ([None, 1.0], {"x": None})
    assert events[2]["message"] == "line one\nline two"
    assert events[2]["traceback"] == "Traceback…"


def test_run_log_writes_events_to_the_journal(tmp_path):
    with RunLog(tmp_path, session=1) as log:
        log.event("stop", "time is up", reason="minutes")
    (event,) = read_rows(tmp_path / JOURNAL)
    assert (event["kind"], event["message"], event["reason"]) == ("stop", "time is up", "minutes")


def test_line_torn_by_a_kill_costs_only_itself(tmp_path):
    (tmp_path / JOURNAL).write_text('{"kind": "a"}\n{"kind": "b", "mess')
    assert [event["kind"] for event in read_rows(tmp_path / JOURNAL)] == ["a"]
    journal = Journal(tmp_path, session=1)
    journal.event("c", "after")
    journal.close()
    assert [event["kind"] for event in read_rows(tmp_path / JOURNAL)] == ["a", "c"]


def test_opening_a_whole_file_adds_nothing_to_it(tmp_path):
    (tmp_path / JOURNAL).write_text('{"kind": "a"}\n')
    Journal(tmp_path, session=1).close()
    assert (tmp_path / JOURNAL).read_text() == '{"kind": "a"}\n'


def whole_lines(path):
    """The lines of a file, each of which must be JSON, the last one ended."""
    text = path.read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


_WRITE_WHILE_FULL = """
import resource, sys
from pathlib import Path
from hsa2c.observe.runlog import RunLog

def at_most(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

with RunLog(Path(sys.argv[1]), session=1) as log:
    for full in (False, True, True, False):
        at_most(2000 if full else resource.RLIM_INFINITY)
        for step in range(8):
            log.row(step, {"score": 0.125, "long": 7 * 10 ** (3 * step + 1)})
            log.nodes(step, {}, [{"node": node, "updates": 10**step} for node in range(step + 1)])
            log.event("note", step * "word ")
"""


@pytest.mark.slow
def test_disk_that_is_full_for_a_while_leaves_whole_lines_only(tmp_path):
    subprocess.run([sys.executable, "-c", _WRITE_WHILE_FULL, tmp_path], check=True, timeout=60)
    for name in (METRICS, NODES, JOURNAL):
        assert len(whole_lines(tmp_path / name)) > 16, name
    assert any("could not be written" in event["message"] for event in read_rows(tmp_path / JOURNAL))


@pytest.mark.parametrize("length", [1, 1000, 70_000, 200_000])
def test_torn_end_is_cut_back_when_a_log_is_opened_again(tmp_path, length):
    (tmp_path / JOURNAL).write_text('{"kind": "a"}\n' + json.dumps({"kind": length * "b"})[:-2])
    Journal(tmp_path, session=1).close()
    assert whole_lines(tmp_path / JOURNAL) == [{"kind": "a"}]


def test_line_that_lacks_only_its_end_is_completed(tmp_path):
    (tmp_path / JOURNAL).write_text('{"kind": "a"}\n{"kind": "b"}')
    with Journal(tmp_path, session=1) as journal:
        journal.event("c", "after")
    assert [event["kind"] for event in whole_lines(tmp_path / JOURNAL)] == ["a", "b", "c"]


def test_writer_mends_what_another_has_left_torn(tmp_path):
    with Journal(tmp_path, session=1) as journal:
        with (tmp_path / JOURNAL).open("a") as other:
            other.write('{"kind": "a", "mess')
        journal.event("b", "after")
    assert [event["kind"] for event in whole_lines(tmp_path / JOURNAL)] == ["b"]


def test_two_writers_at_a_time_mix_no_lines(tmp_path):
    code = "import sys; from pathlib import Path; from hsa2c.observe.runlog import Journal\n"
    code += "with Journal(Path(sys.argv[1]), session=1) as journal:\n"
    code += "    for step in range(300): journal.event('note', step % 97 * 100 * sys.argv[2])"
    writers = [subprocess.Popen([sys.executable, "-c", code, tmp_path, letter]) for letter in "xy"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert len(whole_lines(tmp_path / JOURNAL)) == 600


def test_reading_passes_over_what_is_not_a_row(tmp_path):
    deep, long = b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"
    lines = [b'{"a": 1}', b"", b"7", b"[1]", b"nonsense", b'{"a": \xff}', deep, long, b'{"a": 2}']
    (tmp_path / "rows").write_bytes(b"\n".join(lines))
    assert read_rows(tmp_path / "rows") == [{"a": 1}, {"a": 2}]


def test_missing_file_is_one_line_that_names_it(tmp_path):
    with pytest.raises(ConfigError, match=r"no-run/metrics\.jsonl: cannot be read: No such file") as error:
        read_curve(tmp_path / "no-run", "score")
    assert "\n" not in str(error.value)


def test_curve_leaves_out_rows_without_the_value_and_takes_the_file_too(tmp_path):
    write_rows(
        tmp_path / METRICS,
        curve_row(1, 1, None, 1.0),
        curve_row(1, 2, 5.0),
        curve_row(1, 3, "odd", 3.0),
        curve_row(1, "odd", 9.0, 3.5),
        curve_row(1, 4, 6, 4.0),
    )
    steps, elapsed_s, values = read_curve(tmp_path / METRICS, "score")
    assert steps.tolist() == [2, 4]
    assert values.tolist() == [5, 6]
    assert math.isnan(elapsed_s[0])
    assert elapsed_s[1] == 4
    assert [array.shape for array in read_curve(tmp_path, "none")] == [(0,), (0,), (0,)]


def test_history_over_several_resumes_worked_by_hand():
    history = []
    for session, steps in ((1, (0, 10, 20, 30)), (2, (20, 40, 60)), (3, (10, 15)), (4, (15, 70))):
        for step in steps:
            append_row(history, {"session": session, "step": step})
    assert [(row["session"], row["step"]) for row in history] == [(1, 0), (1, 10), (3, 10), (3, 15), (4, 15), (4, 70)]


def test_tail_gives_each_whole_line_once(tmp_path):
    path = tmp_path / "later.jsonl"
    tail = Tail(path)
    assert tail.new() == []
    path.write_text('{"a": 1}\n{"a": 2}\n{"a"')
    assert tail.new() == [{"a": 1}, {"a": 2}]
    assert tail.new() == []
    with path.open("a") as file:
        file.write(': "µ"}\n\n')
    assert tail.new() == [{"a": "µ"}]
    with path.open("a") as file:
        file.write('nonsense\n{"a": 4}\n')
    assert tail.new() == [{"a": 4}]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, 3), (2.5, 2.5), (True, None), (None, None), ("3", None), (math.nan, None), (10**400, None), ([1], None)],
)
def test_number(value, expected):
    assert number(value) == expected


def test_reading_modules_are_cheap_to_import():
    modules = "hsa2c.observe.runlog, hsa2c.observe.console, hsa2c.observe.plot"
    code = f"import sys, {modules}; print([m for m in sys.argv[1:] if m in sys.modules])"
    command = [sys.executable, "-c", code, "torch", "numpy", "matplotlib", "tensorboard", "mpi4py", "pydantic"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


# Evaluations, which are of an earlier step than their row


def test_evaluation_is_in_tensorboard_once_at_its_own_step(tmp_path, board):
    with RunLog(tmp_path, session=1) as log:
        for step, of, score in [(10, None, None), (20, 8, 1.0), (30, 8, 1.0), (40, 33, 2.0)]:
            log.row(step, {"elapsed_s": step, "evaluate/step": of, "evaluate/score": score})
    seen = board(tmp_path)
    assert [(point.step, point.value) for point in seen.Scalars("evaluate/score")] == [(8, 1.0), (33, 2.0)]
    assert [point.step for point in seen.Scalars("elapsed_s")] == [10, 20, 30, 40]


def test_curve_of_evaluations_has_a_point_for_each_at_its_own_step(tmp_path):
    rows = [(20, 8, 1.0), (30, 8, 1.0), (40, 33, 2.0), (50, 45, 2.0)]
    write_rows(
        tmp_path / METRICS,
        {"session": 1, "step": 10, "elapsed_s": 1.0},
        *(
            {
                "session": 1,
                "step": step,
                "elapsed_s": step / 10,
                "evaluate/step": of,
                "evaluate/elapsed_s": of / 10,
                "evaluate/score": score,
            }
            for step, of, score in rows
        ),
    )
    steps, elapsed_s, values = read_curve(tmp_path, "evaluate/score")
    assert (steps.tolist(), elapsed_s.tolist(), values.tolist()) == ([8, 33, 45], [0.8, 3.3, 4.5], [1.0, 2.0, 2.0])
