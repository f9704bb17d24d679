"""Runs of the user's own code: found by other processes, evaluated and drawn by commands."""

import json
import os
import subprocess
import sys

import pytest

import hsa2c
from hsa2c import ConfigError
from hsa2c.api.callbacks import Feed
from hsa2c.commands import evaluate, plot
from tests.processes import REPOSITORY

LIBRARY = """
import torch
model = torch.nn.Linear(3, 1)
def loss(model):
    return model(torch.randn(8, 3)).square().mean()
"""
MINE = """
import numpy as np, torch, hsa2c
class Rows(hsa2c.Problem):
    def gradient(self, u_hat, interrupted):
        return u_hat - 1.0
class Mine(hsa2c.Application):
    best = "-error"
    def initial(self, config):
        return np.zeros(4, np.float32)
    def problem(self, config, seed):
        return Rows()
    def evaluate(self, config, v):
        return {"error": float(abs(v - 1.0).max())}
APPLICATION = Mine()
"""


def python(folder, script):
    (folder / "script.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "script.py"]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.slow
def test_a_module_of_a_relative_search_path_is_found_by_ranks(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/library.py").write_text(LIBRARY)
    call = "hsa2c.minimise(library.model, library.loss, nodes=2, p=1, updates=50, progress=False)"
    imports = "import sys; sys.path.insert(0, 'sub')\nimport hsa2c, library\n"
    done = python(tmp_path, f"{imports}if __name__ == '__main__':\n    print({call}.reason)")
    assert done.returncode == 0, done.stderr
    assert "updates (limit 50)" in done.stdout


@pytest.mark.slow
def test_an_evaluation_that_raises_is_named(tmp_path):
    script = LIBRARY + (
        "import hsa2c, itertools\ncalls = itertools.count()\ndef evaluate(model):\n"
        "    if next(calls) > 1:\n        raise ValueError('mine broke')\n    return 1.0\n"
        "hsa2c.minimise(model, loss, evaluate=evaluate, p=1, minutes=1, progress=False)\n"
    )
    last = python(tmp_path, script).stderr.strip().splitlines()[-1]
    assert last.endswith("ValueError: mine broke")


@pytest.mark.slow
def test_an_own_application_is_evaluated_and_drawn_by_commands(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_application_drawn.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    run = hsa2c.train(app="own_application_drawn", p=1, updates=100, lr=0.1, name="one", progress=False)
    assert evaluate.main([str(run.dir), "--json"], app="own_application_drawn") == 0
    assert json.loads(capsys.readouterr().out).keys() == {"error", "checkpoint"}
    assert run.application.drawn(run.config)[0] == "error"
    assert plot.main([str(run.dir)], app="own_application_drawn") == 0
    assert (run.dir / "curves.png").stat().st_size > 1000


def test_an_event_that_there_is_not_is_refused(tmp_path):
    class Wrong(hsa2c.Callback):
        def on_rwo(self, run, row):
            pass

    class There:
        dir = tmp_path

    with pytest.raises(ConfigError, match=r"Wrong.on_rwo: no such event; known are on_checkpoint"):
        Feed(There(), 1, [Wrong()])


@pytest.mark.parametrize("call", [hsa2c.resume, hsa2c.load, hsa2c.evaluate, hsa2c.Run])
@pytest.mark.parametrize("what", [None, 3])
def test_what_is_no_run_is_refused(call, what):
    with pytest.raises(ConfigError, match=f"run = {what}: must be a directory, or a hsa2c.Run"):
        call(what)
