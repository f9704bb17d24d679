"""Training runs as benchmarks start them: through the product's own command, one after the other."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hsa2c.runlog import JOURNAL, Row, read_history, read_rows
from hsa2c.runtime import rundir
from hsa2c.runtime.application import Application
from hsa2c.runtime.launch import Launch, launch
from hsa2c.runtime.world import find_world


def train(options: Sequence[str]) -> None:
    """Run ``train.py`` with these options to its end; stopped in good order if this process is.

    Raises:
        SystemExit: It failed; with what it said.
    """
    command = [sys.executable, "-m", "hsa2c", "train", *options]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, errors = run.communicate()
    finally:
        if run.poll() is None:
            run.send_signal(signal.SIGTERM)
            run.wait()
    if run.returncode != 0:
        raise SystemExit(f"train.py failed ({run.returncode}): {errors}")


def launch_new(app: Application, module: str, run_dir: str, name: str, settings: Sequence[str]) -> int:
    """Launch a run of a benchmark's own application from this process; gives back the exit code.

    Args:
        app: The application.
        module: Where ranks find it.
        run_dir: Folder of runs.
        name: The run's.
        settings: As of ``--set``.
    """
    given = rundir.assignments([f"output.run_dir={run_dir}", f"output.name={name}", *settings])
    run = rundir.prepare(app, given, None, find_world())
    with run.open():
        title = app.title(run.config)
        return launch(Launch(app=module, config=run.config, directory=run.directory, title=title, lock=run.lock))


def rows(directory: Path) -> list[Row]:
    """The rows of a run, those of what a resume made void left out."""
    return [row for row in read_history(directory) if "elapsed_s" in row]


def events(directory: Path, kind: str) -> list[dict[str, Any]]:
    """The events of a kind in a run's journal, in their order; none where there is no run."""
    if not (directory / JOURNAL).exists():
        return []
    return [event for event in read_rows(directory / JOURNAL) if event.get("kind") == kind]
