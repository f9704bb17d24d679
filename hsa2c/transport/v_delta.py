"""What goes from the master to a node that pulls: v, or what is new in it, or nothing.

Where deltas are rounded, so is what is new in v. The master keeps v_hat, which is what nodes have:

    v_hat_t = v_hat_s + Q(v_t - v_hat_s)        s: the t that was served before

What Q takes away stays in v - v_hat, and is in the next difference: error feedback at the server (DoubleSqueeze, Tang
et al. 2019). A node adds the same float32 numbers in the same order, so it has v_hat to the last bit. A node that has
v_hat_s gets Q's bytes, one that has v_hat_t nothing, and any other (it comes new, or was slower than a global step)
v_hat_t as float32. If the first that asks for v_t is of that kind, v_hat_t is v_t itself. Memory does not grow with
the number of nodes: one Q and one v_hat are kept.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from hsa2c.dpsgd.protocols import Vector
from hsa2c.transport.codec import Encoded, Encoding, encode, plain


class What(enum.Enum):
    """What an answer holds."""

    WHOLE = enum.auto()
    """v_hat, float32."""
    STEP = enum.auto()
    """What is to be added to the node's."""
    SAME = enum.auto()
    """Nothing: the node has it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """To one pull. The numbers do not change while they are under way; None if there are none."""

    what: What
    numbers: Encoded | None


class Serving:
    """The master's side.

    Args:
        encoding: Of the steps; float32: there are none, and v_hat is v.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._t: int | None = None
        self.v_hat: Vector | None = None
        self._lent = False  # v_hat may be on its way to somebody
        self._step: tuple[int, Encoded] | None = None  # the t that it is added to

    def answer(self, v: Vector, t: int, has: int) -> Answer:
        """What a node gets that has v_hat of global step `has`; -1: none."""
        if t != self._t:
            self._advance(v, t, has)
        assert self.v_hat is not None
        if has == t:
            return Answer(What.SAME, None)
        if self._step is not None and has == self._step[0]:
            return Answer(What.STEP, self._step[1])
        self._lent = True
        return Answer(What.WHOLE, plain(self.v_hat))

    def _advance(self, v: Vector, t: int, has: int) -> None:
        before, self._t, self._step = self._t, t, None
        if before is None or has != before or self._encoding is Encoding.FLOAT32 or self.v_hat is None:
            if self.v_hat is None or self._lent:
                self.v_hat = v.copy()
            else:
                np.copyto(self.v_hat, v)
        else:
            step = encode(v - self.v_hat, self._encoding)
            if self._lent:
                self.v_hat = self.v_hat.copy()
            follow(self.v_hat, step)
            self._step = (before, step)
        self._lent = False


def follow(v_hat: Vector, step: Encoded) -> None:
    """What a `STEP` does to v_hat, float32 [dim], in place, at the master and at a node."""
    step.add_to(v_hat)
