"""The slices of v that masters hold."""

from __future__ import annotations

import itertools

from hsa2c.errors import ConfigError


def parts(dim: int, masters: int) -> list[slice]:
    """Each master's slice of a vector of length `dim`: contiguous, in order, their lengths at most one apart.

    Raises:
        ConfigError: There are more masters than numbers.
    """
    if masters > dim:
        raise ConfigError(f"cluster.masters = {masters}: v has {dim} numbers, must be at most {dim}")
    ends = [dim * k // masters for k in range(masters + 1)]
    return [slice(begin, end) for begin, end in itertools.pairwise(ends)]
