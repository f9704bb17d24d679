"""Small losses, and a run of one of them as quick as runs are; also imported by name in other processes."""

import random

import numpy as np
import torch
from torch import nn

import hsa2c

MINIMUM = torch.tensor([1.0, -2.0, 3.0])


class Point(nn.Module):
    """Three numbers, which start at 0."""

    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.zeros(3))


MODEL = Point()


def squares(model):
    """Least at `MINIMUM`, where it is 0."""
    return ((model.x - MINIMUM) ** 2).sum()


def noisy(model):
    """The same with random numbers of all three kinds."""
    noise = torch.randn(3) + float(np.random.standard_normal()) + random.gauss(0.0, 1.0)
    return ((model.x - MINIMUM + 0.01 * noise) ** 2).sum()


def distance(model):
    return float((model.x - MINIMUM).norm())


def minimise(folder, model, loss=squares, **options):
    """A run of one process, and 100 updates where nothing else is said."""
    usual = {"p": 1, "updates": 100, "lr": 0.1, "run_dir": folder, "name": "run", "progress": False, "force": True}
    settings = {"optimiser.name": "sgd"} | options.pop("settings", {})
    return hsa2c.minimise(model, loss, settings=settings, **(usual | options))
