"""Training runs as benchmarks start them: through the product's own command, one after the other."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hsa2c.application import Application
from hsa2c.cluster.world import find_world
from hsa2c.config.loading import assignments
from hsa2c.observe.runlog import JOURNAL, Row, read_history, read_rows
from hsa2c.run import begin
from hsa2c.run.launcher import Launch, launch


def train(options: Sequence[str]) -> None:
    """Run ``train.py`` with these options to its end; see `execute`."""
    execute([sys.executable, "-m", "hsa2c", "train", *options])


def execute(command: Sequence[str], limit_s: float | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a command to its end, or stop it in good order if this process is stopped; gives back what it printed.

    Args:
        command: The command.
        limit_s: Seconds that it may take.
        env: Environment variables, beside this process's own.

    Raises:
        SystemExit: It failed, or took too long; with what it said.
    """
    with exit_on_sigterm():
        run = subprocess.Popen(
            command,
            env=os.environ | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            output, errors = run.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise SystemExit(f"{shlex.join(command)}: not done after {limit_s:g} s") from None
        finally:
            if run.poll() is None:
                run.send_signal(signal.SIGTERM)
                run.communicate()
    if run.returncode != 0:
        raise SystemExit(f"{shlex.join(command)}: failed ({run.returncode}): {' | '.join(errors.splitlines()[-5:])}")
    return output


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """What is to be cleaned up is cleaned up, as with Ctrl-C; Python would end at once."""
    if threading.current_thread() is not threading.main_thread():  # no other may say what a signal does
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def launch_new(app: Application, module: str, run_dir: str, name: str, settings: Sequence[str]) -> int:
    """Launch a run of a benchmark's own application from this process; gives back the exit code.

    Args:
        app: The application.
        module: Where ranks find it.
        run_dir: Folder of runs.
        name: The run's.
        settings: As of ``--set``.
    """
    given = assignments([f"output.run_dir={run_dir}", f"output.name={name}", *settings])
    run = begin.prepare(app, given, None, find_world())
    with run.open():
        title = app.title(run.config)
        return launch(
            Launch(
                app=module,
                asked=run.asked,
                config=run.config,
                directory=run.directory,
                title=title,
                lock=run.lock,
            )
        )


def rows(directory: Path) -> list[Row]:
    """The rows of a run, those of what a resume made void left out."""
    return [row for row in read_history(directory) if "elapsed_s" in row]


def events(directory: Path, kind: str) -> list[dict[str, Any]]:
    """The events of a kind in a run's journal, in their order; none where there is no run."""
    if not (directory / JOURNAL).exists():
        return []
    return [event for event in read_rows(directory / JOURNAL) if event.get("kind") == kind]
