"""What the launcher says of a run that has ended."""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path

from hsa2c.errors import EXIT_DONE, EXIT_FAILED, EXIT_NOT_STARTED
from hsa2c.observe.runlog import JOURNAL, Journal, read_rows
from hsa2c.run import directory as rundir
from hsa2c.run.supervisor import Supervisor


def report(
    code: int, supervisor: Supervisor, directory: Path, *, session: int, fresh: bool, quiet: bool = False
) -> int:
    """The shell's exit code; says where to look if it is not a good one.

    Args:
        code: The job's exit code.
        supervisor: Has looked on.
        directory: The run's.
        session: Which start of the run it was.
        fresh: Whether this start has made the directory.
        quiet: Whether somebody else says that it failed.
    """
    if supervisor.received:
        _report_stop(code, supervisor, directory, session=session, fresh=fresh)
        return 128 + supervisor.received[0]
    if code == EXIT_DONE:
        return EXIT_DONE
    if quiet:
        return EXIT_FAILED
    if not _journal_tells_error(directory):
        for line in (directory / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()[-20:]:
            print(line, file=sys.stderr)
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    print(f"the job failed ({how}){_output(directory)}", file=sys.stderr)
    return EXIT_FAILED


def _output(directory: Path) -> str:
    """Where to find what the job wrote, if it did."""
    log = directory / "log.txt"
    return f"; its output is in {log}" if log.exists() and log.stat().st_size else ""


def why(directory: Path, session: int | None = None) -> str:
    """What the journal says of a failure, with the last line of its traceback, which is the exception; else what the
    log says; empty where there is neither.

    Args:
        directory: The run's.
        session: The start of the run that has failed; None: the last one that did.
    """
    journal, log = directory / JOURNAL, directory / "log.txt"
    events = read_rows(journal) if journal.exists() else []
    said = [event for event in events if event.get("kind") == "error" and session in (None, event.get("session"))]
    if said:
        told, text = str(said[-1].get("message")), str(said[-1].get("traceback") or "")
    elif log.exists() and log.stat().st_size:
        told, text = f"its output is in {log}", log.read_text(encoding="utf-8", errors="replace")
    else:
        return ""
    last = text.strip().rpartition("\n")[2]
    return f"{told}: {last}" if last else told


def _report_stop(code: int, supervisor: Supervisor, directory: Path, *, session: int, fresh: bool) -> None:
    """Say what a signal has left, and leave nothing of a run in which nothing was trained."""
    at_once = len(supervisor.received) > 1
    if supervisor.trained and not at_once:
        if code not in (EXIT_DONE, EXIT_NOT_STARTED):
            print(f"the job failed while it stopped{_output(directory)}", file=sys.stderr)
        return
    said = f"{supervisor.name}: stopped {'at once' if supervisor.trained else 'before training began'}"
    if fresh and not _journal_tells_error(directory) and rundir.withdraw(directory):
        left = "nothing is left of this run"
    else:
        left = "the last checkpoint stays" if rundir.has_checkpoint(directory) else "there is no checkpoint"
        with contextlib.suppress(OSError), Journal(directory, session=session) as journal:
            journal.event("stop", said)
    with contextlib.suppress(OSError):  # SIGHUP: the terminal has gone
        print(f"{said}; {left}", file=sys.stderr, flush=True)


def _journal_tells_error(directory: Path) -> bool:
    try:
        last = (directory / "journal.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
    except OSError:
        return False
    return any('"kind": "error"' in line or '"kind":"error"' in line for line in last)
