"""Training while processes die and hang: what is survived, how soon, and what it costs.

    python -m bench.chaos --minutes 10

Four nodes train; every few seconds an actor-learner or a node, drawn at random, is killed (KILL) or stopped for a while
(STOP, CONT), and the master is killed twice. With --quiet-runs N the same command runs N times undisturbed and N times
with faults, in turns, with N seeds: scores are compared at equal agent steps, those of the run that made the fewest.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench.testbed import machine
from bench.testbed.runs import events, rows
from hsa2c.observe.runlog import JOURNAL, read_rows
from hsa2c.run import checkpoint as checkpoints

_STOPPED_S = (1.0, 20.0)  # how long a process is stopped: a node's silence is noticed after 15 s
_KINDS = ("kill actor-learner", "stop actor-learner", "kill node", "stop node")
_SETTLE_S = 30.0  # without a fault at the end, so that the last ones can be seen to be survived


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; exit code 1 if something was not survived."""
    p = argparse.ArgumentParser(prog="bench.chaos", description=__doc__.splitlines()[0] if __doc__ else None)
    p.add_argument("--minutes", type=float, default=10.0, help="(10)")
    p.add_argument(
        "--every", type=float, default=8.0, metavar="S", help="seconds between two faults, on the average (8)"
    )
    p.add_argument("--game", default="Pong", help="(Pong)")
    p.add_argument("--nodes", type=int, default=4, help="(4)")
    p.add_argument("--num-envs", type=int, default=8, help="environments of each actor-learner (8)")
    p.add_argument("--seed", type=int, default=1, help="of the faults (1)")
    p.add_argument(
        "--quiet-runs", type=int, default=0, metavar="N", help="compare scores: N runs without faults, N with (0)"
    )
    p.add_argument("--json", action="store_true")
    options = p.parse_args(arguments)
    facts = machine.describe()
    print(machine.headline(facts), file=sys.stderr)
    reports, quiet, disturbed = [], [], []
    with tempfile.TemporaryDirectory(prefix="hsa2c-chaos-") as folder:
        for seed in range(options.seed, options.seed + max(1, options.quiet_runs)):
            if options.quiet_runs:
                quiet.append(_run(options, Path(folder), f"quiet-{seed}", seed, None))
            chaos = Chaos(random.Random(seed), options.every, options.minutes)
            run = _run(options, Path(folder), f"chaos-{seed}", seed, chaos)
            disturbed.append(run)
            reports.append({"seed": seed, **chaos.report(run), **_summary(run)})
            print(json.dumps(reports[-1]) if options.json else _text(reports[-1]), file=sys.stderr)
        scores = compared(quiet, disturbed) if quiet else None
    survived = all(report["survived"] for report in reports)
    result = {"machine": facts, "runs": reports, "scores": scores, "survived": survived}
    print(json.dumps(result) if options.json else "\n\n".join([*map(_text, reports), *_score_text(scores)]))
    return 0 if survived else 1


@dataclass
class Run:
    """A run that has ended."""

    directory: Path
    exit_code: int
    left: list[str]
    """Command lines of its processes that still live."""


def _run(options: argparse.Namespace, folder: Path, name: str, seed: int, chaos: Chaos | None) -> Run:
    command = [sys.executable, "-m", "hsa2c", "train", "--game", options.game]
    command += ["--nodes", str(options.nodes), "--p", "1", "--seed", str(seed)]
    command += ["--minutes", str(options.minutes), "--restarts", "100", "--run-dir", str(folder), "--name", name]
    command += ["--set", f"agent.num_envs={options.num_envs}", "--set", "output.checkpoint_every_s=15"]
    with (folder / f"{name}.out").open("w") as output:
        training = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            while training.poll() is None:
                if chaos is not None:
                    chaos.step(folder / name, training.pid)
                time.sleep(0.1)
        finally:
            if training.poll() is None:
                training.send_signal(signal.SIGTERM)
                training.wait()
    time.sleep(3.0)
    left = [" ".join(line) for line in _command_lines() if str(folder / name) in line]
    return Run(folder / name, training.returncode, left)


def _command_lines() -> list[list[str]]:
    lines = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            lines.append(process.cmdline())
    return lines


