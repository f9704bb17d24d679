"""A cluster that learns, on a simulated clock: ``python -m bench.virtual --game Pong --nodes 20 --p 28 --score 18``.

Master, nodes, ports, pace and rates are a run's, and so are the settings and the run's directory. Every gradient is
real, at the u_hat that the modelled delays give it; only time is modelled (docs/explanation/virtual.md).
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsa2c.cluster.machine import cap_threads, cores, keep_freed_memory

cap_threads()  # before numpy and torch are loaded
keep_freed_memory()

from bench.testbed import machine  # noqa: E402
from hsa2c import application  # noqa: E402
from hsa2c.application import Application  # noqa: E402
from hsa2c.cluster.world import ALONE  # noqa: E402
from hsa2c.commands.choice import lead  # noqa: E402
from hsa2c.commands.options import guarded  # noqa: E402
from hsa2c.commands.run_options import given, parser  # noqa: E402
from hsa2c.config.loading import to_dict  # noqa: E402
from hsa2c.errors import ConfigError  # noqa: E402
from hsa2c.observe.runlog import read_history  # noqa: E402
from hsa2c.run import begin  # noqa: E402
from hsa2c.run import directory as rundir  # noqa: E402
from hsa2c.words import CommandWords, Option  # noqa: E402

if TYPE_CHECKING:
    from bench.virtual.cluster import VirtualCluster
    from bench.virtual.model import Model

PROG = "bench.virtual"

_WITHOUT = ("--replay", "--recompute", "--hosts", "--spares", "--restarts", "--force", "--record")

_OPTIONS = (
    Option(
        flag="--cluster-minutes", group="stop", type=float, metavar="X", after="--minutes", help="of the cluster's time"
    ),
    Option(flag="--processes", group="who", type=int, metavar="W", help="real ones that compute (as many as cores)"),
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; gives back the exit code."""
    typed = sys.argv[1:] if arguments is None else arguments
    name = lead(typed)
    app = application.load(name)
    words = _words(app)
    p = parser(words)
    _add_model(p.add_argument_group("the cluster, as of `hsa2c plan`"))
    options = p.parse_args(typed)
    return guarded(PROG, lambda: _virtual(name, app, words, options))


def _words(app: Application) -> CommandWords:
    return dataclasses.replace(
        app.command,
        program=PROG,
        description="Train on a cluster that is simulated: only time is modelled, the learning is real.",
        options=(*app.command.options, *_OPTIONS),
        without=(*app.command.without, *_WITHOUT),
        helps={**app.command.helps, "--minutes": "of this machine's time"},
    )


def _add_model(group: Any) -> None:
    """Where nothing is typed it is None: a resumed run keeps what it has."""
    group.add_argument("--link", help="of each node, each way: speed, latency (10Gbit,0.1ms)")
    group.add_argument("--master-link", metavar="SPEED", help="of each master, such as 40Gbit (as a node's)")
    group.add_argument("--stragglers", metavar="SHARE,TIMES", help="slower nodes, and how much (0,1)")
    group.add_argument("--node-hours", type=float, help="mean time until a node dies unheard (never)")
    group.add_argument("--update-ms", type=float, help="mean time of an update, with its share of rollouts (measured)")
    group.add_argument("--gathering", type=float, metavar="SHARE", help="of it, for rollouts (measured, or 0.5)")
    group.add_argument("--variation", type=float, help="standard deviation of a gradient's time over its mean (0.3)")
    group.add_argument("--update-times", type=Path, metavar="FILE", help="measured ones instead, in ms, one a line")
    group.add_argument("--master-ms", metavar="PUSH,ANSWER", help="a master's processor time (2,1.2)")
    group.add_argument("--node-ms", type=float, help="a node's processor time for an exchange (3)")


