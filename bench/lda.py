"""How fast and how good the LDA example is, beside other libraries: ``python -m bench.lda``.

One synthetic corpus (`hsa2c.examples.lda.synthetic`: 20,000 training, 1,000 validation and 1,000 test documents, 10,000
words, 50 topics), one estimator of perplexity for all (`hsa2c.examples.lda.perplexity`), everybody trains in turns,
three seeds. Then the local step alone, the posterior-mean variant, and processes against a process. ``--grid`` adds
nodes, processes and B against the serial run; ``--large`` adds a corpus of NYTimes' size. ``--quick`` is a short look:
the same figures of one seed and fewer documents; perplexities are higher then, and speeds less certain.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from hsa2c.cluster.machine import cap_threads

cap_threads()

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from scipy.optimize import linear_sum_assignment  # noqa: E402

from bench.lda_peers import PEERS, Schedule, Trial, order, timed  # noqa: E402
from bench.lda_runs import large, run_lda, say, write_files  # noqa: E402
from bench.testbed import machine  # noqa: E402
from hsa2c.examples.lda.application import initial_counts  # noqa: E402
from hsa2c.examples.lda.batches import Gatherer, endless  # noqa: E402
from hsa2c.examples.lda.dpsvi import Model  # noqa: E402
from hsa2c.examples.lda.estep import e_step, expected_topics  # noqa: E402
from hsa2c.examples.lda.perplexity import HeldOut  # noqa: E402
from hsa2c.examples.lda.rates import Rate  # noqa: E402
from hsa2c.examples.lda.svi import svi  # noqa: E402
from hsa2c.examples.lda.synthetic import Recipe, draw_documents, draw_topics  # noqa: E402


class Size(NamedTuple):
    """Documents of the corpus, and passes of a run through the product's own command."""

    training: int
    held_out: int
    """For validation, and as many for testing."""
    passes: int


_FULL, _QUICK = Size(20_000, 1_000, passes=20), Size(1_500, 300, passes=30)
_GOAL = 1405.0  # of the posterior-mean variant
_MEAN_SCHEDULES = ((256, 0.6, 2.0), (512, 0.6, 5.0), (512, 0.7, 2.0), (1024, 0.6, 2.0))  # batch, kappa, tau0


class Bench:
    """The corpus, its parts, and what is measured on them."""

    def __init__(self, size: Size = _FULL) -> None:
        self.size = size
        recipe = Recipe(documents=size.training + 2 * size.held_out)
        self.planted = draw_topics(recipe)
        self.corpus = draw_documents(recipe, self.planted)
        ids = np.arange(self.corpus.documents, dtype=np.int32)
        self.training = ids[: size.training]
        self.validation = HeldOut(self.corpus, ids[size.training : -size.held_out])
        self.test = HeldOut(self.corpus, ids[-size.held_out :])
        self.K = recipe.K
        self.alpha = self.eta0 = 1.0 / recipe.K

    def schedule(self, seed: int) -> Schedule:
        """The peers' schedule; scikit-learn and gensim count updates from 1, so their offset is one less than tau0."""
        return Schedule(
            K=self.K, alpha=self.alpha, eta0=self.eta0, batch=256, kappa=0.7, tau0=10.0, passes=2, tolerance=1e-3,
            most_iterations=100, seed=seed,
        )  # fmt: skip

    def model(self, *, mean: bool = False) -> Model:
        """This project's model of it."""
        return Model(K=self.K, alpha=self.alpha, eta0=self.eta0, mean=mean, tolerance=1e-3, most_iterations=100)

    def perplexity(self, beta: NDArray[np.float32]) -> float:
        """Of the test documents, by everybody's estimator."""
        return self.test.perplexity_of(beta, self.alpha)

    def recovered(self, beta: NDArray[np.float32]) -> float:
        """Median cosine of the planted topics with those found, matched one to one."""
        a = beta / np.linalg.norm(beta, axis=1, keepdims=True)
        b = self.planted / np.linalg.norm(self.planted, axis=1, keepdims=True)
        cosines = a @ b.T
        return float(np.median(cosines[linear_sum_assignment(-cosines)]))

    def serial(self, ids: NDArray[np.int32], schedule: Schedule) -> Trial:
        """This project's serial SVI, on the peers' schedule."""
        x = initial_counts(self.corpus.V * self.K, schedule.seed).reshape(self.corpus.V, self.K)
        rate = Rate(kappa=schedule.kappa, tau0=schedule.tau0 + 1)

        def act() -> Any:
            for _ in svi(x, self.corpus, ids.size, order(ids, schedule), self.model(), rate):
                pass
            return (x + np.float32(self.eta0)).T

        return timed(schedule.passes * ids.size, act)


