"""DPSVI as an application of the runtime: the core, the model and the corpora meet here."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hsa2c import interpreter
from hsa2c.application import Application, ProblemFactory
from hsa2c.config.loading import build
from hsa2c.config.sections import DPSGDConfig
from hsa2c.dpsgd.protocols import Vector
from hsa2c.errors import ConfigError
from hsa2c.examples.lda.corpora import Corpus, Split, open_corpus, remark_on, split
from hsa2c.examples.lda.corpora.pydocs import NAME as PYDOCS
from hsa2c.examples.lda.corpora.vocabulary import remark_on_words
from hsa2c.examples.lda.rates import MOST_DECAY, Rate, paper_rate, positivity
from hsa2c.examples.lda.settings import LDAConfig, endless_warning, limit_documents
from hsa2c.examples.lda.words import COMMAND, PICTURES, PREFLIGHT
from hsa2c.observe import shown
from hsa2c.tracker import Tracker
from hsa2c.transport.several_masters import parts

if TYPE_CHECKING:
    from hsa2c.examples.lda.dpsvi import Model
    from hsa2c.node.layout import Layout


class LDA(Application):
    """See `hsa2c.application.Application`."""

    name = "lda"
    fields = (
        shown.Field("documents", "documents"),
        shown.Field("documents/s", "speed/documents_per_s"),
        shown.Field("perplexity", "perplexity/validation", "{:,.1f}"),
        shown.Field("best", "perplexity/best", "{:,.1f}"),
        shown.Field("bound", "bound/per_token", "{:.4f}"),
        shown.Field("exchanges", "exchanges"),
        shown.Field("tau", "staleness/mean", "{:.2f}"),
        shown.Field("overlap", "staleness/overlap_mean", "{:.2f}"),
        shown.Field("master busy", "master/busy", "{:.0%}"),
        shown.Field("eta", "rate/eta", "{:.4f}"),
        shown.Field("negative entries", "guard/negative_entries"),
    )
    best = "-perplexity/validation"
    curve = shown.Field("perplexity", "perplexity/validation", "{:,.0f}")
    fixed: ClassVar[Sequence[str]] = ("corpus", "model", "optimiser.rule")
    summary: ClassVar[Mapping[str, str]] = {
        "documents": "documents",
        "updates": "updates",
        "perplexity": "perplexity/validation",
        "best_perplexity": "perplexity/best",
        "negative_entries": "guard/negative_entries",
    }
    earlier_modules: ClassVar[Sequence[str]] = ("examples.lda.application",)
    command, pictures, preflight = COMMAND, PICTURES, PREFLIGHT
    overlaps: ClassVar[bool] = False  # topics are kept as scale * L, and scale begins anew with each v

    def build_config(self, values: Mapping[str, Any]) -> LDAConfig:
        """Plain values into a configuration; paths of the corpus are absolute, so that it is found from everywhere."""
        config = build(LDAConfig, values)
        corpus = config.corpus
        source = corpus.source if corpus.source == PYDOCS else absolute(corpus.source)
        vocabulary = corpus.vocabulary and absolute(corpus.vocabulary)
        return dataclasses.replace(config, corpus=dataclasses.replace(corpus, source=source, vocabulary=vocabulary))

    def resolve(self, config: LDAConfig) -> LDAConfig:
        """Priors, and the rates of Eq. 13."""
        for package in ("numba", "scipy"):
            if importlib.util.find_spec(package) is None:
                raise ConfigError(f"{package} is not installed: pip install 'hsa2c[lda]', or -e '.[lda]' in a checkout")
        model, optimiser, dpsgd = config.model, config.optimiser, config.dpsgd
        if config.cluster.processes is None:
            raise ConfigError("cluster.processes = None: must be a number with --hosts (--p): rates use it")
        share = 1.0 / model.topics
        model = dataclasses.replace(
            model, document_prior=model.document_prior or share, topic_prior=model.topic_prior or share
        )
        if optimiser.rule == "eq13":
            both = paper_rate(
                p=config.cluster.processes or 1,
                B=_local_updates(config),
                M=dpsgd.deltas_per_step or config.cluster.nodes,
            )
            optimiser = dataclasses.replace(optimiser, learning_rate=both)
            dpsgd = dataclasses.replace(dpsgd, global_rate=both)
        elif (optimiser.learning_rate is None) == (optimiser.rule == "constant"):
            raise ConfigError(
                f"optimiser.learning_rate = {optimiser.learning_rate}: must be given if and only if optimiser.rule is"
                f" constant; it is {optimiser.rule}"
            )
        if config.stop.perplexity is not None and not config.corpus.validation:
            raise ConfigError(
                f"stop.perplexity = {config.stop.perplexity:g}: is of the validation documents, must be without where"
                " corpus.validation is 0"
            )
        config = dataclasses.replace(config, model=model, optimiser=optimiser, dpsgd=dpsgd)
        _check_decay(config)
        if config.cluster.masters > 1:
            parts(self.dim(config), config.cluster.masters)
        if dpsgd.global_rate is None and dpsgd.global_factor == 1.0:
            config = dataclasses.replace(config, dpsgd=_with_global_rate(config))
        return config

    def remarks(self, config: LDAConfig) -> Sequence[str]:
        """On rates, on limits, and on files that are left out."""
        corpus = config.corpus
        found = (
            positivity_warning(config),
            endless_warning(config),
            remark_on(corpus.source, corpus.pattern),
            corpus.vocabulary and remark_on_words(corpus.vocabulary, corpus_of(config).vocabulary),
        )
        return tuple(filter(None, found))

    def label(self, config: LDAConfig) -> str:
        """The first part of a run's name."""
        stem = Path(config.corpus.source).name.removesuffix(".gz").rpartition(".")
        return "lda-" + "".join(c if c.isascii() and c.isalnum() else "-" for c in (stem[0] or stem[2]))[:40].strip("-")

    def title(self, config: LDAConfig) -> str:
        """What runs, in one line."""
        corpus, nodes, p = corpus_of(config), config.cluster.nodes, config.cluster.processes
        return (
            f"DPSVI {corpus.name}: {corpus.documents:,} documents, {corpus.V:,} words, {config.model.topics} topics;"
            f" {nodes} node{'s' if nodes > 1 else ''} x {p} process{'es' if p != 1 else ''},"
            f" B = {config.dpsgd.local_updates}, {config.model.inference}"
        )

    def limits(self, config: LDAConfig) -> dict[str, float]:
        """Where training ends by itself."""
        limit = limit_documents(config.stop, split_of(config).training.size)
        return {} if limit is None else {"documents": limit}

    def identity(self, config: LDAConfig) -> dict[str, str]:
        """Corpus and model."""
        corpus = corpus_of(config)
        if config.corpus.validation:
            _check_validation(corpus, split_of(config))
        return {
            "application": self.name,
            "corpus": corpus.digest,
            "words": str(corpus.V),
            "topics": str(config.model.topics),
            "inference": config.model.inference,
        }

    def dim(self, config: LDAConfig) -> int:
        """V K."""
        return corpus_of(config).V * config.model.topics

    def initial(self, config: LDAConfig) -> Vector:
        """Lambda_0 - eta0, drawn from Gamma(100, 1 / 100) as in Hoffman's and scikit-learn's code; [V, K] flat."""
        return initial_counts(self.dim(config), config.seed)

    def layout(self, config: LDAConfig) -> Layout:
        """Topics as scale * L."""
        from hsa2c.examples.lda.topics import TopicsLayout

        model = config.model
        assert model.topic_prior is not None
        return TopicsLayout(corpus_of(config).V, model.topics, model.topic_prior, rate_of(config))

    def problems(self, config: LDAConfig, node: int, t: int) -> ProblemFactory:
        """Inference on all of the training set, which the processes of all nodes deal out among themselves."""
        from hsa2c.examples.lda.batches import endless
        from hsa2c.examples.lda.dpsvi import DPSVI

        corpus, ids, p = corpus_of(config), split_of(config).training, config.cluster.processes or 1
        _compile(config)

        def make(index: int) -> DPSVI:
            batches = endless(
                ids,
                config.model.batch,
                seed=(config.seed << 32) + t,
                part=(node * p + index) % (config.cluster.nodes * p),  # a spare works on the first ones' documents
                parts=config.cluster.nodes * p,
            )
            return DPSVI(corpus, ids.size, batches, model_of(config))

        return make

    def policy(self, config: LDAConfig, v: Vector) -> Vector:
        """Topics, float32 [K, V]: E[beta], rows sum to 1."""
        rows = np.maximum(v, 0).reshape(-1, config.model.topics).T + np.float32(model_of(config).eta0)
        topics: Vector = rows / rows.sum(axis=1, keepdims=True)
        return topics

    def evaluate(self, config: LDAConfig, v: Vector, *, seed: int = 0) -> dict[str, Any]:
        """How well topics predict the test documents, as ``evaluate --json`` prints it."""
        from hsa2c.examples.lda.perplexity import HeldOut

        if not (ids := split_of(config).test).size:
            raise ConfigError("corpus.test = 0: there are no test documents to evaluate with")
        x = np.maximum(v, 0).reshape(-1, config.model.topics)
        return dataclasses.asdict(HeldOut(corpus_of(config), ids, seed=seed).score(x, model_of(config)))

    def tracker(self, config: LDAConfig, counters: Mapping[str, Any]) -> Tracker:
        """Learning curves."""
        from hsa2c.examples.lda.perplexity import HeldOut
        from hsa2c.examples.lda.tracker import TopicTracker

        parts = split_of(config)
        return TopicTracker(
            config.cluster.nodes,
            parts.training.size,
            HeldOut(corpus_of(config), parts.validation) if parts.validation.size else None,
            model_of(config),
            limits=config.stop,
            every_s=config.measure_every_s,
            counters=counters,
        )

    def work_per_update(self, config: LDAConfig) -> float:
        """Documents."""
        return config.model.batch

    def describe(self, config: LDAConfig) -> dict[str, Any]:
        """What a node chose for itself: nothing."""
        return {}


