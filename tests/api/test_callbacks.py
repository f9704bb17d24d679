"""`hsa2c.Callback`: when each method is called, what it may add, and what its exception does."""

import json

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import hsa2c
from hsa2c.api import callbacks
from hsa2c.api.callbacks import Feed
from tests.api.problems import Point, distance, minimise

OFTEN = {"output.log_every_s": 0.1, "output.checkpoint_every_s": 0.2}
ENDLESS = {"updates": 10**9, "settings": OFTEN}


class Diary(hsa2c.Callback):
    """Writes down what is called, and adds what it is told to."""

    def __init__(self, **added):
        self.called, self.added, self.rows = [], added, []

    def on_start(self, run):
        self.called.append("start")
        self.run = run

    def on_row(self, run, row):
        self.called.append("row")
        row |= self.added
        self.rows.append(dict(row))

    def on_checkpoint(self, run, path):
        self.called.append("checkpoint")
        assert path.is_file()

    def on_end(self, run):
        self.called.append("end")
        self.reason = run.reason


class Stopping(Diary):
    def on_row(self, run, row):
        super().on_row(run, row)
        if len(self.rows) == 2:
            run.stop("enough for me")


def test_they_are_called_in_order_and_may_stop(tmp_path):
    diary = Stopping()
    run = minimise(tmp_path, Point(), callbacks=[diary], **ENDLESS)
    assert diary.called[0] == "start"
    assert diary.called[-1] == "end"
    assert diary.called.count("start") == diary.called.count("end") == 1
    assert {"row", "checkpoint"} <= set(diary.called)
    assert [row["step"] for row in diary.rows] == [row["step"] for row in run.rows()]
    assert diary.run.dir == run.dir
    assert diary.reason == run.reason == "asked to stop"
    assert run.load() is not None


def test_numbers_that_are_added_are_in_rows_boards_and_pictures(tmp_path):
    numbers = Diary(plain=1, half=0.5, none=None, numpy=np.float32(2.0), torch=torch.tensor(3.0))
    seeing = Diary(more=7)
    run = minimise(tmp_path, Point(), callbacks=[numbers, seeing], evaluate=distance)
    row = run.rows()[-1]
    expected = {"plain": 1, "half": 0.5, "none": None, "numpy": 2.0, "torch": 3.0, "more": 7}
    assert {key: row[key] for key in expected} == expected
    assert seeing.rows[-1]["plain"] == 1, "the second sees what the first has added"
    assert "more" not in numbers.rows[-1]
    board = EventAccumulator(str(run.dir)).Reload()
    assert {"plain", "half", "numpy", "torch", "more", "distance"} <= set(board.Tags()["scalars"])
    assert [(event.step, event.value) for event in board.Scalars("half")] == [(row["step"], 0.5) for row in run.rows()]
    assert run.plot(tmp_path / "x.png", tags=["half"]).stat().st_size > 1000
    with pytest.raises(hsa2c.ConfigError):
        run.plot(tmp_path / "y.png", tags=["nosuch"])


