"""Other libraries' latent Dirichlet allocation, on one schedule: for `bench.lda`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsa2c.examples.lda.corpora import Corpus


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What is trained, the same for all."""

    K: int
    alpha: float
    eta0: float
    batch: int
    kappa: float
    tau0: float
    passes: int
    tolerance: float
    most_iterations: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one training came to."""

    beta: NDArray[np.float32]
    """Topics, [K, V]."""
    documents: int
    cpu_s: float
    """Of this process and those it waited for."""
    wall_s: float


Train = Callable[[Corpus, NDArray[np.int32], Schedule], Trial]


def timed(documents: int, act: Callable[[], Any]) -> Trial:
    """Run, time, and turn what comes back, [K, V] of any scale, into topics."""
    cpu, wall = _cpu_s(), time.perf_counter()
    found = act()
    cpu, wall = _cpu_s() - cpu, time.perf_counter() - wall
    weights = np.asarray(found() if callable(found) else found, np.float64)
    beta = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return Trial(beta=beta, documents=documents, cpu_s=cpu, wall_s=wall)


def _cpu_s() -> float:
    import os

    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def order(ids: NDArray[np.int32], schedule: Schedule) -> Iterator[NDArray[np.int32]]:
    """The batches, the same for all who take them."""
    for number in range(schedule.passes):
        shuffled = np.random.default_rng([schedule.seed, number]).permutation(ids)
        for first in range(0, ids.size, schedule.batch):
            yield shuffled[first : first + schedule.batch]


def scikit_learn(corpus: Corpus, ids: NDArray[np.int32], schedule: Schedule) -> Trial:
    """scikit-learn's online variational Bayes."""
    from scipy.sparse import csr_matrix
    from sklearn.decomposition import LatentDirichletAllocation

    matrix = csr_matrix((corpus.counts, corpus.words, corpus.indptr), shape=(corpus.documents, corpus.V))
    batches = [matrix[batch] for batch in order(ids, schedule)]
    lda = LatentDirichletAllocation(
        schedule.K,
        doc_topic_prior=schedule.alpha,
        topic_word_prior=schedule.eta0,
        learning_method="online",
        learning_decay=schedule.kappa,
        learning_offset=schedule.tau0,
        total_samples=ids.size,
        mean_change_tol=schedule.tolerance,
        max_doc_update_iter=schedule.most_iterations,
        random_state=schedule.seed,
        n_jobs=1,
    )

    def act() -> Any:
        for batch in batches:
            lda.partial_fit(batch)
        return lda.components_

    return timed(schedule.passes * ids.size, act)


def gensim_model(corpus: Corpus, ids: NDArray[np.int32], schedule: Schedule, *, workers: int = 0) -> Trial:
    """Gensim's LdaModel, or with workers LdaMulticore."""
    from gensim.models import LdaModel, LdaMulticore

    documents = [_bag(corpus, d) for d in ids]
    options: dict[str, Any] = {
        "corpus": documents,
        "num_topics": schedule.K,
        "id2word": dict(enumerate(corpus.vocabulary)),
        "chunksize": schedule.batch,
        "passes": schedule.passes,
        "decay": schedule.kappa,
        "offset": schedule.tau0,
        "alpha": np.full(schedule.K, schedule.alpha),
        "eta": schedule.eta0,
        "iterations": schedule.most_iterations,
        "gamma_threshold": schedule.tolerance,
        "eval_every": None,
        "random_state": schedule.seed,
    }

    def act() -> Any:
        model = LdaMulticore(workers=workers, **options) if workers else LdaModel(**options)
        return model.get_topics()

    return timed(schedule.passes * ids.size, act)


def gensim_multicore(corpus: Corpus, ids: NDArray[np.int32], schedule: Schedule) -> Trial:
    """Gensim's LdaMulticore with two workers."""
    return gensim_model(corpus, ids, schedule, workers=2)


def tomotopy_model(corpus: Corpus, ids: NDArray[np.int32], schedule: Schedule) -> Trial:
    """Tomotopy's collapsed Gibbs sampling: another method, 200 sweeps on two threads."""
    import tomotopy

    model = tomotopy.LDAModel(k=schedule.K, alpha=schedule.alpha, eta=schedule.eta0, seed=schedule.seed)
    for d in ids:
        here = slice(corpus.indptr[d], corpus.indptr[d + 1])
        model.add_doc([corpus.vocabulary[w] for w in np.repeat(corpus.words[here], corpus.counts[here])])
    sweeps = 200

    def act() -> Any:
        model.train(sweeps, workers=2)

        def topics() -> Any:
            place = {word: w for w, word in enumerate(corpus.vocabulary)}
            columns = [place[word] for word in model.used_vocabs]
            beta = np.full((schedule.K, corpus.V), 1e-9)
            beta[:, columns] = [model.get_topic_word_dist(k) for k in range(schedule.K)]
            return beta

        return topics

    return timed(sweeps * ids.size, act)


def _bag(corpus: Corpus, d: int) -> list[tuple[int, int]]:
    here = slice(corpus.indptr[d], corpus.indptr[d + 1])
    return list(zip(corpus.words[here].tolist(), corpus.counts[here].tolist(), strict=True))


PEERS: dict[str, Train] = {
    "scikit-learn online": scikit_learn,
    "gensim LdaModel": gensim_model,
    "gensim LdaMulticore, 2 workers": gensim_multicore,
    "tomotopy Gibbs, 200 sweeps": tomotopy_model,
}
