"""`hsa2c.Run`: what one can do with a run that is there, whoever has begun it; resuming and loading."""

import shutil
import threading

import numpy as np
import pytest
import torch
import yaml

import hsa2c
from hsa2c.agents.application import APPLICATION
from tests.api import own_application as own
from tests.api import problems
from tests.api.problems import MINIMUM, Point, distance, minimise
from tests.api.scripts import run, write
from tests.api.test_training import train
from tests.processes import training


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of the module's model, with an evaluation; not to be changed."""
    with torch.no_grad():
        problems.MODEL.x.zero_()
    return minimise(tmp_path_factory.mktemp("runs"), problems.MODEL, evaluate=distance, best="-distance")


def test_a_run_is_what_its_directory_says(finished):
    again = hsa2c.Run(str(finished.dir))
    assert repr(again) == f"hsa2c.Run({str(finished.dir)!r})"
    assert again.rows() == finished.rows()
    assert again.reason == "104 updates (limit 100)"
    assert again.config.stop.updates == 100
    assert again.application.name == "minimise"
    assert again.checkpoint.is_file()
    row = again.rows()[-1]
    assert {"elapsed_s", "step", "updates", "train/loss", "distance"} <= set(row)


def test_loading_takes_a_run_a_folder_or_a_checkpoint(finished):
    for target in (finished, finished.dir, str(finished.dir), finished.checkpoint):
        model = hsa2c.load(target)
        assert torch.allclose(model.x, MINIMUM, atol=1e-3)
        assert not model.training
        assert hsa2c.evaluate(target) == pytest.approx({"distance": 0.0}, abs=1e-3)
    assert hsa2c.load(finished) is not problems.MODEL
    assert hsa2c.load(finished, app="hsa2c.minimising.application").x.shape == (3,)


def test_plots_and_pages_are_written(finished, tmp_path):
    assert finished.plot() == finished.dir / "curves.png"
    assert finished.plot(tmp_path / "a.svg", tags=["distance", "train/loss"], x="minutes").stat().st_size > 1000
    assert finished.report() == finished.dir / "report.html"
    assert "104 updates" in finished.report(tmp_path / "page.html").read_text()
    with pytest.raises(hsa2c.ConfigError, match="x = 'days': must be 'work' or 'minutes'"):
        finished.plot(x="days")


@pytest.mark.parametrize("call", [hsa2c.Run, hsa2c.resume, hsa2c.load, hsa2c.evaluate])
@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_what_is_no_run_is_one_line(tmp_path, call, kind):
    target = tmp_path / "x"
    if kind == "empty":
        target.mkdir()
    elif kind == "file":
        target.write_text("no\n")
    with pytest.raises(hsa2c.ConfigError) as error:
        call(target)
    assert str(target) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_run_without_rows_or_checkpoints_says_so(tmp_path):
    (tmp_path / "config.yaml").write_text("{}\n")
    empty = hsa2c.Run(tmp_path)
    assert (empty.rows(), empty.reason, empty.checkpoint) == ([], None, None)
    for call in (empty.load, empty.evaluate, empty.resume, empty.plot, empty.report):
        with pytest.raises(hsa2c.ConfigError):
            call()


def test_a_run_goes_on_to_a_further_limit(tmp_path):
    model = Point()
    first = minimise(tmp_path, model, lr=0.001, updates=80)
    before = first.load().x.detach()
    with pytest.raises(hsa2c.ConfigError, match="nothing left to do"):
        first.resume(progress=False, force=True)
    with pytest.raises(hsa2c.ConfigError, match="nosuch = 1: no such option"):
        first.resume(nosuch=1)
    assert first.resume(updates=800, settings={"optimiser.learning_rate": 0.1}, progress=False, force=True) is first
    assert first.rows()[-1]["updates"] == 800
    assert (first.load().x - MINIMUM).norm() < 0.01 < (before - MINIMUM).norm()
    assert torch.equal(model.x, before), "only the call that was given it changes a model"
    again = hsa2c.resume(str(first.dir), updates=880, progress=False, force=True)
    assert isinstance(again, hsa2c.Run)
    assert again.rows()[-1]["updates"] == 880


def test_what_a_run_is_of_cannot_change(tmp_path):
    run = minimise(tmp_path, problems.MODEL)
    with pytest.raises(hsa2c.ConfigError, match=r"problem.model"):
        run.resume(settings={"problem.model": "tests.api.problems:Point"}, updates=300)


def test_an_own_application_goes_on(tmp_path):
    run = train(tmp_path, own.Own, updates=50)
    run.resume(updates=300, progress=False, force=True)
    assert run.rows()[-1]["updates"] >= 300
    assert np.allclose(run.load(), own.MINIMUM, atol=1e-3)


def test_a_checkpoint_of_another_application_is_refused(finished):
    with pytest.raises(hsa2c.ConfigError):
        hsa2c.load(finished.checkpoint, app=own.Own)


def test_a_model_that_has_changed_is_one_line(tmp_path, monkeypatch):
    run = minimise(tmp_path, problems.MODEL)
    monkeypatch.setitem(problems.MODEL._parameters, "x", torch.nn.Parameter(torch.zeros(4)))
    for call in (run.load, lambda: run.resume(updates=300, progress=False, force=True)):
        with pytest.raises(hsa2c.HSA2CError, match="4") as error:
            call()
        assert "\n" not in str(error.value)


def test_a_run_in_another_thread_may_be_looked_at(tmp_path):
    found = []
    thread = threading.Thread(target=lambda: found.append(minimise(tmp_path, Point())))
    thread.start()
    thread.join(60)
    assert found[0].reason == "104 updates (limit 100)"


@pytest.mark.slow
def test_another_process_goes_on_by_names(tmp_path):
    """Of a script that has begun a run; the script is found by its file, and not run again."""
    script = write(tmp_path / "scripts")
    run(script, tmp_path)
    resume = "hsa2c.resume(sys.argv[1], updates=300, progress=False)"
    code = f"import hsa2c, sys; print({resume}.load().x.tolist())"
    out, _ = run("-c", code, tmp_path / "run", cwd="/")
    assert out.startswith("[0.99") or out.startswith("[1.0")
    shutil.move(script, tmp_path / "elsewhere.py")
    _, err = run("-c", code.replace("300", "500"), tmp_path / "run", cwd="/", code=1)
    assert err.splitlines()[-1].endswith("own_script.py: there is no such script")


@pytest.mark.slow
def test_a_run_of_the_command_line_is_a_run(tmp_path):
    with training(tmp_path, "--agent-steps", 400) as begun:
        assert begun.end() == 0, begun.stderr()
    found = hsa2c.Run(tmp_path / "run")
    assert found.application is APPLICATION
    assert found.rows()[-1]["agent_steps"] >= 400
    assert found.reason
    assert found.plot(tags=["policy/entropy"]).is_file()
    assert found.report().is_file()
    found.resume(agent_steps=800, progress=False, force=True)
    assert found.rows()[-1]["agent_steps"] >= 800
    assert yaml.safe_load((found.dir / "config.yaml").read_text())["agent"]["num_envs"] == 2
