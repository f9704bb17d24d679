"""What every layout must do: the dense one, which is a copy of v, and the topics' one."""

import numpy as np
import pytest
import torch

from hsa2c.examples.lda.application import APPLICATION
from hsa2c.examples.lda.rates import Rate
from hsa2c.examples.lda.topics import TopicsLayout
from hsa2c.node.layout import DenseLayout
from hsa2c.node.memory import SharedVectors
from hsa2c.node.optimiser import Rule, SharedOptimiser

DIM = 12
RULES = [Rule(name=name, learning_rate=eta) for name, eta in (("sgd", 0.1), ("rmsprop", 0.01), ("adam", 0.01))]
LAYOUTS = {"dense": DenseLayout(DIM, RULES[0]), "topics": TopicsLayout(4, 3, 0.5, Rate(eta=0.1))}


def vector(seed):
    return np.random.default_rng(seed).gamma(1.0, 1.0, DIM).astype(np.float32)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_dense_is_a_copy_and_the_shared_optimiser(rule):
    layout = DenseLayout(DIM, rule)
    assert (layout.size, layout.state_size) == (DIM, rule.state_size(DIM))
    shared = SharedVectors(layout.size, layout.state_size)
    access = layout.attach(shared.u, shared.state, problem=None)
    u, state = torch.zeros(DIM), torch.zeros(layout.state_size)
    optimiser = SharedOptimiser(u, state, rule)
    for n in range(8):
        if n % 4 == 0:  # a new v; the optimiser's state stays
            layout.enter(vector(n), shared.u.numpy())
            u.copy_(torch.from_numpy(vector(n)))
        if n == 5:
            access.scale_rate(0.25)
            optimiser.scale_rate(0.25)
        u_hat = access.read()
        np.testing.assert_array_equal(u_hat.numpy(), u.numpy())
        g = torch.from_numpy(vector(100 + n) - 1)
        access.step(g)
        optimiser.step(g)
        assert not np.array_equal(u_hat.numpy(), shared.u.numpy()), "u_hat is private"
        np.testing.assert_array_equal(layout.value(shared.u.numpy()), u.numpy())
        np.testing.assert_array_equal(shared.state.numpy(), state.numpy())


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_what_enters_is_the_value(layout):
    u = np.full(layout.size, np.nan, np.float32)
    for seed in (0, 1):
        v = vector(seed)
        before = v.copy()
        layout.enter(v, u)
        value = layout.value(u)
        assert (value.dtype, value.shape) == (np.float32, (DIM,))
        np.testing.assert_array_equal(value, before)
        np.testing.assert_array_equal(v, before)
        assert not np.shares_memory(v, u)


def test_only_a_vector_like_v_may_be_added_to_while_processes_change_it():
    """What `hsa2c.dpsgd.worker.overlapping_worker` does with u."""
    assert LAYOUTS["dense"].in_place
    assert LAYOUTS["dense"].size == DIM
    assert not LAYOUTS["topics"].in_place
    assert not APPLICATION.overlaps
