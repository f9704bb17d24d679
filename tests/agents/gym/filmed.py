"""An environment that is drawn without a package for it."""

from typing import ClassVar

import numpy as np

from tests.agents.gym.scripted import Scripted


class Filmed(Scripted):
    """As `Scripted`; each episode's score is 6."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode=None):
        super().__init__()
        self.render_mode = render_mode

    def render(self):
        return None if self.render_mode is None else np.full((40, 60, 3), 40 * self.step_number, np.uint8)
