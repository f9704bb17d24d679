"""The process that evaluates beside training, for real: what it says, how it fails, and that nothing is left."""

import math
import os
import signal
import time

import numpy as np
import psutil
import pytest

from hsa2c.errors import EvaluationError
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run.checkpoint import Checkpoint
from hsa2c.run.evaluator import EVALUATED, Evaluator
from hsa2c.tracker import Evaluation
from tests.dpsgd.waiting import wait_until

V = np.arange(3, dtype=np.float32)


@pytest.fixture
def candidate(tmp_path):
    checkpoint = Checkpoint(
        v=V, momentum=np.ones(3, np.float32), optimiser_states=(), t=7, counters={"updates": 5}, config={}, identity={}
    )
    return checkpoints.save_candidate(tmp_path, checkpoint)


@pytest.fixture
def make():
    made = []

    def make(evaluate, best="score"):
        made.append(Evaluator(Evaluation(evaluate=evaluate, best=best, every_s=1.0, limit_s=9.0)))
        return made[-1]

    yield make
    for evaluator in made:
        evaluator.close()
    assert psutil.Process().children(recursive=True) == []


def outcome(evaluator, candidate, *, beside_training=True):
    evaluator.begin(candidate, beside_training=beside_training)
    return ended(evaluator)


def ended(evaluator):
    found = []
    wait_until(lambda: found.append(evaluator.result()) or found[-1] is not None, "an evaluation")
    assert not evaluator.busy
    return found[-1]


def failure(evaluator, candidate):
    with pytest.raises(EvaluationError) as error:
        outcome(evaluator, candidate)
    assert not evaluator.busy
    return str(error.value)


def test_values_are_told_and_written_into_the_checkpoint(make, candidate):
    evaluator = make(lambda v: {"score": v.sum(), "others": 2, "unknown": math.nan})
    for _ in range(2):
        values = outcome(evaluator, candidate)
        assert (values["score"], values["others"], values["unknown"]) == (3.0, 2.0, None)
        assert values["seconds"] >= 0
    checkpoint = checkpoints.load(candidate)
    assert checkpoint.counters == {"updates": 5, EVALUATED: values}
    assert np.array_equal(checkpoint.v, V)


@pytest.mark.parametrize(("beside_training", "nice"), [(True, 10), (False, 0)])
def test_priority_is_low_while_others_train(make, candidate, beside_training, nice):
    evaluator = make(lambda _: {"score": os.nice(0)})
    assert outcome(evaluator, candidate, beside_training=beside_training)["score"] == os.nice(0) + nice


def test_what_it_raises_is_told_with_its_traceback(make, candidate):
    def evaluate(v):
        raise KeyError("no board")

    said = failure(make(evaluate), candidate)
    assert said.startswith("KeyError: 'no board'\nTraceback")
    assert "in evaluate" in said


@pytest.mark.parametrize(
    "given", [{"score": math.nan}, {"other": 1.0}, None, {"score": "high"}, {"time": 1, "score": 1}]
)
def test_what_is_no_evaluation_is_a_failure(make, candidate, given):
    assert failure(make(lambda _: given), candidate)


def test_a_killed_one_is_a_failure_and_the_next_one_begins(make, candidate, tmp_path):
    def evaluate(v):
        if (tmp_path / "die").exists():
            (tmp_path / "die").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"score": 1.0}

    evaluator = make(evaluate)
    (tmp_path / "die").touch()
    assert "SIGKILL" in failure(evaluator, candidate)
    assert outcome(evaluator, candidate)["score"] == 1.0


def test_it_is_ended_when_asked(make, candidate):
    evaluator = make(lambda _: time.sleep(3600))
    evaluator.begin(candidate, beside_training=True)
    assert evaluator.result() is None
    (parent,) = psutil.Process().children()
    (child,) = parent.children()
    evaluator.stop()
    assert not evaluator.busy
    assert not child.is_running()


def test_without_the_process_that_forks_it_cannot_begin(make, candidate):
    evaluator = make(lambda _: {"score": 1.0})
    (parent,) = psutil.Process().children()
    parent.kill()
    with pytest.raises(EvaluationError, match="has died"):
        evaluator.begin(candidate, beside_training=True)
    assert not evaluator.busy


def test_a_checkpoint_that_has_gone_is_a_failure(make, candidate):
    candidate.unlink()
    assert "no such checkpoint" in failure(make(lambda _: {"score": 1.0}), candidate)
