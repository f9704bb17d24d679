"""The gradient of a loss of a module, against autograd of a copy of it."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

from hsa2c.errors import ProblemError
from hsa2c.minimising.flat import length, to_vector
from hsa2c.minimising.problem import LossProblem, check_loss, values_of

INPUTS = torch.linspace(-1.0, 1.0, 12).reshape(4, 3)


def make():
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def loss(model):
    return (model(INPUTS) ** 2).mean()


def expected(u_hat):
    """Slowly, by a model of its own."""
    model = make()
    nn.utils.vector_to_parameters(u_hat.clone(), model.parameters())
    return torch.cat([part.reshape(-1) for part in torch.autograd.grad(loss(model), list(model.parameters()))])


def never():
    return False


@pytest.mark.parametrize("forget", [None, True, False])
def test_gradients_are_those_of_autograd_at_each_u_hat(forget):
    def own(model):
        if forget is not None:
            model.zero_grad(set_to_none=forget)
        return loss(model)

    model = make()
    problem = LossProblem(model, own, seed=1)
    one = torch.from_numpy(to_vector(model).copy())
    two = torch.randn(length(model))
    for u_hat in (one, two, one, one):
        torch.testing.assert_close(problem.gradient(u_hat, never), expected(u_hat))
        u_hat.mul_(0.9)
        torch.testing.assert_close(problem.gradient(u_hat, never), expected(u_hat))


def test_gradients_do_not_add_up():
    problem = LossProblem(make(), loss, seed=1)
    u_hat = torch.from_numpy(to_vector(make()).copy())
    first = problem.gradient(u_hat, never).clone()
    torch.testing.assert_close(problem.gradient(u_hat, never), first)


def test_what_the_loss_does_not_reach_has_a_gradient_of_zero():
    model = make()
    problem = LossProblem(model, lambda model: (model[2].bias * 3.0).sum(), seed=1)
    u_hat = torch.from_numpy(to_vector(model).copy())
    assert problem.gradient(u_hat, never).tolist() == [0.0] * (length(model) - 1) + [3.0]


def test_what_is_frozen_has_a_gradient_of_zero():
    model = make()
    model[0].weight.requires_grad_(False)
    problem = LossProblem(model, loss, seed=1)
    g = problem.gradient(torch.from_numpy(to_vector(model).copy()), never)
    assert g[:12].tolist() == [0.0] * 12
    assert g[12:].abs().min() > 0.0


def test_its_random_numbers_follow_from_its_seed():
    def drawn(seed):
        LossProblem(make(), loss, seed)
        return float(torch.rand(())), float(np.random.random()), random.random()

    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        assert drawn(2**40 + 7) == drawn(2**40 + 7)
        assert all(one != other for one, other in zip(drawn(1), drawn(2), strict=True))
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def test_it_reports_the_mean_of_finite_losses_once():
    values = iter([1.0, 3.0, float("nan")])
    model = make()
    problem = LossProblem(model, lambda model: model[2].bias.sum() * 0.0 + next(values), seed=1)
    u_hat = torch.from_numpy(copy.deepcopy(to_vector(model)))
    for _ in range(3):
        problem.gradient(u_hat, never)
    assert problem.report() == {"train/loss": 2.0}
    assert problem.report() == {}


@pytest.mark.parametrize("value", [1.0, None, torch.ones(2, requires_grad=True), torch.ones(())])
def test_what_is_no_loss_is_refused(value):
    with pytest.raises(ProblemError, match="loss: gave a"):
        check_loss(value)


def test_a_loss_may_have_one_element_of_any_shape():
    check_loss(torch.ones(1, 1, requires_grad=True))


def test_a_number_has_the_name_of_its_function():
    assert values_of(2, loss) == {"loss": 2.0}
    assert values_of(torch.tensor(2.0), lambda model: 0) == {"lambda": 2.0}
    assert values_of({"a": np.float32(1.5), 3: True}, loss) == {"a": 1.5, "3": 1.0}