@dataclass
class Chaos:
    """Draws faults, does them, and keeps when."""

    draw: random.Random
    every_s: float
    minutes: float
    faults: list[dict[str, Any]] = field(default_factory=list)
    next_at: float | None = None
    wake: list[tuple[float, psutil.Process]] = field(default_factory=list)
    masters_killed: int = 0

    def step(self, directory: Path, launcher: int) -> None:
        """Do what is due."""
        now = time.time()
        for at, process in [item for item in self.wake if item[0] <= now]:
            with contextlib.suppress(psutil.Error):
                process.resume()
            self.wake.remove((at, process))
        elapsed_s = _elapsed_s(directory)
        if elapsed_s is None or elapsed_s > 60 * self.minutes - _SETTLE_S:
            return
        if self.masters_killed < 2 and elapsed_s > (self.masters_killed + 1) * 20 * self.minutes:
            if self._do("kill master", _master(directory, launcher)):
                self.masters_killed += 1
                self.next_at = None  # not before the next master trains
            return
        if not _trains(directory):
            return
        if self.next_at is None:
            self.next_at = now + self.every_s
        elif now >= self.next_at:
            self.next_at = now + self.draw.uniform(0.5, 1.5) * self.every_s
            kind = self.draw.choice(_KINDS)
            victims = _nodes(directory) if kind.endswith(" node") else _actor_learners(directory)
            self._do(kind, self.draw.choice(victims) if victims else None)

    def _do(self, kind: str, pid: int | None) -> bool:
        """Whether there was somebody to do it to."""
        try:
            process = psutil.Process(pid) if pid else None
            if process is None or process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED):
                return False
            fault = {"kind": kind, "pid": pid, "time": time.time()}
            if kind.startswith("stop"):
                fault["seconds"] = self.draw.uniform(*_STOPPED_S)
                process.suspend()
                self.wake.append((time.time() + fault["seconds"], process))
            else:
                os.kill(process.pid, signal.SIGKILL)
        except (psutil.Error, ProcessLookupError):
            return False
        self.faults.append(fault)
        print(f"{time.strftime('%H:%M:%S')} {kind} (pid {pid})", file=sys.stderr)
        return True

    def report(self, run: Run) -> dict[str, Any]:
        """What came of it."""
        checkpoint = checkpoints.load_newest(run.directory / "checkpoints")[0]
        finite = bool(np.isfinite(checkpoint.v).all())
        back = {
            "kill actor-learner": _times(run.directory, "actor_learner_back"),
            "kill node": _times(run.directory, "node_back"),
            "kill master": _times(run.directory, "training"),
        }
        recovered = {kind: self._recovery_s(kind, times) for kind, times in back.items()}
        return {
            "faults": {kind: sum(f["kind"] == kind for f in self.faults) for kind in (*_KINDS, "kill master")},
            "recovery_s": {
                kind: {"median": statistics.median(found), "max": max(found), "of": len(found)} if found else None
                for kind, found in recovered.items()
            },
            "work_lost_s": _work_lost_s(run.directory),
            "v_is_finite": finite,
            "processes_left": run.left,
            "exit_code": run.exit_code,
            "survived": run.exit_code == 0 and finite and not run.left,
            "counters": {
                name: checkpoint.counters[name]
                for name in ("actor_learners_lost", "nodes_lost", "nodes_back", "updates_applied", "updates")
            },
        }

    def _recovery_s(self, kind: str, back: list[float]) -> list[float]:
        """Seconds from each fault of a kind to the first return after it; another fault may have come between."""
        found = []
        for fault in (fault for fault in self.faults if fault["kind"] == kind):
            later = [at - fault["time"] for at in back if at > fault["time"]]
            if later:
                found.append(min(later))
        return found


def _journal(directory: Path) -> list[dict[str, Any]]:
    path = directory / JOURNAL
    return read_rows(path) if path.exists() else []


def _trains(directory: Path) -> bool:
    """Whether the present session has begun to train."""
    kinds = [event.get("kind") for event in _journal(directory)]
    turns = [kind for kind in kinds if kind in ("training", "restart", "stop")]
    return turns[-1:] == ["training"]


def _elapsed_s(directory: Path) -> float | None:
    history = rows(directory) if (directory / "metrics.jsonl").exists() else []
    return float(history[-1]["elapsed_s"]) if history else None


