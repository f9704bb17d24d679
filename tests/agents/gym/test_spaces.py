"""Nested observations as leaves, and which spaces there are."""

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Graph, MultiBinary, MultiDiscrete, Sequence, Text, Tuple

from hsa2c.agents.gym.spaces import (
    MASK,
    action_parameters,
    check_mask,
    image_axes,
    is_image,
    leaves,
    mask_of,
    take,
)
from hsa2c.errors import ConfigError

NESTED = Dict(
    {
        "values": Box(-1, 1, (2,)),  # torch has modules and methods of this name
        "a.b": Discrete(3),
        "deep": Tuple((MultiBinary(2), Dict({"x": MultiDiscrete([2, 2]), MASK: Discrete(2)}))),
        MASK: Box(0, 1, (4,), np.int8),
    }
)


def test_leaves_of_a_nested_space_and_of_its_observations():
    assert set(leaves(NESTED)) == {"values", "a.b", "deep.0", "deep.1.x", "deep.1.action_mask"}
    observation = NESTED.sample()
    for part, space in zip(take(observation, NESTED), leaves(NESTED).values(), strict=True):
        assert part in space
    assert leaves(Discrete(2)) == {"": Discrete(2)}
    assert list(take(1, Discrete(2))) == [1]


@pytest.mark.parametrize(
    "space", [Text(3), Dict({"a": Dict({"b": Sequence(Discrete(2))})}), Graph(Discrete(2), None)], ids=str
)
def test_other_observation_spaces_are_refused(space):
    with pytest.raises(ConfigError, match="Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple"):
        leaves(space)


@pytest.mark.parametrize("space", [Box(0, 9, (2,), np.int32), Tuple((Discrete(2),)), Text(3)], ids=str)
def test_other_action_spaces_are_refused(space):
    with pytest.raises(ConfigError, match="Discrete, MultiDiscrete, MultiBinary and Box of floats"):
        action_parameters(space)


@pytest.mark.parametrize(
    ("space", "numbers"),
    [(Discrete(4), 4), (MultiDiscrete([[2, 3], [4, 5]]), 14), (MultiBinary([2, 3]), 6), (Box(-1, 1, (2, 2)), 4)],
    ids=str,
)
def test_numbers_of_a_policy(space, numbers):
    assert action_parameters(space) == numbers


@pytest.mark.parametrize(
    ("shape", "image", "axes"),
    [
        ((84, 84, 3), True, (3, True)),
        ((4, 84, 84), True, (4, False)),
        ((210, 160), True, (1, False)),
        ((16, 16, 16), True, (16, False)),
        ((128,), False, None),
        ((2, 84, 3), False, None),
    ],
)
def test_images(shape, image, axes):
    space = Box(0, 255, shape, np.uint8)
    assert is_image(space) == image
    assert not image or image_axes(space) == axes
    assert not is_image(Box(0, 1, shape, np.float32))


def test_masks_come_from_info_or_from_an_entry():
    assert mask_of(np.zeros(2), None) is None
    assert mask_of({"x": 0}, None) is None
    assert mask_of({MASK: np.int8([0, 1])}, None).tolist() == [False, True]
    assert mask_of({MASK: np.int8([0, 1])}, [1, 0]).tolist() == [True, False]
    assert mask_of(0, (np.int8([1, 0]), np.int8([0, 1, 1]))).tolist() == [True, False, False, True, True]


@pytest.mark.parametrize(
    ("space", "mask", "said"),
    [
        (Discrete(3), [0, 1], "action_mask of 2 numbers does not fit Discrete(3)"),
        (Box(-1, 1, (2,)), [1, 1], "does not fit Box"),
        (Discrete(3), [0, 0, 0], "action_mask [0 0 0] allows no action of Discrete(3)"),
        (MultiDiscrete([2, 3]), [0, 0, 1, 1, 1], "allows no action of MultiDiscrete"),
        (MultiDiscrete([2, 3]), [1, 1, 0, 0, 0], "allows no action of MultiDiscrete"),
    ],
)
def test_a_mask_must_fit_and_allow_an_action(space, mask, said):
    with pytest.raises(ValueError) as refused:
        check_mask(np.zeros(2), mask, space)
    assert said in str(refused.value)


def test_a_mask_that_fits_is_as_it_was_given():
    assert check_mask(np.zeros(2), None, Box(-1, 1, (2,))) is None
    assert check_mask(np.zeros(2), [0, 0, 1], Discrete(3)).tolist() == [False, False, True]
    assert check_mask(np.zeros(2), [0, 1, 1, 0, 0], MultiDiscrete([2, 3])).tolist() == [False, True, True, False, False]
    assert check_mask(np.zeros(2), [0, 0], MultiBinary(2)).tolist() == [False, False], "all bits stay 0"
    assert not check_mask(np.zeros(2), [0, 0, 0], Discrete(3), ended=True).any(), "nothing is left to do"
