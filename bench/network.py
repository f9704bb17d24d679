"""What the network costs, on emulated hosts: ``python -m bench.network --part fig5|fig6|real|turns`` (root).

Several hosts on one machine (`bench.testbed.emulated_hosts`): the master on the first, a node on each of the others,
links of a given bandwidth and delay between them, MPI over TCP through a host file.

fig5   data points/s against nodes, a line for each B, with the paper's exchange and with the overlapped one (the
       paper's Fig. 5). Two cores cannot feed many nodes, so the actor-learner sleeps for the time of an update, which
       is measured first on a real one, and sends a real delta (`bench.testbed.sleeping`).
fig6   seconds to a score with real learning, against nodes and B (the paper's Fig. 6), on the slowest link.
real   real actor-learners on two nodes: agent steps/s with the exchange, over those of no exchange at all, in turns;
       and what --B auto makes of a link that changes under it.
turns  the same for some B (auto, too), more exactly: the runs are all there at once and work in turns of 5 s
       (`bench.testbed.turns`).

Every measurement is kept in `--run-dir` as soon as it is made, and not made again.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.testbed import machine
from bench.testbed.emulated_hosts import EmulatedHosts, why_not
from bench.testbed.reaching import draw_seconds
from bench.testbed.results import Results
from bench.testbed.runs import execute, rows
from bench.testbed.sleeping import WorkConfig, measurement
from bench.testbed.turns import signal_all, speed, take_turns
from hsa2c.observe.plot import COLOURS, STYLE, save

_SAMPLES = WorkConfig().samples
_NO_EXCHANGE = 1_000_000  # B of a run that never gets to an exchange
_REAL = (1e9, 100e6, 1e9)  # bits/s of the part real: the links that --B auto meets one after the other
_TURN_S = 5.0
_WARM_UP_S = 15.0  # a run begins with the overlapped exchange's first v, and B = auto finds its B
_START_S = 120.0  # for a run's start and end, beside what it measures


@dataclass(frozen=True)
class Link:
    """Between every host and the switch."""

    bits_per_s: float
    delay_s: float
    kernel: bool = False
    """Whether the kernel's own switch is used, as it is: a process that delays packets carries about 1 Gbit/s here."""

    def __str__(self) -> str:
        rate = f"{self.bits_per_s / 1e9:g} Gbit/s" if self.bits_per_s >= 1e9 else f"{self.bits_per_s / 1e6:g} Mbit/s"
        return f"{rate}, {1000 * self.delay_s:g} ms" + (" (the kernel's, not limited)" if self.kernel else "")

    def hosts(self, number: int) -> EmulatedHosts:
        """So many of them, joined by such links."""
        return (
            EmulatedHosts(number)
            if self.kernel
            else EmulatedHosts(number, delay_s=self.delay_s, bits_per_s=self.bits_per_s)
        )


