"""The local step of variational inference for LDA, compiled: a document's topics, given the topics' words.

Blei et al. 2003 (section 5.2) and Hoffman et al. 2013 (figure 4). For one document, with c_n the count of its n-th
distinct word w_n, and theta-tilde_k = exp(E[log theta_k]), beta-tilde_kn = exp(E[log beta_{k, w_n}]):

    phi_nk  =  theta-tilde_k beta-tilde_kn / sum_j theta-tilde_j beta-tilde_jn
    gamma_k =  alpha + sum_n c_n phi_nk                                          until gamma stands still

and its part of the sufficient statistics is c_n phi_nk. phi is never stored: with r_n = c_n / sum_j theta-tilde_j
beta-tilde_jn, gamma_k = alpha + theta-tilde_k sum_n r_n beta-tilde_kn. A common factor of all theta-tilde_k cancels, so
theta-tilde_k = exp(psi(gamma_k)) does: exp(-psi(sum_k gamma_k)) is left out.

*Active topics.* Most topics soon have no part in a document. One whose gamma_k is alpha, but for less than
`_DROP_GAMMA`, and whose theta-tilde_k is below `_DROP_WEIGHT` of the largest, is left out of what follows: it could not
come back by more than that.

*Posterior means.* With `mean`, theta-tilde_k = gamma_k and beta-tilde_kw = lambda_kw / sum_w lambda_kw: the mean in
place of the geometric mean, in the spirit of CVB0 (Asuncion et al. 2009). No longer the paper's SVI.

*Faint words.* A word that no topic has yet is exp(psi(eta0)) in all of them: e^-100 for eta0 = 0.01, less than float32
holds, and its tokens would count for nothing, for ever. `lift_faint` scales such rows; phi does not depend on that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import psi

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

_DROP_GAMMA = np.float32(1e-4)
_DROP_WEIGHT = np.float32(1e-9)
_TINY = np.float32(1e-30)
_LOG_FAINT = -46.0  # 1e-20: times a small theta-tilde, still well above _TINY

#: Sums may be taken in any order, and a * b + c in one rounding: what lets a loop over floats use vector instructions.
_FAST = {"reassoc", "contract", "arcp", "nsz"}

_HALVES = np.power(np.float32(2.0), -np.arange(160, dtype=np.float32)).astype(np.float32)
_LOG2_E = np.float32(1.4426950408889634)


@njit(fastmath=_FAST, error_model="numpy", inline="always")
def _exp_minus(s: Any) -> Any:
    """exp(-s) for s >= 0, to 2e-7: 2^-n from a table, 2^-f from its series. Unlike libm's, a loop of it vectorises."""
    t = min(np.float32(150.0), s * _LOG2_E)  # in this order what is no number becomes 150, and not an index
    n = np.int32(t)
    y = (t - np.float32(n) - np.float32(0.5)) * np.float32(-0.6931471805599453)
    series = np.float32(1.0 / 5040.0)
    series = series * y + np.float32(1.0 / 720.0)
    series = series * y + np.float32(1.0 / 120.0)
    series = series * y + np.float32(1.0 / 24.0)
    series = series * y + np.float32(1.0 / 6.0)
    series = series * y + np.float32(0.5)
    series = series * y + np.float32(1.0)
    series = series * y + np.float32(1.0)
    return series * np.float32(0.7071067811865476) * _HALVES[n]


@njit(fastmath=_FAST, error_model="numpy", inline="always")
def exp_psi(x: Any) -> Any:
    """exp(digamma(x)) for x > 0, float32, to 1e-6; less exactly below 1, to 3e-5 at 0.013 where float32 soon ends.

    psi(x) = psi(x + 4) - sum_{i<4} 1 / (x + i), and exp(psi(z + 1/2)) = z + 1/(24 z) - 37/(5760 z^3) + ...: no
    logarithm.
    """
    q = x * (x + np.float32(3.0))
    shift = (np.float32(4.0) * x + np.float32(6.0)) * (q + np.float32(1.0)) / (q * (q + np.float32(2.0)))
    z = x + np.float32(3.5)
    r = np.float32(1.0) / z
    r2 = r * r
    series = np.float32(10313.0 / 2903040.0)
    series = series * r2 - np.float32(37.0 / 5760.0)
    series = series * r2 + np.float32(1.0 / 24.0)
    return (z + series * r) * _exp_minus(shift)


@njit(fastmath=_FAST, error_model="numpy", cache=True, nogil=True)
def expected_topics(counts: Any, prior: Any, totals: Any, mean: Any, out: Any) -> None:
    """beta-tilde of some words, up to the factor that cancels nowhere but is common to a topic.

    Args:
        counts: lambda - eta0 of these words, float32 [R, K], >= 0.
        prior: eta0.
        totals: sum_w lambda_kw over the whole vocabulary, float32 [K].
        mean: False: exp(psi(lambda_kw)) / exp(psi(totals_k)); True: lambda_kw / totals_k.
        out: float32 [R, K].
    """
    K = counts.shape[1]
    scale = np.empty(K, np.float32)
    for k in range(K):
        scale[k] = np.float32(1.0) / (totals[k] if mean else exp_psi(totals[k]))
    for r in range(counts.shape[0]):
        if mean:
            for k in range(K):
                out[r, k] = (counts[r, k] + prior) * scale[k]
        else:
            for k in range(K):
                out[r, k] = exp_psi(counts[r, k] + prior) * scale[k]


