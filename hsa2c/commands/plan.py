"""``python -m hsa2c plan``: how fast a cluster would be, over a simulated clock, and where more nodes stop helping."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsa2c import application
from hsa2c.commands import APPLICATION
from hsa2c.commands.cluster_options import numbers, read_link, update_times, within
from hsa2c.commands.files import replacing
from hsa2c.commands.options import OneLineParser, guarded, number_or_auto
from hsa2c.errors import EXIT_DONE, ConfigError

if TYPE_CHECKING:
    from hsa2c.simulation.parallel import Progress
    from hsa2c.simulation.planning import Cluster, Outcome

PROG = "hsa2c plan"
_CLEAR = "\r\033[K"

_DESCRIPTION = """How fast a cluster would be: the algorithms over a simulated clock, for each combination of nodes, B
and masters. docs/explanation/planning.md has the model and its limits."""


def parser(unit: str = "data points") -> OneLineParser:
    """The command line; `unit` is what an update has samples of."""
    p = OneLineParser(PROG, _DESCRIPTION)
    what = p.add_argument_group("what to compare (lists with commas)")
    what.add_argument("--nodes", default="40,400,4000", help="(40,400,4000)")
    what.add_argument("--B", default="1,8,64,auto", help="updates of each process between two exchanges (1,8,64,auto)")
    what.add_argument("--masters", default="1,4,16", help="hosts that hold a slice of v each (1,4,16)")
    c = p.add_argument_group("the cluster")
    c.add_argument("--cores", type=int, default=28, help="processes of a node, p (28)")
    c.add_argument("--link", default="10Gbit,0.1ms", help="of each node, each way: speed, latency (10Gbit,0.1ms)")
    c.add_argument("--master-link", metavar="SPEED", help="of each master, such as 40Gbit (as a node's)")
    c.add_argument("--stragglers", default="0,1", metavar="SHARE,TIMES", help="slower nodes, and how much (0,1)")
    c.add_argument("--node-hours", type=float, default=math.inf, help="mean time until a node dies unheard (never)")
    r = p.add_argument_group("what runs there")
    r.add_argument("--exchange", choices=("overlap", "paper"), default="overlap", help="(overlap)")
    r.add_argument("--update-ms", type=float, default=30.0, help="mean time of an update (30)")
    r.add_argument("--variation", type=float, default=0.3, help="its standard deviation over its mean (0.3)")
    r.add_argument("--update-times", type=Path, metavar="FILE", help="measured ones instead, in ms, one a line")
    r.add_argument("--samples", type=int, default=48, help=f"{unit} in an update (48)")
    r.add_argument("--M", type=int, help="deltas in a global step (as many as nodes)")
    r.add_argument("--parameters", type=int, default=676_000, help="numbers in v (676000)")
    r.add_argument("--delta-bytes", type=int, default=4, choices=(4, 2, 1), help="of a number of a delta (4)")
    r.add_argument("--state-vectors", type=int, default=2, help="of v's length in the optimiser's state (2, Adam's)")
    r.add_argument("--master-ms", default="2,1.2", metavar="PUSH,ANSWER", help="a master's processor time (2,1.2)")
    r.add_argument("--node-ms", type=float, default=3.0, help="a node's processor time for an exchange (3)")
    s = p.add_argument_group("the simulation")
    s.add_argument("--minutes", type=float, default=10.0, help="of the cluster's time, at most (10)")
    s.add_argument("--exchanges", type=int, help="end after so many (when the figures stand still)")
    s.add_argument("--jobs", type=int, help="settings that are simulated at the same time (as many as cores)")
    s.add_argument("--seed", type=int, default=1)
    s.add_argument("--output", "-o", type=Path, metavar="FILE", help="draw a picture: plan.png, .svg, .pdf (none)")
    s.add_argument("--json", action="store_true", help="one JSON object on stdout instead of the table")
    return p


def main(arguments: list[str] | None = None, *, app: str = APPLICATION) -> int:
    """Run the command; gives back the exit code.

    Args:
        arguments: What was typed; None: this process's.
        app: Module of the application.
    """
    unit = application.load(app).pictures.unit
    options = parser(unit).parse_args(arguments)
    return guarded(PROG, lambda: _plan(options, unit))


def _plan(options: argparse.Namespace, unit: str) -> int:
    if importlib.util.find_spec("greenlet") is None:
        raise ConfigError("needs greenlet: pip install 'hsa2c[plan]'")
    from hsa2c.simulation.parallel import simulate_all
    from hsa2c.simulation.picture import check_output

    clusters, picture = _clusters(options), options.output
    if picture is not None:
        check_output(picture)
    outcomes = simulate_all(clusters, options.jobs or len(os.sched_getaffinity(0)), _shown(clusters))
    if options.json:
        both = zip(clusters, outcomes, strict=True)
        _draw(clusters, outcomes, picture, unit)
        print(json.dumps({"lines": [_plain(*each) for each in both], "picture": picture and str(picture)}))
    else:
        print("\n".join(table(clusters, outcomes, unit)))
        _draw(clusters, outcomes, picture, unit)
        if picture is not None:
            print(picture)
    return EXIT_DONE


def _draw(clusters: list[Cluster], outcomes: list[Outcome], picture: Path | None, unit: str) -> None:
    from hsa2c.simulation.picture import draw

    if picture is not None:
        with replacing(PROG, picture):
            draw(clusters, outcomes, picture, unit)


def _shown(clusters: list[Cluster]) -> Callable[[Progress], None]:
    """On stderr: a line for each that has ended, and on a terminal how far all of them are."""
    began_at = time.monotonic()
    live = sys.stderr is not None and sys.stderr.isatty()
    shown = 0

    def show(progress: Progress) -> None:
        nonlocal shown
        of, took = len(clusters), f"{time.monotonic() - began_at:.0f} s"
        ended = list(progress.outcomes.items())
        for number, (index, outcome) in enumerate(ended[shown:], shown + 1):
            c = clusters[index]
            line = f"{number} of {of} after {took}: {c.nodes:,} nodes, B = {c.B}, masters = {c.masters}"
            print(f"{_CLEAR * live}{line}: {outcome.simulated_s:,.0f} s of the cluster", file=sys.stderr, flush=True)
        shown = len(ended)
        if live:
            percent = 100 * sum(progress.shares.values()) / of
            text = f"{shown} of {of} done after {took}, {percent:.0f} % of all" if shown < of else ""
            print(f"{_CLEAR}{text}", end="", file=sys.stderr, flush=True)

    return show


# What was asked for.


def _clusters(options: argparse.Namespace) -> list[Cluster]:
    from hsa2c.simulation.planning import Cluster

    o = options
    _check(o)
    master_speed = None if o.master_link is None else read_link("--master-link", f"{o.master_link},0ms")
    share, times = numbers("--stragglers", o.stragglers, 2)
    within("--stragglers", share, 0, 1)
    within("--stragglers", times, 1, 1e6)
    push_ms, answer_ms = numbers("--master-ms", o.master_ms, 2)
    for milliseconds in (push_ms, answer_ms):
        within("--master-ms", milliseconds, 0, 1e6)
    shared: dict[str, Any] = {
        "cores": o.cores,
        "link": read_link("--link", o.link),
        "master_link": master_speed,
        "exchange": o.exchange,
        "update_s": o.update_ms / 1000,
        "variation": o.variation,
        "update_times_s": None if o.update_times is None else update_times(o.update_times),
        "samples": o.samples,
        "stragglers": (share, times),
        "node_hours": o.node_hours,
        "parameters": o.parameters,
        "delta_bytes": o.delta_bytes,
        "state_vectors": o.state_vectors,
        "M": o.M,
        "push_s": push_ms / 1000,
        "answer_s": answer_ms / 1000,
        "node_s": o.node_ms / 1000,
        "seconds": 60 * o.minutes,
        "exchanges": o.exchanges,
        "seed": o.seed,
    }
    grid = itertools.product(
        _whole("--masters", o.masters, 1000), _whole("--B", o.B, 1_000_000), _whole("--nodes", o.nodes, 100_000)
    )
    return [Cluster(nodes=int(nodes), B=B, masters=int(masters), **shared) for masters, B, nodes in grid]


def _check(o: argparse.Namespace) -> None:
    for name, least, most in (
        ("cores", 1, 100_000),
        ("samples", 1, 1_000_000_000),
        ("parameters", 1, 10**12),
        ("state_vectors", 0, 10),
        ("update_ms", 1e-3, 1e7),
        ("variation", 0, 10),
        ("node_hours", 1e-6, math.inf),
        ("node_ms", 0, 1e7),
        ("minutes", 1e-3, 1e5),
        ("M", 1, 1_000_000),
        ("exchanges", 1, 10**9),
        ("jobs", 1, 1000),
        ("seed", 0, 2**63),
    ):
        if getattr(o, name) is not None:
            within(f"--{name.replace('_', '-')}", getattr(o, name), least, most)


def _whole(name: str, text: str, most: int) -> list[Any]:
    """Whole numbers, with commas; B may be auto."""
    found: list[int | str] = []
    for word in text.split(","):
        try:
            number = number_or_auto(word.strip())
        except argparse.ArgumentTypeError:
            number = 0
        if not (1 <= int(number) <= most if number != "auto" else name == "--B"):
            kind = "whole numbers or auto" if name == "--B" else "whole numbers"
            raise ConfigError(f"{name} {text}: must be {kind} from 1 to {most} with commas between, {word!r} is not")
        if number not in found:
            found.append(number)
    return found


# What was found.


def table(clusters: list[Cluster], outcomes: list[Outcome], unit: str = "data points") -> list[str]:
    """A line for each cluster, under a head."""
    head = (
        f"masters     B   nodes {f'{unit}/s':>15}  of full   B came to  exchanges/s   exchange"
        "  processor   link       delay  more nodes"
    )
    return [head, *(_line(*each) for each in zip(clusters, outcomes, strict=True))]


def _line(c: Cluster, o: Outcome) -> str:
    from hsa2c.simulation.planning import conclusion

    delay = "-" if math.isnan(o.tau_mean) else f"{o.tau_mean:.1f}, {o.tau_max}"
    return (
        f"{c.masters:7} {c.B:>5} {c.nodes:7,} {o.samples_per_s:15,.0f} {100 * o.speed_share:6.1f} %"
        f" {o.updates_in_delta:11,.1f} {o.exchanges_per_s:12,.1f} {_span(o.exchange_s):>10}"
        f" {100 * o.master_cpu:8.0f} % {100 * o.master_link:4.0f} % {delay:>11}  {conclusion(c, o)}"
    )


def _span(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    return f"{1000 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _plain(c: Cluster, o: Outcome) -> dict[str, Any]:
    """JSON values: what is not a number is null."""
    from hsa2c.simulation.planning import conclusion

    found = {"agent_steps_per_s": o.samples_per_s} | asdict(o)  # the name that scripts know
    del found["samples_per_s"], found["limit"]
    values = {
        "nodes": c.nodes,
        "B": c.B,
        "masters": c.masters,
        **found,
        "most_nodes": o.limit.nodes,
        "most_exchanges_per_s": o.limit.exchanges_per_s,
        "then_busy": o.limit.what,
        "verdict": conclusion(c, o),
    }
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()
    }
