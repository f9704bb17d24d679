"""``hsa2c replay RUN``, or ``--replay RUN`` where one trains: a recorded run once more, serially, to the same v."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hsa2c import application, interpreter
from hsa2c.cluster.machine import THREAD_CAPS, cap_threads
from hsa2c.commands import APPLICATION
from hsa2c.commands.choice import parsed
from hsa2c.commands.options import OneLineParser, guarded
from hsa2c.errors import EXIT_DONE, EXIT_FAILED, ConfigError

if TYPE_CHECKING:
    from hsa2c.recording.format import Recording
    from hsa2c.recording.recompute import Nodes
    from hsa2c.recording.replay import Outcome
    from hsa2c.run.recordings import Beside

PROG = "hsa2c replay"

_DESCRIPTION = """Repeat a run that was recorded (--record): its deltas, in the order in which they came. After each
global step v must be what it was, bit for bit. The exit code is 0 if it is; 1 if not: the first difference is told."""


def parser() -> OneLineParser:
    """The command line."""
    p = OneLineParser(PROG, _DESCRIPTION)
    p.add_argument("run", type=Path, metavar="RUN", help="run directory, or one recording in it")
    p.add_argument(
        "--recompute",
        action="store_true",
        help="compute each delta anew, too, from the v that its node saw (one process a node, --exchange paper)",
    )
    return p


def main(arguments: list[str] | None = None, *, app: str = APPLICATION, prog: str | None = None) -> int:
    """Run the command; gives back the exit code: 0 the same, 1 not the same, 2 bad input, 130 Ctrl-C.

    Args:
        arguments: What was typed; None: this process's.
        app: Module of the application.
        prog: What was typed, where it is not the application's own program.
    """
    options = parsed(parser(), arguments, prog)
    return guarded(PROG, lambda: replay(options.run, recompute=options.recompute, app=app))


def replay(run: Path, *, recompute: bool = False, app: str = APPLICATION) -> int:
    """Repeat a run's recordings, session by session; gives back the exit code.

    Args:
        run: Run directory, or one recording.
        recompute: Compute deltas anew, too, where that can be done.
        app: Module of what was trained.

    Raises:
        ConfigError: There is no recording, it cannot be read, or it is of something else than `app`.
    """
    from hsa2c.recording.format import Recording
    from hsa2c.run import recordings

    paths = recordings.find(run)
    if recompute and any(os.environ.get(name) != "1" for name in THREAD_CAPS):
        # As in the run: the libraries that compute with more threads sum in another order, and have been loaded by now.
        cap_threads()
        command = interpreter.command("hsa2c", "replay", str(run), "--recompute", "--app", app)
        sys.stdout.flush()
        os.execve(sys.executable, command, interpreter.environment(os.environ))  # noqa: S606
    codes = []
    for path in paths:
        recording = Recording(path)
        try:
            codes.append(_repeat(recording, app if recompute else None))
        finally:
            recording.close()
    return max(codes)


def _repeat(recording: Recording, app: str | None) -> int:
    """One session; gives back its exit code."""
    from hsa2c.recording.replay import DifferenceError, replay
    from hsa2c.run.recordings import Beside

    beside, name = Beside(recording), recording.path.name
    began_at = time.monotonic()
    try:
        if wrong := beside.start(recording):
            raise DifferenceError(wrong)
        nodes, why_not = (None, None) if app is None else _nodes(recording, app)
    except DifferenceError as difference:
        print(f"{name}: DIFFERENT {difference}")
        return EXIT_FAILED
    try:
        outcome = replay(recording, nodes=nodes, look=beside.look, progress=_progress(recording))
    finally:
        if nodes is not None:
            nodes.close()
    for line in _told(outcome, beside, why_not, time.monotonic() - began_at):
        print(f"{name}: {line}")
    return EXIT_DONE if outcome.difference is None else EXIT_FAILED


def _nodes(recording: Recording, app: str) -> tuple[Nodes | None, str | None]:
    """What computes deltas anew; or why that cannot be done."""
    from hsa2c.run import recordings

    recorded, loaded = recording.about.get("app"), application.load(app)
    if recorded not in (app, *loaded.earlier_modules):
        raise ConfigError(f"{recording.path}: is of {recorded}, not of {app}: needs --app {recorded}")
    why_not = recordings.why_not_recomputed(recording.about["config"])
    return (None, why_not) if why_not else (recordings.nodes(recording, loaded), None)


def _progress(recording: Recording) -> Callable[[], None]:
    """Shows how far it is, on a terminal."""
    shown_at = time.monotonic()
    live = sys.stderr.isatty()

    def progress() -> None:
        nonlocal shown_at
        if live and time.monotonic() - shown_at > 0.2:
            shown_at = time.monotonic()
            share = 100 * recording.offset / max(recording.size, 1)
            print(f"\r{recording.path.name}: {share:3.0f} %\r", end="", file=sys.stderr, flush=True)

    return progress


def _told(outcome: Outcome, beside: Beside, why_not: str | None, seconds: float) -> list[str]:
    """What came out, in lines."""
    o = outcome
    done = f"{_count(o.steps, 'global step')}, {_count(o.deltas, 'delta')} of {_count(len(o.nodes), 'node')}"
    if o.difference is not None:
        lines = [f"DIFFERENT {o.difference}", f"before that {done}, all the same"]
    else:
        lines = [f"the same, bit for bit, after each step: {done}, t = {o.t}, in {seconds:.1f} s"]
    if beside.same:
        lines.append(f"v is also that of {', '.join(beside.same)}")
    lines += [f"not compared: {why}" for why in beside.unread]
    if o.refused:
        lines.append(f"{_count(o.refused, 'delta')} more, not finite, had not been used")
    if why_not:
        lines.append(f"deltas are those recorded, not computed anew: {why_not}")
    elif o.recomputed or o.given_up:
        lines.append(f"{_count(o.recomputed, 'delta')} computed anew, from the v that its node saw: the same")
    lines += [f"node {node}: deltas are those recorded: {why}" for node, why in sorted(o.given_up.items())]
    if o.difference is None and o.cut:
        how = f"ends early: {o.last_word}" if o.last_word else "has no end: the master was killed"
        lines.append(f"the recording {how}; all that is there was repeated")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
