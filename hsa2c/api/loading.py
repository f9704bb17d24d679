"""What was trained, from its files: to be used, or to be evaluated."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

from hsa2c import application
from hsa2c.api.runs import path_of
from hsa2c.application import Application
from hsa2c.commands import APPLICATION
from hsa2c.errors import ConfigError
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run import directory as rundir
from hsa2c.run import hub
from hsa2c.run.checkpoint import Checkpoint


def load(target: Any, *, app: Any = None, trust_code: bool = False, **options: Any) -> Any:
    """What a run has trained: a policy of an agent, a torch module of `hsa2c.minimise`, v of an own application.

    Args:
        target: A run's directory, a folder of `push`, a checkpoint file, a `hsa2c.Run`, or ``hf:user/name``: a
            repository of the Hugging Face hub. Of a run, its best checkpoint, or its newest where there is no best one.
        app: Its application, or the name of its module; None: as its directory says.
        trust_code: Import the code that it names, though it is not in a run's directory, and so may be a stranger's.
        options: What the application takes (`hsa2c.Application.policy`).

    Raises:
        ConfigError: There is no checkpoint, or no such option.
    """
    found, checkpoint, config = _read(target, app, trust_code)
    return _call(found.policy, "hsa2c.load", options, config, checkpoint.v)


def evaluate(target: Any, *, app: Any = None, trust_code: bool = False, **options: Any) -> dict[str, Any]:
    """How good what a run has trained is, by name.

    Args:
        target: As for `load`.
        app: As for `load`.
        trust_code: As for `load`.
        options: What the application takes (`hsa2c.Application.evaluate`).

    Raises:
        ConfigError: As for `load`.
    """
    found, checkpoint, config = _read(target, app, trust_code)
    given = dict(_call(found.evaluate, "hsa2c.evaluate", options, config, checkpoint.v))
    if not given:
        raise ConfigError(f"hsa2c.evaluate: {found.name} says nothing of how good v is: it has no evaluate")
    return given


def export(target: Any, path: str | Path, *, app: Any = None, trust_code: bool = False) -> Path:
    """Write what a run has trained as a file for other programs, as ``hsa2c export`` does; gives back the file.

    Args:
        target: As for `load`.
        path: The file; its ending says the format.
        app: As for `load`.
        trust_code: As for `load`.

    Raises:
        ConfigError: As for `load`; or it cannot be exported so, or the file cannot be written.
    """
    found, checkpoint, config = _read(target, app, trust_code)
    found.export(config, checkpoint.v, Path(path))
    return Path(path)


def push(
    target: Any,
    folder: str | Path,
    *,
    to_hub: str | None = None,
    private: bool = False,
    app: Any = None,
    trust_code: bool = False,
    **options: Any,
) -> Path:
    """Measure what was trained, and write it as a folder in the Hugging Face hub's format, as ``hsa2c push`` does.

    Args:
        target: As for `load`.
        folder: A new one, an empty one, or one that this has written: its files are replaced.
        to_hub: ``user/name``: send the folder to this repository of the hub, too.
        private: Whether a new repository is to be private.
        app: As for `load`.
        trust_code: As for `load`.
        options: What the application takes (`hsa2c.Application.card`).

    Returns:
        The folder.

    Raises:
        ConfigError: As for `load`; the folder is another's, or cannot be written.
        HSA2CError: The hub has refused it, or is not reached; the folder stays.
    """
    path, folder = path_of(hub.local(target)), Path(folder)
    found = _application(path, app)
    _check_options(found.card, "push", options, 3)
    if to_hub is not None:
        hub.check_upload(to_hub)
    for line in hub.write(found, path, folder, options=options, trusted=trust_code):
        warnings.warn(line, stacklevel=2)
    if to_hub is not None:
        hub.upload(folder, to_hub, private=private)
    return folder


def _application(path: Path, app: Any) -> Application:
    return application.named((rundir.application_of(path) if app is None else app) or APPLICATION)[1]


def _read(target: Any, app: Any, trust_code: bool) -> tuple[Application, Checkpoint, Any]:
    """A target's application, checkpoint and settings."""
    checkpoint, path, _ = checkpoints.read(path_of(hub.local(target)), prefer="best")
    found = _application(path, app)
    return found, checkpoint, hub.settings(found, checkpoint, path, trusted=trust_code)


def _check_options(method: Any, call: str, options: dict[str, Any], given: int) -> None:
    known = list(inspect.signature(method).parameters)[given:]
    for name, value in options.items():
        if name not in known:
            takes = f"takes {', '.join(known)}" if known else "takes none here"
            raise ConfigError(f"{call}: {name} = {value!r}: no such option; it {takes}")


def _call(method: Any, call: str, options: dict[str, Any], *given: Any) -> Any:
    _check_options(method, call, options, len(given))
    return method(*given, **options)
