"""`hsa2c.train` with an application of one's own, however it is given; and what one has forgotten in it."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import hsa2c
from tests.api import own_application as own
from tests.api.scripts import run as run_python
from tests.processes import PATIENCE_S, REPOSITORY, environment

MODULE = "tests.api.own_application"


def train(folder, app, **options):
    usual = {"p": 1, "updates": 100, "lr": 0.1, "run_dir": folder, "name": "run", "progress": False, "force": True}
    settings = {"optimiser.name": "sgd", "output.log_every_s": 0.1} | options.pop("settings", {})
    return hsa2c.train(app=app, settings=settings, **(usual | options))


class Local(own.Own):
    """Its module is this one."""


def in_a_function():
    class Hidden(own.Own):
        pass

    return Hidden


@pytest.mark.parametrize(
    "app",
    [own.Own, own.INSTANCE, f"{MODULE}:Own", f"{MODULE}:INSTANCE", Local, in_a_function(), in_a_function()()],
    ids=["class", "instance", "its name", "the instance's name", "here", "in a function", "its instance"],
)
def test_three_members_train(tmp_path, app):
    run = train(tmp_path, app)
    assert np.allclose(run.load(), own.MINIMUM, atol=1e-3)
    assert run.rows()[-1]["updates"] == 104
    assert run.reason == "104 updates (limit 100)"
    with pytest.raises(hsa2c.ConfigError, match="says nothing of how good v is"):
        run.evaluate()
    assert run.application.name in ("Own", "Local", "Hidden")


@pytest.mark.slow
def test_an_application_of_a_module_has_curves_a_best_and_a_policy(tmp_path):
    run = train(tmp_path, MODULE, settings={"output.checkpoint_every_s": 0.1})
    row = run.rows()[-1]
    assert row["distance"] == pytest.approx(run.evaluate()["distance"], abs=1e-6)
    assert run.application.name == "evaluated"
    assert run.checkpoint.name.startswith("best")
    assert run.load()(np.ones(3)) == pytest.approx(2.0, abs=1e-3)
    assert run.load(scale=2.0)(np.ones(3)) == pytest.approx(4.0, abs=1e-3)
    with pytest.raises(hsa2c.ConfigError, match="it takes scale"):
        run.load(nosuch=1)
    with pytest.raises(hsa2c.ConfigError, match="it takes none here"):
        run.evaluate(games=3)


def test_what_a_problem_reports_is_in_rows(tmp_path):
    row = train(tmp_path, own.ReportingOwn).rows()[-1]
    assert row["train/value"] == 2.0
    assert not {"text", "many"} & set(row)


MISTAKES = {
    "application NoInitial: NoInitial has no initial, must have one": own.NoInitial,
    "application NoProblem: NoProblem has no problem, must have one": own.NoProblem,
    "application object: is a object, must be a hsa2c.Application": object,
    "application int: is a int, must be a hsa2c.Application": 3,
    "application: no module nosuch is installed": "nosuch",
    f"{MODULE}:nosuch: there is no nosuch in {MODULE}": f"{MODULE}:nosuch",
    "application tests.api.problems: the module has no APPLICATION": "tests.api.problems",
    "best = 'x': needs evaluate": type("Own", (own.Own,), {"best": "x"}),
}


@pytest.mark.parametrize("line", MISTAKES)
def test_what_is_no_application_is_one_line_and_nothing_is_written(tmp_path, line):
    with pytest.raises(hsa2c.ConfigError) as error:
        train(tmp_path, MISTAKES[line])
    assert line in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def zeros(*shape, **how):
    return lambda u_hat: torch.zeros(*shape, **how)


def evaluating(given, **members):
    return type("Own", (own.Own,), {"evaluate": lambda self, config, v: given} | members)


def raising(member, *_):
    def fail(*_):
        raise LookupError(f"in my {member}")

    return type("Own", (own.Own,), {member: fail})


FAILURES = {
    "v_0 is float64 [3], must be float32 [3]": own.Double,
    "v_0 is float32 [3, 3], must be float32 [3]": own.Matrix,
    "u is no longer finite": own.NotFinite,
    "actor-learner 0 (pid ": own.with_gradient(None),
    "Wrong has no gradient: a problem must have one": own.with_gradient(None),
    "Wrong has no report: a problem must have one": own.with_gradient(zeros(3), base=object),
    "NoneType has no gradient": type("Own", (own.Own,), {"problem": lambda self, config, seed: None}),
    "a gradient is torch.float32 [2], ": own.with_gradient(zeros(2)),
    "a gradient is torch.float32 [5], ": own.with_gradient(zeros(5)),
    "a gradient is torch.float64 [3], ": own.with_gradient(zeros(3, dtype=torch.float64)),
    "a gradient is a ndarray: must be torch.float32 [3]": own.with_gradient(lambda u_hat: u_hat.numpy()),
    "the gradient of Wrong is None: must be one": own.with_gradient(lambda u_hat: None),
    "the report of Wrong must be JSON values by name: set is not JSON": own.with_gradient(zeros(3), {"a": {1}}),
    "the report of Wrong must be JSON values by name: Tensor": own.with_gradient(zeros(3), {"a": torch.ones(())}),
    "the report of Wrong must be JSON values by name: 'list'": own.with_gradient(zeros(3), [1]),
    "the report of a problem: gave step: each row has its own": own.with_gradient(zeros(3), {"step": 1}),
    "the report of a problem: gave updates: each row": own.with_gradient(zeros(3), {"updates": 1}),
    "its tracker is a NoneType, must be a hsa2c.Tracker": own.with_tracker(lambda counters: None),
    "its tracker is a dict, must be a hsa2c.Tracker": own.with_tracker(dict),
    "evaluate: gave a = 'b', must give numbers by name": evaluating({"a": "b"}),
    "evaluate: gave 3.0, must give numbers by name": evaluating(3.0),
    "evaluate: gave step: each row has its own": evaluating({"step": 1}),
    "best = 'x': must be one of what evaluate gives: a": evaluating({"a": 1.0}, best="x"),
    **{f"LookupError: in my {name}": raising(name) for name in ("initial", "problem", "evaluate", "tracker", "dim")},
}


@pytest.mark.parametrize("line", FAILURES)
def test_what_is_wrong_in_an_application_is_one_line(tmp_path, line):
    with pytest.raises(hsa2c.HSA2CError) as error:
        train(tmp_path, FAILURES[line], updates=10_000_000, settings={"output.checkpoint_every_s": 0.1})
    assert str(error.value).startswith(f"{tmp_path / 'run'}: the run failed: ")
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def command_line(folder, *arguments):
    how = ("--run-dir", folder, "--name", "run", "--updates", 100, "--p", 1, "--lr", 0.1, "--set", "optimiser.name=sgd")
    return subprocess.run(
        [sys.executable, "-P", "-m", "hsa2c", "train", *map(str, (*arguments, *how))],
        cwd=folder,
        env=environment(PYTHONPATH=str(REPOSITORY)),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


@pytest.mark.slow
def test_the_command_line_trains_the_same(tmp_path):
    text = (REPOSITORY / "tests" / "api" / "own_application.py").read_text()
    (tmp_path / "mine.py").write_text(text)
    done = command_line(tmp_path, "--app", "mine", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["updates"] >= 100
    code = "import hsa2c; run = hsa2c.Run('run'); print(run.load()([1, 1, 1]), run.reason)"
    policy, _, reason = run_python("-c", code, cwd=tmp_path)[0].partition(" ")
    assert float(policy) == pytest.approx(2.0, abs=1e-3)
    assert "updates (limit 100)" in reason


@pytest.mark.slow
@pytest.mark.parametrize(
    ("nodes", "app", "line"),
    [
        (1, "NoInitial", "NoInitial has no initial, must have one"),
        (2, "Double", "v_0 is float64 [3], must be float32 [3]"),
    ],
)
def test_the_command_line_says_the_same_line(tmp_path, nodes, app, line):
    text = (REPOSITORY / "tests" / "api" / "own_application.py").read_text()
    (tmp_path / "mine.py").write_text(f"{text}\nAPPLICATION = {app}()\n")
    done = command_line(tmp_path, "--app", "mine", "--nodes", nodes)
    assert done.returncode == (2 if app == "NoInitial" else 1), done.stderr
    assert [said for said in done.stderr.splitlines() if line in said] != []
    assert "Traceback" not in done.stderr
