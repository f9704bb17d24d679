"""``hsa2c tune``: what is refused, what goes on, what is said; and whole studies of real trainings."""

import contextlib
import dataclasses
import json
import os
import shlex
import signal
import sys

import pytest

from hsa2c import application
from hsa2c.commands import run_options, tune
from hsa2c.config.loading import read_yaml, tree
from hsa2c.observe.runlog import read_rows
from hsa2c.run.directory import application_of
from hsa2c.tuning.ranges import read_all
from hsa2c.tuning.study import Study, is_cut_off, read_plan
from tests.processes import PATIENCE_S, started, wait_until

GYM = "hsa2c.agents.gym.application"
RATE = "optimiser.learning_rate=1e-4..1e-2:log"
T_MAX = "agent.t_max=16,32,64"
OWN = "tests.api.own_application"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def gym(*arguments):
    return tune.main([*map(str, arguments)], app=GYM, prog="hsa2c tune")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--minutes", 1], "--range"),
        (["--minutes", 1, "--range", "agent.t_max"], "FIELD=LOW..HIGH"),
        (["--minutes", 1, "--range", "agent.tmax=1,2"], "did you mean t_max"),
        (["--minutes", 1, "--range", "optimiser.learning_rate=1e-3..11"], "optimiser.learning_rate = 11"),
        (["--range", RATE], "never end"),
        (["--minutes", 1, "--range", RATE, "--lr", 0.1], "is set already"),
        (["--minutes", 1, "--range", RATE, "--trials", 0], "--trials 0"),
        (["--minutes", 1, "--range", RATE, "--parallel", 0], "--parallel 0"),
        (["--minutes", 1, "--range", RATE, "--env", "CartPol-v1"], "did you mean CartPole-v1"),
        (["--range", "optimiser.anneal=true,false"], "needs a limit"),
        (["--minutes", 1, "--range", "cluster.spares=0,2"], "cluster.spares = 2"),
        (["--study", "nowhere"], "nowhere: no study yet"),
        (["--minutes", 1, "--range", RATE, "--resume", "run"], "--resume"),
    ],
)
def test_one_line_before_anything_is_written(refused, arguments, named):
    assert named in refused(lambda typed: gym(*typed), *arguments)


