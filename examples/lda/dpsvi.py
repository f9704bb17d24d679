"""DPSVI: stochastic variational inference for latent Dirichlet allocation, as a DPSGD problem (section 4.1)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hsa2c.dpsgd.problem import Problem
from hsa2c.examples.lda.batches import Batch, Gatherer
from hsa2c.examples.lda.corpora import Corpus
from hsa2c.examples.lda.estep import e_step, expected_topics, lift_faint

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


class UHat(NamedTuple):
    """What a gradient needs of u: the rows of a batch's words."""

    x: Floats
    """lambda - eta0 of these words, float32 [R, K]."""
    totals: Floats
    """sum_w lambda_kw over the whole vocabulary, float32 [K]."""


class Step(NamedTuple):
    """What a natural gradient adds: the rows where (D / G) s is not zero."""

    rows: Ints
    """int32 [R]."""
    statistics: Floats
    """s, float32 [R, K]."""
    weight: float
    """D / G."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """The model and its local step; the meaning of each is `hsa2c.examples.lda.settings.ModelConfig`'s."""

    K: int
    alpha: float
    eta0: float
    mean: bool
    tolerance: float
    most_iterations: int


class DPSVI(Problem):
    """A view of a corpus: a `hsa2c.dpsgd.problem.Problem`, and the `hsa2c.examples.lda.topics.Batches` of one.

    Args:
        corpus: The documents.
        documents: How many the whole training set has, D.
        batches: Ids of each batch's documents, without end.
        model: The model.
    """

    def __init__(self, corpus: Corpus, documents: int, batches: Iterator[Ints], model: Model) -> None:
        self._D = documents
        self.batches = batches
        self._gather = Gatherer(corpus)
        self._local_step = LocalStep(model)
        self._batch: Batch | None = None
        self._clear()

    def _clear(self) -> None:
        self._told: dict[str, Any] = {
            "documents": 0,
            "updates": 0,
            "words": 0,
            "iterations": 0,
            "negative": 0,
            "eta": None,
        }
        self._seconds = {"reading": 0.0, "local_step": 0.0}
        self._began_at = time.perf_counter()

    def next_batch(self) -> Ints:
        """Draw G documents. See `Batches.next_batch`."""
        self._began_at = time.perf_counter()
        self._batch = self._gather(next(self.batches))
        return self._batch.rows

    def gradient(self, u_hat: UHat, interrupted: Callable[[], bool]) -> Step:
        """Line 5: g = u_hat - (eta0 + (D / G) s), told by its rows that are not u_hat - eta0. See
        `Problem.gradient`.
        """
        batch = self._batch
        assert batch is not None
        began_at = time.perf_counter()
        self._seconds["reading"] += began_at - self._began_at
        s, iterations = self._local_step(batch, u_hat)
        self._seconds["local_step"] += time.perf_counter() - began_at
        self._told["documents"] += batch.documents
        self._told["words"] += batch.rows.size
        self._told["iterations"] += iterations
        return Step(batch.rows, s, self._D / batch.documents)

    def stepped(self, eta: float, negative: int) -> None:
        """See `Batches.stepped`."""
        self._told["updates"] += 1
        self._told["eta"] = eta
        self._told["negative"] += negative

    def report(self) -> Mapping[str, Any]:
        """See `Problem.report`; read by `hsa2c.examples.lda.tracker.TopicTracker`."""
        report = {**self._told, "seconds": self._seconds}
        self._clear()
        return report

    def close(self) -> None:
        """Nothing to release."""


class LocalStep:
    """The E-step of a batch: its documents' topics to convergence, and what they say of the words.

    Args:
        model: The model.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._beta = self._s = np.empty((0, model.K), np.float32)

    def __call__(self, batch: Batch, u_hat: UHat) -> tuple[NDArray[np.float32], int]:
        """Sufficient statistics s, float32 [R, K], valid until the next call; and iterations, over all documents."""
        model, R = self._model, batch.rows.size
        if self._beta.shape[0] < R:
            self._beta, self._s = np.empty((2, 2 * R, model.K), np.float32)
        beta, s = self._beta[:R], self._s[:R]
        expected_topics(u_hat.x, np.float32(model.eta0), u_hat.totals, model.mean, beta)
        if not model.mean:
            lift_faint(beta, u_hat.x, model.eta0, u_hat.totals)
        s[:] = 0
        gamma = np.ones((batch.documents, model.K), np.float32)
        iterations = e_step(
            batch.starts, batch.local, batch.counts, beta, np.float32(model.alpha), np.float32(model.tolerance),
            model.most_iterations, model.mean, True, gamma, s,
        )  # fmt: skip
        return s, iterations