def absolute(path: str) -> str:
    """A path that means the same in every directory."""
    try:
        return str(Path(interpreter.at_home(path)).absolute())
    except ValueError as error:
        raise ConfigError(f"{path}: must be {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: the current directory is not there: {error.strerror}") from None


def initial_counts(dim: int, seed: int) -> Vector:
    """Lambda_0 - eta0, float32 [dim]."""
    return np.random.default_rng(seed).gamma(100.0, 0.01, dim).astype(np.float32)


def corpus_of(config: LDAConfig) -> Corpus:
    """The documents of a run."""
    return read_corpus(*_source(config))


def _source(config: LDAConfig) -> tuple[str, str | None, str, str | None]:
    corpus = config.corpus
    return corpus.source, corpus.vocabulary, corpus.encoding, corpus.pattern


@cache
def read_corpus(source: str, vocabulary: str | None, encoding: str, pattern: str | None) -> Corpus:
    """See `open_corpus`; a process reads each once."""
    words = None if vocabulary is None else Path(vocabulary)
    return open_corpus(source, words, encoding=encoding, pattern=pattern)


def split_of(config: LDAConfig) -> Split:
    """Which of them are for what."""
    return _split(_source(config), *_parts(config), config.seed)


@cache
def _split(source: tuple[str, str | None, str, str | None], validation: float, test: float, seed: int) -> Split:
    return split(read_corpus(*source), validation=validation, test=test, seed=seed)


