"""An application of one's own: three members, and how good v is."""

import numpy as np
import torch

import hsa2c

A = torch.randn(1000, 20, generator=torch.Generator().manual_seed(0))
b = A.sum(1)


class Rows(hsa2c.Problem):
    def __init__(self, seed):
        self.random = torch.Generator().manual_seed(seed)

    def gradient(self, u_hat, interrupted):
        rows = torch.randint(len(A), (32,), generator=self.random)
        return A[rows].T @ (A[rows] @ u_hat - b[rows]) / 32


class LeastSquares(hsa2c.Application):
    best = "-residual"

    def initial(self, config):
        return np.zeros(20, np.float32)

    def problem(self, config, seed):
        return Rows(seed)

    def evaluate(self, config, v):
        return {"residual": float((A @ torch.from_numpy(v) - b).square().mean())}


if __name__ == "__main__":
    run = hsa2c.train(app=LeastSquares, nodes=2, p=1, updates=20_000, lr=0.01)
    print(run.evaluate())
