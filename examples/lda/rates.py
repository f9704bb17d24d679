"""Learning rates of the topics: constant, falling as in stochastic variational inference, or by Eq. 13."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hsa2c.dpsgd.steps import corollary_rate

#: The rate of section 4.1 at p = B = M = 1, local and global, from which Eq. 13 gives the others.
PAPER_RATE = 0.1


#: Weight that v may lose between two exchanges, as a power of e: float32 ends at e^-87.
MOST_DECAY = 60.0

#: A rate of 1 would make the topics' scale 0; a millionth of the old counts is as good as none.
MOST_ETA = 1.0 - 1e-6


@dataclass(frozen=True, kw_only=True)
class Rate:
    """eta of a node's n-th update, n from 0: ``eta (tau0 + n)^-kappa`` (Hoffman et al. 2013, equation 26).

    With kappa 0 it is constant.
    """

    eta: float = 1.0
    kappa: float = 0.0
    tau0: float = 1.0

    def __call__(self, n: float) -> float:
        """The rate of update n."""
        return self.eta * (self.tau0 + n) ** -self.kappa if self.kappa else self.eta

    def decay(self, updates: int) -> float:
        """-log of the weight that v keeps over a node's first updates, when its rates are highest."""
        return -sum(math.log1p(-min(self(n), MOST_ETA)) for n in range(updates))


def paper_rate(*, p: int, B: int, M: int) -> float:
    """Eq. 13 with section 4.1's constant: local and global rate."""
    return corollary_rate(PAPER_RATE, p=p, B=B, M=M)


def positivity(rho: float, M: int, kept: float, tau: int) -> tuple[float, float]:
    """Whether stale deltas can push an entry of lambda below its prior: not if the first number is at most the second.

    An entry of a word that no batch has follows x_(t+1) = x_t - a x_(t-tau), which stays positive if and only if
    a <= tau^tau / (tau + 1)^(tau + 1).

    Args:
        rho: Global rate.
        M: Deltas in a global step.
        kept: Share of v that a node's updates between two exchanges leave, (1 - eta)^(pB).
        tau: Delay, in global steps.

    Returns:
        a = rho M (1 - kept), and its bound.
    """
    bound = 1.0 if tau == 0 else math.exp(tau * math.log(tau) - (tau + 1) * math.log(tau + 1))
    return rho * M * (1.0 - kept), bound
