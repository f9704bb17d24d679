"""Variational inference for LDA in slow float64 loops, shaped like the equations, to compare the fast code with.

A document is a list of (word, count), topics are rows of `[K][V]`: everything is written out once more, from Blei et
al. 2003 and Hoffman et al. 2013, and shares nothing with `examples.lda` but what the letters mean.
"""

import math

import numpy as np
from scipy.special import gammaln, psi

from hsa2c.examples.lda.corpora import Corpus, content_digest


def corpus_of(documents, V, name="toy"):
    """A corpus in memory of documents as lists of (word, count)."""
    indptr, words, counts = [0], [], []
    for document in documents:
        for word, count in sorted(document):
            words.append(word)
            counts.append(count)
        indptr.append(len(words))
    arrays = np.array(indptr, np.int64), np.array(words, np.int32), np.array(counts, np.int32)
    vocabulary = [f"word{w}" for w in range(V)]
    return Corpus(*arrays, vocabulary, name, content_digest(*arrays, vocabulary))


def documents_of(corpus, ids=None):
    """The reverse: lists of (word, count)."""
    ids = range(corpus.documents) if ids is None else ids
    return [
        [(int(corpus.words[i]), int(corpus.counts[i])) for i in range(corpus.indptr[d], corpus.indptr[d + 1])]
        for d in ids
    ]


def expected_topics_slowly(x, eta0, totals, mean):
    """beta-tilde [K][V] from x = lambda - eta0, [V][K], and sum_w lambda_kw, [K]."""
    V, K = len(x), len(totals)
    beta = np.empty((K, V))
    for k in range(K):
        for w in range(V):
            lam = float(x[w][k]) + eta0
            beta[k][w] = lam / totals[k] if mean else math.exp(psi(lam) - psi(float(totals[k])))
    return beta


def phi_slowly(document, gamma, beta, mean):
    """phi [n][k] of each distinct word: proportional to theta-tilde_k beta-tilde_kn; zero for a word no topic has."""
    K = len(gamma)
    total = sum(gamma)
    phi = []
    for word, _ in document:
        weights = []
        for k in range(K):
            theta = gamma[k] if mean else math.exp(psi(gamma[k]) - psi(total))
            weights.append(theta * beta[k][word])
        norm = sum(weights)
        phi.append([weight / norm if norm > 0 else 0.0 for weight in weights])
    return phi


def local_step_slowly(document, beta, alpha, *, tolerance, most, mean):
    """gamma [K], c_n phi_nk as [n][k], and the mean change of gamma in each iteration, of one document."""
    K = len(beta)
    gamma, changes = [1.0] * K, []
    for _ in range(most):
        phi = phi_slowly(document, gamma, beta, mean)
        new = [alpha + sum(c * phi[n][k] for n, (_, c) in enumerate(document)) for k in range(K)]
        changes.append(sum(abs(new[k] - gamma[k]) for k in range(K)) / K)
        gamma = new
        if changes[-1] < tolerance:
            break
    phi = phi_slowly(document, gamma, beta, mean)
    return gamma, [[c * share for share in phi[n]] for n, (_, c) in enumerate(document)], changes


def e_step_slowly(documents, beta, alpha, *, tolerance, most, mean):
    """gamma [G, K], sufficient statistics s [V, K] and the iterations of all documents."""
    K, V = beta.shape
    gammas, s, changes = [], np.zeros((V, K)), []
    for document in documents:
        gamma, statistics, changed = local_step_slowly(document, beta, alpha, tolerance=tolerance, most=most, mean=mean)
        gammas.append(gamma)
        changes.append(changed)
        for n, (word, _) in enumerate(document):
            for k in range(K):
                s[word][k] += statistics[n][k]
    return np.array(gammas), s, changes


def document_bound_slowly(document, gamma, log_beta, alpha):
    """E_q[log p(w, z, theta | beta)] - E_q[log q(z, theta)] of one document (Hoffman et al. 2013, equation 14).

    Term by term, with phi written out; `log_beta` is E[log beta], [K][V].
    """
    K = len(gamma)
    log_theta = [psi(g) - psi(sum(gamma)) for g in gamma]
    bound = math.lgamma(K * alpha) - K * math.lgamma(alpha) + sum((alpha - 1) * log_theta[k] for k in range(K))
    for word, count in document:
        logs = [log_theta[k] + log_beta[k][word] for k in range(K)]
        largest = max(logs)
        norm = sum(math.exp(value - largest) for value in logs)
        for k in range(K):
            phi = math.exp(logs[k] - largest) / norm
            if phi > 0:
                bound += count * phi * (log_theta[k] + log_beta[k][word] - math.log(phi))
    bound -= math.lgamma(sum(gamma)) - sum(math.lgamma(g) for g in gamma)
    return bound - sum((gamma[k] - 1) * log_theta[k] for k in range(K))


def topics_bound_slowly(lam, eta0):
    """E_q[log p(beta)] - E_q[log q(beta)]: the topics' part of the bound, from lambda [K, V]."""
    bound = 0.0
    for row in np.asarray(lam, np.float64):
        V = len(row)
        log_beta = psi(row) - psi(row.sum())
        bound += gammaln(V * eta0) - V * gammaln(eta0) + (eta0 - 1) * log_beta.sum()
        bound -= gammaln(row.sum()) - gammaln(row).sum() + ((row - 1) * log_beta).sum()
    return float(bound)


def completion_slowly(given, asked, topics, alpha, *, most, mean):
    """Perplexity by document completion: topics [K, V] that sum to 1, documents' halves as lists of (word, count)."""
    log_p = tokens = 0.0
    for first, second in zip(given, asked, strict=True):
        gamma, _, _ = local_step_slowly(first, topics, alpha, tolerance=0.0, most=most, mean=mean)
        theta = [g / sum(gamma) for g in gamma]
        for word, count in second:
            log_p += count * math.log(sum(theta[k] * topics[k][word] for k in range(len(theta))))
            tokens += count
    return math.exp(-log_p / tokens)
