"""What the LDA example is called where people read: see `hsa2c.words`."""

from __future__ import annotations

from hsa2c.words import CommandWords, Option, PictureWords, PreflightWords

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

_WHAT = (
    Option(
        flag="--corpus",
        group="what",
        field="corpus.source",
        metavar="SOURCE",
        help="pydocs, a folder of text, or a file of counts (pydocs)",
    ),
    Option(
        flag="--vocab",
        group="what",
        field="corpus.vocabulary",
        metavar="FILE",
        help="the words of a file of counts, one in a line",
    ),
    Option(
        flag="--encoding",
        group="what",
        field="corpus.encoding",
        metavar="NAME",
        help="of text and of the words, such as latin-1 (utf-8)",
    ),
    Option(
        flag="--pattern",
        group="what",
        field="corpus.pattern",
        metavar="GLOB",
        help="documents of a folder, such as '*' (*.txt, *.md and the like)",
    ),
    Option(
        flag="--validation",
        group="what",
        field="corpus.validation",
        type=float,
        metavar="N",
        help="documents to choose by: share, number or 0 (0.05)",
    ),
    Option(
        flag="--test",
        group="what",
        field="corpus.test",
        type=float,
        metavar="N",
        help="documents for `evaluate`: share, number or 0 (0.05)",
    ),
    Option(flag="--topics", group="what", field="model.topics", type=int, metavar="K", help="(20)"),
    Option(
        flag="--inference",
        group="what",
        field="model.inference",
        choices=("variational", "posterior-mean"),
        help="(variational, the paper's)",
    ),
)

_HOW = (
    Option(
        flag="--svi",
        group="who",
        sets=_SVI,
        after="--p",
        help="serial SVI, the paper's baseline: batches of 1024, kappa 0.5, tau0 1",
    ),
    Option(flag="--batch", group="how", field="model.batch", type=int, metavar="G", help="documents of an update (64)"),
    Option(
        flag="--rate",
        group="how",
        field="optimiser.rule",
        choices=("svi", "eq13", "constant"),
        after="--momentum",
        help="rule of the local learning rate (svi)",
    ),
    Option(
        flag="--eta",
        group="how",
        field="optimiser.learning_rate",
        type=float,
        after="--rate",
        help="local learning rate, with --rate constant",
    ),
    Option(
        flag="--kappa",
        group="how",
        field="optimiser.kappa",
        type=float,
        after="--eta",
        help="of svi: eta = (tau0 + n)^-kappa (0.7)",
    ),
    Option(flag="--tau0", group="how", field="optimiser.tau0", type=float, after="--kappa", help="of svi (128)"),
)

_STOP = (
    Option(
        flag="--documents",
        group="stop",
        field="stop.documents",
        type=int,
        metavar="N",
        help="processed over all nodes",
    ),
    Option(
        flag="--passes", group="stop", field="stop.passes", type=float, metavar="X", help="the same, in training sets"
    ),
    Option(
        flag="--perplexity",
        group="stop",
        field="stop.perplexity",
        type=float,
        metavar="P",
        after="--minutes",
        help="of the validation documents",
    ),
)

COMMAND = CommandWords(
    program="examples.lda",
    python=("-m", "examples.lda"),
    title="DPSVI: find topics on every core you have",
    purpose="find topics",
    description="""Find the topics of a corpus: latent Dirichlet allocation by distributed, lock-free variational
inference.

Other commands: show RUN, evaluate RUN, speedup SVI_RUN RUN, doctor, plot RUN, report RUN; --help after each
says more.""",
    what="what to find",
    endless="also when the perplexity falls no longer",
    options=(*_WHAT, *_HOW, *_STOP),
    helps={
        "--set": "such as model.tolerance=1e-4",
        "--p": "processes on each node (the node's share of the cores)",
        "--B": "updates of each process between two exchanges with the master (8)",
        "--exchange": "stop for it, as the paper does, or wait for all nodes as well (paper)",
        "--rho": "global learning rate (rho * M from 1 to M, by what is safe)",
        "--name": "name of this run in it (corpus, date and time)",
    },
    without=("--lr",),
    limits="--documents, --passes or --minutes",
    example="model.tolerance=1e-4",
    next="python -m examples.lda show",
    evaluate="hsa2c.examples.lda.commands.evaluate",
)

PICTURES = PictureWords(
    unit="documents",
    subject="corpus.source",
    tags=("perplexity/validation", "speed/documents_per_s", "bound/per_token"),
    labels={
        "perplexity/validation": "perplexity of the validation documents",
        "perplexity/best": "best perplexity",
        "speed/documents_per_s": "documents per second",
        "bound/per_token": "bound for each token (nats)",
    },
    sections=(("Guard", ("guard",), "Entries of lambda that stale deltas have pushed below the prior."),),
)

PREFLIGHT = PreflightWords(
    needs="corpus",
    cure="the files of the corpus must be there, at the same path",
    packages=("numba", "scikit-learn", "scipy"),
    folders=("examples",),
)