def _virtual(name: str, app: Application, words: CommandWords, options: argparse.Namespace) -> int:
    if importlib.util.find_spec("greenlet") is None:
        raise ConfigError("needs greenlet: pip install 'hsa2c[plan]'")
    from bench.virtual import model as models

    run = _run(app, words, options)
    run.application = name
    model = (models.Model() if run.checkpoint is None else models.load(run.directory)).typed(options)
    processes = options.processes if options.processes is not None else cores()
    if not 1 <= processes <= 1000:
        raise ConfigError(f"--processes {processes}: must be 1 to 1000")
    if options.minutes is not None and options.minutes <= 0:
        raise ConfigError(f"--minutes {options.minutes:g}: must be greater than 0")
    _refuse(run.config)
    began_at = time.monotonic()
    with run.open(simulated=True):
        from bench.virtual.cluster import VirtualCluster

        cluster = VirtualCluster(app, name, run, model, processes=processes, minutes=options.minutes)
        try:
            cluster.measure()
            cluster.model.save(run.directory)
            _say_what_starts(app, run, cluster.model, processes)
            code = cluster.train()
            found = _found(app, run, cluster, code, began_at)
        finally:
            cluster.close()
    found |= _processor_s(cluster)
    if options.json:
        print(json.dumps(found))
    else:
        _print(found)
    signum = cluster.monitor.signum if cluster.monitor else None
    return code if signum is None else 128 + signum


def _run(app: Application, words: CommandWords, options: argparse.Namespace) -> rundir.Run:
    """The run that is to begin, or to go on; nothing is written yet."""
    fields = given(words, options)
    if options.slurm is not None or options.submit:
        raise ConfigError("--slurm: a virtual cluster is simulated here")
    if options.minutes is not None:  # the machine's; of the run it would be the cluster's
        del fields["stop.minutes"]
    if options.cluster_minutes is not None:
        fields["stop.minutes"] = options.cluster_minutes
    if options.resume is not None:
        return begin.resume(app, options.resume, fields, options.config, ALONE)
    if options.go_on and fields.get("output.name") is None:
        raise ConfigError("--go-on: needs the run's --name")
    return begin.prepare(app, fields, options.config, ALONE, again=options.go_on)


def _refuse(config: Any) -> None:
    """What a virtual cluster has not."""
    for name, value in (
        ("cluster.hosts", config.cluster.hosts),
        ("cluster.spares", config.cluster.spares),
        ("output.record", config.output.record),
    ):
        if value:
            raise ConfigError(f"{name} = {value!r}: a virtual cluster has none")


def _say_what_starts(app: Application, run: rundir.Run, model: Model, processes: int) -> None:
    update = f"{model.update_ms:g} ms" if model.update_times is None else "as measured"
    print(f"{app.title(run.config)}; an update takes {update}, {model.link}", file=sys.stderr)
    print(f"{run.directory}: computed by {processes} process{'es' * (processes > 1)}", file=sys.stderr, flush=True)


def _found(app: Application, run: rundir.Run, cluster: VirtualCluster, code: int, began_at: float) -> dict[str, Any]:
    """What the run came to, as JSON values."""
    found = rundir.summary(app, run.directory, code)
    config, elapsed_s = run.config, found["elapsed_s"]
    goal = getattr(config.stop, "score", None)
    best = found.get("best_mean_score")  # the last one counts episodes that ended after the goal, too
    return {
        **found,
        "cluster_s": elapsed_s,
        "reached": None if goal is None else best is not None and best >= goal,
        "tau_mean": _tau_mean(run.directory),
        "seed": config.seed,
        "nodes": config.cluster.nodes,
        "p": config.cluster.processes,
        "settings": to_dict(config),
        "model": dataclasses.asdict(cluster.model),
        "real_s": round(time.monotonic() - began_at, 3),
        "memory_mib": round(machine.family_pss_mib(os.getpid())),
        "machine": machine.describe(),
    }


def _tau_mean(directory: Path) -> float | None:
    """Over the whole run, resumes included."""
    total, count, before = 0.0, 0, 0
    for row in read_history(directory):
        exchanges, tau = row.get("exchanges"), row.get("staleness/mean")
        if exchanges is not None and tau is not None:
            total, count = total + tau * (exchanges - before), count + exchanges - before
        before = exchanges if exchanges is not None else before
    return round(total / count, 4) if count else None


def _processor_s(cluster: VirtualCluster) -> dict[str, Any]:
    """Seconds of a processor: of this process, which orders events, and of those that computed."""
    own, theirs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "coordinator_s": round(own.ru_utime + own.ru_stime, 2),
        "gradients_s": round(theirs.ru_utime + theirs.ru_stime, 2),
        "waited_s": round(cluster.gradients.waited_s, 2),
    }


def _print(found: dict[str, Any]) -> None:
    for key in ("reason", "cluster_s", "agent_steps", "updates", "exchanges", "tau_mean", "mean_score", "real_s"):
        if found.get(key) is not None:
            print(f"{key:12} {found[key]}")
    print(f"{'run':12} {found['run']}")


if __name__ == "__main__":
    sys.exit(main())
