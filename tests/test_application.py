"""What every application is held to; and how one is found, by its module's name alone."""

import subprocess
import sys

import numpy as np
import pytest

from bench.testbed.emulated_hosts import EmulatedHosts, why_not
from hsa2c import application
from hsa2c.application import Application
from hsa2c.errors import ConfigError
from tests.processes import REPOSITORY, started
from tests.test_faults import ready

PATIENCE_S = 60
WHY_NOT = why_not()
OWN = "from tests.faulty_application import Faulty\nAPPLICATION = Faulty()\n"
LAUNCH = """
import os, sys
from tests import faulty_application
os.chdir(sys.argv[1])
sys.exit(faulty_application.main(*sys.argv[2:], app="own"))
"""
REPLAY = """
import os, sys
os.chdir(sys.argv[1])
os.execv(sys.executable, [sys.executable, "-m", "hsa2c", *sys.argv[2:]])
"""


@pytest.mark.parametrize("module", ["hsa2c.agents.application", "hsa2c.examples.lda.application"])
def test_an_application_loads_no_console(module):
    code = f"import sys, {module}; print(sorted({{'rich', 'torch', 'mpi4py', 'matplotlib'}} & set(sys.modules)))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert done.stdout == "[]\n"


@pytest.fixture
def folder(tmp_path):
    """The current directory, with an application whose class is of another module."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "own.py").write_text(OWN)
    return tmp_path / "here"


@pytest.mark.parametrize("name", ["", ".x", "a b", "no_such", "agents.no_such", "hsa2c.errors", "../x"])
def test_a_name_of_no_application_is_refused(name):
    with pytest.raises(ConfigError, match="application"):
        application.load(name)


def test_what_an_application_lacks_itself_is_named(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    (folder / "lacking.py").write_text("import no_such_library\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        application.load("lacking")


@pytest.mark.slow
def test_an_application_of_the_current_directory_is_found_by_all(folder, tmp_path):
    settings = ("cluster.nodes=2", "dpsgd.exchange=paper", "output.record=true", "stop.minutes=0.02")
    with started(tmp_path / "run", "-c", LAUNCH, folder, tmp_path, "run", *settings, PYTHONPATH=str(REPOSITORY)) as run:
        assert run.end() == 0, run.stderr()
    run.assert_gone()
    options = ("replay", tmp_path / "run", "--recompute", "--app", "own")
    with started(tmp_path / "replay", "-c", REPLAY, folder, *options, PYTHONPATH=str(REPOSITORY)) as replay:
        assert replay.end() == 0, replay.stderr()
    assert "computed anew" in replay.launcher.stdout_path.read_text()


@pytest.mark.slow
@pytest.mark.skipif(WHY_NOT is not None, reason=f"hosts cannot be emulated: {WHY_NOT}")
def test_an_application_of_the_current_directory_is_found_on_other_hosts(folder, tmp_path):
    (tmp_path / "hosts").write_text("h0\nh1\n")
    settings = ("cluster.nodes=2", f"cluster.hosts={tmp_path}/hosts", "stop.minutes=0.02")
    command = ("-c", LAUNCH, folder, tmp_path, "run", *settings)
    with EmulatedHosts(2) as hosts:
        variables = {**hosts.environment, "PYTHONPATH": str(REPOSITORY)}
        with started(tmp_path / "run", *command, starter=hosts.inside("h0"), **variables) as run:
            assert run.end() == 0, run.stderr()
    assert {node["host"] for node in ready(run).values()} == {"h0", "h1"}


class Least(Application):
    """What one must write, and no more."""

    def initial(self, config):
        return np.zeros(3, np.float32)

    def problem(self, config, seed):
        return seed


class Evaluated(Least):
    name = "better"
    best = "-x"

    def evaluate(self, config, v):
        return {"x": 0.5}


def test_defaults_say_what_the_runtime_needs():
    app = Least()
    config = app.build_config({"stop": {"updates": 100}, "cluster": {"nodes": 2, "processes": 1}})
    assert (app.name, app.label(config), app.identity(config)) == ("Least", "Least", {"application": "Least"})
    assert app.title(config).startswith("Least: 2 nodes x 1 actor-learner, B = ")
    assert app.limits(config) == {"updates": 100}
    assert app.dim(config) == app.layout(config).size == 3
    assert (app.code(config), app.remarks(config), app.describe(config), app.starting(config)) == ((), (), {}, "")
    assert app.resolve(config) is app.on_host(config, 4, 2) is app.chosen(config, {}) is config
    assert app.evaluate(config, None) == {}
    assert app.policy(config, "v") == "v"
    assert app.work_per_update(config) == 1.0
    assert app.limits(app.build_config({})) == {}


def test_each_process_node_and_resume_has_another_seed():
    config = Least().build_config({"seed": 3})
    seeds = [Least().problems(config, node, t)(index) for node in range(2) for t in (0, 5) for index in range(2)]
    again = [Least().problems(config, node, t)(index) for node in range(2) for t in (0, 5) for index in range(2)]
    assert seeds == again
    assert len({*seeds, Least().problems(Least().build_config({"seed": 4}), 0, 0)(0)}) == 9


def test_the_default_tracker_evaluates_where_there_is_something_to_ask():
    config = Least().build_config({"stop": {"updates": 100}})
    plain, evaluated = (application.tracker_of(app, config, {"updates": 40}) for app in (Least(), Evaluated()))
    assert (plain.work, plain.progress()) == (40, 0.4)
    assert not plain.measure(None, due=True)
    assert evaluated.measure(None, due=True)
    assert evaluated.quality == -0.5
    assert Evaluated().name == "better"
