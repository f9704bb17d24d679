"""Environments whose whole story is known, for tests."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary

MASK = "action_mask"


class Scripted(gymnasium.Env):
    """Episodes of `length` steps; the observation is (seed of the copy, episode, step), the reward of step k is k.

    Args:
        length: Of an episode.
        truncates: How it ends.
        mask: None, or where it says that of the two actions only number (step mod 2) is there: "info" or "entry".
        log: Each call is put there.
    """

    action_space = Discrete(2)

    def __init__(self, length=3, truncates=False, mask=None, log=None):
        self.length, self.truncates, self.mask, self.log = length, truncates, mask, [] if log is None else log
        numbers = Box(-np.inf, np.inf, (3,))
        self.observation_space = Dict({"x": numbers, MASK: MultiBinary(2)}) if mask == "entry" else numbers
        self.copy, self.episode, self.step_number = -1, -1, 0

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.copy = seed
        self.episode, self.step_number = self.episode + 1, 0
        self.log.append(("reset", self.copy, self.episode))
        return self.seen()

    def step(self, action):
        assert self.step_number < self.length, "stepped after the end"
        assert self.mask is None or action == self.step_number % 2, "a masked action was taken"
        self.step_number += 1
        self.log.append(("step", self.copy, self.episode, self.step_number))
        over = self.step_number == self.length
        observation, info = self.seen()
        return observation, float(self.step_number), over and not self.truncates, over and self.truncates, info

    def seen(self):
        numbers = np.float32([self.copy, self.episode, self.step_number])
        mask = np.int8([self.step_number % 2 == 0, self.step_number % 2 == 1])
        if self.mask == "entry":
            return {"x": numbers, MASK: mask}, {}
        return numbers, {MASK: mask} if self.mask == "info" else {}
