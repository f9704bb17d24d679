"""Stochastic variational inference, serially (Hoffman et al. 2013, figure 4): a baseline, and the tests' reference."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hsa2c.examples.lda.batches import Gatherer
from hsa2c.examples.lda.corpora import Corpus
from hsa2c.examples.lda.dpsvi import LocalStep, Model, UHat
from hsa2c.examples.lda.rates import MOST_ETA, Rate


def svi(
    x: NDArray[np.float32],
    corpus: Corpus,
    documents: int,
    batches: Iterator[NDArray[np.int32]],
    model: Model,
    rate: Rate,
) -> Iterator[int]:
    """Updates of lambda without end, one for each batch, as the equations have them: on all of lambda.

    Args:
        x: lambda - eta0, float32 [V, K]; updated in place.
        corpus: The documents.
        documents: How many the training set has, D.
        batches: Ids of each batch's documents.
        model: The model.
        rate: eta of the n-th update.

    Yields:
        Documents of the update just done.
    """
    gather, local_step = Gatherer(corpus), LocalStep(model)
    for n, ids in enumerate(batches):
        batch = gather(ids)
        totals = np.float32(model.eta0 * corpus.V) + x.sum(axis=0, dtype=np.float64).astype(np.float32)
        s, _ = local_step(batch, UHat(x[batch.rows], totals))
        eta = min(rate(n), MOST_ETA)
        # lambda <- (1 - eta) lambda + eta (eta0 + (D / G) s), in the order in which a node and the master round.
        scale = np.float32(1.0 - eta)
        new = x.copy()
        new[batch.rows] += np.float32(eta * (documents / batch.documents) / scale) * s
        new *= scale
        x += new - x
        yield batch.documents