LINKS = {"fast": Link(10e9, 0.1e-3, kernel=True), "usual": Link(1e9, 1e-3), "slow": Link(100e6, 10e-3)}


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing, then print and draw everything; exit code 0 also where nothing can be measured."""
    options = _parse(arguments)
    if (why := why_not()) is not None:
        print(f"bench.network: skipped: emulated hosts: {why}", file=sys.stderr)
        return 0
    print(machine.headline(machine.describe()), file=sys.stderr)
    results = Results(Path(options.run_dir) / f"{options.part}.jsonl")
    found = {"fig5": _fig5, "fig6": _fig6, "real": _real, "turns": _turns}[options.part](options, results)
    print(json.dumps({"machine": machine.describe(), "results": found}) if options.json else _table(found))
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="bench.network", description=__doc__.splitlines()[0] if __doc__ else None)
    p.add_argument("--part", choices=("fig5", "fig6", "real", "turns"), default="fig5")
    p.add_argument("--links", nargs="+", choices=tuple(LINKS), default=list(LINKS))
    p.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8])
    p.add_argument("--B", type=_updates, nargs="+", default=[1, 2, 4, 8, 16], help="turns: auto, too")
    p.add_argument("--exchange", nargs="+", choices=("paper", "overlap"), default=["paper", "overlap"])
    p.add_argument("--seconds", type=float, default=10.0, help="of each measurement (10)")
    p.add_argument("--warm-up", type=float, default=3.0, help="seconds before that (3)")
    p.add_argument("--rounds", type=int, default=3, help="of the parts real and turns (3)")
    p.add_argument("--update-s", type=float, help="seconds of an update (measured)")
    p.add_argument("--game", default="Pong", help="(Pong)")
    p.add_argument("--score", type=float, default=-18.0, help="fig6: mean of the last 100 games (-18)")
    p.add_argument("--minutes", type=float, default=15.0, help="fig6: the longest that a run may take (15)")
    p.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="for every run")
    p.add_argument("--run-dir", default="runs/network", help="(runs/network)")
    p.add_argument("--json", action="store_true")
    options = p.parse_args(arguments)
    if "auto" in options.B and options.part != "turns":
        p.error(f"--B auto is for --part turns, not {options.part}")
    return options


def _updates(text: str) -> int | str:
    if text == "auto":
        return text
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"{text}, must be a whole number or auto")


class Cluster:
    """Emulated hosts: the master's, and one for each node.

    Args:
        hosts: h0 for the master, h1 and so on for nodes.
        folder: Where runs are kept.
    """

    def __init__(self, hosts: EmulatedHosts, folder: Path) -> None:
        self._hosts = hosts
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def rate(self, bits_per_s: float) -> None:
        """Change every host's link."""
        for name in self._hosts.names:
            self._hosts.shape(name, bits_per_s=bits_per_s)

    def start(self, command: Sequence[str], nodes: int) -> subprocess.Popen[bytes]:
        """Start a command on the first host; ``{hosts}`` in it stands for a host file of the master and the nodes."""
        file = self._folder / f"hosts-{nodes}.txt"
        names = self._hosts.names[: nodes + 1]
        file.write_text("".join(f"{name} slots={int(name != names[0])}\n" for name in names))
        whole = [*self._hosts.inside("h0"), *(part.replace("{hosts}", str(file)) for part in command)]
        environment = dict(os.environ) | self._hosts.environment
        with (self._folder / "output.txt").open("ab") as output:
            return subprocess.Popen(whole, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def run(self, command: Sequence[str], nodes: int, limit_s: float) -> None:
        """Start a command and wait for it."""
        with _ended(self.start(command, nodes)) as process:
            code = process.wait(limit_s)
        if code != 0:
            tail = (self._folder / "output.txt").read_text(errors="replace").splitlines()[-5:]
            raise SystemExit(f"{' '.join(command)}: failed ({code}): {' | '.join(tail)}")


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Stop it in good order if it still runs at the end."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _conditions(options: argparse.Namespace) -> dict[str, Any]:
    """What a measurement is kept for, beside what is varied."""
    return {"seconds": options.seconds, "set": " ".join(options.set)}


def _speed(directory: Path, work: str, warm_up_s: float) -> float:
    """Work a second between the first row after the warm-up and the last but one."""
    steady = [row for row in rows(directory) if row["elapsed_s"] >= warm_up_s]
    first, last = steady[0], steady[-1]
    return float((last[work] - first[work]) / (last["elapsed_s"] - first["elapsed_s"]))


def exact_speeds(history: Sequence[Mapping[str, Any]], nodes: int) -> tuple[float, float]:
    """Updates and global steps a second, by the times at which they were made (`bench.testbed.sleeping.Counter`).

    Args:
        history: Rows, those of the warm-up left out.
        nodes: How many.
    """
    marks = [(f"made/{node}", f"made_at_s/{node}") for node in range(nodes)]
    return sum(_slope(history, *mark) for mark in marks), _slope(history, "stepped", "stepped_at_s")


def _slope(history: Sequence[Mapping[str, Any]], count: str, at_s: str) -> float:
    marked = [row for row in history if row.get(count) is not None]
    first, last = marked[0], marked[-1]
    if first[at_s] == last[at_s]:
        raise SystemExit(f"{count}: marked once in all the time: --seconds is too short")
    return float((last[count] - first[count]) / (last[at_s] - first[at_s]))


# Fig. 5


def _fig5(options: argparse.Namespace, results: Results) -> list[dict[str, Any]]:
    folder = Path(options.run_dir)
    update_s = options.update_s or real_update_s(options.run_dir, options.game, results)
    found = []
    for link in options.links:
        with LINKS[link].hosts(1 + max(options.nodes)) as hosts:
            cluster = Cluster(hosts, folder)
            for exchange, nodes, B in itertools.product(options.exchange, options.nodes, options.B):
                key = {"link": link, "exchange": exchange, "nodes": nodes, "B": B, "update_s": update_s}
                key |= _conditions(options)
                found.append(results.get(**key) or results.put({**key, **sleeping(options, cluster, key)}))
    print(_draw_fig5(options, found, update_s), file=sys.stderr)
    return found


def real_update_s(run_dir: str, game: str, results: Results) -> float:
    """Seconds of an update of a real actor-learner that has a core of its own and never exchanges."""
    key = {"measured": "update_s", "game": game}
    kept = results.get(**key)
    if kept is None:
        name = f"update-{time.time_ns()}"
        command = [sys.executable, "train.py", "--game", game, "--p", "1", "--B", str(_NO_EXCHANGE)]
        command += ["--minutes", "0.4", "--run-dir", run_dir, "--name", name, "--set", "output.log_every_s=1"]
        execute(command, _START_S)
        updates_per_s = _speed(Path(run_dir) / name, "updates", 8.0)
        kept = results.put({**key, "update_s": round(1 / updates_per_s, 4)})
    return float(kept["update_s"])


def sleeping(options: argparse.Namespace, cluster: Cluster, key: dict[str, Any]) -> dict[str, Any]:
    """One run of actor-learners that sleep: its speeds; `key` has link, exchange, nodes, B and update_s."""
    name = f"{key['link']}-{key['exchange']}-{key['nodes']}-{key['B']}-{time.time_ns()}"
    seconds = options.warm_up + options.seconds
    given = measurement(key["nodes"], key["B"], key["exchange"], key["update_s"], seconds)
    command = [sys.executable, "-m", "bench.testbed.sleeping", options.run_dir, name]
    command += ["cluster.hosts={hosts}", *given, *options.set]
    cluster.run(command, key["nodes"], seconds + _START_S)
    directory = Path(options.run_dir) / name
    history = rows(directory)
    last = history[-2]
    updates_per_s, steps_per_s = exact_speeds(
        [row for row in history if row["elapsed_s"] >= options.warm_up], key["nodes"]
    )
    return {
        "data_points_per_s": round(_SAMPLES * updates_per_s, 1),
        "exchanges_per_s": round(key["nodes"] * steps_per_s, 2),
        "exchange_s": last["exchange/seconds"],
        "tau": last["staleness/mean"],
    }


def _draw_fig5(options: argparse.Namespace, found: Sequence[Mapping[str, Any]], update_s: float) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(5 * len(options.links), 4.6), dpi=110, layout="constrained")
        panels = figure.subplots(1, len(options.links), sharey=True, squeeze=False).ravel()
        for panel, link in zip(panels, options.links, strict=True):
            for (place, B), exchange in itertools.product(enumerate(options.B), options.exchange):
                line = [row for row in found if (row["link"], row["exchange"], row["B"]) == (link, exchange, B)]
                style = "-" if exchange == "overlap" else "--"
                label = f"B = {B}, {exchange}"
                x, y = [row["nodes"] for row in line], [row["data_points_per_s"] for row in line]
                panel.plot(x, y, style, marker="o", markersize=4, color=COLOURS[place], label=label)
            most = max(options.nodes)
            panel.plot([0, most], [0, most * _SAMPLES / update_s], ":", color="#777777", label="no exchange")
            panel.set(title=str(LINKS[link]), xlabel="nodes", xticks=options.nodes, ylim=(0, None))
        panels[0].set_ylabel("data points (agent steps) per second")
        panels[-1].legend(fontsize=7, handlelength=3.5)
        note = f"Emulated hosts on one machine. Actor-learners sleep for {1000 * update_s:.1f} ms an update,"
        note += " as measured on a real one, and send real deltas."
        figure.supxlabel(note, fontsize=8, color="#555555", x=0.01, ha="left")
        path = Path(options.run_dir) / "fig5.png"
        save(figure, path)
    return str(path)


