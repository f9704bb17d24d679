"""A stochastic loss as a problem of DPSGD, and what its user should hear before it is trained on."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hsa2c.dpsgd.problem import Problem
from hsa2c.errors import ConfigError, ProblemError
from hsa2c.minimising.flat import length, tensors, views
from hsa2c.tracker import numbers

Loss = Callable[[nn.Module], Tensor]


class LossProblem(Problem):
    """The gradient of a loss of a module, by autograd; parameters and their gradients are views of flat vectors.

    Args:
        model: Whose parameters are bound to u_hat: this process's own.
        loss: Of the model, on data that it draws itself.
        seed: Of torch's, numpy's and Python's random numbers in this process.
    """

    def __init__(self, model: nn.Module, loss: Loss, seed: int) -> None:
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        self._model, self._loss = model.train(), loss
        self._g = torch.zeros(length(model))
        self._gradients = [(tensor, part) for tensor, part in views(self._g, model) if tensor.requires_grad]
        self._bound: int | None = None
        self._losses: list[float] = []

    def gradient(self, u_hat: Tensor, interrupted: Callable[[], bool]) -> Tensor:
        """See `Problem.gradient`."""
        if u_hat.data_ptr() != self._bound:
            for tensor, part in views(u_hat, self._model):
                tensor.data = part
            self._bound = u_hat.data_ptr()
        self._g.zero_()
        for tensor, part in self._gradients:
            tensor.grad = part
        value = self._loss(self._model)
        check_loss(value)
        value.backward()  # type: ignore[no-untyped-call]
        for tensor, part in self._gradients:
            if tensor.grad is None:
                part.zero_()
            elif tensor.grad.data_ptr() != part.data_ptr():  # the loss has set another
                part.copy_(tensor.grad)
        self._losses.append(value.item())
        return self._g

    def report(self) -> Mapping[str, Any]:
        """The mean loss since the last report."""
        losses, self._losses = self._losses, []
        finite = [value for value in losses if np.isfinite(value)]
        return {"train/loss": sum(finite) / len(finite)} if finite else {}


def check_loss(value: Any) -> None:
    """Refuse what is no loss.

    Raises:
        ProblemError: It is no scalar tensor, or has no graph.
    """
    if not isinstance(value, Tensor):
        raise ProblemError(f"loss: gave a {type(value).__name__}, must give a scalar tensor")
    if value.numel() != 1:
        raise ProblemError(f"loss: gave a tensor {list(value.shape)}, must give a scalar")
    if not value.requires_grad:
        raise ProblemError("loss: gave a tensor without a graph, must depend on the model's parameters")


def values_of(result: Any, evaluate: Callable[..., Any]) -> dict[str, float]:
    """What an evaluation gave, as numbers by name; a number alone has the name of the function.

    Raises:
        ProblemError: It is neither a number nor numbers by name.
    """
    name = getattr(evaluate, "__name__", "value").strip("<>")
    given = result if isinstance(result, Mapping) else {name: result}
    return numbers(given, "evaluate")


def try_out(model: nn.Module, loss: Loss, evaluate: Callable[..., Any] | None, best: str | None) -> None:
    """Call each function once, so that a mistake is told before anything is written or started.

    Random numbers, buffers and modes are as before afterwards.

    Raises:
        ConfigError: Something is not as it must be.
    """
    before = {name: tensor.clone() for name, tensor in (*tensors(model).items(), *model.named_buffers())}
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    training = model.training
    try:
        check_loss(loss(model.train()))
        moved = [name for name, tensor in tensors(model).items() if not torch.equal(tensor, before[name])]
        if moved:
            raise ProblemError(
                f"model: {moved[0]} changes when the loss is computed, which no gradient says: must not, as with"
                " GroupNorm or LayerNorm in the place of BatchNorm"
            )
        if evaluate is not None:
            with torch.no_grad():
                values = values_of(evaluate(model.eval()), evaluate)
            if best is not None and best.removeprefix("-") not in values:
                raise ProblemError(f"best = {best!r}: must be one of what evaluate gives: {', '.join(values)}")
        elif best is not None:
            raise ProblemError(f"best = {best!r}: needs evaluate, which gives it")
    except ProblemError as error:
        raise ConfigError(str(error)) from None
    finally:
        with torch.no_grad():
            for name, tensor in (*tensors(model).items(), *model.named_buffers()):
                tensor.copy_(before[name])
        model.train(training)
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
