"""A torch module as a vector."""

import numpy as np
import pytest
import torch
from torch import nn

from hsa2c.errors import ConfigError
from hsa2c.minimising.flat import length, load, tensors, to_vector, views


class Mixed(nn.Module):
    """All that a module may have, in no easy order of memory."""

    def __init__(self):
        super().__init__()
        self.turned = nn.Parameter(torch.arange(6.0).reshape(3, 2).t())
        self.frozen = nn.Parameter(torch.tensor(7.0), requires_grad=False)
        self.inner = nn.Linear(2, 1, bias=False)
        self.tied = self.inner.weight
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("mean", torch.tensor([8.0, 9.0]))


def test_v_is_parameters_then_buffers_each_once():
    model = Mixed()
    with torch.no_grad():
        model.inner.weight.copy_(torch.tensor([[10.0, 11.0]]))
    v = to_vector(model)
    assert v.dtype == np.float32
    assert v.tolist() == [0, 2, 4, 1, 3, 5, 7, 10, 11, 8, 9]
    assert length(model) == len(v)
    assert list(tensors(model)) == ["turned", "frozen", "tied", "mean"]


def test_what_is_loaded_is_what_was_taken():
    model = Mixed()
    v = np.arange(length(model), dtype=np.float32)
    assert load(model, v) is model
    assert np.array_equal(to_vector(model), v)
    assert model.tied is model.inner.weight
    assert model.mask.tolist() == [True, False]
    v[:] = 0.0
    assert to_vector(model)[1] == 1.0, "its own numbers"


def test_views_are_the_vector_itself():
    model, vector = Mixed(), torch.zeros(11)
    for _, part in views(vector, model):
        part += 1.0
    assert vector.tolist() == [1.0] * 11
    assert [tuple(part.shape) for _, part in views(vector, model)] == [(2, 3), (), (1, 2), (2,)]


def test_another_length_is_refused():
    with pytest.raises(ConfigError, match="model: has 11 numbers, must have 10 as the checkpoint has"):
        load(Mixed(), np.zeros(10, np.float32))


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (nn.Linear(2, 1).double(), "weight is torch.float64 on cpu"),
        (nn.Linear(2, 1, dtype=torch.complex64), "weight is torch.complex64"),
        (nn.Linear(2, 1, device="meta"), "weight is torch.float32 on meta"),
        (nn.LazyLinear(2), "weight has no shape yet"),
        (nn.Linear(2, 1).requires_grad_(False), "no parameter that a gradient moves"),
        (nn.ReLU(), "no parameter that a gradient moves"),
    ],
)
def test_what_is_no_float32_of_the_processor_is_refused(model, line):
    with pytest.raises(ConfigError, match=line):
        tensors(model)
