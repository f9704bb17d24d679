"""Callbacks that show a run in other programs, too. Each loads its package when it is made, and not before."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import Any

from hsa2c.api.callbacks import Callback
from hsa2c.api.runs import RunFiles
from hsa2c.config.loading import flatten, to_dict
from hsa2c.errors import ConfigError
from hsa2c.observe.runlog import ROW_KEYS


class WandbCallback(Callback):
    """Sends settings, rows and the end's reason to Weights & Biases.

    Args:
        options: Of ``wandb.init``, such as ``project="mine"`` or ``mode="offline"``. Without a word the run's name is
            that of its directory, where wandb's files are, too.

    Raises:
        ConfigError: wandb is not installed.
    """

    def __init__(self, **options: Any) -> None:
        self._wandb = _load("wandb", "wandb", "WandbCallback")
        self._options = options

    def on_start(self, run: RunFiles) -> None:
        """See `Callback`."""
        given = {"name": run.dir.name, "dir": str(run.dir), "config": to_dict(run.config), **self._options}
        quiet = self._wandb.Settings(console="off", silent=True)  # the terminal is the run's own
        self._run = self._wandb.init(**{"settings": quiet, **given})

    def on_row(self, run: RunFiles, row: dict[str, Any]) -> None:
        """See `Callback`."""
        self._run.log(_numbers(row), step=row["step"])

    def on_end(self, run: RunFiles) -> None:
        """See `Callback`."""
        self._run.summary["reason"] = run.reason
        self._run.finish()


class MLflowCallback(Callback):
    """Sends settings, rows and the end's reason to MLflow. If its server fails, no more is sent, and training goes on.

    Args:
        experiment: Its name.
        uri: Of the tracking server, or of a data base or a folder; None: as ``MLFLOW_TRACKING_URI`` says.
        name: Of the run; None: that of its directory.

    Raises:
        ConfigError: MLflow is not installed, or there is nothing at `uri`.
    """

    def __init__(self, experiment: str = "hsa2c", *, uri: str | None = None, name: str | None = None) -> None:
        mlflow = _load("mlflow", "mlflow", "MLflowCallback")
        self._entities = importlib.import_module("mlflow.entities")
        self._error = mlflow.MlflowException
        self._name, self._id = name, ""
        try:
            self._client = mlflow.MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(experiment)
            self._experiment = found.experiment_id if found else self._client.create_experiment(experiment)
        except self._error as error:
            raise ConfigError(f"MLflowCallback: uri = {uri!r}: {_first_line(error)}") from None

    def on_start(self, run: RunFiles) -> None:
        """See `Callback`."""
        fields = [item for name, value in to_dict(run.config).items() for item in flatten(name, value).items()]
        params = [self._entities.Param(name, str(value)) for name, value in fields]
        with self._sending():
            self._id = self._client.create_run(self._experiment, run_name=self._name or run.dir.name).info.run_id
            self._client.log_batch(self._id, params=params)

    def on_row(self, run: RunFiles, row: dict[str, Any]) -> None:
        """See `Callback`."""
        at, step = int(row["time"] * 1000), row["step"]
        if self._id:
            metrics = [self._entities.Metric(name, value, at, step) for name, value in _numbers(row).items()]
            with self._sending():
                self._client.log_batch(self._id, metrics=metrics)

    def on_end(self, run: RunFiles) -> None:
        """See `Callback`."""
        if self._id:
            with self._sending():
                self._client.set_tag(self._id, "reason", str(run.reason))
                self._client.set_terminated(self._id)

    @contextlib.contextmanager
    def _sending(self) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            self._id = ""
            print(f"MLflowCallback: no more is sent: {_first_line(error)}", file=sys.stderr)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name not in ROW_KEYS and value is not None}


def _load(module: str, package: str, callback: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise ConfigError(f"{callback}: needs {module}, which is not installed: pip install {package}") from None
