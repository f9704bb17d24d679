"""A run of the product's own commands, and what its run directory tells: what all experiments are made of."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.testbed.runs import events, execute, rows
from hsa2c.run.checkpoint import FOLDER

_ENDED = re.compile(r"\(limit |\(goal |min of training|has not fallen")
_START_S = 180.0  # for a run's start and end, beside its own limit

_PROGRAMS = {"train": ("train.py",), "lda": ("-m", "examples.lda")}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run."""

    program: Literal["train", "lda"]
    name: str
    """Of its directory."""
    options: tuple[str, ...]
    """Without those of where it runs and is kept."""
    nodes: int
    p: int
    minutes: float
    """The longest that it trains."""
    key: Mapping[str, Any] = field(default_factory=dict)
    """What it is of, for tables and pictures."""
    master_alone: bool = False
    """Whether the master is to have a host of its own."""
    most_hosts: int | None = None
    """Nodes beyond share hosts. None: a host for each node."""

    @property
    def hosts(self) -> int:
        """How many it needs."""
        return min(self.nodes, self.most_hosts or self.nodes) + int(self.master_alone)

    def arguments(self, folder: Path | str, hosts: Path | str | None = None) -> list[str]:
        """Options of its program for a new run in this folder of runs."""
        where = [] if hosts is None else ["--hosts", str(hosts)]
        size = ["--nodes", str(self.nodes), "--p", str(self.p), "--minutes", f"{self.minutes:g}"]
        return [*self.options, *size, *where, "--run-dir", str(folder), "--name", self.name]

    def again(self, folder: Path | str, hosts: Path | str | None = None) -> list[str]:
        """Options of its program to go on with the run."""
        where = [] if hosts is None else ["--hosts", str(hosts)]
        return ["--resume", str(Path(folder) / self.name), "--minutes", f"{self.minutes:g}", *where]

    def line(self, arguments: Sequence[str], python: str = "python") -> list[str]:
        """The command, from the project's folder."""
        return [python, *_PROGRAMS[self.program], *arguments]

    def text(self, folder: Path | str) -> str:
        """The command of a new run, as one types it."""
        return shlex.join(self.line(self.arguments(folder)))


def finished(directory: Path) -> bool:
    """Whether a run came to an end of its own: its limit, or its goal."""
    stops = events(directory, "stop")
    return bool(stops) and _ENDED.search(stops[-1]["message"]) is not None


def begun(directory: Path) -> bool:
    """Whether there is a checkpoint to go on from."""
    return any((directory / FOLDER).glob("step-*.safetensors"))


def complete(job: Job, folder: Path, hosts: Path | None = None) -> Path:
    """Start a run, go on with it, or leave it if it is finished; gives back its directory.

    Raises:
        SystemExit: It failed; with what it said.
    """
    directory = folder / job.name
    if finished(directory):
        return directory
    if begun(directory):
        arguments = job.again(folder, hosts)
    else:
        shutil.rmtree(directory, ignore_errors=True)  # stopped before it had anything to keep
        arguments = job.arguments(folder, hosts)
    execute(job.line(arguments, sys.executable), 60 * job.minutes + _START_S)
    return directory


def history(directory: Path) -> list[dict[str, Any]]:
    """The rows of a run; none where there is no run."""
    return rows(directory) if (directory / "metrics.jsonl").exists() else []


def first(seen: Sequence[Mapping[str, Any]], tag: str, goal: float, *, least: bool) -> float | None:
    """Seconds of training until a value was at most (`least`) or at least the goal; None if it never was."""
    for row in seen:
        value = row.get(tag)
        if value is not None and (value <= goal if least else value >= goal):
            return float(row["elapsed_s"])
    return None


def say(text: str) -> None:
    """A sign of life."""
    print(text, file=sys.stderr, flush=True)


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Rows under a head, columns aligned; what is missing is a dash."""
    if not found:
        return "(nothing measured yet)"
    names = list(dict.fromkeys(name for row in found for name in row))
    lines = [names, *([_cell(row.get(name)) for name in names] for row in found)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.2f}"
    return str(value)
