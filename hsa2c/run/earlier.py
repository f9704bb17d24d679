"""What a run's directory says of its earlier sessions, so that nothing of another run is mixed with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hsa2c.application import Application
from hsa2c.config.loading import flatten, read_yaml, to_dict
from hsa2c.errors import ConfigError
from hsa2c.observe.runlog import JOURNAL, read_rows
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run.checkpoint_file import read_identity

#: Applications of this package: name in a checkpoint to module. Runs of 0.1 say no more, nor does a lone checkpoint.
_OURS = {
    "hsa2c": "hsa2c.agents.application",
    "gym": "hsa2c.agents.gym.application",
    "lda": "hsa2c.examples.lda.application",
}


def module_of(checkpoint: Path | None) -> str | None:
    """Module of the application of this package that a checkpoint is of; None where it cannot be told."""
    return _OURS.get(read_identity(checkpoint).get("application", "")) if checkpoint else None


def check_same(app: Application, directory: Path, before: Any, now: Any) -> None:
    """Refuse another application or network, or other data, in a run's directory, whether or not it has checkpoints.

    Args:
        app: The application.
        directory: The run's.
        before: The configuration that is there.
        now: The one that is to run.

    Raises:
        ConfigError: They differ in what a checkpoint must agree on.
    """
    wanted = app.identity(now)
    for name, value in app.identity(before).items():
        if wanted.get(name) != value:
            raise ConfigError(
                f"{directory}: is a run of {name} {value!r}, this one is of {wanted.get(name)!r}; --name starts another"
            )


def check_not_lost(directory: Path) -> None:
    """Refuse to begin anew where a session has written a checkpoint that is not there any more.

    Raises:
        ConfigError: One has.
    """
    journal = directory / JOURNAL
    events = read_rows(journal) if journal.exists() else []
    if written := [event for event in events if event.get("kind") == "checkpoint"]:
        name = Path(str(written[-1].get("path"))).name
        folder = directory / checkpoints.FOLDER
        raise ConfigError(f"{folder}: holds no checkpoint, but {name} was written: put it back; --name starts another")


def changes(path: Path, config: Any) -> str | None:
    """In which settings a configuration is another than the one in a file, in words; None if in none."""
    try:
        before = _fields(read_yaml(path))
    except ConfigError:
        return None
    now = _fields(to_dict(config))
    changed = [name for name, value in now.items() if before.get(name, value) != value]
    return "; ".join(f"{name} = {now[name]!r}, was {before[name]!r}" for name in changed) or None


def _fields(values: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in values.items():
        fields |= flatten(str(name), value)
    return fields