_PARTS = ("peers", "local", "mean", "processes")


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    p = argparse.ArgumentParser(prog="bench.lda", description=__doc__.splitlines()[0] if __doc__ else None)
    p.add_argument("--rounds", type=int, help="seeds (3; 1 with --quick)")
    p.add_argument("--quick", action="store_true", help="the same figures of one seed and fewer documents, in a minute")
    p.add_argument("--parts", nargs="+", choices=_PARTS, default=_PARTS, help="(all of them)")
    p.add_argument("--grid", action="store_true", help="nodes x processes x B against the serial run")
    p.add_argument("--large", action="store_true", help="a corpus of NYTimes' size")
    p.add_argument("--json", action="store_true")
    options = p.parse_args(arguments)
    facts = machine.describe()
    say(machine.headline(facts))
    bench, rounds = Bench(_QUICK if options.quick else _FULL), options.rounds or (1 if options.quick else 3)
    bench.serial(bench.training[:512], bench.schedule(0))  # compiles, or loads what was compiled
    result: dict[str, Any] = {"machine": facts, "quick": options.quick}
    if "peers" in options.parts:
        result |= against_peers(bench, rounds)
    if "local" in options.parts:
        result["local_step"] = local_step(bench)
    if "mean" in options.parts:
        result["posterior_mean"] = posterior_mean(bench)
    with tempfile.TemporaryDirectory(prefix="hsa2c-bench-") as folder:
        files = write_files(bench.corpus, Path(folder))
        if "processes" in options.parts:
            result["processes"] = processes(bench, files, Path(folder), rounds)
            result["dpsvi_speedup"] = result["processes"]["speedup_processes"]
        if options.grid:
            result["grid"] = grid(bench, files, Path(folder))
    if options.large:
        result["large"] = large()
    print(json.dumps(result) if options.json else _text(result))
    return 0


def against_peers(bench: Bench, rounds: int) -> dict[str, Any]:
    """Everybody's documents per CPU-second, perplexity and recovered topics; medians over the seeds."""
    systems = {"this project, serial SVI": bench.serial}
    systems |= {name: (lambda ids, s, train=train: train(bench.corpus, ids, s)) for name, train in PEERS.items()}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in systems}
    for seed in range(1, rounds + 1):
        for name, train in systems.items():
            trial = train(bench.training, bench.schedule(seed))
            found[name].append(
                {
                    "docs_per_cpu_s": trial.documents / trial.cpu_s,
                    "docs_per_s": trial.documents / trial.wall_s,
                    "perplexity": bench.perplexity(trial.beta),
                    "cosine": bench.recovered(trial.beta),
                    "wall_s": trial.wall_s,
                }
            )
            last = found[name][-1]
            say(f"seed {seed}: {name}: {last['docs_per_cpu_s']:,.0f} documents/CPU-s, {last['perplexity']:,.1f}")
    medians = {
        name: {key: statistics.median(trial[key] for trial in trials) for key in trials[0]}
        for name, trials in found.items()
    }
    ours, sklearn = medians["this project, serial SVI"], medians["scikit-learn online"]
    return {
        "ours_docs_per_cpu_s": ours["docs_per_cpu_s"],
        "sklearn_docs_per_cpu_s": sklearn["docs_per_cpu_s"],
        "ours_perplexity": ours["perplexity"],
        "sklearn_perplexity": sklearn["perplexity"],
        "true_topics_perplexity": bench.perplexity(bench.planted.astype(np.float32)),
        "systems": medians,
        "trials": found,
    }


