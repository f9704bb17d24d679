"""What DPSGD needs to know of a problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class Problem:
    """A stochastic objective, as one actor-learner process sees it.

    A problem is made in the process that uses it, and nothing of it is shared: whatever must be is in `u`. One of your
    own writes `gradient`; the rest may stay.
    """

    def gradient(self, u_hat: Any, interrupted: Callable[[], bool]) -> Any | None:
        """A stochastic gradient at `u_hat`: line 5 of Algorithm 2.

        Args:
            u_hat: The private copy of the local parameter, constant during the call: a torch.Tensor, float32 [dim], or
                what the layout of this problem reads (`hsa2c.node.layout`).
            interrupted: Says that the run is stopping. A gradient that takes seconds asks it now and then; `report` may
                be called meanwhile, and tells what has happened up to then.

        Returns:
            What the layout's step takes: a torch.Tensor, float32 [dim], the problem's own buffer, valid until the next
            call; None if interrupted.
        """
        raise NotImplementedError

    @property
    def gathers(self) -> bool:
        """Whether the next gradient begins with gathering data for itself and others, which takes longer."""
        return False

    @property
    def gathered_for(self) -> int:
        """Gradients that the data of one gathering are for; 0: all gradients are alike."""
        return 0

    def share(self, scratch: dict[str, Any]) -> None:
        """Put into `scratch`, or take from there, memory that holds nothing from one gradient to the next.

        Only a simulation calls it, where many problems of a run live in one process (`hsa2c.simulation.gradients`). It
        asks one after the other, and is done with a gradient before it asks another problem.
        """

    def report(self) -> Mapping[str, Any]:
        """What happened since the last call, as JSON values by name; the application's tracker at the master reads it.

        The base tracker (`hsa2c.tracker.Tracker`) shows the mean of each number.
        """
        return {}

    def close(self) -> None:
        """Release what is not memory."""