def test_a_run_is_no_study(refused, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    said = refused(lambda typed: gym(*typed), "--study", "run", "--minutes", 1, "--range", RATE)
    assert "--study run: is a run" in said


def test_without_a_score_of_its_own_an_application_needs_one(refused):
    def own(typed):
        return tune.main(typed, app=f"{OWN}:INSTANCE", prog="hsa2c tune")

    assert "--objective" in refused(own, "--updates", 9, "--range", RATE)


@pytest.mark.parametrize(
    ("app", "objective"),
    [
        (GYM, "score/mean_100"),
        ("hsa2c.agents.application", "score/mean_100"),
        ("hsa2c.examples.lda.application", "-perplexity/validation"),
        (OWN, "-distance"),
    ],
)
def test_the_objective_of_applications(app, objective):
    assert application.load(app).best == objective


@pytest.fixture
def studied(tmp_path, monkeypatch, capsys):
    """A study of two trials that is done, without any training; and what was said."""
    monkeypatch.setattr(tune, "Runner", Done)
    code = gym("--minutes", 1, "--range", RATE, "--range", T_MAX, "--trials", 2, "--study", "s", "--p", 1)
    assert code == 0
    return tmp_path / "s", *capsys.readouterr()


def opened(directory, app, **changes):
    plan = read_plan(directory)
    typed = [f"{field}={text}" for field, text in plan.ranges.items()]
    ranges = read_all(typed, application.load(app), plan.asked)
    return Study(directory, dataclasses.replace(plan, **changes), ranges)


class Done:
    """In the place of `hsa2c.tuning.runner.Runner`: trials whose score is their learning rate."""

    def __init__(self, study, command, *, parallel, processes, say):
        self._study = study
        Done.processes, Done.command = processes, command

    def run(self):
        while (trial := self._study.begin()) is not None:
            self._study.end(trial, value=trial.params["optimiser.learning_rate"])


def test_what_is_said_and_left(studied):
    folder, out, err = studied
    assert "2 trials" in err
    best = read_yaml(folder / "best.yaml")
    assert out.splitlines()[0].split() == ["trial", "score/mean_100", "optimiser.learning_rate", "agent.t_max", "time"]
    command = shlex.split(out.splitlines()[-1].partition(": ")[2])
    assert command[:4] == ["hsa2c", "train", "--app", GYM]  # for there is no --env
    words = application.load(GYM).command
    assert tree(run_options.given(words, run_options.parser(words).parse_args(command[4:]))) == best
    assert best["cluster"] == {"processes": 1}
    assert (folder / "study.png").stat().st_size > 10_000
    assert application_of(folder / "best.yaml") == GYM  # so that --config needs no --app
    trained = Done.command(folder / "runs/trial-0007.yaml", folder / "runs/trial-0007")
    assert trained[:2] == [sys.executable, "-P"]
    assert trained[3:5] == ["hsa2c", "train"]
    assert trained[-4:] == ["--run-dir", str(folder / "runs"), "--name", "trial-0007"]


def test_it_goes_on_with_the_words_it_began_with_or_with_none(studied, capsys):
    assert gym("--study", "s", "--trials", 3, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["complete"], said["trials"], said["objective"]) == (3, 3, "score/mean_100")
    assert said["best"][0]["value"] == max(best["value"] for best in said["best"])
    assert said["config"] == "s/best.yaml"
    assert gym("--study", "s", "--minutes", 1, "--range", T_MAX, "--range", RATE, "--p", 1, "--trials", 4) == 0
    assert read_plan(studied[0]).trials == 4


def test_trials_of_others_that_are_under_way_are_told(studied, capsys):
    with contextlib.closing(opened(studied[0], GYM, trials=3)) as other:
        other.begin()
        assert gym("--study", "s", "--trials", 3) == 0
    assert "1 of its trials still under way" in capsys.readouterr().err


def test_another_study_needs_another_folder(studied, refused):
    for arguments, named in (
        (["--minutes", 2], "stop.minutes = 2.0: s has 1.0"),
        (["--seed", 2], "seed = 2: s has the default"),
        (["--range", T_MAX], "--range"),
        (["--range", RATE, "--range", "agent.t_max=16,32"], "--range"),
        (["--objective", "score/last"], "score/last"),
    ):
        said = refused(lambda typed: gym("--study", "s", *typed), *arguments)
        assert named in said
        assert "another --study" in said


def test_trials_side_by_side_share_the_cores(studied, monkeypatch):
    monkeypatch.setattr(tune, "share_of_cores", lambda nodes: 12 // nodes)
    assert Done.processes is None
    gym("--minutes", 1, "--range", RATE, "--trials", 1, "--study", "t", "--parallel", 2, "--nodes", 2)
    assert Done.processes == 3


def test_a_missing_optuna_is_one_line(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "pip install 'hsa2c[tune]'" in refused(lambda typed: gym(*typed), "--minutes", 1, "--range", RATE)


# Real trainings.

COMMAND = (
    *("-m", "hsa2c", "tune", "--app", OWN, "--p", 1, "--set", "output.log_every_s=0.1"),
    *("--range", "optimiser.learning_rate=1e-3..1e-1:log"),
)


def trials_of(study):
    with contextlib.closing(opened(study, OWN)) as found:
        return found.trials()


@pytest.mark.slow
@pytest.mark.timeout(300)  # several runs, one after another
def test_a_study_of_two_small_trials(tmp_path):
    study = tmp_path / "study"
    with started(study, *COMMAND, "--updates", 300, "--trials", 2, "--study", study, "--json") as run:
        assert run.end() == 0, run.stderr()
        said = json.loads(run.launcher.stdout_path.read_text())
        run.assert_gone()
    assert said["complete"] + said["pruned"] == 2
    values = [best["value"] for best in said["best"]]
    assert values == sorted(values)  # a distance: less is better
    assert read_rows(study / "runs" / "trial-0000" / "metrics.jsonl")[-1]["distance"] in values
    assert f"--app {OWN}" in said["command"]


@pytest.mark.slow
@pytest.mark.timeout(300)  # several runs, one after another
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_a_study_that_is_stopped_leaves_no_process_and_goes_on(tmp_path, signum):
    study = tmp_path / "study"
    with started(study, *COMMAND, "--minutes", 5, "--trials", 1, "--study", study) as run:
        rows = study / "runs" / "trial-0000" / "metrics.jsonl"
        wait_until(lambda: rows.exists() or run.launcher.poll() is not None, "a row")
        os.kill(run.launcher.pid, signum)
        assert run.launcher.wait(PATIENCE_S) == (130 if signum == signal.SIGINT else -signum), run.stderr()
        wait_until(lambda: not processes_of(study), "the end of its trial", limit_s=30)
        if signum == signal.SIGINT:
            assert f"go on with: hsa2c tune --study {study}" in run.stderr()
    (study / "study.yaml").write_text((study / "study.yaml").read_text().replace("minutes: 5.0", "minutes: 0.01"))
    with started(study, "-m", "hsa2c", "tune", "--study", study) as again:
        assert again.end() == 0, again.stderr()
    cut_off, whole = trials_of(study)
    assert is_cut_off(cut_off)
    assert whole.value is not None


def processes_of(study):
    import psutil

    return [each for each in psutil.process_iter(["cmdline"]) if str(study) in " ".join(each.info["cmdline"] or ())]
