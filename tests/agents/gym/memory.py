"""A problem that needs memory, with parts of an observation and masks together."""

import gymnasium
import numpy as np
from gymnasium.spaces import Dict, Discrete, MultiBinary


class Remember(gymnasium.Env):
    """A cue, 0 or 1, is shown at the start, and asked for `delay` steps later; until then one may only wait."""

    observation_space = Dict({"cue": Discrete(3), "asked": MultiBinary(1), "action_mask": MultiBinary(3)})
    action_space = Discrete(3)

    def __init__(self, delay=32):
        self.delay = delay

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cue, self.age = int(self.np_random.integers(2)), 0
        return self.seen(), {}

    def step(self, action):
        assert self.seen()["action_mask"][action], "a masked action was taken"
        over = self.age == self.delay
        right = over and action == self.cue
        self.age += 1
        return self.seen(), float(right), over, False, {}

    def seen(self):
        asked = self.age == self.delay
        mask = np.int8([asked, asked, not asked])
        return {"cue": 2 if self.age else self.cue, "asked": np.int8([asked]), "action_mask": mask}