def _parts(config: LDAConfig) -> tuple[float | int, float | int]:
    """Shares as they are, numbers as whole numbers."""
    sizes = []
    for name in ("validation", "test"):
        value = getattr(config.corpus, name)
        if value >= 1 and value != int(value):
            raise ConfigError(f"corpus.{name} = {value}: must be a share below 1 or a whole number of documents")
        sizes.append(int(value) if value >= 1 else value)
    return sizes[0], sizes[1]


def model_of(config: LDAConfig) -> Model:
    """The model of a resolved configuration."""
    from hsa2c.examples.lda.dpsvi import Model

    model = config.model
    assert model.document_prior is not None and model.topic_prior is not None
    return Model(
        K=model.topics,
        alpha=model.document_prior,
        eta0=model.topic_prior,
        mean=model.inference == "posterior-mean",
        tolerance=model.tolerance,
        most_iterations=model.most_iterations,
    )


def rate_of(config: LDAConfig) -> Rate:
    """The local rate of a resolved configuration."""
    optimiser = config.optimiser
    if optimiser.rule == "svi":
        return Rate(kappa=optimiser.kappa, tau0=optimiser.tau0)
    assert optimiser.learning_rate is not None
    return Rate(eta=optimiser.learning_rate)


def positivity_warning(config: LDAConfig) -> str | None:
    """Whether stale deltas may push entries of lambda below the prior, in words; see
    `hsa2c.examples.lda.rates.positivity`.
    """
    a, bound, tau = _positivity(config, config.dpsgd.global_rate or 1.0)
    if a <= bound * (1.0 + 1e-9):
        return None
    return (
        f"rho M (1 - (1 - eta)^(pB)) = {a:.3f} at first, above {bound:.3f} for a delay of {tau}: stale deltas may push"
        " entries of lambda below the prior; those are read as the prior, and counted as negative entries"
    )


