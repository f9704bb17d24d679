"""What was trained, from its files: to be used, or to be evaluated."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from hsa2c import application
from hsa2c.api.runs import path_of
from hsa2c.application import Application
from hsa2c.commands import APPLICATION
from hsa2c.errors import ConfigError
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run import directory as rundir
from hsa2c.run.checkpoint import Checkpoint


def load(target: Any, *, app: Any = None, **options: Any) -> Any:
    """What a run has trained: a policy of an agent, a torch module of `hsa2c.minimise`, v of an own application.

    Args:
        target: A run's directory, a checkpoint file, or a `hsa2c.Run`. Of a run, its best checkpoint, or its newest
            where there is no best one.
        app: Its application, or the name of its module; None: as its directory says.
        options: What the application takes (`hsa2c.Application.policy`).

    Raises:
        ConfigError: There is no checkpoint, or no such option.
    """
    found, checkpoint, _ = _read(target, app)
    config = found.build_config(checkpoint.config)
    return _call(found.policy, "hsa2c.load", options, config, checkpoint.v)


def evaluate(target: Any, *, app: Any = None, **options: Any) -> dict[str, Any]:
    """How good what a run has trained is, by name.

    Args:
        target: As for `load`.
        app: As for `load`.
        options: What the application takes (`hsa2c.Application.evaluate`).

    Raises:
        ConfigError: As for `load`.
    """
    found, checkpoint, _ = _read(target, app)
    config = found.build_config(checkpoint.config)
    given = dict(_call(found.evaluate, "hsa2c.evaluate", options, config, checkpoint.v))
    if not given:
        raise ConfigError(f"hsa2c.evaluate: {found.name} says nothing of how good v is: it has no evaluate")
    return given


def export(target: Any, path: str | Path, *, app: Any = None) -> Path:
    """Write what a run has trained as a file for other programs, as ``hsa2c export`` does; gives back the file.

    Args:
        target: As for `load`.
        path: The file; its ending says the format.
        app: As for `load`.

    Raises:
        ConfigError: As for `load`; or it cannot be exported so, or the file cannot be written.
    """
    found, checkpoint, _ = _read(target, app)
    found.export(found.build_config(checkpoint.config), checkpoint.v, Path(path))
    return Path(path)


def _read(target: Any, app: Any) -> tuple[Application, Checkpoint, Path]:
    directory = path_of(target)
    checkpoint, path, _ = checkpoints.read(directory, prefer="best")
    named = app if app is not None else rundir.application_of(path.parents[1] if len(path.parents) > 1 else path.parent)
    found = application.named(named or APPLICATION)[1]
    checkpoints.check_identity(checkpoint, {"application": found.name}, source=path)
    return found, checkpoint, path


def _call(method: Any, call: str, options: dict[str, Any], *given: Any) -> Any:
    known = list(inspect.signature(method).parameters)[len(given) :]
    for name, value in options.items():
        if name not in known:
            takes = f"takes {', '.join(known)}" if known else "takes none here"
            raise ConfigError(f"{call}: {name} = {value!r}: no such option; it {takes}")
    return method(*given, **options)
