"""When evaluations begin, which checkpoint is the best by them, and what failures do: by a clock in the test's hand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from hsa2c.errors import EvaluationError, StorageError
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run import evaluations as module
from hsa2c.run.checkpoint import Checkpoint
from hsa2c.run.evaluations import Evaluations
from hsa2c.run.evaluator import EVALUATED
from hsa2c.run.faults import Faults
from hsa2c.tracker import Evaluation

V = np.zeros(3, np.float32)


class FakeEvaluator:
    """Ends when the test says how."""

    def __init__(self, best="score", every_s=10.0, limit_s=100.0):
        self.plan = Evaluation(evaluate=dict, best=best, every_s=every_s, limit_s=limit_s)
        self.begun = []
        self.outcome = None
        self.busy = False
        self.stopped = 0

    def begin(self, path, *, beside_training):
        assert not self.busy
        self.busy = True
        self.begun.append((path.name, beside_training))

    def result(self):
        outcome, self.outcome = self.outcome, None
        if outcome is None:
            return None
        self.busy = False
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def stop(self):
        self.stopped += self.busy
        self.busy = False


class FakeKeeper:
    """Writes checkpoints as the real one does; each with another t."""

    def __init__(self, folder):
        self.folder = folder
        self.t = 0
        self.evaluated = False
        self.full = False

    def save_candidate(self, v):
        if self.full:
            raise StorageError("no room")
        self.t += 1
        return checkpoints.save_candidate(
            self.folder,
            Checkpoint(v=v, momentum=v, optimiser_states=(), t=self.t, counters={}, config={}, identity={}),
        )


@pytest.fixture
def run(tmp_path):
    def run(counters=None, **plan):
        events = []
        log = SimpleNamespace(event=lambda kind, message, **fields: events.append((kind, message, fields)))
        evaluator, keeper, faults = FakeEvaluator(**plan), FakeKeeper(tmp_path), Faults(log, 1, {})
        evaluations = Evaluations(evaluator, keeper, log, faults, counters or {})
        evaluations.begin(0.0)
        return SimpleNamespace(
            evaluations=evaluations, evaluator=evaluator, keeper=keeper, faults=faults, events=events, at=0.0
        )

    return run


def step(run, now, *, step=None):
    run.evaluations.attend(now)
    run.evaluations.stepped(V, now, step=step or int(now), elapsed_s=now)


def evaluated(run, now, outcome):
    """One evaluation begins at `now` and comes to this."""
    step(run, now)
    assert run.evaluator.busy
    run.evaluator.outcome = outcome
    run.evaluations.attend(now + 1)


def best_t(run):
    path = checkpoints.best(run.keeper.folder)
    return None if path is None else checkpoints.load(path).t


def told(run, kind):
    return [message for its, message, _ in run.events if its == kind]


def test_one_begins_every_so_often_and_never_two_at_once(run):
    run = run(every_s=10.0)
    for now in (1, 9, 10, 11, 25):
        step(run, now)
    assert run.evaluator.begun == [("evaluating.safetensors", True)], "the first takes longer than the interval"
    run.evaluator.outcome = {"score": 1.0}
    step(run, 26)
    assert len(run.evaluator.begun) == 2, "the next begins when it is done"
    run.evaluator.outcome = {"score": 1.0}
    step(run, 28)
    step(run, 35)
    assert len(run.evaluator.begun) == 2
    step(run, 36)
    assert len(run.evaluator.begun) == 3


def test_values_are_those_of_what_was_evaluated(run):
    run = run()
    step(run, 10, step=500)
    step(run, 12, step=600)
    assert run.evaluations.values == {}
    run.evaluator.outcome = {"score": 2.5, "seconds": 0.5}
    step(run, 13, step=700)
    assert run.evaluations.values == {
        "evaluate/score": 2.5,
        "evaluate/seconds": 0.5,
        "evaluate/best_score": 2.5,
        "evaluate/step": 500,
        "evaluate/elapsed_s": 10,
    }
    json.dumps(run.evaluations.values)


@pytest.mark.parametrize(("best", "scores"), [("score", [1.0, 3.0, 2.0, 3.0]), ("-score", [9.0, 4.0, 5.0, 4.0])])
def test_the_best_checkpoint_is_the_best_evaluated(run, best, scores):
    run = run(best=best)
    for number, score in enumerate(scores, 1):
        evaluated(run, 20 * number, {"score": score})
    assert best_t(run) == 2
    assert run.evaluations.values["evaluate/best_score"] == scores[1]
    assert [fields["best"] for kind, _, fields in run.events if kind == "evaluation"] == [True, True, False, False]
    assert run.keeper.evaluated


def test_a_resumed_run_knows_the_best_and_the_last_values(run, tmp_path):
    checkpoints.save_best(
        tmp_path,
        Checkpoint(
            v=V, momentum=V, optimiser_states=(), t=77, counters={EVALUATED: {"score": 5.0}}, config={}, identity={}
        ),
    )
    run = run(counters={"evaluations": {"evaluate/score": 4.0, "evaluate/step": 3}})
    assert run.evaluations.values["evaluate/score"] == 4.0
    evaluated(run, 10, {"score": 4.5})
    assert (best_t(run), run.evaluations.values["evaluate/best_score"]) == (77, 5.0)
    evaluated(run, 30, {"score": 5.5})
    assert (best_t(run), run.evaluations.values["evaluate/best_score"]) == (2, 5.5)


def test_a_best_checkpoint_that_was_not_evaluated_gives_way(run, tmp_path):
    checkpoints.save_best(
        tmp_path, Checkpoint(v=V, momentum=V, optimiser_states=(), t=77, counters={}, config={}, identity={})
    )
    run = run()
    evaluated(run, 10, {"score": -4.5})
    assert best_t(run) == 1


def test_failures_are_told_and_three_in_a_row_are_the_last(run):
    run = run()
    for now in (10, 30):
        evaluated(run, now, EvaluationError("OSError: no board\nTraceback"))
    evaluated(run, 50, {"score": 1.0})
    for now in (70, 90, 110):
        evaluated(run, now, EvaluationError("OSError: no board"))
    assert run.faults.counts["evaluations_failed"] == 5
    warnings = told(run, "warning")
    assert warnings[0] == "the evaluation at step 10 failed: OSError: no board"
    assert len(warnings) == 6
    step(run, 200)
    run.evaluations.finish(V, step=300, elapsed_s=300, stopping=lambda: False)
    assert not run.evaluator.busy
    assert len(run.evaluator.begun) == 6
    assert (best_t(run), run.evaluations.values["evaluate/score"]) == (3, 1.0)


def test_one_that_cannot_be_written_is_a_failure(run):
    run = run()
    run.keeper.full = True
    step(run, 10)
    assert not run.evaluator.busy
    assert told(run, "warning") == ["the evaluation at step 10 failed: no room"]


def test_one_whose_checkpoint_has_gone_is_a_failure(run):
    run = run()
    step(run, 10)
    checkpoints.candidate(run.keeper.folder).unlink()
    run.evaluator.outcome = {"score": 1.0}
    step(run, 11)
    assert (run.faults.counts["evaluations_failed"], run.evaluations.values, best_t(run)) == (1, {}, None)


def test_one_that_takes_too_long_is_ended(run):
    run = run(limit_s=100.0)
    step(run, 10)
    step(run, 110)
    assert run.evaluator.busy
    step(run, 111)
    assert run.evaluator.stopped == 1
    assert told(run, "warning") == ["the evaluation at step 10 failed: no end within 100 s"]


@pytest.fixture
def patience(monkeypatch):
    """Time that passes as `finish` sleeps, and what happens then."""
    time = SimpleNamespace(now=0.0, then=lambda: None)

    def sleep(seconds):
        time.now += seconds
        time.then()

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: time.now, sleep=sleep))
    return time


def finish(run, *, step=99, stopping=lambda: False):
    run.evaluations.finish(V, step=step, elapsed_s=50.0, stopping=stopping)
    assert not run.evaluator.busy
    assert not checkpoints.candidate(run.keeper.folder).exists()


def test_the_last_checkpoint_is_evaluated(run, patience):
    run = run()
    evaluated(run, 10, {"score": 1.0})
    step(run, 30)
    patience.then = lambda: setattr(run.evaluator, "outcome", {"score": 2.0})
    finish(run)
    assert run.evaluator.stopped == 1, "what went on is of an older v"
    assert run.evaluator.begun[-1] == ("evaluating.safetensors", False)
    assert (best_t(run), run.evaluations.values["evaluate/step"]) == (3, 99)
    assert len(told(run, "evaluating")) == 1


def test_the_last_evaluation_has_a_limit(run, patience):
    run = run(limit_s=30.0)
    finish(run)
    assert run.evaluator.stopped == 1
    assert told(run, "warning") == ["the evaluation at step 99 failed: no end within 30 s"]


def test_who_asks_for_an_end_does_not_wait_for_the_last_evaluation(run, patience):
    run = run()
    finish(run, stopping=lambda: True)
    assert run.evaluator.begun == []
    finish(run, stopping=lambda: patience.now > 1)
    assert (len(run.evaluator.begun), run.evaluator.stopped) == (1, 1)
    assert told(run, "warning") == []


def test_what_was_evaluated_last_is_not_evaluated_again(run, patience):
    run = run()
    evaluated(run, 10, {"score": 1.0})
    finish(run, step=10)
    assert len(run.evaluator.begun) == 1
