"""``python -m examples.lda --corpus pydocs --topics 20``: DPSVI through the runtime that HSA2C uses."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from hsa2c import application
from hsa2c.cluster.allocation import lone_task
from hsa2c.cluster.world import World, find_world
from hsa2c.commands.options import OneLineParser, guarded
from hsa2c.config.loading import assignments
from hsa2c.run import begin
from hsa2c.run import directory as rundir
from hsa2c.run.launcher import Launch, check, join, launch

PROG = "examples.lda"
APPLICATION = "examples.lda.application"

_DESCRIPTION = """Find the topics of a corpus: latent Dirichlet allocation by distributed, lock-free variational
inference.

Other commands: show RUN, evaluate RUN, speedup SVI_RUN RUN (--help after each says more).
A value comes from the command line, else from the YAML file of --config, else from the defaults.
--set reaches every field of a configuration file; the others are short for the most used ones."""

#: The baseline of section 4.1: one process; with rho = M = 1 the master gives back what it gets.
_SVI = {
    "cluster.nodes": 1,
    "cluster.processes": 1,
    "dpsgd.deltas_per_step": 1,
    "dpsgd.global_rate": 1.0,
    "dpsgd.momentum": 0.0,
    "model.batch": 1024,
    "optimiser.rule": "svi",
    "optimiser.kappa": 0.5,
    "optimiser.tau0": 1.0,
}

#: Option to field of the configuration.
_FIELDS = {
    "corpus": "corpus.source",
    "vocab": "corpus.vocabulary",
    "encoding": "corpus.encoding",
    "pattern": "corpus.pattern",
    "validation": "corpus.validation",
    "test": "corpus.test",
    "topics": "model.topics",
    "inference": "model.inference",
    "batch": "model.batch",
    "seed": "seed",
    "nodes": "cluster.nodes",
    "hosts": "cluster.hosts",
    "p": "cluster.processes",
    "spares": "cluster.spares",
    "masters": "cluster.masters",
    "restarts": "cluster.restarts",
    "B": "dpsgd.local_updates",
    "M": "dpsgd.deltas_per_step",
    "delta_dtype": "dpsgd.delta_dtype",
    "rho": "dpsgd.global_rate",
    "rate": "optimiser.rule",
    "eta": "optimiser.learning_rate",
    "kappa": "optimiser.kappa",
    "tau0": "optimiser.tau0",
    "documents": "stop.documents",
    "passes": "stop.passes",
    "minutes": "stop.minutes",
    "perplexity": "stop.perplexity",
    "run_dir": "output.run_dir",
    "name": "output.name",
}


def parser() -> OneLineParser:
    """The command line."""
    p = OneLineParser(PROG, _DESCRIPTION)
    what = p.add_argument_group("what to find")
    what.add_argument("--corpus", metavar="SOURCE", help="pydocs, a folder of text, or a file of counts (pydocs)")
    what.add_argument("--vocab", metavar="FILE", help="the words of a file of counts, one in a line")
    what.add_argument("--encoding", metavar="NAME", help="of text and of the words, such as latin-1 (utf-8)")
    what.add_argument("--pattern", metavar="GLOB", help="documents of a folder, such as '*' (*.txt, *.md and the like)")
    what.add_argument("--validation", type=float, metavar="N", help="documents to choose by: share, number or 0 (0.05)")
    what.add_argument("--test", type=float, metavar="N", help="documents for `evaluate`: share, number or 0 (0.05)")
    what.add_argument("--topics", type=int, metavar="K", help="(20)")
    what.add_argument("--inference", choices=("variational", "posterior-mean"), help="(variational, the paper's)")
    what.add_argument("--config", metavar="FILE", help="YAML file")
    what.add_argument("--resume", metavar="RUN", type=Path, help="go on with this run directory")
    what.add_argument("--seed", type=int, help="seed of everything random (1)")
    what.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="such as model.tolerance=1e-4")
    who = p.add_argument_group("who computes")
    who.add_argument("--nodes", type=int, metavar="N", help="nodes beside the master; MPI from 2 on (1)")
    who.add_argument("--hosts", metavar="FILE", help="hosts to run on, one a line, perhaps with slots=N (this one)")
    who.add_argument("--p", type=int, help="processes on each node (the node's share of the cores)")
    who.add_argument(
        "--svi", action="store_true", help="serial SVI, the paper's baseline: batches of 1024, kappa 0.5, tau0 1"
    )
    who.add_argument("--spares", type=int, metavar="S", help="nodes that wait until another is lost; MPI only (0)")
    who.add_argument("--masters", type=int, metavar="K", help="ranks that hold a slice of v each; MPI only (1)")
    who.add_argument("--restarts", type=int, metavar="R", help="go on by itself after a failure, so many times (0)")
    who.add_argument("--force", action="store_true", help="start more than this host seems to have room for")
    how = p.add_argument_group("how")
    how.add_argument("--batch", type=int, metavar="G", help="documents of an update (64)")
    how.add_argument("--B", type=int, help="updates of each process between two exchanges with the master (8)")
    how.add_argument("--M", type=int, help="deltas in a global step (the number of nodes)")
    how.add_argument(
        "--delta-dtype",
        choices=("float32", "bfloat16", "int8"),
        help="how deltas go to the master (float32)",
    )
    how.add_argument("--rho", type=float, help="global learning rate (rho * M from 1 to M, by what is safe)")
    how.add_argument("--rate", choices=("svi", "eq13", "constant"), help="rule of the local learning rate (svi)")
    how.add_argument("--eta", type=float, help="local learning rate, with --rate constant")
    how.add_argument("--kappa", type=float, help="of svi: eta = (tau0 + n)^-kappa (0.7)")
    how.add_argument("--tau0", type=float, help="of svi (128)")
    stop = p.add_argument_group("when to stop, whichever comes first (also when the perplexity falls no longer)")
    stop.add_argument("--documents", type=int, metavar="N", help="processed over all nodes")
    stop.add_argument("--passes", type=float, metavar="X", help="the same, in training sets")
    stop.add_argument("--minutes", type=float, metavar="X", help="wall-clock of training, start-up excluded")
    stop.add_argument("--perplexity", type=float, metavar="P", help="of the validation documents")
    out = p.add_argument_group("output")
    out.add_argument("--run-dir", metavar="DIR", help="folder that holds runs (runs)")
    out.add_argument("--name", help="name of this run in it (corpus, date and time)")
    out.add_argument("--json", action="store_true", help="print one JSON object about the run at the end")
    return p


def given(options: argparse.Namespace) -> dict[str, Any]:
    """Fields that were set on the command line, by dotted name; checked for form only."""
    fields: dict[str, Any] = dict(_SVI) if options.svi else {}
    fields |= assignments(options.set)
    for option, dotted in _FIELDS.items():
        value = getattr(options, option)
        if value is not None:
            fields[dotted] = value
    return fields


def main(arguments: list[str] | None = None) -> int:
    """Run the command; gives back the exit code: 0 done, 1 failed, 2 bad input, 130 Ctrl-C, 143 SIGTERM."""
    options = parser().parse_args(arguments)
    world = find_world()
    return guarded(PROG, lambda: _train(options, world), quiet=world.rank != 0 or bool(lone_task()))


def _train(options: argparse.Namespace, world: World) -> int:
    from examples.lda.application import endless_warning, positivity_warning
    from examples.lda.corpora import remark_on

    app = application.load(APPLICATION)
    if options.resume is not None:
        run = begin.resume(app, options.resume, given(options), options.config, world)
    else:
        run = begin.prepare(app, given(options), options.config, world)
    corpus = run.config.corpus
    warnings = (
        positivity_warning(run.config),
        endless_warning(run.config),
        remark_on(corpus.source, corpus.pattern),
    )
    run.remarks = (*run.remarks, *filter(None, warnings))
    check(app, run.config, world, force=options.force)
    what = Launch(
        app=APPLICATION,
        asked=run.asked,
        config=run.config,
        directory=run.directory,
        title=app.title(run.config),
        resume_from=run.checkpoint,
        session=run.session,
    )
    if world.rank != 0:
        return join(what, world)
    with run.open():
        what = dataclasses.replace(what, lock=run.lock, fresh=run.fresh)
        code = join(what, world) if world.started_by_mpi else launch(what)
    if options.json:
        print(json.dumps(rundir.summary(app, run.directory, code)))
    elif sys.stderr.isatty() and rundir.has_checkpoint(run.directory):
        print(f"next: python -m examples.lda show {run.directory}", file=sys.stderr)
    return code
