"""What the master makes of reports and measurements, with a clock that the tests turn."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from hsa2c.examples.lda import tracker as module
from hsa2c.examples.lda.dpsvi import Model
from hsa2c.examples.lda.perplexity import Score
from hsa2c.examples.lda.settings import TopicStopConfig
from hsa2c.examples.lda.tracker import TopicTracker, limit_documents

MODEL = Model(K=2, alpha=0.5, eta0=0.5, mean=False, tolerance=1e-3, most_iterations=100)
V = np.zeros(4, np.float32)


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


class Validation:
    """Scores as listed, the last one for ever; measuring takes so many seconds."""

    def __init__(self, clock, perplexities, seconds=0.0):
        self._clock, self._left, self._seconds = clock, list(perplexities), seconds
        self.measured = 0

    def score(self, v, model):
        assert v is V
        assert model is MODEL
        self._clock.now += self._seconds
        self.measured += 1
        perplexity = self._left.pop(0) if len(self._left) > 1 else self._left[0]
        return Score(perplexity=perplexity, bound_per_token=-math.log(perplexity), documents=3, tokens=30)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


@pytest.fixture
def make(clock):
    """Makes trackers of a training set of 200 documents on two nodes, and what they measure with."""

    def make(perplexities=(50.0,), *, seconds=0.0, every_s=1.0, counters=None, **limits):
        validation = Validation(clock, perplexities, seconds)
        limits = TopicStopConfig(**({"patience": None} | limits))
        return TopicTracker(
            2, 200, validation, MODEL, limits=limits, every_s=every_s, counters=counters or {}
        ), validation

    return make


def report(documents=64, *, eta=0.1, **more):
    values = {"documents": documents, "updates": 2, "words": 6, "iterations": 10 * documents, "negative": 0, "eta": eta}
    return (
        values | {"seconds": {"reading": 1.0, "local_step": 2.0}, "pool_s": {"optimiser": 0.5, "waiting": 0.5}} | more
    )


# Curves


def test_reports_add_up(make):
    tracker, _ = make()
    tracker.add(0, report(64, negative=3, eta=0.3))
    tracker.add(1, report(36, eta=0.2))
    assert tracker.work == 100
    row = tracker.row(4.0)
    assert (
        row.items()
        >= {
            "documents": 100,
            "passes": 0.5,
            "updates": 4,
            "guard/negative_entries": 3,
            "rate/eta": 0.2,
            "speed/documents_per_s": 25.0,
            "speed/updates_per_s": 1.0,
            "local_step/iterations": 10.0,
            "time/reading_share": 0.25,
            "time/local_step_share": 0.5,
            "time/optimiser_share": 0.125,
            "time/waiting_share": 0.125,
        }.items()
    )


def test_speeds_are_since_the_last_row_and_sums_of_the_whole_run(make):
    tracker, _ = make()
    tracker.add(0, report(64))
    tracker.row(1.0)
    tracker.add(0, report(16, eta=None))
    row = tracker.row(2.0)
    assert row.items() >= {"documents": 80, "updates": 4, "speed/documents_per_s": 8.0, "rate/eta": None}.items()


def test_a_report_without_an_update_keeps_the_last_rate(make):
    tracker, _ = make()
    tracker.add(0, report(64, eta=0.3))
    tracker.add(1, report(0, eta=None, iterations=0))
    assert tracker.row(1.0)["rate/eta"] == 0.3


def test_rows_before_anything_has_happened_hold_no_number_that_is_none(make):
    tracker, _ = make()
    row = tracker.row(1.0)
    assert row["perplexity/validation"] is row["local_step/iterations"] is row["rate/eta"] is None
    assert all(math.isfinite(value) for value in row.values() if value is not None)
    tracker.add(0, report(0, iterations=0, seconds={"reading": 0.0, "local_step": 0.0}, pool_s={}))
    assert all(math.isfinite(value) for value in tracker.row(1.0).values() if value is not None)


def test_measurements_are_in_the_rows(make):
    tracker, _ = make([60.0, 40.0, 50.0])
    for _ in range(3):
        tracker.measure(V, due=True)
    row = tracker.row(1.0)
    assert (row["perplexity/validation"], row["perplexity/best"]) == (50.0, 40.0)
    assert row["bound/per_token"] == -math.log(50.0)
    assert tracker.quality == -50.0
    assert tracker.warning() is None


# When to measure


def test_measures_now_and_then(make, clock):
    tracker, validation = make(every_s=2.0)
    assert tracker.quality is None
    assert not tracker.measure(V, due=False)
    clock.now += 1.9
    assert not tracker.measure(V, due=False)
    clock.now += 0.2
    assert tracker.measure(V, due=False)
    assert tracker.quality == -50.0
    clock.now += 1.9
    assert not tracker.measure(V, due=False)
    assert validation.measured == 1


def test_measures_whenever_it_is_due(make, clock):
    tracker, validation = make(seconds=100.0)
    for n in (1, 2, 3):
        assert tracker.measure(V, due=True)
        assert validation.measured == n
    assert not tracker.measure(V, due=False)


def test_measuring_takes_a_twentieth_of_the_time_at_most(make, clock):
    tracker, validation = make(seconds=0.5, every_s=1.0)
    began_at, working_s = clock.now, 0.01
    for _ in range(20_000):
        clock.now += working_s
        tracker.measure(V, due=False)
    share = 0.5 * validation.measured / (clock.now - began_at)
    assert 0.04 < share <= 0.05


# When to stop


def test_limits_on_documents():
    assert limit_documents(TopicStopConfig(), 200) is None
    assert limit_documents(TopicStopConfig(documents=300), 200) == 300
    assert limit_documents(TopicStopConfig(passes=2.5), 200) == 500
    assert limit_documents(TopicStopConfig(documents=300, passes=2.5), 200) == 300
    assert limit_documents(TopicStopConfig(documents=900, passes=2.5), 200) == 500
    assert limit_documents(TopicStopConfig(passes=1e-6), 200) == 1


@pytest.mark.parametrize("limits", [{"documents": 1000}, {"passes": 5.0}])
def test_stops_at_a_limit_of_documents(make, limits):
    tracker, _ = make(**limits)
    tracker.add(0, report(250))
    assert (tracker.reached(), tracker.progress()) == (None, 0.25)
    tracker.add(0, report(749))
    assert tracker.reached() is None
    tracker.add(1, report(1))
    assert (tracker.reached(), tracker.progress()) == ("1,000 documents (limit 1,000)", 1.0)


def test_without_a_limit_there_is_no_progress(make):
    tracker, _ = make()
    tracker.add(0, report(10**9))
    assert (tracker.reached(), tracker.progress()) == (None, 0.0)


def test_stops_at_a_goal(make):
    tracker, _ = make([60.0, 40.1, 40.0], perplexity=40.0)
    assert tracker.reached() is None
    for reached in (None, None, "perplexity 40.0 of the validation documents (goal 40)"):
        tracker.measure(V, due=True)
        assert tracker.reached() == reached


def test_stops_when_patience_is_at_an_end(make):
    """A gain is a fall by a thousandth of what there was at the last one; small ones add up to it."""
    tracker, _ = make([100.0, 99.95, 99.92, 99.85, 120.0, 99.9, 99.8, 50.0], patience=3)
    reached = []
    for _ in range(7):
        tracker.measure(V, due=True)
        reached.append(tracker.reached())
    assert reached == [None] * 6 + ["perplexity has not fallen for 3 measurements"]
    tracker.measure(V, due=True)
    assert tracker.reached() is None
    assert tracker.row(1.0)["perplexity/best"] == 50.0


# Resuming


def test_counters_go_on_where_they_were(make):
    tracker, _ = make([60.0, 40.0, 50.0], patience=3)
    for documents in (64, 36):
        tracker.add(0, report(documents, negative=2))
        tracker.measure(V, due=True)
    tracker.measure(V, due=True)
    counters = tracker.counters()
    assert json.loads(json.dumps(counters)) == counters
    resumed, _ = make([50.0], counters=counters, patience=3)
    assert resumed.counters() == counters
    assert resumed.work == 100
    assert (
        resumed.row(1.0).items()
        >= {
            "documents": 100,
            "updates": 4,
            "guard/negative_entries": 4,
            "perplexity/best": 40.0,
            "speed/documents_per_s": 0.0,
        }.items()
    )
    for reached in (None, "perplexity has not fallen for 3 measurements"):
        resumed.measure(V, due=True)
        assert resumed.reached() == reached


def test_counters_of_a_run_that_has_not_measured(make):
    tracker, _ = make()
    assert make(counters=json.loads(json.dumps(tracker.counters())))[0].counters() == tracker.counters()


def test_without_validation_documents_nothing_is_measured():
    limits = TopicStopConfig(patience=1)
    tracker = TopicTracker(2, 200, None, MODEL, limits=limits, every_s=0.0, counters={})
    assert not tracker.measure(V, due=True)
    assert tracker.quality is tracker.reached() is None
    row = tracker.row(1.0)
    assert row["perplexity/validation"] is row["perplexity/best"] is row["bound/per_token"] is None
    json.dumps(tracker.counters())