def _positivity(config: LDAConfig, rho: float) -> tuple[float, float, int]:
    """A, its bound, and the delay, for the largest local rates, which are the first."""
    nodes, M = config.cluster.nodes, config.dpsgd.deltas_per_step or 1
    tau = -(-(nodes - 1) // M)  # while a node works, the others push once each
    return *positivity(rho, M, math.exp(-rate_of(config).decay(_updates_of_a_round(config))), tau), tau


def _with_global_rate(config: LDAConfig) -> DPSGDConfig:
    """From the mean of the deltas towards their sum, as far as stale ones leave lambda positive.

    The mean of M deltas moves v no further than one of them: with small deltas (a small B) most of the work is lost.
    """
    dpsgd = config.dpsgd
    M = dpsgd.deltas_per_step or 1
    a, bound, _ = _positivity(config, 1.0 / M)
    rho = (1.0 - dpsgd.momentum) * min(M, max(1.0, bound / a)) / M
    is_mean = M == 1 or bound <= a  # and it stays the mean of those that are left
    rescale = is_mean if dpsgd.rescale_rate is None else dpsgd.rescale_rate
    return dataclasses.replace(dpsgd, global_rate=rho, rescale_rate=rescale)


def _compile(config: LDAConfig) -> None:
    """Compile what processes will need, before they are forked: by one update. A second time it comes from a cache."""
    import torch

    from hsa2c.examples.lda.dpsvi import DPSVI

    corpus, layout = corpus_of(config), LDA().layout(config)
    problem = DPSVI(corpus, 1, iter([split_of(config).training[:1]]), model_of(config))
    u = torch.zeros(layout.size)
    layout.enter(np.zeros(LDA().dim(config), np.float32), u.numpy())
    access = layout.attach(u, torch.zeros(layout.state_size), problem)
    access.step(problem.gradient(access.read(), lambda: False))


def _check_validation(corpus: Corpus, parts: Split) -> None:
    """There is something to measure: a document of one token has no two halves."""
    documents = parts.validation
    if not any(corpus.counts[corpus.indptr[d] : corpus.indptr[d + 1]].sum() >= 2 for d in documents):
        plural = "s" if documents.size != 1 else ""
        raise ConfigError(
            f"corpus.validation: {documents.size} document{plural}, none of two tokens or more;"
            " must have one to measure the perplexity of (--validation 0: measure none)"
        )


def _local_updates(config: LDAConfig) -> int:
    B = config.dpsgd.local_updates
    if B == "auto":
        raise ConfigError("dpsgd.local_updates = 'auto': must be a number here: rates and positivity go by it")
    return B


def _updates_of_a_round(config: LDAConfig) -> int:
    return _local_updates(config) * (config.cluster.processes or 1)


def _check_decay(config: LDAConfig) -> None:
    updates = _updates_of_a_round(config)
    if rate_of(config).decay(min(updates, 100_000)) > MOST_DECAY:
        raise ConfigError(
            f"dpsgd.local_updates = {config.dpsgd.local_updates}: {updates} updates between two exchanges would leave"
            " nothing of what was pulled: fewer, or a smaller rate"
        )


APPLICATION = LDA()
