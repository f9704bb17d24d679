"""Numbers of one's own among the curves: from the model, and from a row."""

import torch

import hsa2c

model = torch.nn.Linear(10, 1)


def loss(model):
    x = torch.randn(64, 10)
    return (model(x).squeeze(1) - x.sum(1)).square().mean()


def error(model):
    return {"error": (model.weight - 1.0).abs().max(), "bias": model.bias}


class PerNode(hsa2c.Callback):
    def on_row(self, run, row):
        row["updates/exchange"] = row["updates"] / max(row["exchanges"], 1)


if __name__ == "__main__":
    run = hsa2c.minimise(model, loss, evaluate=error, best="-error", callbacks=[PerNode()], updates=5000)
    print(run.rows()[-1]["error"], run.rows()[-1]["updates/exchange"])
