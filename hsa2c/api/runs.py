"""Runs, as files in a directory: what was trained, how it went, and what one can do with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hsa2c import application
from hsa2c.application import Application
from hsa2c.commands import APPLICATION
from hsa2c.config.loading import read_yaml
from hsa2c.errors import ConfigError
from hsa2c.observe.runlog import JOURNAL, METRICS, number, read_history, read_rows
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run import directory as rundir


def path_of(target: Any) -> Path:
    """The path of a run: of its directory, or of a `Run`.

    Raises:
        ConfigError: It is neither.
    """
    found = getattr(target, "dir", target)
    if not isinstance(found, str | Path):
        raise ConfigError(f"run = {target!r}: must be a directory, or a hsa2c.Run")
    return Path(found)


class RunFiles:
    """A run that was begun, by Python or by a command line; all of it is read from its directory.

    Args:
        directory: The run's.

    Attributes:
        dir: The same.

    Raises:
        ConfigError: It is no run's directory.
    """

    def __init__(self, directory: str | Path) -> None:
        self.dir = path_of(directory)
        self.stop_reason: str | None = None
        if not rundir.is_there(self.dir / rundir.CONFIG):
            raise ConfigError(f"{self.dir}: not a run directory (it has no {rundir.CONFIG})")

    def __repr__(self) -> str:
        return f"hsa2c.Run({str(self.dir)!r})"

    @property
    def application(self) -> Application:
        """What runs there."""
        return application.load(rundir.application_of(self.dir) or APPLICATION)  # one of 0.1 does not say

    @property
    def config(self) -> Any:
        """Every setting, as resolved."""
        return self.application.build_config(read_yaml(self.dir / rundir.CONFIG))

    @property
    def reason(self) -> str | None:
        """Why its last session has ended, such as "20,000 updates (limit 20,000)"; None: it has not, or was killed."""
        events = read_rows(self.dir / JOURNAL) if (self.dir / JOURNAL).exists() else []
        stops = [event for event in events if event.get("kind") in ("stop", "start", "resume")]
        return stops[-1].get("message") if stops and stops[-1]["kind"] == "stop" else None

    def rows(self) -> list[dict[str, Any]]:
        """The rows of ``metrics.jsonl``, one every few seconds: numbers by name, what callbacks have added among them.

        None stands where there is no number yet. Every row has "elapsed_s", "step" and what the application counts.
        """
        if not (self.dir / METRICS).exists():
            return []
        return [row for row in read_history(self.dir) if number(row.get("elapsed_s")) is not None]

    def stop(self, reason: str = "asked to stop") -> None:
        """End the run in good order, from a callback: it writes a checkpoint, and is over within seconds."""
        self.stop_reason = reason

    def plot(self, output: str | Path | None = None, *, tags: Sequence[str] = (), x: str = "work") -> Path:
        """Draw its curves into a picture.

        Args:
            output: The file to write; its ending tells the format; None: ``curves.png`` in the run's directory.
            tags: Names of values; the first one large. None: the application's.
            x: "work", which is what the application counts, or "minutes".

        Returns:
            The file.

        Raises:
            ConfigError: There is nothing to draw yet, or the file cannot be written.
        """
        from hsa2c.observe.plot import plot

        if x not in ("work", "minutes"):
            raise ConfigError(f"x = {x!r}: must be 'work' or 'minutes'")
        app, path = self.application, Path(output or self.dir / "curves.png")
        words = app.pictures
        shown = tags or app.drawn(self.config)
        axis = "minutes" if x == "minutes" else "work"
        plot([self.dir], path, tags=shown, x=axis, step_name=words.unit, labels=words.labels)  # type: ignore[arg-type]
        return path

    def report(self, output: str | Path | None = None) -> Path:
        """Write its page: one HTML file with its curves, staleness, faults and story; gives back the file.

        Raises:
            ConfigError: There are no rows yet, or the file cannot be written.
        """
        from hsa2c.observe.report import write

        path = Path(output or self.dir / "report.html")
        write(self.dir, path, self.application.pictures)
        return path

    @property
    def checkpoint(self) -> Path | None:
        """Its best checkpoint, or its newest where there is no best one; None: it has none."""
        if not rundir.has_checkpoint(self.dir):
            return None
        return checkpoints.read(self.dir, prefer="best")[1]
