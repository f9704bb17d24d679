"""Several masters: each has a slice of v, and runs Algorithm 1 on it with the same nodes; for any transport.

    node                        lead (master 0)              followers (masters 1, 2, ...)
                                v, z of each slice ------------>
      pull  --------------------> slice 0 of v
      pull  ------------------------------------------------------> slice k of v
      push  --------------------> slice 0 of w
      push  ------------------------------------------------------> slice k of w
                                pull (for a checkpoint) -------->
                                <------------------------------- v, z of the slice
                                call (a spare is to work) ------>
                                stop --------------------------->
                                <------------------------------- leave: v, z, the last ones
                                stopped ------------------------>

A master knows its slice only: no two are in step, and the slices that a node puts together may be of different t, as if
parts of v had come a step sooner or later. Theory calls that a delay; each slice's own t goes with its part of the
delta, so that every master counts its own tau.

The lead alone has the monitor: curves, checkpoints, signals. A node reports to it. Each master finds by itself which
nodes are lost, and the rule of M holds in each; but which spare begins is the lead's decision.
"""

from hsa2c.transport.several_masters.follower import FollowerMonitor, follow
from hsa2c.transport.several_masters.lead import Followers
from hsa2c.transport.several_masters.link import MasterLink
from hsa2c.transport.several_masters.node import ShardedWorkerPort
from hsa2c.transport.several_masters.slices import parts

__all__ = ["FollowerMonitor", "Followers", "MasterLink", "ShardedWorkerPort", "follow", "parts"]
