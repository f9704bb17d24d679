"""A callback: it shows each row's loss, and ends the run when that is small enough."""

import torch

import hsa2c

model = torch.nn.Linear(10, 1)


def loss(model):
    x = torch.randn(64, 10)
    return (model(x).squeeze(1) - x.sum(1)).square().mean()


class UntilGood(hsa2c.Callback):
    def on_row(self, run, row):
        print(row["updates"], row["train/loss"])
        if row.get("train/loss", 1.0) < 1e-4:
            run.stop("good enough")


if __name__ == "__main__":
    hsa2c.minimise(model, loss, callbacks=[UntilGood()], minutes=5, settings={"output.log_every_s": 0.5})
