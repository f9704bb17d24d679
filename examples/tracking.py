"""A run that Weights & Biases and MLflow show, too."""

import torch

import hsa2c
from hsa2c.integrations import MLflowCallback, WandbCallback

model = torch.nn.Linear(10, 1)


def loss(model):
    x = torch.randn(64, 10)
    return (model(x).squeeze(1) - x.sum(1)).square().mean()


if __name__ == "__main__":
    callbacks = [WandbCallback(project="lines"), MLflowCallback("lines")]
    run = hsa2c.minimise(model, loss, callbacks=callbacks, updates=2000, name="first")
