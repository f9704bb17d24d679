"""Theorem 1 and Corollary 1 in numbers: rates, the conditions on them, and the bound (section 3.3).

Every equation is one pure function of the paper's letters, with B_tilde = p B. Rates are constant here, rho_t = rho.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What the theorem assumes to be known of f."""

    L: float
    """Lipschitz constant of the gradient (Assumption 1)."""
    V: float
    """Bound on the norm of a stochastic gradient (Assumption 4)."""
    gap: float
    """f(v_0) - f(v_*)."""
    alpha: float = 1.0
    """Smallest eigenvalue of E[S], the share of an update that no other process overwrites (Assumption 3); 1 is all."""


def constant_A(f: Objective, mu: float) -> float:
    """A of Corollary 1: ``L V^2 (1/alpha + 1/alpha^2 + 2 L mu / ((1 - mu) alpha))``, 0 < mu < 1."""
    return f.L * f.V**2 * (1 / f.alpha + 1 / f.alpha**2 + 2 * f.L * mu / ((1 - mu) * f.alpha))


def equal_rates(f: Objective, mu: float, *, T: int, M: int, B_tilde: int) -> float:
    """Eq. 9: rho = eta, with ``rho^2 = sqrt(gap) / (A alpha sqrt(T M B_tilde))``."""
    return math.sqrt(math.sqrt(f.gap) / (constant_A(f, mu) * f.alpha * math.sqrt(T * M * B_tilde)))


def gradient_bound(f: Objective, mu: float, *, T: int, M: int, B_tilde: int) -> float:
    """Eq. 11: what the mean squared norm of the gradient is at most, ``3 A sqrt(gap / (T M B_tilde))``."""
    return 3 * constant_A(f, mu) * math.sqrt(f.gap / (T * M * B_tilde))


def delay_between_nodes(f: Objective, *, eta: float, rho: float, M: int, B_tilde: int, D_prime: int) -> float:
    """The left side of Eq. 7, which must be at most 1: ``M^2 B~^2 eta^2 L^2 rho D' sum_{n=1}^{D'} rho``."""
    return (M * B_tilde * eta * f.L * rho * D_prime) ** 2


def delay_inside_a_node(f: Objective, mu: float, *, eta: float, D: int) -> float:
    """The left side of Eq. 8, which must be at most mu: ``1 / (1 - eta - 9 eta (D+1) L^2 (mu^(D+1) - 1)/(mu - 1))``.

    # Paper: 0 < mu < 1. But the fraction of the mu is the sum of mu^0 to mu^D, so that what is subtracted from 1 is
    positive, and the left side above 1 as long as its denominator is positive: the condition can be met only by a
    mu > 1, for which Eq. 10 is also what follows from it. `largest_eta` is that reading.
    """
    denominator = 1 - eta - 9 * eta * (D + 1) * f.L**2 * sum(mu**k for k in range(D + 1))
    return 1 / denominator if denominator > 0 else math.inf


def largest_eta(f: Objective, mu: float, *, D: int) -> float:
    """Eq. 8 solved for eta, mu > 1: ``(mu - 1)^2 / (mu (mu - 1) + 9 L^2 mu (D+1) (mu^(D+1) - 1))``."""
    return (mu - 1) ** 2 / (mu * (mu - 1) + 9 * f.L**2 * mu * (D + 1) * (mu ** (D + 1) - 1))


def fewest_steps(f: Objective, mu: float, *, M: int, B_tilde: int, D: int, D_prime: int) -> tuple[float, float]:
    """Eq. 10: the two bounds below T, for delays between nodes (D') and inside a node (D); the greater one counts."""
    A = constant_A(f, mu)
    between = M * B_tilde * f.L**2 * D_prime**2 * f.gap / (A * f.alpha) ** 2
    inside = f.gap * (mu * (mu - 1) + 9 * f.L**2 * mu * (D + 1) * (mu ** (D + 1) - 1)) ** 4
    return between, inside / (M * B_tilde * (A * f.alpha) ** 2 * (mu - 1) ** 8)
