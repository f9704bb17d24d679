"""A real Slurm, private to a test: a controller, and a daemon on each of some emulated hosts."""

import contextlib
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

from bench.testbed import emulated_hosts
from hsa2c.node.lifetime import die_with_parent
from tests.processes import environment, wait_until

TOOLS = ("munged", "slurmctld", "slurmd", "salloc", "sbatch", "scancel", "scontrol", "sinfo", "srun")
PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
LIMIT_S = 30.0  # for what takes a second or two

# cred_expire: a job that was put back into the queue waits as long, by default two minutes.
CONFIG = """\
ClusterName=test
SlurmctldHost={controller}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=1,bf_interval=1
MailProg=/bin/true
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not():
    """Why there can be no such Slurm here; None if there can."""
    missing = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
    return f"needs {', '.join(missing)} of slurm-wlm and munge" if missing else emulated_hosts.why_not()


@contextlib.contextmanager
def slurm(hosts, folder, *, cpus):
    """Slurm on these hosts; gives back what to put before a command that is to be typed on the first of them."""
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    config = folder / "slurm.conf"
    nodes = [f"NodeName={name} NodeAddr={hosts.addresses[name]} CPUs={cpus} State=UNKNOWN" for name in hosts.names]
    first = hosts.names[0]
    controller = f"{first}({hosts.addresses[first]})"
    config.write_text(CONFIG.format(folder=folder, controller=controller, nodes="\n".join(nodes)))
    socket = folder / "munge.socket"
    files = [f"--{kind}-file={folder}/munge.{kind}" for kind in ("pid", "log", "seed")]
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((folder / "daemons.log").open("w"))
        start = lambda *command: stack.enter_context(daemon(command, log, SLURM_CONF=str(config), PATH=PATH))
        start("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={socket}", *files)
        wait_until(socket.exists, "munged", LIMIT_S)
        start(*hosts.inside(first), "slurmctld", "-D", "-c")
        for name in hosts.names:
            start(*hosts.inside(name), "slurmd", "-D")
        client = [*hosts.inside(first), f"SLURM_CONF={config}"]
        sinfo = [*client, "sinfo", "--noheader", "--Node", "--format=%t"]
        ask = partial(subprocess.run, sinfo, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        wait_until(lambda: ask().stdout.split() == ["idle"] * len(hosts.names), "every node to be idle", LIMIT_S)
        yield client


@contextlib.contextmanager
def daemon(command, log, **variables):
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment(**variables),
        cwd=Path(log.name).parent,
        preexec_fn=partial(die_with_parent, os.getpid()),
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
