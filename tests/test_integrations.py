"""Weights & Biases and MLflow: absent, broken, and both for real where they are installed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from hsa2c.config.sections import StopConfig
from hsa2c.errors import ConfigError
from hsa2c.integrations import MLflowCallback, WandbCallback
from tests.processes import REPOSITORY

ROW = {"time": 1.5, "session": 0, "step": 7, "train/loss": 0.5, "left_s": None}


@pytest.mark.parametrize(
    ("callback", "module", "cure"),
    [(WandbCallback, "wandb", "pip install wandb"), (MLflowCallback, "mlflow", "pip install mlflow")],
)
def test_what_is_not_installed_is_one_line(callback, module, cure, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError) as error:
        callback()
    assert str(error.value).endswith(cure)
    assert "\n" not in str(error.value)


class Broken(Exception):
    pass


BATCHES = []


class Client:
    """A server that takes one batch, and then nothing more."""

    def __init__(self, tracking_uri):
        self.batches = BATCHES
        if tracking_uri == "nowhere":
            raise Broken("no server\nand more")

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id="1")

    def create_run(self, experiment, run_name):
        return SimpleNamespace(info=SimpleNamespace(run_id=run_name))

    def log_batch(self, run_id, **batch):
        if len(self.batches) == 2:
            raise Broken("gone\nand more")
        self.batches.append((run_id, batch))


@pytest.fixture
def mlflow(monkeypatch):
    entities = SimpleNamespace(Metric=lambda *fields: fields, Param=lambda *fields: fields)
    monkeypatch.setattr(sys.modules[__name__], "BATCHES", [])
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=Client, MlflowException=Broken))
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)


def test_a_server_that_is_not_there_is_one_line(mlflow):
    with pytest.raises(ConfigError, match=r"^MLflowCallback: uri = 'nowhere': no server$"):
        MLflowCallback(uri="nowhere")


def test_a_server_that_fails_costs_no_run(mlflow, capsys):
    run = SimpleNamespace(dir=Path("runs/first"), config=StopConfig(minutes=2.0), reason="over")
    callback = MLflowCallback()
    callback.on_start(run)
    for _ in range(3):
        callback.on_row(run, ROW)
    callback.on_end(run)
    assert BATCHES == [
        ("first", {"params": [("minutes", "2.0")]}),
        ("first", {"metrics": [("train/loss", 0.5, 1500, 7)]}),
    ]
    assert capsys.readouterr().err == "MLflowCallback: no more is sent: gone\n"


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("wandb", "mlflow"))), reason="wandb or mlflow is not installed"
)
def test_both_keep_a_run_without_a_network(tmp_path):
    uri = {"MLFLOW_TRACKING_URI": f"file:{tmp_path / 'mlruns'}", "MLFLOW_ALLOW_FILE_STORE": "true"}
    environment = os.environ | uri | {"PYTHONPATH": str(REPOSITORY), "WANDB_MODE": "offline"}
    program = [sys.executable, str(REPOSITORY / "examples" / "tracking.py")]
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    (recorded,) = (tmp_path / "runs" / "first" / "wandb").glob("offline-run-*/*.wandb")
    assert b"train/loss" in recorded.read_bytes()
    (metric,) = (tmp_path / "mlruns").glob("*/*/metrics/train/loss")
    assert [int(line.split()[2]) for line in metric.read_text().splitlines()][-1] >= 2000
    (updates,) = (tmp_path / "mlruns").glob("*/*/params/stop.updates")
    assert updates.read_text() == "2000"
    (reason,) = (tmp_path / "mlruns").glob("*/*/tags/reason")
    assert "limit 2,000" in reason.read_text()
