"""Trials as processes: followed, pruned, failed, and gone when a signal comes."""

import signal
import threading
import time

import pytest
import yaml

from hsa2c.errors import HSA2CError
from hsa2c.signals import Interrupted
from hsa2c.tuning.runner import Runner
from hsa2c.tuning.study import failure_of, is_cut_off, is_pruned
from tests.processes import wait_until
from tests.tuning.studies import RATE, command, complete


def run(studied, act, *, parallel=1, processes=None):
    said = []
    runner = Runner(studied, command(act), parallel=parallel, processes=processes, say=said.append)
    return runner, said


def test_trials_side_by_side_until_there_are_enough(study, tmp_path):
    studied = study(trials=3)
    runner, said = run(studied, "good", parallel=3, processes=2)
    runner.run()
    best, *others = studied.ranked()
    assert len(others) == 2
    assert best.value == pytest.approx(best.params[RATE.field])
    assert best.value == max(trial.value for trial in studied.trials())
    assert yaml.safe_load((tmp_path / "best.yaml").read_text()) == {
        "seed": 3,
        "optimiser": {"learning_rate": best.params[RATE.field]},
    }
    settings = yaml.safe_load((tmp_path / "runs/trial-0000.yaml").read_text())
    assert settings["cluster"] == {"processes": 2}
    assert [line.partition(":")[0] for line in said] == ["1 of 3", "2 of 3", "3 of 3"]


def test_a_poor_trial_is_stopped_and_told_so(study, tmp_path):
    studied = study(trials=6)
    for _ in range(5):
        complete(studied, 0.5, levels=20)
    runner, said = run(studied, "poor")
    began = time.monotonic()
    runner.run()
    assert time.monotonic() - began < 30  # it would sleep for 60 s
    assert is_pruned(studied.trials()[5])
    assert "pruned at 60%" in said[0]


def test_a_failed_trial_is_told_and_the_study_goes_on(study, tmp_path):
    studied = study(trials=5)
    runner, said = run(studied, ["broken", "good", "refused", "silent", "other"])
    runner.run()
    failures = [failure_of(trial) for trial in studied.trials()]
    assert failures[0] == "node 0 has failed: ValueError: not a number"
    assert failures[1] is None
    assert failures[2] == "hsa2c train: agent.t_max = 0: must be greater"
    assert failures[3] == "no value of score before its end: a trial must last longer"
    assert failures[4].startswith("score: no such value in its rows; did you mean scores")
    assert failures[0] in said[0]


def test_nothing_but_failures_is_an_end(study, tmp_path):
    studied = study(trials=9)
    runner, _ = run(studied, "broken")
    with pytest.raises(HSA2CError, match=r"3 trials have failed one after another.*not a number"):
        runner.run()
    assert len(studied.trials()) == 3


def test_a_signal_cuts_off_what_is_under_way(study, tmp_path):
    studied = study(trials=2)
    runner, said = run(studied, "slow", parallel=2)

    def interrupt():
        wait_until(lambda: len(list(tmp_path.glob("runs/*/metrics.jsonl"))) == 2, "two trials")
        signal.raise_signal(signal.SIGINT)

    signal_later = threading.Thread(target=interrupt)
    before = signal.getsignal(signal.SIGINT)
    signal_later.start()
    began = time.monotonic()
    with pytest.raises(Interrupted):
        runner.run()
    signal_later.join()
    assert time.monotonic() - began < 30
    assert signal.getsignal(signal.SIGINT) == before
    assert said == []
    assert all(is_cut_off(trial) for trial in studied.trials())
    runner, _ = run(studied, "good", parallel=2)  # as if it were begun again
    runner.run()
    assert [trial.number for trial in sorted(studied.ranked(), key=lambda trial: trial.number)] == [2, 3]
