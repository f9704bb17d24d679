"""What each node is to the master: at work, silent, a spare, lost or gone."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping


class Place(enum.Enum):
    """What a node is to the master."""

    WORKS = enum.auto()
    SILENT = enum.auto()
    """It works, perhaps, but is not waited for until it is heard."""
    SPARE = enum.auto()
    """It waits to take the place of one that is lost."""
    COMES = enum.auto()
    """It was started in the place of a lost one, and has not pulled yet."""
    LOST = enum.auto()
    LEFT = enum.auto()
    """It has heard of the end and said its last word."""


class Places(dict[int, Place]):
    """The place of each node, and how many are in each place, which is asked with every message."""

    def __init__(self, places: Mapping[int, Place]) -> None:
        super().__init__(places)
        self.count = Counter(self.values())

    def __setitem__(self, node: int, place: Place) -> None:
        self.count[self[node]] -= 1
        self.count[place] += 1
        super().__setitem__(node, place)
