"""A gradient that is None: that of an interrupted problem, and of one that has forgotten to give it back."""

import socket

import pytest

from hsa2c.dpsgd.problem import Problem
from hsa2c.errors import ProblemError
from hsa2c.node.actor_learner import Talking


class Nothing(Problem):
    """Asks so often whether it is interrupted, and gives nothing."""

    def __init__(self, asks):
        self.asks = asks

    def gradient(self, u_hat, interrupted):
        for _ in range(self.asks):
            interrupted()


@pytest.fixture
def gradient():
    """What comes of such a problem, where these are the answers to whether it is interrupted."""
    here, there = socket.socketpair()
    with here, there:
        yield lambda asks, *answers: Talking(Nothing(asks), here).gradient(None, iter(answers).__next__)


@pytest.mark.parametrize("asks", [0, 1, 2])
def test_one_that_is_forgotten_is_told(gradient, asks):
    with pytest.raises(ProblemError, match="the gradient of Nothing is None"):
        gradient(asks, *[False] * (asks + 1))


@pytest.mark.parametrize(("asks", "answers"), [(0, [True]), (1, [True]), (1, [False, True])])
def test_one_that_was_interrupted_is_not(gradient, asks, answers):
    assert gradient(asks, *answers) is None