@pytest.mark.parametrize(
    ("added", "line"),
    [
        ({"updates": 3}, "'updates' is in the row: must be another name"),
        ({"step": 3}, "'step' is in the row: must be another name"),
        ({"text": "x"}, "text = 'x', must be a finite number or None"),
        ({"nan": float("nan")}, "nan = nan, must be a finite number or None"),
        ({"tensor": torch.zeros(2)}, "must be a finite number or None"),
        ({"array": np.zeros(2)}, "must be a finite number or None"),
        ({"list": [1]}, r"list = \[1\], must be a finite number or None"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_added_ends_the_run_with_one_line(tmp_path, added, line):
    with pytest.raises(hsa2c.ConfigError, match=line):
        minimise(tmp_path, Point(), callbacks=[Diary(**added)], **ENDLESS)
    assert hsa2c.Run(tmp_path / "run").reason == "asked to stop"


def test_keys_of_two_callbacks_may_not_clash_silently(tmp_path):
    """The later one sees the earlier one's, and what it writes holds."""
    run = minimise(tmp_path, Point(), callbacks=[Diary(own=1), Diary(own=2)])
    assert run.rows()[-1]["own"] == 2


@pytest.mark.parametrize("method", ["on_start", "on_row", "on_checkpoint", "on_end"])
def test_an_exception_ends_the_run_in_good_order_and_comes_out(tmp_path, method):
    def fail(*_):
        raise LookupError(f"in my {method}")

    diary = Diary()
    setattr(diary, method, fail)
    limit = {"updates": 100, "settings": OFTEN} if method == "on_end" else ENDLESS
    with pytest.raises(LookupError, match=f"in my {method}"):
        minimise(tmp_path, Point(), callbacks=[diary], **limit)
    run = hsa2c.Run(tmp_path / "run")
    assert run.reason == ("104 updates (limit 100)" if method == "on_end" else "asked to stop")
    assert run.checkpoint is not None


def test_on_end_is_called_after_a_failure(tmp_path):
    calls = []

    def loss(model):
        calls.append(1)
        if len(calls) > 20:
            raise ArithmeticError("lost")
        return (model.x**2).sum()

    diary = Diary()
    with pytest.raises(hsa2c.HSA2CError, match="ArithmeticError: lost"):
        minimise(tmp_path, Point(), loss, callbacks=[diary], **ENDLESS)
    assert diary.called[-1] == "end"
    assert diary.reason == "failed"


def test_a_run_that_goes_on_calls_for_its_new_session_alone(tmp_path):
    first, second = Diary(own=1), Diary(own=2)
    run = minimise(tmp_path, Point(), callbacks=[first])
    before = run.rows()
    run.resume(updates=300, callbacks=[second], progress=False, force=True)
    assert second.called[0] == "start"
    assert second.called.count("start") == 1
    assert second.rows[0]["step"] > before[-1]["step"]
    assert {row["own"] for row in run.rows()} == {1, 2}
    assert run.rows()[: len(before)] == before


def feed_of(run, *callbacks):
    """A feed of a run in session 1."""
    return Feed(run, 1, callbacks)


@pytest.fixture
def files(tmp_path):
    """A run of which nothing but a configuration is there, and what writes its files."""
    (tmp_path / "config.yaml").write_text("{}\n")

    def write(name, **values):
        with (tmp_path / name).open("a") as file:
            file.write(json.dumps({"time": 1.0, "session": 1} | values) + "\n")

    return hsa2c.Run(tmp_path), write


def test_a_feed_tells_each_thing_once(files):
    run, write = files
    diary = Diary()
    diary.on_checkpoint = lambda run, path: diary.called.append(path.name)
    feed = feed_of(run, diary)
    assert feed.update() is None
    write("journal.jsonl", kind="training", session=0, message="another session's")
    write("metrics.jsonl", step=1, elapsed_s=0.5, session=0)
    feed.update()
    assert diary.called == []
    write("journal.jsonl", kind="training")
    write("metrics.jsonl", step=2)
    write("metrics.jsonl", step=3, elapsed_s=1.5)
    for _ in range(2):
        feed.update()
    assert diary.called == ["start", "row"]
    write("journal.jsonl", kind="checkpoint", path="/x/last")
    feed.end()
    assert diary.called == ["start", "row", "last", "end"]


def test_nothing_is_called_of_a_run_that_has_not_begun(files):
    run, write = files
    diary = Diary()
    feed = feed_of(run, diary)
    write("journal.jsonl", kind="error", message="no")
    feed.update()
    feed.end()
    assert diary.called == []


def test_the_first_exception_is_kept_and_ends_the_run(files):
    run, write = files
    diary = Diary(step=1)
    feed = feed_of(run, diary)
    write("metrics.jsonl", step=3, elapsed_s=1.5)
    assert feed.update() == "ConfigError in a callback"
    first = feed.error
    assert isinstance(first, hsa2c.ConfigError)
    write("metrics.jsonl", step=4, elapsed_s=2.5)
    feed.update()
    assert feed.error is first


def test_a_callback_does_nothing_by_itself(files):
    run, _ = files
    base = callbacks.Callback()
    assert [base.on_start(run), base.on_row(run, {}), base.on_checkpoint(run, run.dir), base.on_end(run)] == [None] * 4
