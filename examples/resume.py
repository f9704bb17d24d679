"""A run that goes on, in the same session or in a later one."""

import torch

import hsa2c

model = torch.nn.Linear(10, 1)


def loss(model):
    x = torch.randn(64, 10)
    return (model(x).squeeze(1) - x.sum(1)).square().mean()


if __name__ == "__main__":
    run = hsa2c.minimise(model, loss, updates=2000, name="first")
    run.resume(updates=4000)
    hsa2c.resume("runs/first", updates=6000)  # as from a later session: the directory is enough
    print(run.reason, run.load().weight)