# Fig. 6


def _fig6(options: argparse.Namespace, results: Results) -> list[dict[str, Any]]:
    found = []
    link = options.links[-1]
    with LINKS[link].hosts(1 + max(options.nodes)) as hosts:
        cluster = Cluster(hosts, Path(options.run_dir))
        for exchange, nodes, B in itertools.product(options.exchange, options.nodes, options.B):
            key = {"link": link, "exchange": exchange, "nodes": nodes, "B": B}
            key |= {"game": options.game, "score": options.score, "minutes": options.minutes}
            found.append(results.get(**key) or results.put({**key, **_learning(options, cluster, key)}))
    print(_draw_fig6(options, found), file=sys.stderr)
    return found


def _draw_fig6(options: argparse.Namespace, found: Sequence[Mapping[str, Any]]) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(5 * len(options.exchange), 4.6), dpi=110, layout="constrained")
        panels = figure.subplots(1, len(options.exchange), squeeze=False).ravel()
        for panel, exchange in zip(panels, options.exchange, strict=True):
            draw_seconds(panel, [row for row in found if row["exchange"] == exchange], 60 * options.minutes)
            panel.set_title(f"exchange: {exchange}", loc="left")
        cores = machine.describe()["cores"]
        note = f"{options.game}, until the mean of the last 100 games is {options.score:g}. Emulated hosts, links of"
        note += f" {LINKS[options.links[-1]]}.\nReal actor-learners, one a node; all share {cores} cores."
        figure.supxlabel(note, fontsize=8, color="#555555", x=0.01, ha="left")
        path = Path(options.run_dir) / "fig6.png"
        save(figure, path)
    return str(path)


