"""A study's directory: counted, resumed, shared by several processes, and mended."""

import math
import os
import signal
import subprocess
import sys

import pytest

from hsa2c.errors import ConfigError
from hsa2c.run.directory import application_of
from hsa2c.tuning.ranges import Range
from hsa2c.tuning.study import LEVELS, failure_of, is_cut_off, is_pruned, is_whole, read_plan
from tests.processes import environment, wait_until
from tests.tuning.studies import RATE, complete


def test_trials_count_until_there_are_enough(study, tmp_path):
    studied = study(trials=3)
    complete(studied, 1.0)
    first, second = studied.begin(), studied.begin()
    assert 0 <= first.params[RATE.field] <= 1
    assert studied.begin() is None  # two are under way
    studied.end(first, why="it was broken")
    studied.end(second)  # cut off: another in its place
    third = studied.begin()
    assert third.number == 3
    studied.end(third, pruned=True)
    assert studied.begin() is None
    whole, failed, cut_off, pruned = studied.trials()
    assert is_whole(whole) and is_cut_off(cut_off) and is_pruned(pruned)
    assert failure_of(failed) == "it was broken"
    assert [trial.number for trial in studied.ranked()] == [0]


def test_another_process_goes_on_with_it(study, tmp_path):
    first = study()
    complete(first, 1.0)
    begun = first.begin()
    again = study()
    complete(again, 2.0)
    assert again.begin() is None  # the third is the first's
    assert [trial.value for trial in again.ranked()] == [2.0, 1.0]
    first.end(begun, value=3.0)
    assert [trial.value for trial in again.ranked()] == [3.0, 2.0, 1.0]


@pytest.mark.parametrize("objective", ["score", "-score"])
def test_best_is_what_the_objective_says(study, tmp_path, objective):
    studied = study(objective=objective)
    for value in (2.0, 1.0, 3.0):
        complete(studied, value)
    assert [trial.value for trial in studied.ranked()] == sorted([1.0, 2.0, 3.0], reverse=objective == "score")


def test_a_trial_below_the_median_is_pruned_but_not_at_once_nor_at_its_end(study, tmp_path):
    studied = study(trials=20)
    for value in range(5):
        complete(studied, float(value), levels=LEVELS)
    trial = studied.begin()
    told = [studied.report(trial, level, 1.9) for level in range(1, LEVELS + 1)]
    assert told == [level >= LEVELS // 4 and level < LEVELS for level in range(1, LEVELS + 1)]
    trial = studied.begin()
    assert not any(studied.report(trial, level, 2.1) for level in range(1, LEVELS + 1))


def test_nobody_is_pruned_among_the_first(study, tmp_path):
    studied = study(trials=20)
    for value in range(4):
        complete(studied, float(value), levels=LEVELS)
    trial = studied.begin()
    assert not any(studied.report(trial, level, -math.pi) for level in range(1, LEVELS + 1))


def test_the_trial_of_a_killed_process_is_cut_off(study, tmp_path):
    code = (
        f"from tests.tuning.studies import study; import time; s = study({str(tmp_path)!r}); s.begin(); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], env=environment())
    try:
        wait_until(lambda: len(list((tmp_path / "locks").glob("0*"))) == 1, "a trial")
        studied = study(trials=1)
        assert studied.begin() is None
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert studied.begin().number == 1
        assert is_cut_off(studied.trials()[0])
    finally:
        child.kill()
        child.wait()


def test_a_torn_line_is_mended(study, tmp_path):
    complete(study(), 1.0)
    with (tmp_path / "trials.log").open("a") as log:
        log.write('{"op_code": 4, "worker')
    studied = study()
    complete(studied, 2.0)
    assert [trial.value for trial in study().ranked()] == [2.0, 1.0]


def test_a_damaged_log_is_one_line(study, tmp_path):
    complete(study(), 1.0)
    log = tmp_path / "trials.log"
    log.write_text(log.read_text().replace('"op_code":4', '"op_code":444').replace("{", "", 1))
    with pytest.raises(ConfigError, match=r"trials\.log: is damaged"):
        study()


def test_its_plan_is_read_back_and_it_says_which_application_it_is_of(study, tmp_path):
    studied = study()
    assert read_plan(tmp_path) == studied.plan
    assert application_of(tmp_path) == "tests.nowhere"
    (tmp_path / "study.yaml").write_text("objective: score\ntrials: many\n")
    with pytest.raises(ConfigError, match="trials = 'many'"):
        read_plan(tmp_path)


@pytest.mark.slow
def test_importance_where_there_is_enough_to_tell(study):
    other = Range(field="agent.t_max", text="8,16,32,64", choices=(8, 16, 32, 64))
    studied = study(trials=40, ranges=(RATE, other))
    for number in range(20):
        assert (studied.importance() == {}) == (number < 10)
        complete(studied, lambda params: params[RATE.field])
    importance = studied.importance()
    assert importance[RATE.field] > importance["agent.t_max"]
    assert sum(importance.values()) == pytest.approx(1)
