"""Policies that need no network."""

import numpy as np


def random_policy(num_actions, seed):
    """Each action as likely as any other, whatever is observed."""
    generator = np.random.default_rng(seed)

    def act(obs):
        return generator.integers(0, num_actions, size=len(obs), dtype=np.int64)

    return act
