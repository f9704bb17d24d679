"""How well topics predict documents that they were not made from: one estimator, used everywhere.

*Document completion.* The tokens of each held-out document are dealt into two halves at random (seeded). With the
topics fixed at their means, beta_kw = lambda_kw / sum_w lambda_kw, the document's topics gamma are inferred from the
first half by the local step (`hsa2c.examples.lda.estep`, prior alpha), theta_k = gamma_k / sum_j gamma_j, and the
second half is scored:

    perplexity = exp(- sum_d sum_n log(sum_k theta_dk beta_k,w_dn) / tokens scored)

Lower is better; V at worst for topics that know nothing. A document of one token is left out: it has no two halves.

*The variational bound* of the same documents, per token, is what training raises (Hoffman et al. 2013, equation 14):
E_q of log p(w, z, theta | beta) less E_q of log q, summed over the documents, without the topics' own part, which does
not depend on them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, psi

from hsa2c.examples.lda.batches import Batch, Gatherer
from hsa2c.examples.lda.corpora import Corpus
from hsa2c.examples.lda.dpsvi import Model
from hsa2c.examples.lda.estep import e_step, expected_topics, lift_faint

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

TOLERANCE = 1e-3
MOST_ITERATIONS = 200


@dataclass(frozen=True, kw_only=True)
class Score:
    """What `HeldOut.score` measured."""

    perplexity: float
    bound_per_token: float
    """Nats; of whole documents."""
    documents: int
    tokens: int
    """Scored, that is in the second halves."""


class HeldOut:
    """Some documents of a corpus, halved.

    Attributes:
        whole: The documents of two tokens or more.
        given: Their first halves, which tell their topics.
        asked: Counts of the second halves, which are scored, int32 as those of `whole`.

    Args:
        corpus: Where they are.
        documents: Which, int32 ids.
        seed: Of the halving.
        tolerance: A document's topics are found when they change by less, on the average.
        most_iterations: The most that it takes.
    """

    def __init__(
        self,
        corpus: Corpus,
        documents: Ints,
        *,
        seed: int = 0,
        tolerance: float = TOLERANCE,
        most_iterations: int = MOST_ITERATIONS,
    ) -> None:
        self._local_step = partial(_local_step, tolerance=tolerance, most_iterations=most_iterations)
        tokens = np.array([corpus.counts[corpus.indptr[d] : corpus.indptr[d + 1]].sum() for d in documents], np.int64)
        whole = Gatherer(corpus)(documents[tokens > 1])
        self.whole = whole
        first = _first_halves(whole, np.random.default_rng(seed))
        self.given = whole._replace(counts=first)
        self.asked = whole.counts - first

    @property
    def tokens(self) -> int:
        """Scored."""
        return int(self.asked.sum())

    def score(self, x: Floats, model: Model) -> Score:
        """Perplexity and bound of the topics x = lambda - eta0, float32 [V, K] or flat; what is negative counts as
        0.
        """
        x = x.reshape(-1, model.K)
        totals = np.float32(model.eta0 * x.shape[0]) + np.maximum(x, 0).sum(axis=0, dtype=np.float64)
        rows = np.maximum(x[self.whole.rows], 0)
        return Score(
            perplexity=self._perplexity(rows, totals.astype(np.float32), model),
            bound_per_token=self._bound(rows, totals.astype(np.float32), model) / max(int(self.whole.counts.sum()), 1),
            documents=self.whole.documents,
            tokens=self.tokens,
        )

    def perplexity_of(self, beta: Floats, alpha: float) -> float:
        """Perplexity of given topics, float32 [K, V], each of which sums to 1."""
        return self._completion(np.ascontiguousarray(beta.T[self.whole.rows], np.float32), alpha, mean=False)

    def _perplexity(self, rows: Floats, totals: Floats, model: Model) -> float:
        beta = np.empty_like(rows)
        expected_topics(rows, np.float32(model.eta0), totals, True, beta)
        return self._completion(beta, model.alpha, mean=model.mean)

    def _completion(self, beta: Floats, alpha: float, *, mean: bool) -> float:
        gamma = self._local_step(self.given, beta, alpha, mean=mean)
        theta = gamma / gamma.sum(axis=1, keepdims=True)
        log_p = np.log(_mixtures(self.whole, theta, beta))
        return math.exp(-float(np.dot(log_p, self.asked)) / max(self.tokens, 1))

    def _bound(self, rows: Floats, totals: Floats, model: Model) -> float:
        """Of whole documents, in nats."""
        beta = np.empty_like(rows)
        expected_topics(rows, np.float32(model.eta0), totals, False, beta)
        divided = lift_faint(beta, rows, model.eta0, totals)
        gamma = self._local_step(self.whole, beta, model.alpha, mean=False).astype(np.float64)
        lifted = float(np.dot(divided[self.whole.local], self.whole.counts))
        return document_bound(self.whole, gamma, beta, model.alpha) + lifted


def document_bound(batch: Batch, gamma: NDArray[np.float64], beta: Floats, alpha: float) -> float:
    """The documents' part of the variational bound, maximal over phi.

    Args:
        batch: The documents.
        gamma: float64 [G, K].
        beta: beta-tilde, exp(E[log beta]), of the batch's words, float32 [R, K].
        alpha: Prior of a document's topics.

    Returns:
        Nats: sum over documents of sum_n c_n log sum_k exp(E[log theta_k]) beta-tilde_kn, and of
        E[log p(theta)] - E[log q(theta)].
    """
    K = gamma.shape[1]
    log_theta = psi(gamma) - psi(gamma.sum(axis=1, keepdims=True))
    words = float(np.dot(np.log(_mixtures(batch, np.exp(log_theta), beta)), batch.counts))
    prior = gamma.shape[0] * (gammaln(K * alpha) - K * gammaln(alpha)) + (alpha - 1.0) * log_theta.sum()
    own = (gammaln(gamma.sum(axis=1)) - gammaln(gamma).sum(axis=1)).sum() + ((gamma - 1.0) * log_theta).sum()
    return float(words + prior - own)


def _local_step(
    batch: Batch,
    beta: Floats,
    alpha: float,
    *,
    mean: bool,
    tolerance: float = TOLERANCE,
    most_iterations: int = MOST_ITERATIONS,
) -> Floats:
    """Gamma, float32 [G, K]."""
    gamma = np.ones((batch.documents, beta.shape[1]), np.float32)
    e_step(
        batch.starts, batch.local, batch.counts, beta, np.float32(alpha), np.float32(tolerance), most_iterations,
        mean, True, gamma, np.empty((0, beta.shape[1]), np.float32),
    )  # fmt: skip
    return gamma


def _mixtures(batch: Batch, theta: NDArray[np.floating], beta: Floats) -> NDArray[np.float64]:
    """sum_k theta_dk beta_kn for each distinct word of each document, float64 [n]."""
    out = np.empty(batch.local.size)
    for d in range(batch.documents):
        here = slice(batch.starts[d], batch.starts[d + 1])
        out[here] = beta[batch.local[here]] @ theta[d]
    return out


def _first_halves(batch: Batch, random: np.random.Generator) -> Ints:
    """How many of each word's tokens go into the first half of its document: floor(tokens / 2) of them in all."""
    owner = np.repeat(np.arange(batch.local.size), batch.counts)  # the entry of each token
    document = np.searchsorted(batch.starts, owner, side="right") - 1
    order = np.lexsort((random.random(owner.size), document))
    lengths = np.bincount(document, minlength=batch.documents)
    position = np.arange(owner.size) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    first = owner[order][position < np.repeat(lengths // 2, lengths)]
    return np.bincount(first, minlength=batch.local.size).astype(np.int32)


def document_topics(corpus: Corpus, documents: Ints, x: Floats, model: Model) -> Floats:
    """E[theta] of whole documents, float32 [len(documents), K], rows sum to 1."""
    whole = Gatherer(corpus)(documents)
    totals = np.float32(model.eta0 * x.shape[0]) + x.sum(axis=0, dtype=np.float64)
    rows = np.ascontiguousarray(x[whole.rows])
    beta = np.empty_like(rows)
    expected_topics(rows, np.float32(model.eta0), totals.astype(np.float32), model.mean, beta)
    if not model.mean:
        lift_faint(beta, rows, model.eta0, totals.astype(np.float32))
    gamma = _local_step(whole, beta, model.alpha, mean=model.mean)
    theta: Floats = gamma / gamma.sum(axis=1, keepdims=True)
    return theta