def _nodes(directory: Path) -> list[int]:
    pids = {event["node"]: event["pid"] for event in events(directory, "node_ready")}
    return [pid for pid in pids.values() if psutil.pid_exists(pid)]


def _actor_learners(directory: Path) -> list[int]:
    """Of every node the processes of its last word about them."""
    told = [event for event in _journal(directory) if event.get("actor_learners")]
    pids = {event["node"]: event["actor_learners"] for event in told}
    return [pid for pool in pids.values() for pid in pool if psutil.pid_exists(pid)]


def _master(directory: Path, launcher: int) -> int | None:
    """Who has the journal open, and is not the launcher."""
    for process in psutil.Process(launcher).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(file.path.endswith(JOURNAL) and directory.name in file.path for file in process.open_files()):
                return process.pid
    return None


def _times(directory: Path, kind: str) -> list[float]:
    return [float(event["time"]) for event in events(directory, kind)]


def _work_lost_s(directory: Path) -> float:
    """Seconds of training that the master's deaths have undone: since the checkpoints that it went on from."""
    lost = 0.0
    history = [row for row in read_rows(directory / "metrics.jsonl") if "elapsed_s" in row]
    for before, after in itertools.pairwise(history):
        if after["session"] > before["session"]:
            lost += max(0.0, before["elapsed_s"] - (after["elapsed_s"] - 5.0))
    return lost


def _summary(run: Run) -> dict[str, Any]:
    last = rows(run.directory)[-1]
    return {"agent_steps": last["step"], "elapsed_s": last["elapsed_s"], "score": last.get("score/mean_100")}


def compared(quiet: list[Run], disturbed: list[Run]) -> dict[str, Any]:
    """Mean scores of the last 100 games at the agent steps that every run has made, and how much chance explains."""
    at = min(_summary(run)["agent_steps"] for run in (*quiet, *disturbed))
    scores = {
        name: [_score_at(run.directory, at) for run in runs] for name, runs in (("quiet", quiet), ("faults", disturbed))
    }
    found: dict[str, Any] = {"agent_steps": at, **scores}
    if all(len(values) > 1 and None not in values for values in scores.values()):
        means = {name: statistics.mean(values) for name, values in scores.items()}
        # The standard error of a difference of two means, each run one sample of its kind.
        error = sum(statistics.variance(values) / len(values) for values in scores.values()) ** 0.5
        found |= {"difference": means["faults"] - means["quiet"], "standard_error": error}
        found["worse_beyond_noise"] = found["difference"] < -2 * error
    return found


def _score_at(directory: Path, agent_steps: int) -> float | None:
    """The mean score when so many agent steps had been made."""
    before = [row for row in rows(directory) if row["step"] <= agent_steps and row.get("score/mean_100") is not None]
    return float(before[-1]["score/mean_100"]) if before else None


def _score_text(scores: dict[str, Any] | None) -> list[str]:
    if scores is None:
        return []
    text = f"mean scores at {scores['agent_steps']:,} agent steps: quiet {scores['quiet']}, faults {scores['faults']}"
    if "difference" in scores:
        verdict = "worse beyond noise" if scores["worse_beyond_noise"] else "not worse beyond noise"
        text += f"; difference {scores['difference']:.1f}, standard error {scores['standard_error']:.1f}: {verdict}"
    return [text]


def _text(result: dict[str, Any]) -> str:
    faults = ", ".join(f"{number} x {kind}" for kind, number in result["faults"].items())
    recovery = ", ".join(
        f"{kind} {found['median']:.1f} (max {found['max']:.1f}, {found['of']} times)"
        for kind, found in result["recovery_s"].items()
        if found
    )
    lines = [
        f"faults: {faults}",
        f"seconds to recover, median: {recovery}",
        f"training undone by the master's deaths: {result['work_lost_s']:.0f} s",
        f"counters: {result['counters']}",
        f"agent steps {result['agent_steps']:,} in {result['elapsed_s']:.0f} s, mean score {result['score']}",
    ]
    verdict = "survived" if result["survived"] else "NOT SURVIVED"
    left = f"; left running: {result['processes_left']}" if result["processes_left"] else ""
    lines.append(f"{verdict}: exit code {result['exit_code']}, v finite: {result['v_is_finite']}{left}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