def _learning(options: argparse.Namespace, cluster: Cluster, key: dict[str, Any]) -> dict[str, Any]:
    name = f"fig6-{key['link']}-{key['exchange']}-{key['nodes']}-{key['B']}-{time.time_ns()}"
    settings = ["--B", str(key["B"]), "--exchange", key["exchange"], "--score", str(options.score)]
    settings += ["--minutes", str(options.minutes)]
    cluster.run(_train(options, name, key["nodes"], settings), key["nodes"], 60 * options.minutes + _START_S)
    last = rows(Path(options.run_dir) / name)[-1]
    reached = (last["score/best_mean_100"] or -1e9) >= options.score
    return {
        "seconds": round(last["elapsed_s"], 1) if reached else None,
        "agent_steps": last["agent_steps"],
        "best": last["score/best_mean_100"],
    }


def _train(options: argparse.Namespace, name: str, nodes: int, settings: Iterable[str]) -> list[str]:
    command = [sys.executable, "train.py", "--game", options.game, "--nodes", str(nodes), "--p", "1"]
    command += ["--hosts", "{hosts}", "--run-dir", options.run_dir, "--name", name, "--set", "output.log_every_s=1"]
    return [*command, *(part for text in options.set for part in ("--set", text)), *settings]


# Real actor-learners


def _real(options: argparse.Namespace, results: Results) -> list[dict[str, Any]]:
    nodes = 2
    kinds = {
        "no exchange": ["--B", str(_NO_EXCHANGE)],
        "overlap, B = 4": ["--B", "4", "--exchange", "overlap"],
        "overlap, B = auto": ["--B", "auto", "--exchange", "overlap"],
        "paper, B = 4": ["--B", "4", "--exchange", "paper"],
    }
    found = []
    # 1 Gbit/s by the kernel: a process that delays packets would take a core from two actor-learners that need both.
    with EmulatedHosts(1 + nodes, bits_per_s=_REAL[0]) as hosts:
        cluster = Cluster(hosts, Path(options.run_dir))
        for number, (kind, settings) in itertools.product(range(options.rounds), kinds.items()):
            key = {"round": number, "kind": kind, "game": options.game, **_conditions(options)}
            row = results.get(**key) or results.put(
                {**key, "agent_steps_per_s": _steps_per_s(options, cluster, settings)}
            )
            found.append(row)
        key = {"kind": "changes", "game": options.game, "set": " ".join(options.set)}
        found.append(results.get(**key) or results.put({**key, **_changes(options, cluster)}))
    return found + _ratios(found, list(kinds))


def _ratios(found: Sequence[Mapping[str, Any]], kinds: Sequence[str]) -> list[dict[str, Any]]:
    """Of each kind to the first, in each round."""
    speeds = {kind: [row["agent_steps_per_s"] for row in found if row["kind"] == kind] for kind in kinds}
    ratios = {kind: [a / b for a, b in zip(speeds[kind], speeds[kinds[0]], strict=True)] for kind in kinds[1:]}
    return [
        {"kind": f"{kind} / {kinds[0]}", "ratio": round(statistics.median(some), 3), "rounds": some}
        for kind, some in ratios.items()
    ]


def _steps_per_s(options: argparse.Namespace, cluster: Cluster, settings: Sequence[str]) -> float:
    name = f"real-{time.time_ns()}"
    warm_up_s = max(options.warm_up, _WARM_UP_S)
    seconds = warm_up_s + options.seconds
    cluster.run(_train(options, name, 2, [*settings, "--minutes", str(seconds / 60)]), 2, seconds + _START_S)
    return round(_speed(Path(options.run_dir) / name, "agent_steps", warm_up_s), 1)


