"""MPI in this process: its start, its end, and which library it is."""

from __future__ import annotations

from mpi4py import MPI


def start() -> tuple[int, int]:
    """Initialise MPI in this process.

    Returns:
        This rank and the number of ranks.
    """
    if not MPI.Is_initialized():
        MPI.Init()
    world = MPI.COMM_WORLD
    return world.Get_rank(), world.Get_size()


def finish() -> None:
    """Leave MPI in good order: every rank calls it, or none. Not after a rank has died or was spawned: it may hang."""
    MPI.Finalize()


def abort(code: int) -> None:
    """End every rank of the job now."""
    MPI.COMM_WORLD.Abort(code)


def library() -> str:
    """The MPI library in use, in words."""
    said = MPI.Get_library_version().split("\n")[0].split(",")[0].strip("\x00 ")
    return " ".join(said.replace("Version:", "").split())  # "MPICH Version:\t4.0.2"


def survives() -> bool:
    """Whether the library can go on after the death of a rank (ULFM); mpiexec must have been asked to as well."""
    try:
        MPI.COMM_WORLD.Get_failed()
    except (MPI.Exception, NotImplementedError):
        return False
    return True
