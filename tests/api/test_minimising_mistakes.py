"""What `hsa2c.minimise` refuses: one line before anything is written; and who has failed where it is too late."""

import time

import numpy as np
import pytest
import torch
from torch import nn

import hsa2c
from tests.api.problems import MODEL, Point, distance, minimise, squares


class Normalised(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))


class Frozen(Point):
    def __init__(self):
        super().__init__()
        self.x.requires_grad_(False)


def of_another_type(dtype):
    model = Point()
    model.x = nn.Parameter(model.x.detach().to(dtype))
    return model


def through(model):
    return model.layers(torch.randn(4, 3)).sum()


MISTAKES = {
    "loss: gave a float": {"loss": lambda model: 1.0},
    "loss: gave a NoneType": {"loss": lambda model: None},
    "loss: gave a tensor [3], must give a scalar": {"loss": lambda model: model.x * 2.0},
    "loss: gave a tensor without a graph": {"loss": lambda model: torch.ones(())},
    "loss: is a str, must be a function": {"loss": "squares"},
    "evaluate: is a int, must be a function": {"evaluate": 3},
    "evaluate: gave value = 'good', must give numbers by name": {"evaluate": lambda model: {"value": "good"}},
    "evaluate: gave lambda = None": {"evaluate": lambda model: None},
    "evaluate: gave step: each row has its own": {"evaluate": lambda model: {"step": 1}},
    "best = 'far': must be one of what evaluate gives: distance": {"evaluate": distance, "best": "far"},
    "best = '-far': must be one of": {"evaluate": distance, "best": "-far"},
    "best = 'distance': needs evaluate": {"best": "distance"},
    "model: x is torch.float64 on cpu, must be torch.float32": {"model": of_another_type(torch.float64)},
    "model: x is torch.bfloat16": {"model": of_another_type(torch.bfloat16)},
    "model: x is torch.float32 on meta": {"model": nn.Module.to(Point(), "meta")},
    "model: layers.1.running_mean changes when the loss": {"model": Normalised(), "loss": through},
    "model: has no parameter that a gradient moves": {"model": Frozen()},
    "model: weight has no shape yet": {"model": nn.LazyLinear(3)},
    "model: is a list, must be a torch.nn.Module": {"model": []},
    "model: is a dict, must be a torch.nn.Module, or a function that makes one": {"model": dict},
    "nosuch = 3: no such option; known are ": {"nosuch": 3},
    "resume = 'x': no such option": {"resume": "x"},
    "stop.updates": {"updates": "many"},
    "cluster.processes": {"p": 0},
    "dpsgd.momentum": {"settings": {"dpsgd.momentum": "much"}},
    "dpsgd.nosuch": {"settings": {"dpsgd.nosuch": 1}},
    "callbacks: 3 is a int": {"callbacks": [3]},
    "callbacks: <class 'hsa2c.api.callbacks.Callback'> is a type": {"callbacks": [hsa2c.Callback]},
    "callbacks: is a Callback, must be a list": {"callbacks": hsa2c.Callback()},
    "must be a dict from dotted names": {"settings": {3: 4}},
    ": other processes cannot find it": {"loss": lambda model: squares(model), "nodes": 2, "model": MODEL},
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(tmp_path, line):
    given = {"model": Point(), "loss": squares} | MISTAKES[line]
    with pytest.raises(hsa2c.ConfigError) as error:
        minimise(tmp_path, given.pop("model"), given.pop("loss"), **given)
    assert "\n" not in str(error.value)
    assert line in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_leaves_model_and_random_numbers_as_they_were(tmp_path):
    model = Normalised().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()
    with pytest.raises(hsa2c.ConfigError):
        minimise(tmp_path, model, through)
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpys)


@pytest.mark.parametrize("what", ["loss", "evaluate"])
def test_what_a_function_raises_at_once_comes_out_as_it_is(tmp_path, what):
    def wrong(model):
        raise LookupError("no such file of mine")

    with pytest.raises(LookupError, match="no such file of mine"):
        minimise(tmp_path, Point(), **{what: wrong})
    assert list(tmp_path.iterdir()) == []


class Later:
    """Is otherwise from some call in a process that is not the caller's on."""

    def __init__(self, good, later, calls=5):
        self.good, self.later, self.calls = good, later, calls
        self.__name__ = "later"

    def __call__(self, model):
        self.calls -= 1
        return self.good(model) if self.calls > 0 else self.later(model)


def failing(model):
    raise ArithmeticError("my loss is lost")


LATER = {
    "node 0: 3 actor-learners lost .* the last: actor-learner 0": {"loss": Later(squares, failing)},
    "my loss is lost": {"loss": Later(squares, failing)},
    "100 gradients in a row are not finite": {"loss": Later(squares, lambda model: squares(model) * float("nan"))},
    "gave a float, must give a scalar tensor": {"loss": Later(squares, lambda model: 1.0)},
    "evaluate: gave later = None": {"evaluate": Later(distance, lambda model: None, calls=2)},
}


@pytest.mark.parametrize("line", LATER)
def test_a_failure_later_says_who_and_why(tmp_path, line):
    with pytest.raises(hsa2c.HSA2CError, match=line) as error:
        settings = {"problem.evaluate_every_s": 0.01}
        minimise(tmp_path, Point(), updates=10_000_000, settings=settings, **({"loss": squares} | LATER[line]))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'run'}: the run failed: ")


def test_a_loss_that_ends_its_process_is_told(tmp_path):
    with pytest.raises(hsa2c.HSA2CError, match="actor-learner"):
        minimise(tmp_path, Point(), Later(squares, lambda model: __import__("os")._exit(3)), updates=10_000_000)


def test_a_limit_of_minutes_ends_a_slow_loss(tmp_path):
    began_at = time.monotonic()
    run = minimise(tmp_path, Point(), Later(squares, lambda model: time.sleep(0.05) or squares(model)), minutes=0.01)
    assert time.monotonic() - began_at < 30.0
    assert run.reason
