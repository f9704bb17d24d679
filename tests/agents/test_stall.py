import math

import pytest

from hsa2c.agents.stall import PATIENCE, stall

LONG = {"without_gain": 2 * PATIENCE, "nodes": 1, "num_actions": 4}


def test_uniform_and_frozen_policies_are_told_apart():
    assert "plays nearly at random (entropy 1.380, at most 1.386)" in stall(**LONG, entropy=1.38)
    assert "nearly always takes the same action (entropy 0.010" in stall(**LONG, entropy=0.01)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_policy_with_an_opinion_is_no_stall(share):
    assert stall(**LONG, entropy=share * math.log(4)) is None


@pytest.mark.parametrize("entropy", [0.0, math.log(4)])
def test_patience_is_of_a_node(entropy):
    for nodes in (1, 40):
        given = {"nodes": nodes, "num_actions": 4, "entropy": entropy}
        assert stall(without_gain=nodes * PATIENCE - 1, **given) is None
        assert stall(without_gain=nodes * PATIENCE, **given) is not None


def test_nothing_to_say_without_a_policy_or_a_choice():
    assert stall(**LONG, entropy=None) is None
    assert stall(without_gain=10**9, nodes=1, num_actions=1, entropy=0.0) is None