def lift_faint(beta: Floats, counts: Floats, prior: float, totals: Floats) -> NDArray[np.float64]:
    """Scale up the rows of faint words, so that the largest entry of each is 1.

    Args:
        beta: What `expected_topics` made of `counts`, `prior` and `totals`, not `mean`: float32 [R, K]; changed.
        counts: See there.
        prior: See there.
        totals: See there.

    Returns:
        Logarithm of what each row was divided by, 0 where it was left alone: float64 [R].
    """
    divided = np.zeros(beta.shape[0])
    if psi(float(prior)) - psi(float(totals.max())) >= _LOG_FAINT:  # no word can be so faint
        return divided
    faint = np.flatnonzero(beta.max(axis=1) < np.exp(_LOG_FAINT))
    log_beta = psi(counts[faint].astype(np.float64) + prior) - psi(totals.astype(np.float64))
    divided[faint] = log_beta.max(axis=1)
    beta[faint] = np.exp(log_beta - divided[faint, None])
    return divided


@njit(fastmath=_FAST, error_model="numpy", cache=True, nogil=True)
def e_step(
    starts: Any, rows: Any, counts: Any, beta: Any, alpha: Any, tolerance: Any, most: Any, mean: Any, prune: Any,
    gamma: Any, statistics: Any,
) -> int:  # fmt: skip
    """The topics of some documents, and their statistics; gives back iterations, summed over the documents.

    Args:
        starts: Where each document begins in `rows` and `counts`, int64 [G + 1].
        rows: Row of `beta` for each distinct word of each document, int32 [n].
        counts: c_n, int32 [n].
        beta: beta-tilde, float32 [R, K].
        alpha: Prior of a document's topics.
        tolerance: Stop when the mean over topics of the change of gamma is less.
        most: Iterations at most.
        mean: Posterior means instead of exp(psi(.)).
        prune: Leave out topics that have no part.
        gamma: Receives gamma, float32 [G, K]; its values are where the iteration starts.
        statistics: c_n phi_nk is added to it, float32 [R, K]; [0, K]: not wanted.
    """
    G, K = gamma.shape
    local = np.empty(
        (K, (_longest(starts) + 15) // 16 * 16), np.float32
    )  # beta-tilde of a document's words, topic by topic
    ratio = np.empty(local.shape[1], np.float32)
    theta = np.empty(K, np.float32)
    active = np.empty(K, np.int64)
    total = 0
    for d in range(G):
        first, N = starts[d], starts[d + 1] - starts[d]
        _gather(beta, rows[first : first + N], local)
        c = counts[first : first + N]
        A, iterations = converge(local, c, alpha, tolerance, most, mean, prune, gamma[d], theta, active, ratio)
        total += iterations
        if statistics.shape[0]:
            _ratios(local, theta, active[:A], c, ratio)
            for k in active[:A]:
                row, t = local[k], theta[k]
                for n in range(N):
                    statistics[rows[first + n], k] += t * row[n] * ratio[n]
    return total


@njit(cache=True, nogil=True)
def _longest(starts: Any) -> int:
    """Distinct words of the longest document; at least 1."""
    longest = 1
    for d in range(starts.size - 1):
        longest = max(longest, starts[d + 1] - starts[d])
    return longest


@njit(cache=True, nogil=True)
def _gather(beta: Any, rows: Any, local: Any) -> None:
    """Beta-tilde of a document's words into `local`, topic by topic."""
    for n in range(rows.size):
        for k in range(beta.shape[1]):
            local[k, n] = beta[rows[n], k]


@njit(fastmath=_FAST, error_model="numpy", nogil=True)
def converge(
    local: Any, counts: Any, alpha: Any, tolerance: Any, most: Any, mean: Any, prune: Any,
    gamma: Any, theta: Any, active: Any, ratio: Any,
) -> tuple[int, int]:  # fmt: skip
    """One document's gamma and theta-tilde, [K]; gives back how many of `active` are, and iterations."""
    K = gamma.size
    for k in range(K):
        active[k] = k
        theta[k] = gamma[k] if mean else exp_psi(gamma[k])
    fresh = np.empty(K, np.float32)
    A = K
    for iteration in range(most):
        _ratios(local, theta, active[:A], counts, ratio)
        change = np.float32(0.0)
        for a in range(A):
            k = active[a]
            row = local[k]
            s = np.float32(0.0)
            for n in range(counts.size):
                s += row[n] * ratio[n]
            fresh[a] = alpha + theta[k] * s
            change += abs(fresh[a] - gamma[k])
            gamma[k] = fresh[a]
        if not mean:
            for a in range(A):
                fresh[a] = exp_psi(fresh[a])
        for a in range(A):
            theta[active[a]] = fresh[a]
        if change < tolerance * K:
            return A, iteration + 1
        if prune:
            A = _prune(gamma, theta, alpha, active[:A])
    return A, most


@njit(fastmath=_FAST, error_model="numpy", nogil=True)
def _prune(gamma: Any, theta: Any, alpha: Any, active: Any) -> int:
    """Move the topics that stay active to the front; gives back how many they are."""
    largest = np.float32(0.0)
    for k in active:
        largest = max(largest, theta[k])
    left = 0
    for k in active:
        if gamma[k] - alpha < _DROP_GAMMA and theta[k] < largest * _DROP_WEIGHT:
            gamma[k] = alpha
        else:
            active[left] = k
            left += 1
    return left


@njit(fastmath=_FAST, error_model="numpy", nogil=True)
def _ratios(local: Any, theta: Any, active: Any, counts: Any, ratio: Any) -> None:
    """r_n = c_n / sum_k theta-tilde_k beta-tilde_kn."""
    N = counts.size
    for n in range(N):
        ratio[n] = _TINY
    for k in active:
        row, t = local[k], theta[k]
        for n in range(N):
            ratio[n] += t * row[n]
    for n in range(N):
        ratio[n] = np.float32(counts[n]) / ratio[n]
