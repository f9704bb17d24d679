"""The figures and the table of the paper's section 4: ``python -m bench.paper fig1|...|fig6|table2``.

--scale small measures on this machine, two cores are enough, in about
    fig1 2 min   fig2 1 min   fig3 3 min   fig4 1 min   fig5 10 min   fig6 10 min
    table2: games x seeds x --minutes (5), and a minute for each evaluation: 36 min
--scale paper has the published sizes. It writes commands and Slurm files into --output; inside an allocation, or with
--hosts, it runs those that there are enough hosts for; and it draws what is there.

Every measurement is kept in --run-dir as soon as it is made, and not made again. docs/lab/2026-11-paper.md shows what
came out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.paper import best, cluster, reach, speed, topics
from bench.paper.jobs import Job, say, table
from bench.paper.published import GAMES, SAYS
from bench.testbed import machine
from bench.testbed.results import Results
from hsa2c.cluster import hosts as host_files
from hsa2c.commands.options import OneLineParser, guarded
from hsa2c.envs.names import resolve_game
from hsa2c.errors import ConfigError
from hsa2c.run import checkpoint as checkpoints

PROG = "bench.paper"
PARTS = ("measured", "simulated")


def parser() -> OneLineParser:
    """The command line."""
    p = OneLineParser(PROG, __doc__ or "")
    p.add_argument("what", choices=(*SAYS, "table2"))
    p.add_argument("--scale", choices=("small", "paper"), default="small")
    p.add_argument("--run-dir", help="folder of measurements and runs (runs/paper-small or runs/paper)")
    p.add_argument("--output", type=Path, metavar="FILE", help="the picture (in --run-dir)")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    s = p.add_argument_group("small")
    s.add_argument("--rounds", type=int, default=2, help="fig1 to fig4: seeds (2)")
    s.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="fig1 to fig4: (both)")
    s.add_argument("--passes", type=float, default=30.0, help="fig1 to fig4: of the serial run (30)")
    s.add_argument("--corpus", default="pydocs", metavar="SOURCE", help="fig1 to fig4: as of examples.lda (pydocs)")
    s.add_argument("--vocab", metavar="FILE", help="fig1 to fig4: words of a file of counts")
    s.add_argument("--minutes", type=float, help="longest of a run (fig1 to fig4: 1; fig6: 3; table2: 5)")
    s.add_argument("--seconds", type=float, default=10.0, help="fig5: of each measurement (10)")
    s.add_argument("--nodes", type=int, nargs="+", help="fig5 (1 2 4 8), fig6 (1 2)")
    s.add_argument("--B", type=int, nargs="+", help="fig5 (1 4 16), fig6 (1 8)")
    s.add_argument("--exchange", choices=("paper", "overlap"), nargs="+", default=["paper", "overlap"], help="fig5")
    s.add_argument("--update-s", type=float, help="fig5: seconds of an update (measured)")
    s.add_argument("--games", nargs="+", help="fig6 (SpaceInvaders), table2 (the six)")
    s.add_argument("--seeds", type=int, nargs="+", default=[1], help="fig6, table2 (1)")
    s.add_argument("--runs", type=Path, nargs="+", default=[], metavar="DIR", help="table2: ready runs, or checkpoints")
    s.add_argument("--evaluate", type=int, default=30, metavar="N", help="table2: whole games of an evaluation (30)")
    s.add_argument("--one-machine", action="store_true", help="fig5, fig6: without emulated hosts")
    c = p.add_argument_group("paper")
    c.add_argument("--hosts", type=Path, metavar="FILE", help="hosts to run on, one a line; a node each")
    c.add_argument("--partition", help="Slurm's")
    c.add_argument("--slurm-dir", type=Path, metavar="DIR", help="where commands and Slurm files go (RUN_DIR/WHAT)")
    return p


def main(arguments: list[str] | None = None) -> int:
    """Run the command; gives back the exit code."""
    options = parser().parse_args(arguments)
    options.run_dir = options.run_dir or ("runs/paper-small" if options.scale == "small" else "runs/paper")
    return guarded(PROG, lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    _check(options)
    return _small(options) if options.scale == "small" else _paper(options)


def _check(options: argparse.Namespace) -> None:
    """Say what is wrong before anything is written."""
    for name, least in (("rounds", 1), ("passes", 0.1), ("minutes", 0.01), ("seconds", 3), ("update_s", 1e-4)):
        _at_least(f"--{name.replace('_', '-')}", getattr(options, name), least)
    for name in ("evaluate", "nodes", "B"):
        for value in _listed(getattr(options, name)):
            _at_least(f"--{name}", value, 1)
    for seed in options.seeds:
        _at_least("--seeds", seed, 0)
    if options.games is not None:
        options.games = [resolve_game(game).name for game in options.games]
        if options.what == "table2" and not set(options.games) <= set(GAMES):
            raise ConfigError(f"--games {' '.join(options.games)}: must be of {', '.join(GAMES)}")
    for run in options.runs:
        checkpoints.read(run, prefer="best")
    if options.hosts is not None:
        host_files.read(options.hosts)


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def _at_least(name: str, value: float | None, least: float) -> None:
    if value is not None and not value >= least:
        raise ConfigError(f"{name} {value:g}: must be at least {least:g}")


def _small(options: argparse.Namespace) -> int:
    facts = machine.describe()
    say(machine.headline(facts))
    results = Results(Path(options.run_dir) / f"{_kept_with(options.what)}.jsonl")
    found = _module(options.what).small(options, results)
    return _show(options, found, f"Here: {facts['processor']}, {facts['cores']} cores.", facts)


def _paper(options: argparse.Namespace) -> int:
    jobs = jobs_of(options.what)
    folder = Path(options.run_dir)
    cluster.write(jobs, options.slurm_dir or folder / f"{options.what}-jobs", folder, options.partition)
    names = cluster.at_hand(options.hosts)
    if names:
        cluster.run(jobs, folder, names)
    else:
        say("no --hosts and no allocation: nothing is run")
    found = _module(options.what).from_runs(jobs, folder, options)
    if not found:
        say(f"{folder}: no run of it yet, nothing to draw")
        return 0
    return _show(options, found, "Here: a cluster.", machine.describe())


def jobs_of(what: str) -> list[Job]:
    """The runs of an experiment as published."""
    jobs: list[Job] = _module(what).paper_jobs(what)
    return jobs


def _module(what: str) -> Any:
    return topics if what in topics.FIGURES else {"fig5": speed, "fig6": reach, "table2": best}[what]


def _kept_with(what: str) -> str:
    """Fig. 3 and 4 have runs in common, and so have Fig. 2 and 3."""
    return "topics" if what in topics.FIGURES else what


def _show(options: argparse.Namespace, found: Sequence[dict[str, Any]], note: str, facts: dict[str, Any]) -> int:
    output = options.output or Path(options.run_dir) / f"{options.what}.png"
    lines = _module(options.what).draw(options.what, found, output, note)
    if options.json:
        print(json.dumps({"machine": facts, "results": lines, "picture": str(output)}))
    else:
        print(table(lines))
        print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
