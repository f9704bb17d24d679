"""`hsa2c.minimise`: a torch module and a stochastic loss, trained by real processes."""

import importlib
import random

import numpy as np
import pytest
import torch
from torch import nn

import hsa2c
from tests.api import problems
from tests.api.problems import MINIMUM, Point, distance, minimise, noisy, squares


def last_v(run):
    return run.load().x.detach()


def test_the_module_has_the_minimum_afterwards(tmp_path):
    model = Point()
    run = minimise(tmp_path, model)
    assert torch.allclose(model.x, MINIMUM, atol=1e-3)
    assert torch.equal(model.x, last_v(run))
    assert model.training
    assert run.rows()[-1]["updates"] == 104, "the first multiple of B = 8 that reaches the limit"
    assert run.rows()[-1]["train/loss"] > 0.0
    assert run.reason == "104 updates (limit 100)"
    assert run.dir == tmp_path / "run"


def test_a_function_that_makes_the_module_starts_from_what_it_makes(tmp_path):
    made = []

    def make():
        made.append(Point())
        with torch.no_grad():
            made[-1].x.fill_(7.0)
        return made[-1]

    run = minimise(tmp_path, make, updates=1, settings={"dpsgd.local_updates": 1}, lr=1e-6)
    assert torch.allclose(last_v(run), torch.full((3,), 7.0), atol=1e-3)
    assert all(torch.equal(model.x, torch.full((3,), 7.0)) for model in made), "the caller's own are as they were"


class Whole(nn.Module):
    """A parameter that is tied, one that is frozen, a buffer, and a counter that is no float."""

    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.zeros(3))
        self.again = self.x
        self.frozen = nn.Parameter(torch.full((2,), 5.0), requires_grad=False)
        self.register_buffer("scale", torch.tensor([2.0]))
        self.register_buffer("calls", torch.tensor(3))


def test_tied_frozen_and_buffers_go_along(tmp_path):
    model = Whole()

    def loss(model):
        assert model.again is model.x
        assert model.frozen[0] == 5.0
        return ((model.x + model.again - model.scale * MINIMUM) ** 2).sum()

    loaded = minimise(tmp_path, model, loss, lr=0.02).load()
    for found in (model, loaded):
        assert torch.allclose(found.x, MINIMUM, atol=1e-2)
        assert found.again is found.x
        assert torch.equal(found.frozen, torch.full((2,), 5.0))
        assert torch.equal(found.scale, torch.tensor([2.0]))
        assert found.calls == 3


@pytest.mark.parametrize("to_none", [True, False])
def test_a_loss_may_replace_the_gradients(tmp_path, to_none):
    model = Point()

    def loss(model):
        model.zero_grad(set_to_none=to_none)
        return squares(model)

    minimise(tmp_path, model, loss)
    assert torch.allclose(model.x, MINIMUM, atol=1e-3)


def test_a_parameter_that_the_loss_does_not_use_stays(tmp_path):
    model = Point()
    model.y = nn.Parameter(torch.ones(2))
    minimise(tmp_path, model)
    assert torch.equal(model.y, torch.ones(2))
    assert torch.allclose(model.x, MINIMUM, atol=1e-3)


@pytest.mark.parametrize(
    ("evaluate", "expected"),
    [
        (distance, "distance"),
        (lambda model: {"far": distance(model), "near": 1}, "far"),
        (lambda model: (model.x - MINIMUM).norm(), "lambda"),
        (lambda model: np.float32(distance(model)), "lambda"),
        (lambda model: {"far": (model.x - MINIMUM).norm()}, "far"),
    ],
)
def test_an_evaluation_is_a_number_or_numbers_by_name(tmp_path, evaluate, expected):
    run = minimise(tmp_path, Point(), evaluate=evaluate)
    assert run.rows()[-1][expected] == pytest.approx(run.evaluate()[expected], abs=1e-5)
    assert run.evaluate()[expected] < 1e-3


