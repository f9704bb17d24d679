"""MPI transport: the first ranks are masters, mostly one; after them, in order, nodes. The only package that imports
mpi4py.

Where the library has ULFM (Open MPI's ``mpiexec --with-ft ulfm``), the death of a rank is an error that the next call
returns, and the others go on. A node that is lost can be replaced on the master's host by one that MPI spawns, which is
rank 0 of a world of its own, joined to the master's.

A message is one contiguous buffer of bytes (`hsa2c.transport.mpi.frames`). Only what answers a pull has its numbers in
a message of their own, after the header's: they are the same for many nodes, while the rate in the header is not, and
arrive where they are needed. All goes by upper-case calls, so nothing is pickled. Nobody blocks inside MPI, where
waiting burns a core: everything is probed and tested now and then (`hsa2c.transport.waiting`).

Import this after the node's actor-learners were forked: a process that has called MPI_Init must not fork.
"""

import warnings

import mpi4py

mpi4py.rc.initialize = False
mpi4py.rc.finalize = False
# Whoever starts MPI looks at the world that it gets; each of forty ranks need not say it.
warnings.filterwarnings("ignore", "suspicious MPI execution environment", RuntimeWarning)

from hsa2c.transport.mpi.frames import Frame, decode, encode  # noqa: E402
from hsa2c.transport.mpi.lifecycle import abort, finish, library, start, survives  # noqa: E402
from hsa2c.transport.mpi.link import MPILink  # noqa: E402
from hsa2c.transport.mpi.master import MPIMaster  # noqa: E402
from hsa2c.transport.mpi.worker import MPIWorker  # noqa: E402

__all__ = [
    "Frame",
    "MPILink",
    "MPIMaster",
    "MPIWorker",
    "abort",
    "decode",
    "encode",
    "finish",
    "library",
    "start",
    "survives",
]
