"""`hsa2c.tracker.Tracker`: counts, means, evaluations at their pace, quality, limit and progress."""

import numpy as np
import pytest

from hsa2c.errors import ProblemError
from hsa2c.tracker import Tracker

V = np.zeros(2, np.float32)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def evaluating(clock, takes_s=0.0, values=None):
    """An evaluation that takes so long, and counts its calls in `calls`."""

    def evaluate(v):
        assert v is V
        clock.now += takes_s
        evaluate.calls += 1
        return {"x": float(evaluate.calls)} if values is None else values

    evaluate.calls = 0
    return evaluate


def test_means_are_of_what_was_reported_since_the_last_row():
    tracker = Tracker()
    tracker.add(0, {"loss": 1.0, "text": "x", "none": None, "list": [1]})
    tracker.add(1, {"loss": 3, "other": 5.0, "nan": float("nan")})
    tracker.applied(0, 8)
    tracker.applied(1, 2)
    assert tracker.row(5.0) == {"updates": 10, "speed/updates_per_s": 2.0, "loss": 2.0, "other": 5.0}
    assert tracker.row(5.0) == {"updates": 10, "speed/updates_per_s": 0.0}


@pytest.mark.parametrize("key", ["updates", "step", "time", "session", "elapsed_s", "speed/updates_per_s"])
def test_names_of_each_row_are_refused(clock, key):
    with pytest.raises(ProblemError, match=f"node 3: .* gave {key}: each row has its own"):
        Tracker().add(3, {key: 1})
    tracker = Tracker(evaluate=evaluating(clock, values={key: 1.0}))
    with pytest.raises(ProblemError, match=f"evaluate: gave {key}: each row has its own"):
        tracker.measure(V, due=True)


@pytest.mark.parametrize("values", [3.0, [1.0], None, {"x": None}, {"x": "y"}, {"x": [1.0, 2.0]}])
def test_an_evaluation_gives_numbers_by_name(values):
    tracker = Tracker(evaluate=lambda v: values)
    with pytest.raises(ProblemError, match="must give numbers by name"):
        tracker.measure(V, due=True)


def test_an_evaluation_comes_every_few_seconds_and_before_a_checkpoint(clock):
    evaluate = evaluating(clock)
    tracker = Tracker(evaluate=evaluate, every_s=5.0, clock=clock)
    clock.now += 4.9
    assert not tracker.measure(V, due=False)
    clock.now += 0.1
    assert tracker.measure(V, due=False)
    assert not tracker.measure(V, due=False)
    assert tracker.measure(V, due=True)
    assert evaluate.calls == 2
    assert tracker.row(1.0)["x"] == tracker.row(1.0)["x"] == 2.0, "until the next one"


def test_an_evaluation_that_takes_long_comes_more_rarely(clock):
    """At most a twentieth of the time."""
    evaluate = evaluating(clock, takes_s=2.0)
    tracker = Tracker(evaluate=evaluate, every_s=5.0, clock=clock)
    clock.now += 5.0
    assert tracker.measure(V, due=False)
    clock.now += 39.9
    assert not tracker.measure(V, due=False)
    clock.now += 0.1
    assert tracker.measure(V, due=False)


def test_nobody_asks_where_there_is_nothing_to_ask():
    tracker = Tracker()
    assert not tracker.measure(V, due=True)
    assert tracker.quality is None


@pytest.mark.parametrize(("best", "quality"), [(None, None), ("x", 0.25), ("-x", -0.25)])
def test_quality_is_what_best_names_and_higher_is_better(clock, best, quality):
    tracker = Tracker(evaluate=evaluating(clock, values={"x": 0.25, "y": 1.0}), best=best)
    assert tracker.quality is None
    tracker.measure(V, due=True)
    assert tracker.quality == quality


def test_a_best_that_is_not_evaluated_is_told(clock):
    tracker = Tracker(evaluate=evaluating(clock, values={"x": 0.25, "y": 1.0}), best="-z")
    with pytest.raises(ProblemError, match="best = '-z': must be one of what evaluate gives: x, y"):
        tracker.measure(V, due=True)


def test_limit_progress_and_counters_go_on_after_a_resume():
    tracker = Tracker(limit=1000)
    assert (tracker.reached(), tracker.progress()) == (None, 0.0)
    tracker.applied(0, 250)
    assert tracker.progress() == 0.25
    again = Tracker(limit=1000, counters=tracker.counters())
    assert again.work == 250
    assert again.row(1.0)["speed/updates_per_s"] == 0.0, "of this session"
    again.applied(1, 900)
    assert again.reached() == "1,150 updates (limit 1,000)"
    assert again.progress() == 1.0
    assert again.counters() == {"updates": 1150}


def test_without_a_limit_there_is_no_progress():
    tracker = Tracker()
    tracker.applied(0, 10**9)
    assert (tracker.reached(), tracker.progress(), tracker.warning()) == (None, 0.0, None)