def local_step(bench: Bench) -> dict[str, float]:
    """The E-step alone, at topics that are trained, with and without pruning."""
    model, corpus = bench.model(), bench.corpus
    x = initial_counts(corpus.V * bench.K, 1).reshape(corpus.V, bench.K)
    for _ in svi(
        x, corpus, bench.size.training, order(bench.training, bench.schedule(1)), model, Rate(kappa=0.7, tau0=11)
    ):
        pass
    batch = Gatherer(corpus)(bench.training[:4000])
    beta = np.empty((batch.rows.size, bench.K), np.float32)
    totals = (bench.eta0 * corpus.V + x.sum(axis=0, dtype=np.float64)).astype(np.float32)
    expected_topics(x[batch.rows], np.float32(bench.eta0), totals, False, beta)

    def run(prune: bool) -> tuple[float, NDArray[np.float32]]:
        gamma, s = np.ones((batch.documents, bench.K), np.float32), np.zeros_like(beta)
        began_at = time.process_time()
        e_step(
            batch.starts, batch.local, batch.counts, beta, np.float32(bench.alpha), np.float32(1e-3), 100, False, prune,
            gamma, s,
        )  # fmt: skip
        return batch.documents / (time.process_time() - began_at), s

    speeds = [(run(True), run(False)) for _ in range(3)]
    pruned, whole = speeds[0][0][1], speeds[0][1][1]
    return {
        "docs_per_cpu_s": statistics.median(pair[0][0] for pair in speeds),
        "unpruned_docs_per_cpu_s": statistics.median(pair[1][0] for pair in speeds),
        "statistics_error": float(np.abs(pruned - whole).sum() / whole.sum()),
    }


def posterior_mean(bench: Bench) -> dict[str, Any]:
    """The variant: a schedule chosen on the validation documents; its test perplexity; CPU seconds to 1405."""
    tried = {schedule: _mean_run(bench, schedule) for schedule in _MEAN_SCHEDULES}
    best = min(tried, key=lambda schedule: tried[schedule]["validation"])
    for schedule, run in tried.items():
        say(f"posterior means, {schedule}: validation {run['validation']:,.1f} after {run['documents']:,} documents")
    run = tried[best]
    return {"batch": best[0], "kappa": best[1], "tau0": best[2], **run}


