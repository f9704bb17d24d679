"""Configuration of the LDA example: what `hsa2c.config.loading` has for every application, and what only this one
needs.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from hsa2c.config.sections import STRICT, ClusterConfig, DPSGDConfig, OutputConfig

Inference = Literal["variational", "posterior-mean"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CorpusConfig:
    """The documents."""

    source: Annotated[str, Field(min_length=1)] = "pydocs"
    """pydocs (the docstrings of Python's standard library), a folder of plain text, or a file. A file is MatrixMarket
    (.mtx, .mm), lda-c (.ldac, .lda-c, .dat), else UCI bag-of-words. Each may be packed (.gz)."""

    vocabulary: str | None = None
    """File of the words, one in a line; for files of counts."""

    encoding: Annotated[str, Field(min_length=1)] = "utf-8"
    """Of plain text and of the vocabulary, by its name in Python."""

    pattern: Annotated[str, Field(min_length=1)] | None = None
    """What documents in a folder are called: "*.txt", "*". None: their names end in .txt, .text, .md, .markdown or
    .rst."""

    validation: Annotated[float, Field(ge=0, lt=1e9)] = 0.05
    """Documents kept from training to choose the best checkpoint by: a share below 1, else a number. 0: none is called
    best, and no perplexity ends the run. The paper: 5000."""

    test: Annotated[float, Field(ge=0, lt=1e9)] = 0.05
    """Documents kept from training and choosing, for `evaluate`: a share, a number or 0. The paper: 5000."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig:
    """Latent Dirichlet allocation, and the local step of its inference."""

    topics: Annotated[int, Field(ge=2, le=10_000)] = 20
    """K."""

    inference: Inference = "variational"
    """variational: stochastic variational inference, the paper's. posterior-mean: means instead of exp(psi(.)), in the
    spirit of CVB0. Its perplexity is often far better, and worse again with many passes."""

    document_prior: Annotated[float, Field(gt=0, le=100)] | None = None
    """alpha. None: 1 / topics."""

    topic_prior: Annotated[float, Field(gt=0, le=100)] | None = None
    """eta0, the prior of a topic's words (Hoffman's eta). None: 1 / topics."""

    batch: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """Documents of an update. G. 64 in section 4.1."""

    tolerance: Annotated[float, Field(gt=0, le=1)] = 1e-3
    """A document's local step ends when gamma changes by less, on the average over topics."""

    most_iterations: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Or after so many iterations."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TopicRateConfig:
    """Line 6: how fast lambda moves to what a batch says."""

    name: Literal["sgd"] = "sgd"
    """The paper's plain step, along the natural gradient."""

    rule: Literal["svi", "eq13", "constant"] = "svi"
    """svi: (tau0 + n)^-kappa in a node's n-th update (Hoffman et al. 2013). eq13: 0.1 / (p B M)^0.25, locally and
    globally, as in section 4.1. constant: learning_rate."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """eta, where the rule is constant; filled in where it is eq13."""

    kappa: Annotated[float, Field(ge=0.5, le=1)] = 0.7
    """Forgetting rate of svi; above 0.5 for convergence (Robbins and Monro 1951), 0.5 in the paper's baseline."""

    tau0: Annotated[float, Field(ge=1, le=1e9)] = 128.0
    """Delay of svi: more makes the first updates smaller, as small batches need. Less for batches of 256 and more."""

    half_after: None = None
    """Not used here: svi falls by itself."""

    anneal: Literal[False] = False
    """Not used here."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TopicStopConfig:
    """When training ends by itself: whichever comes first; None never."""

    documents: Annotated[int, Field(ge=1)] | None = None
    """Processed over all nodes, each counted as often as it was; resumes included."""

    passes: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """The same, as a multiple of the training set."""

    minutes: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Wall-clock of training, start-up excluded, resumes included."""

    perplexity: Annotated[float, Field(gt=1)] | None = None
    """Of the validation documents."""

    patience: Annotated[int, Field(ge=1)] | None = 20
    """Measurements of the validation documents without a gain of at least 0.1 %."""


def limit_documents(limits: TopicStopConfig, documents: int) -> int | None:
    """The nearer of both limits on documents; None without either."""
    both = [limits.documents, None if limits.passes is None else max(1, round(limits.passes * documents))]
    return min((limit for limit in both if limit is not None), default=None)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TopicOutputConfig(OutputConfig):
    """What a run writes: as elsewhere, but rows sooner, for topics are found in seconds."""

    log_every_s: Annotated[float, Field(gt=0, le=3600)] = 1.0
    """Seconds between two rows of metrics.jsonl and TensorBoard."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LDAConfig:
    """A run of DPSVI."""

    corpus: CorpusConfig = dataclasses.field(default_factory=CorpusConfig)

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Seed of the split, of the first topics, and of the order of documents."""

    cluster: ClusterConfig = dataclasses.field(default_factory=ClusterConfig)
    dpsgd: DPSGDConfig = dataclasses.field(default_factory=DPSGDConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    optimiser: TopicRateConfig = dataclasses.field(default_factory=TopicRateConfig)
    measure_every_s: Annotated[float, Field(gt=0, le=3600)] = 1.0
    """Seconds between two measurements of the validation documents; more where one takes long."""
    stop: TopicStopConfig = dataclasses.field(default_factory=TopicStopConfig)
    output: TopicOutputConfig = dataclasses.field(default_factory=TopicOutputConfig)


def endless_warning(config: LDAConfig) -> str | None:
    """Whether nothing will end the run, in words."""
    stop = config.stop
    if config.corpus.validation or any(limit is not None for limit in (stop.documents, stop.passes, stop.minutes)):
        return None
    return "no validation documents, and no --documents, --passes or --minutes: the run goes on until it is stopped"
