"""An own problem: handwritten digits, on two nodes of two processes each."""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import hsa2c

x, x_test, y, y_test = map(torch.tensor, train_test_split(*load_digits(return_X_y=True), random_state=0))
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))


def loss(model):
    batch = torch.randint(len(x), (64,))
    return torch.nn.functional.cross_entropy(model(x[batch].float()), y[batch])


def accuracy(model):
    return (model(x_test.float()).argmax(1) == y_test).float().mean()


if __name__ == "__main__":
    run = hsa2c.minimise(model, loss, evaluate=accuracy, best="accuracy", nodes=2, p=2, updates=5_000)
    print(run.evaluate())
