"""Training that goes nowhere, said in words."""

from __future__ import annotations

import math

PATIENCE = 500_000
"""Agent steps of a node without a better score, before one may speak of a stall."""

_UNIFORM = 0.98  # of the entropy of uniform play: no action is preferred to another
_FROZEN = 0.02  # of the same: one action nearly always, whatever is seen


def stall(*, without_gain: int, nodes: int, entropy: float | None, num_actions: int) -> str | None:
    """Why training seems to have stalled; None while it does not.

    Games may well be lost alike for long before anything is learnt. It is a sign together with a policy that has no
    opinion, or one that does not depend on what it sees.

    Args:
        without_gain: Agent steps over all nodes since the mean score of the last 100 games was last at its best.
        nodes: How many there are.
        entropy: The policy's mean, nats; None if nothing was learnt from lately.
        num_actions: Of the game.
    """
    most = math.log(num_actions) if num_actions > 1 else 0.0
    if entropy is None or most == 0.0 or without_gain < PATIENCE * nodes:
        return None
    if entropy > _UNIFORM * most:
        policy = "plays nearly at random"
        cure = "agent.entropy_weight may be too high, or the learning rate too low"
    elif entropy < _FROZEN * most:
        policy = "nearly always takes the same action"
        cure = "agent.entropy_weight may be too low, or the learning rate too high"
    else:
        return None
    return (
        f"no better mean score for {without_gain:,} agent steps, and the policy {policy}"
        f" (entropy {entropy:.3f}, at most {most:.3f}): {cure}"
    )