def _changes(options: argparse.Namespace, cluster: Cluster) -> dict[str, Any]:
    """B of --B auto: on one link, on a slow one, and on the first again, a minute each."""
    name = f"changes-{time.time_ns()}"
    phase_s = 60.0
    command = _train(options, name, 2, ["--B", "auto", "--minutes", str(3 * phase_s / 60)])
    directory = Path(options.run_dir) / name
    with _ended(cluster.start(command, 2)) as process:
        _wait_until_it_trains(directory, process)
        for bits_per_s in _REAL[1:]:
            time.sleep(phase_s)
            cluster.rate(bits_per_s)
        process.wait(phase_s + _START_S)
    history = rows(directory)
    ends = [max(row["elapsed_s"] for row in history if row["elapsed_s"] < phase_s * (k + 1)) for k in range(3)]
    names = ("1 Gbit/s", "100 Mbit/s", "1 Gbit/s again")
    at = {row["elapsed_s"]: row for row in history}
    return {f"B on {name}": at[end]["exchange/B"] for name, end in zip(names, ends, strict=True)} | {
        "B each 5 s": [row["exchange/B"] for row in history][::5]
    }


def _wait_until_it_trains(directory: Path, process: subprocess.Popen[bytes], limit_s: float = _START_S) -> None:
    deadline = time.monotonic() + limit_s
    while not (directory / "metrics.jsonl").exists() or not rows(directory):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{directory}: does not train")
        time.sleep(0.2)


# The same in turns


def _turns(options: argparse.Namespace, results: Results) -> list[dict[str, Any]]:
    kinds = {"no exchange": ["--B", str(_NO_EXCHANGE)]} | {
        f"{exchange}, B = {B}": ["--B", str(B), "--exchange", exchange]
        for exchange, B in itertools.product(options.exchange, options.B)
    }
    same = {"game": options.game, **_conditions(options)}
    keys = [{"round": number, "kind": kind, **same} for number, kind in itertools.product(range(options.rounds), kinds)]
    left = sorted({key["round"] for key in keys if results.get(**key) is None})
    if left:
        with contextlib.ExitStack() as stack:
            runs = _stopped(options, stack, list(kinds.values()))
            for number in left:
                turns = take_turns([run.hosts for run in runs], round(options.seconds / _TURN_S), _TURN_S)
                for kind, run, its_turns in zip(kinds, runs, turns, strict=True):
                    if run.process.poll() is not None:
                        raise SystemExit(f"{run.directory}: has ended ({run.process.returncode})")
                    history = rows(run.directory)
                    measured = {
                        "agent_steps_per_s": round(speed(history, its_turns, "agent_steps"), 1),
                        "exchanges_per_s": round(speed(history, its_turns, "exchanges"), 2),
                        "B": history[-1]["exchange/B"],
                    }
                    results.put({"round": number, "kind": kind, **same, **measured})
    found = [results.get(**key) or {} for key in keys]
    return found + _ratios(found, list(kinds))


@dataclass(frozen=True)
class _Run:
    """Of the part turns."""

    hosts: EmulatedHosts
    directory: Path
    process: subprocess.Popen[bytes]


def _stopped(options: argparse.Namespace, stack: contextlib.ExitStack, kinds: Sequence[Sequence[str]]) -> list[_Run]:
    """Start runs on hosts of their own, let them warm up beside each other, and stop all their processes."""
    nodes = 2
    runs = []
    for place, settings in enumerate(kinds):
        hosts = stack.enter_context(EmulatedHosts(1 + nodes, bits_per_s=_REAL[0]))
        name = f"turns-{place}-{time.time_ns()}"
        # A node that is stopped while others have their turns is not lost.
        command = _train(options, name, nodes, [*settings, "--set", f"cluster.absence_s={10 * _TURN_S * len(kinds)}"])
        process = stack.enter_context(_ended(Cluster(hosts, Path(options.run_dir)).start(command, nodes)))
        stack.callback(signal_all, hosts, signal.SIGCONT)  # or it would not hear that it is to end
        runs.append(_Run(hosts, Path(options.run_dir) / name, process))
    for run in runs:
        _wait_until_it_trains(run.directory, run.process, len(runs) * _START_S)
    time.sleep(len(runs) * max(options.warm_up, _WARM_UP_S))
    for run in runs:
        signal_all(run.hosts, signal.SIGSTOP)
    return runs


def _table(found: list[dict[str, Any]]) -> str:
    return "\n".join("  ".join(f"{key}: {value}" for key, value in row.items()) for row in found)


if __name__ == "__main__":
    sys.exit(main())