def test_an_evaluation_is_in_evaluation_mode_without_gradients(tmp_path):
    seen = []

    def evaluate(model):
        seen.append((model.training, torch.is_grad_enabled()))
        return float(model.training or torch.is_grad_enabled())

    run = minimise(tmp_path, Point(), evaluate=evaluate)
    assert set(seen) == {(False, False)}
    assert run.rows()[-1]["evaluate"] == 0.0


@pytest.mark.parametrize(("best", "sign"), [("value", 1.0), ("-value", -1.0)])
def test_the_best_checkpoint_is_the_highest_or_after_a_minus_the_lowest(tmp_path, best, sign):
    """x[0] goes from 0 to 1: its best is the last for one, the first for the other."""
    model = Point()
    run = minimise(
        tmp_path,
        model,
        evaluate=lambda model: {"value": model.x[0].item()},
        best=best,
        updates=100,
        settings={"problem.evaluate_every_s": 1e-4, "dpsgd.local_updates": 1, "output.checkpoint_every_s": 0.01},
    )
    value = sign * model.x[0].item()
    assert value == pytest.approx(sign * run.evaluate()["value"])
    assert (value > 0.99) if sign > 0 else (value > -0.99)


def test_processes_draw_other_numbers_and_the_callers_are_as_before(tmp_path):
    importlib.import_module("rich.style")  # which draws a number when it is loaded
    drawn = tmp_path / "drawn"
    drawn.mkdir()

    def loss(model):
        numbers = (float(torch.rand(())), float(np.random.random()), random.random())
        with (drawn / str(__import__("os").getpid())).open("a") as file:
            file.write(f"{numbers}\n")
        return squares(model)

    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(7)
    expected = float(torch.rand(())), float(np.random.random()), random.random()
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(7)
    minimise(tmp_path, Point(), loss, p=2, updates=2000)  # so that both take part, also where one begins late
    assert (float(torch.rand(())), float(np.random.random()), random.random()) == expected
    first = [file.read_text().splitlines()[0] for file in drawn.iterdir()]
    assert len(first) == 3, "the caller's and two processes"
    for kind in zip(*map(eval, first), strict=True):
        assert len(set(kind)) == 3


def test_one_process_and_one_seed_give_one_v(tmp_path):
    one, same, other = (
        last_v(minimise(tmp_path, Point(), noisy, name=name, seed=seed, exchange="paper"))
        for name, seed in (("one", 3), ("same", 3), ("other", 4))
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_settings_and_options_reach_the_configuration(tmp_path):
    options = {"B": 4, "lr": 0.25, "seed": 9, "p": 2, "updates": 8, "minutes": 3.5, "exchange": "paper"}
    run = minimise(tmp_path, problems.MODEL, **options, settings={"dpsgd.momentum": 0.5, "optimiser.name": "sgd"})
    config = run.config
    assert (config.dpsgd.local_updates, config.optimiser.learning_rate, config.seed) == (4, 0.25, 9)
    assert (config.cluster.processes, config.stop.updates, config.stop.minutes) == (2, 8, 3.5)
    assert (config.dpsgd.exchange, config.dpsgd.momentum, config.optimiser.name) == ("paper", 0.5, "sgd")
    assert config.problem.model == "tests.api.problems:MODEL"
    assert config.problem.loss == "tests.api.problems:squares"
    with torch.no_grad():
        problems.MODEL.x.zero_()


def test_a_name_that_is_taken_is_refused(tmp_path):
    model = Point()
    minimise(tmp_path, model)
    before = model.x.detach().clone()
    with pytest.raises(hsa2c.ConfigError, match="run"):
        minimise(tmp_path, model)
    assert torch.equal(model.x, before)


def test_two_runs_in_a_row_have_their_own_losses(tmp_path):
    """Both are lambdas of the same place."""
    found = []
    for number in (1.0, 2.0):
        model = Point()
        minimise(tmp_path, model, lambda model, number=number: ((model.x - number) ** 2).sum(), name=str(number))
        found.append(model.x.detach().mean().item())
    assert found == pytest.approx([1.0, 2.0], abs=1e-3)
