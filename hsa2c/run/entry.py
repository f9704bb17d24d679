"""A process that the launcher or mpiexec starts: the job itself, or a stand-in for it (`hsa2c.run.fork_server`)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hsa2c.cluster.world import EXIT_RECORD, MASTERS, REPLACES, find_world
from hsa2c.node.lifetime import leave_signals_to_the_launcher
from hsa2c.run.fork_server import ADDRESS, stand_in


def main(arguments: list[str]) -> int:
    """Be this process's part of the job; gives back the exit code."""
    if EXIT_RECORD in os.environ:  # of a launcher; mpiexec gives its ranks the signals' defaults
        leave_signals_to_the_launcher()
    world = find_world()
    address = os.environ.get(ADDRESS)
    is_node = REPLACES in arguments or world.rank >= int(os.environ.get(MASTERS, "1"))
    # Of another host: a batch system's agent may have brought the variable there, but not the folder.
    if address is not None and (private := Path(address).parent).exists():
        os.environ |= {"OMPI_MCA_btl_sm_backing_directory": str(private)}  # it is removed, whoever is killed
        if is_node or world.rank == 0:  # another master needs no torch
            return stand_in(address, arguments, master=not is_node)
    from hsa2c.run import process as job

    return job.main(arguments)


if __name__ == "__main__":
    exit_code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is written and every child has ended. Taking Python and torch apart in good order as well costs seconds
    # of a core in each of forty ranks, and nobody sees it.
    os._exit(exit_code)
