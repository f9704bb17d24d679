"""Observations of any space as a few arrays, and actions of any space as distributions.

A nested observation is a dict of its leaves by path: ``{"": obs}`` where there is one, ``{"pos": ..., "cam.0": ...}``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple

from hsa2c.errors import ConfigError

MASK = "action_mask"
"""The entry of a Dict that is no observation, but says which actions there are."""

Arrays = dict[str, npt.NDArray[Any]]


def leaves(space: Space[Any], path: str = "") -> dict[str, Space[Any]]:
    """The parts of a space by path.

    Raises:
        ConfigError: One of them is not supported.
    """
    if isinstance(space, Dict | Tuple):
        parts = space.spaces.items() if isinstance(space, Dict) else enumerate(space.spaces)
        found: dict[str, Space[Any]] = {}
        for key, part in parts:
            if path or key != MASK:
                found |= leaves(part, f"{path}.{key}" if path else str(key))
        return found
    if isinstance(space, Box | Discrete | MultiDiscrete | MultiBinary):
        return {path: space}
    raise ConfigError(
        f"observation space {path or space}: {type(space).__name__} is not supported; Box, Discrete, MultiDiscrete,"
        " MultiBinary, and Dict and Tuple of them are"
    )


def take(observation: Any, space: Space[Any], *, inner: bool = False) -> Iterator[Any]:
    """The leaves of one observation, in the order of `leaves`."""
    if not isinstance(space, Dict | Tuple):
        yield observation
        return
    for key, part in space.spaces.items() if isinstance(space, Dict) else enumerate(space.spaces):
        if inner or key != MASK:
            yield from take(observation[key], part, inner=True)


def mask_of(observation: Any, mask: Any) -> npt.NDArray[np.bool_] | None:
    """Which actions there are, bool [P], as one observation or its info says; None: nothing was said.

    Args:
        observation: Of which an entry may be the mask.
        mask: ``info["action_mask"]``: an array, or a tuple of one for each part of a MultiDiscrete; None.
    """
    if mask is None and isinstance(observation, dict):
        mask = observation.get(MASK)
    if mask is None:
        return None
    parts = mask if isinstance(mask, tuple | list) else (mask,)
    return np.concatenate([np.asarray(part).ravel() for part in parts]).astype(bool)


def parts_of_mask(space: Space[Any]) -> list[int]:
    """Where in a mask each choice begins, of which one must be allowed; none for a MultiBinary, whose 0 always is."""
    if isinstance(space, Discrete):
        return [0]
    if isinstance(space, MultiDiscrete):
        return [0, *np.cumsum(space.nvec.ravel())[:-1].tolist()]
    return []


def check_mask(observation: Any, mask: Any, space: Space[Any], *, ended: bool = False) -> npt.NDArray[np.bool_] | None:
    """As `mask_of`, for actions of a space; where an episode has ended, there need be no action.

    Raises:
        ValueError: It does not fit, or nothing is allowed.
    """
    found = mask_of(observation, mask)
    if found is None:
        return None
    if isinstance(space, Box) or len(found) != action_parameters(space):
        raise ValueError(f"action_mask of {len(found)} numbers does not fit {space}")
    parts = parts_of_mask(space)
    if parts and not ended and not np.logical_or.reduceat(found, parts).all():
        raise ValueError(f"action_mask {found.astype(int)} allows no action of {space}")
    return found


def empty(spaces: Mapping[str, Space[Any]], shape: tuple[int, ...]) -> Arrays:
    """Arrays for so many observations: pixels stay bytes, other numbers are float32, choices int64."""
    return {path: np.zeros(shape + (space.shape or ()), _dtype(space)) for path, space in spaces.items()}


def _dtype(space: Space[Any]) -> Any:
    if isinstance(space, Discrete | MultiDiscrete):
        return np.int64
    return np.uint8 if isinstance(space, Box) and space.dtype == np.uint8 else np.float32


def is_image(space: Space[Any]) -> bool:
    """Whether a convolution is in place: bytes of three axes, or two."""
    return (
        isinstance(space, Box)
        and space.dtype == np.uint8
        and len(space.shape) in (2, 3)
        and min(sorted(space.shape)[-2:]) >= 16
    )


def image_axes(space: Box) -> tuple[int, bool]:
    """Channels of an image, and whether they are its last axis."""
    if len(space.shape) == 2:
        return 1, False
    last = space.shape[2] < space.shape[0]
    return space.shape[2 if last else 0], last


def width(space: Space[Any]) -> int:
    """Numbers that a network sees of a leaf which is no image."""
    if isinstance(space, Discrete):
        return int(space.n)
    if isinstance(space, MultiDiscrete):
        return int(space.nvec.sum())
    return int(np.prod(space.shape or (1,)))


def normalised(space: Space[Any]) -> bool:
    """Whether a leaf is shifted and scaled by its running mean and deviation: numbers, and no choices or pixels."""
    return isinstance(space, Box) and not is_image(space)


def action_parameters(space: Space[Any]) -> int:
    """Numbers that a network gives for the distribution over a space's actions.

    Raises:
        ConfigError: The space is not supported.
    """
    if isinstance(space, Discrete):
        return int(space.n)
    if isinstance(space, MultiDiscrete):
        return int(space.nvec.sum())
    if isinstance(space, MultiBinary):
        return int(np.prod(space.shape))
    if isinstance(space, Box) and np.issubdtype(space.dtype, np.floating):
        return int(np.prod(space.shape))
    raise ConfigError(
        f"action space {space}: is not supported; Discrete, MultiDiscrete, MultiBinary and Box of floats are"
    )
