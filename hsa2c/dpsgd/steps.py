"""Learning rates and the global step: pure functions, and Algorithm 1's line 3."""

from __future__ import annotations

import numpy as np

from hsa2c.dpsgd.protocols import Vector


class GlobalStep:
    """Line 3 of Algorithm 1, with momentum: ``z <- mu z + sum_m w_m; v <- v + rho z``.

    Momentum 0 is Algorithm 1; the paper's HSA2C used rho 0.01 and mu 0.5 (section 4.2.1), in the convention of
    torch.optim.SGD, that is without dampening.

    Attributes:
        rho: Global learning rate.
        mu: Momentum, 0 <= mu < 1.
        z: Velocity, float32 [dim].
        mean_of: The M that rho was chosen for as `constant_factor_rho`: with fewer deltas, since nodes were lost, rho
            grows as that rule says. None: rho is as it is.
    """

    def __init__(self, rho: float, mu: float, dim: int, *, mean_of: int | None = None) -> None:
        self.rho = np.float32(rho)
        self.mu = np.float32(mu)
        self.z: Vector = np.zeros(dim, dtype=np.float32)
        self.mean_of = mean_of

    def __call__(self, v: Vector, w_sum: Vector, m: int) -> None:
        """Update v, float32 [dim], in place; `w_sum`, of m deltas, is used as scratch."""
        rho = self.rho
        if self.mean_of is not None and m != self.mean_of:
            rho = np.float32(rho * self.mean_of / m)
        if self.mu:
            self.z *= self.mu
            self.z += w_sum
            np.multiply(self.z, rho, out=w_sum)
        elif rho != 1:
            w_sum *= rho
        v += w_sum


def constant_factor_rho(M: int, mu: float, factor: float = 1.0) -> float:
    """The global rate that keeps ``rho * M / (1 - mu) = factor`` whatever M is.

    The sum over M deltas and momentum multiply a steady mean delta by ``rho * M / (1 - mu)`` in the long run. With a
    fixed rho a small cluster crawls and a large one overshoots; here factor 1 means that v moves by the mean delta.
    """
    return factor * (1.0 - mu) / M


def corollary_rate(rate: float, *, p: int, B: int, M: int) -> float:
    """Eq. 13: the rate for p, B and M from the one tuned at p = B = M = 1, ``rho' = rho / (p' B' M')^0.25``."""
    return float(rate / (p * B * M) ** 0.25)
