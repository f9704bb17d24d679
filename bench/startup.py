"""How soon a run learns, and how soon it ends when it is stopped then: ``python -m bench.startup [--json]``.

Starts `train.py` as a user does, with its defaults, on 1, 2 and 40 nodes in turns. Stops each run (Ctrl-C) once v has
had its first updates, B of each process. Prints medians of the seconds from the command on, and the least of the
processor seconds of all processes until then: other programs on the machine change these less.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from bench.testbed import machine
from bench.testbed.runs import events, exit_on_sigterm, rows

_ROW_EVERY_S = 0.1
_LIMIT_S = 600.0

#: What is measured, in the order of time, each from the command on.
PHASES = {
    "command_s": "configuration read, the job starts",
    "ready_s": "all nodes ready",
    "update_s": "first update (a process says so within a second)",
    "exchange_s": "first updates in v",
    "processor_s": "processor seconds until then",
    "stop_s": "to the end after Ctrl-C",
}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    options = _parse(arguments)
    facts = machine.describe()
    print(machine.headline(facts), file=sys.stderr)
    runs: dict[int, list[dict[str, float]]] = {nodes: [] for nodes in options.nodes}
    for number in range(options.rounds):
        for nodes, measured in runs.items():
            measured.append(_start(nodes, options.train))
            seconds = ", ".join(f"{key} {value:.2f}" for key, value in measured[-1].items())
            print(f"round {number + 1} of {options.rounds}, nodes {nodes}: {seconds}", file=sys.stderr, flush=True)
    result = {"machine": facts, "options": options.train, "nodes": {nodes: summary(of) for nodes, of in runs.items()}}
    if options.json:
        print(json.dumps(result | {"runs": runs}))
    else:
        _print(result)
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="bench.startup", description=__doc__.splitlines()[0] if __doc__ else None)
    p.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 40], metavar="N", help="numbers of nodes (1 2 40)")
    p.add_argument("--rounds", type=int, default=3, help="runs of each (3)")
    p.add_argument("--train", action="append", default=[], metavar="OPTION", help="passed on, such as --train=--p=1")
    p.add_argument("--json", action="store_true")
    return p.parse_args(arguments)


def _start(nodes: int, more: list[str]) -> dict[str, float]:
    """Start a run, and stop it after its first exchange; seconds as in `PHASES`."""
    with exit_on_sigterm(), tempfile.TemporaryDirectory() as folder:
        where = ["--run-dir", folder, "--name", "run", "--set", f"output.log_every_s={_ROW_EVERY_S}"]
        command = [sys.executable, "-m", "hsa2c", "train", "--nodes", str(nodes), *where, *more]
        began_at = time.time()
        run = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            times = _wait_for_updates(run, Path(folder) / "run")
            processor_s = family_processor_s(run.pid)
            stopped_at = time.time()
        finally:
            run.send_signal(signal.SIGINT)
            _, errors = run.communicate(timeout=_LIMIT_S)
        if run.returncode != 128 + signal.SIGINT:
            raise SystemExit(f"{' '.join(command)}: failed ({run.returncode}): {errors.decode()[-500:]}")
        stop_s = time.time() - stopped_at
    return {key: at - began_at for key, at in times.items()} | {"processor_s": processor_s, "stop_s": stop_s}


def _wait_for_updates(run: subprocess.Popen[bytes], directory: Path) -> dict[str, float]:
    """When what happened, seconds since 1970, once v has its first updates."""
    deadline = time.monotonic() + _LIMIT_S
    while run.poll() is None and time.monotonic() < deadline:
        if events(directory, "training"):
            made = rows(directory)
            if made and made[-1]["updates_applied"]:
                return {
                    "command_s": events(directory, "start")[0]["time"],
                    "ready_s": events(directory, "training")[0]["time"],
                    "update_s": next(row["time"] for row in made if row["updates"]),
                    "exchange_s": next(row["time"] for row in made if row["updates_applied"]),
                }
        time.sleep(_ROW_EVERY_S / 2)
    raise SystemExit(f"no update within {_LIMIT_S:g} s, or the run has ended")


def family_processor_s(pid: int) -> float:
    """Processor seconds of a process and of all below it, those that have ended included."""
    total = 0.0
    for process in [(root := psutil.Process(pid)), *root.children(recursive=True)]:
        try:
            total += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return total


def summary(runs: list[dict[str, float]]) -> dict[str, float]:
    """Medians, and of processor seconds the least."""
    medians = {key: statistics.median(run[key] for run in runs) for key in PHASES}
    return {key: round(value, 2) for key, value in medians.items()} | {
        "processor_s": round(min(run["processor_s"] for run in runs), 2)
    }


def _print(result: dict[str, Any]) -> None:
    nodes = result["nodes"]
    print(f"{'nodes':52}" + "".join(f"{number:>8}" for number in nodes))
    for key, words in PHASES.items():
        print(f"{words:52}" + "".join(f"{of[key]:8.2f}" for of in nodes.values()))


if __name__ == "__main__":
    sys.exit(main())
