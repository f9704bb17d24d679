"""An application of one's own: three members, the rest by default; and some that lack something."""

import numpy as np
import torch

import hsa2c

MINIMUM = torch.tensor([1.0, -2.0, 3.0])


class Squares(hsa2c.Problem):
    def gradient(self, u_hat, interrupted):
        return 2.0 * (u_hat - MINIMUM)


class Own(hsa2c.Application):
    def initial(self, config):
        return np.zeros(3, np.float32)

    def problem(self, config, seed):
        return Squares()


class Evaluated(Own):
    name = "evaluated"
    best = "-distance"

    def evaluate(self, config, v):
        return {"distance": float(np.linalg.norm(v - MINIMUM.numpy()))}

    def policy(self, config, v, scale=1.0):
        return lambda observation: scale * float(v @ observation)


class Reporting(Squares):
    def report(self):
        return {"train/value": 2.0, "text": "not shown", "many": [1, 2]}


class ReportingOwn(Own):
    def problem(self, config, seed):
        return Reporting()


APPLICATION = Evaluated()
INSTANCE = Own()


class NoInitial(hsa2c.Application):
    def problem(self, config, seed):
        return Squares()


class NoProblem(hsa2c.Application):
    def initial(self, config):
        return np.zeros(3, np.float32)


class Double(Own):
    def initial(self, config):
        return np.zeros(3)


class Listed(Own):
    def initial(self, config):
        return [0.0, 0.0, 0.0]


class Matrix(Own):
    def initial(self, config):
        return np.zeros((3, 3), np.float32)


class NotFinite(Own):
    def initial(self, config):
        return np.full(3, np.nan, np.float32)


def with_gradient(gradient, report=None, base=hsa2c.Problem):
    """An application whose problem has these."""
    members = {"gradient": lambda self, u_hat, interrupted: gradient(u_hat)} if gradient else {}
    if report is not None:
        members["report"] = lambda self: report
    problem = type("Wrong", (base,), members)
    return type("WrongOwn", (Own,), {"problem": lambda self, config, seed: problem()})


def with_tracker(make):
    return type("Tracked", (Own,), {"tracker": lambda self, config, counters: make(counters)})