def _mean_run(bench: Bench, schedule: tuple[int, float, float]) -> dict[str, Any]:
    """Four passes at most, stopped when the validation documents gain no more; measuring is not timed."""
    batch, kappa, tau0 = schedule
    model, corpus = bench.model(mean=True), bench.corpus
    x = initial_counts(corpus.V * bench.K, 1).reshape(corpus.V, bench.K)
    batches = endless(bench.training, batch, seed=1, part=0, parts=1)
    steps = svi(x, corpus, bench.size.training, batches, model, Rate(kappa=kappa, tau0=tau0))
    seconds, documents, best, to_goal = 0.0, 0, None, None
    while documents < 4 * bench.size.training:
        began_at = time.process_time()
        for _ in range(max(1, 5000 // batch)):
            documents += next(steps)
        seconds += time.process_time() - began_at
        validation = bench.validation.score(x, model).perplexity
        test = bench.test.score(x, model).perplexity
        if to_goal is None and test <= _GOAL:
            to_goal = seconds
        if best is None or validation < best["validation"]:
            beta = ((x + np.float32(bench.eta0)) / (x + np.float32(bench.eta0)).sum(axis=0)).T
            best = {"validation": validation, "perplexity": test, "documents": documents, "cpu_s": seconds}
            best |= {"cosine": bench.recovered(beta)}
        elif validation > 1.005 * best["validation"]:
            break
    assert best is not None
    return {**best, "cpu_s_to_1405": to_goal, "docs_per_cpu_s": documents / seconds}


def processes(bench: Bench, files: tuple[Path, Path], folder: Path, rounds: int) -> dict[str, Any]:
    """Documents/s of one process, two processes, and two nodes, in turns."""
    common = ["--topics", str(bench.K), *_kept(bench), "--passes", str(bench.size.passes), "--B", "15"]
    common += ["--batch", "64", "--set", "measure_every_s=1000"]
    if bench.size is _QUICK:
        common += ["--set", "output.log_every_s=0.1"]
    settings = {
        "serial": ["--nodes", "1", "--p", "1"],
        "processes": ["--nodes", "1", "--p", "2"],
        "nodes": ["--nodes", "2", "--p", "1"],
    }
    speeds: dict[str, list[float]] = {name: [] for name in settings}
    number = count()
    for _ in range(rounds):
        for name, options in settings.items():
            run = run_lda(files, folder, number, [*common, *options])
            speeds[name].append(_steady(run["rows"]))
            say(f"{name}: {speeds[name][-1]:,.0f} documents/s, perplexity {run['best_perplexity']:,.1f}")
    medians = {f"{name}_docs_per_s": statistics.median(values) for name, values in speeds.items()}
    return {
        **medians,
        "speedup_processes": statistics.median(_ratios(speeds["processes"], speeds["serial"])),
        "speedup_nodes": statistics.median(_ratios(speeds["nodes"], speeds["serial"])),
        "rounds": speeds,
    }


def _kept(bench: Bench) -> list[str]:
    kept = str(bench.size.held_out)
    return ["--validation", kept, "--test", kept]


def _ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def _steady(history: Sequence[dict[str, Any]]) -> float:
    """Documents/s between the second row and the last but one."""
    first, last = history[1], history[-2]
    return float((last["documents"] - first["documents"]) / (last["elapsed_s"] - first["elapsed_s"]))


def grid(bench: Bench, files: tuple[Path, Path], folder: Path) -> list[dict[str, Any]]:
    """Perplexity after the same number of documents, and entries that the guard caught, for nW, p and B."""
    common = ["--topics", str(bench.K), *_kept(bench), "--passes", "4", "--batch", "64"]
    number = count(10_000)
    found = []
    for rate in ("svi", "eq13"):
        serial = run_lda(files, folder, number, [*common, "--rate", rate, "--nodes", "1", "--p", "1", "--B", "1"])
        for nodes in (1, 2, 4):
            for p in (1, 2):
                for B in (1, 5, 15):
                    size = ["--nodes", str(nodes), "--p", str(p), "--B", str(B), "--rate", rate]
                    run = run_lda(files, folder, number, [*common, *size])
                    found.append(
                        {
                            "rate": rate, "nodes": nodes, "p": p, "B": B,
                            "perplexity": run["perplexity"], "documents": run["documents"],
                            "to_serial": run["perplexity"] / serial["perplexity"],
                            "negative_entries": run["negative_entries"],
                        }
                    )  # fmt: skip
                    say("  ".join(f"{key} {value}" for key, value in found[-1].items()))
    return found


def _text(result: dict[str, Any]) -> str:
    lines = []
    if "systems" in result:
        lines.append(f"{'':34}documents/CPU-s   perplexity   cosine with planted topics")
        for name, row in sorted(result["systems"].items(), key=lambda item: -item[1]["docs_per_cpu_s"]):
            lines.append(f"  {name:32}{row['docs_per_cpu_s']:15,.0f}{row['perplexity']:13,.1f}{row['cosine']:9.3f}")
        lines.append(f"true topics: {result['true_topics_perplexity']:,.1f}")
    if "local_step" in result:
        step = result["local_step"]
        lines.append(
            f"local step alone: {step['docs_per_cpu_s']:,.0f} documents/CPU-s, without pruning"
            f" {step['unpruned_docs_per_cpu_s']:,.0f}; statistics differ by {step['statistics_error']:.1e}"
        )
    if "posterior_mean" in result:
        mean = result["posterior_mean"]
        lines.append(
            f"posterior means, batch {mean['batch']}, kappa {mean['kappa']}, tau0 {mean['tau0']} (chosen on validation"
            f" documents): perplexity {mean['perplexity']:,.1f} after {mean['cpu_s']:.1f} CPU-s, {_GOAL:g} after"
            f" {mean['cpu_s_to_1405'] or float('nan'):.1f}; {mean['docs_per_cpu_s']:,.0f} documents/CPU-s, cosine"
            f" {mean['cosine']:.3f}"
        )
    if "processes" in result:
        found = result["processes"]
        lines.append(
            f"documents/s: serial {found['serial_docs_per_s']:,.0f}, 2 processes {found['processes_docs_per_s']:,.0f}"
            f" (x {found['speedup_processes']:.2f}), 2 nodes {found['nodes_docs_per_s']:,.0f}"
            f" (x {found['speedup_nodes']:.2f})"
        )
    lines += ["  ".join(f"{key} {value}" for key, value in row.items()) for row in result.get("grid", ())]
    if "large" in result:
        lines.append(json.dumps(result["large"], indent=2))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
