"""The topics' words in a node's shared memory: read and changed a few rows at a time, and never negative.

v is x = lambda - eta0, the expected counts of each word in each topic above the prior, [V, K] as one vector: row w is
word w. The natural-gradient step on lambda (Hoffman et al. 2013, equations 23 and 24), in DPSGD's form

    g = u_hat - (eta0 + (D / G) s)        u <- u - eta g        s: the batch's sufficient statistics, zero in most rows

is x <- (1 - eta) x + eta (D / G) s: every entry shrinks by the same factor, a few rows grow. So u is kept as
x = scale * L, with the sums of L's columns beside it: line 4 copies the batch's rows, line 6 changes `scale` and these
rows, whatever V is.

# Paper: u <- u - eta g takes eta u_hat from u, and with a u_hat that is old may take more than there is; here u shrinks
# by 1 - eta, because then no entry of a node's u can fall below the prior, whoever overwrites whom. With one process,
# u_hat is u, and both are the same.

The master's sum knows no such care: v + rho sum_m w_m may fall below zero where the w_m are old
(`hsa2c.examples.lda.rates.positivity`). `enter` reads what is negative as zero, and counts it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hsa2c.dpsgd.problem import Problem
from hsa2c.dpsgd.protocols import Vector
from hsa2c.errors import ProblemError
from hsa2c.examples.lda.dpsvi import Step, UHat
from hsa2c.examples.lda.rates import MOST_ETA, Rate
from hsa2c.node.layout import Access, Layout

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


@runtime_checkable
class Batches(Protocol):
    """What this layout asks of its problem, beside what a `Problem` is: which rows are next, and whom to tell."""

    def next_batch(self) -> Ints:
        """Draw the documents of the next gradient; gives back their words, int32 [R]: the rows of line 4."""

    def stepped(self, eta: float, negative: int) -> None:
        """Line 6 is done, with this rate; so many negative entries of v had not been counted before."""


class TopicsLayout(Layout):
    """See the module. In shared memory: L, [V, K]; the sums of its columns, [K]; scale; negative entries of the last v.

    Args:
        V: Words.
        K: Topics.
        prior: eta0.
        rate: eta of a node's n-th update; n is the optimiser's state.
    """

    def __init__(self, V: int, K: int, prior: float, rate: Rate) -> None:
        self._V, self._K = V, K
        self._prior = prior
        self._rate = rate
        self._value: Vector | None = None

    @property
    def size(self) -> int:
        """See `Layout`."""
        return self._V * self._K + self._K + 2

    @property
    def state_size(self) -> int:
        """See `Layout`."""
        return 1

    def parts(self, u: Vector) -> tuple[Floats, Floats, Floats]:
        """Views of L, [V, K]; of its columns' sums, [K]; and of scale and the count of negative entries, [2]."""
        n = self._V * self._K
        return u[:n].reshape(self._V, self._K), u[n : n + self._K], u[n + self._K :]

    def enter(self, v: Vector, u: Vector) -> None:
        """See `Layout.enter`."""
        L, sums, rest = self.parts(u)
        rest[0] = 1.0
        rest[1] = _copy_clamped(v.reshape(self._V, self._K), L, sums)

    def value(self, u: Vector) -> Vector:
        """See `Layout.value`."""
        L, _, rest = self.parts(u)
        if self._value is None:
            self._value = np.empty(self._V * self._K, np.float32)
        np.multiply(L.reshape(-1), rest[0], out=self._value)
        return self._value

    def attach(self, u: torch.Tensor, state: torch.Tensor, problem: Problem) -> Access:
        """See `Layout.attach`; the problem is one of `Batches`, as `hsa2c.examples.lda.dpsvi.DPSVI` is."""
        if not isinstance(problem, Batches):
            raise ProblemError(f"a {type(problem).__name__} has no next_batch and stepped: topics are read by batches")
        access = _TopicsAccess(self, u.numpy(), state.numpy(), problem, self._prior, self._rate)
        return Access(access.read, access.step, access.scale_rate, lambda g: bool(np.isfinite(g.statistics.sum())))


class _TopicsAccess:
    """One process's access to the topics."""

    def __init__(
        self, layout: TopicsLayout, u: Vector, state: Vector, problem: Batches, prior: float, rate: Rate
    ) -> None:
        self._L, self._sums, self._rest = layout.parts(u)
        self._state = state
        self._problem = problem
        self._rate = rate
        self._scale_rate = 1.0
        self._prior = np.float32(prior)
        self._prior_total = np.float32(prior * self._L.shape[0])
        self._x = np.empty((0, self._L.shape[1]), np.float32)

    def scale_rate(self, scale: float) -> None:
        self._scale_rate = scale

    def read(self) -> UHat:
        """Line 4, for the words of the problem's next batch; unlocked."""
        rows = self._problem.next_batch()
        if self._x.shape[0] < rows.size:
            self._x = np.empty((2 * rows.size, self._x.shape[1]), np.float32)
        x = self._x[: rows.size]
        scale = self._rest[0]
        _read_rows(self._L, rows, scale, x)
        return UHat(x, self._prior_total + scale * self._sums)

    def step(self, g: Step) -> None:
        """Line 6: x <- (1 - eta) x + eta (D / G) s; unlocked: a lost write is S_b of Eq. 3."""
        if g.statistics.shape != (g.rows.size, self._L.shape[1]):  # compiled code would read past its end
            raise ProblemError(
                f"an update's statistics are {list(g.statistics.shape)}, must be {[g.rows.size, self._L.shape[1]]}"
            )
        eta = min(self._rate(float(self._state[0])) * self._scale_rate, MOST_ETA)
        self._state[0] += 1
        scale = self._rest[0] * np.float32(1.0 - eta)
        self._rest[0] = scale
        _add_rows(self._L, self._sums, g.rows, g.statistics, np.float32(eta * g.weight / scale))
        negative, self._rest[1] = int(self._rest[1]), 0  # unlocked: two processes may both count them
        self._problem.stepped(eta, negative)


@njit(cache=True, nogil=True)
def _copy_clamped(v: Any, L: Any, sums: Any) -> int:
    """L <- max(v, 0), sums of columns; how many entries were negative."""
    negative = 0
    total = np.zeros(v.shape[1], np.float64)
    for w in range(v.shape[0]):
        for k in range(v.shape[1]):
            x = v[w, k]
            if x < 0:
                negative += 1
                x = np.float32(0.0)
            L[w, k] = x
            total[k] += x
    for k in range(v.shape[1]):
        sums[k] = total[k]
    return negative


@njit(cache=True, nogil=True)
def _read_rows(L: Any, rows: Any, scale: Any, x: Any) -> None:
    for r in range(rows.size):
        for k in range(L.shape[1]):
            x[r, k] = L[rows[r], k] * scale


@njit(cache=True, nogil=True)
def _add_rows(L: Any, sums: Any, rows: Any, statistics: Any, weight: Any) -> None:
    added = np.zeros(L.shape[1], np.float32)
    for r in range(rows.size):
        for k in range(L.shape[1]):
            more = weight * statistics[r, k]
            L[rows[r], k] += more
            added[k] += more
    for k in range(L.shape[1]):
        sums[k] += added[k]
