"""A run as a job of a real Slurm on two emulated hosts: told to stop, put back into the queue, and gone on with."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.testbed.emulated_hosts import EmulatedHosts
from hsa2c.cluster.allocation import expand
from hsa2c.cluster.machine import cores
from hsa2c.observe.runlog import read_rows
from hsa2c.run import checkpoint as checkpoints
from tests.processes import REPOSITORY, SHORT_GAMES, TINY, environment, wait_until
from tests.slurm_cluster import LIMIT_S, PATH, slurm, why_not

WHY_NOT = why_not()

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(WHY_NOT is not None, reason=f"no Slurm: {WHY_NOT}"),
]

CPUS = max(2, cores())  # that Slurm believes its nodes to have


@dataclass
class Cluster:
    """Commands typed on its first host."""

    client: list
    folder: Path

    def type(self, *command):
        return subprocess.run(
            [*self.client, *map(str, command)],
            cwd=REPOSITORY,
            env=environment(PATH=PATH),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    def train(self, *options, starter=()):
        settings = ("--run-dir", self.folder, "--name", "run", "--B", 2, *TINY, *SHORT_GAMES)
        return self.type(*starter, sys.executable, "train.py", *settings, *options)

    def job(self):
        words = self.type("scontrol", "show", "job", 1, "--oneliner").stdout.split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def events(self, kind, session):
        path = self.folder / "run/journal.jsonl"
        rows = read_rows(path) if path.exists() else []
        return [row for row in rows if row["kind"] == kind and row["session"] == session]

    def wait_for(self, kind, session):
        wait_until(lambda: self.events(kind, session) or "failed" in self.output(), kind)
        assert self.events(kind, session), self.output()

    def output(self):
        path = self.folder / "run/slurm.txt"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def cluster(tmp_path):
    (folder := tmp_path / "slurm").mkdir()
    with EmulatedHosts(2) as hosts, slurm(hosts, folder, cpus=CPUS) as client:
        yield Cluster(client, tmp_path / "runs")


@pytest.mark.slow
def test_a_job_stops_when_it_is_told_and_goes_on_in_the_same_run(cluster):
    submitted = cluster.train("--nodes", 2, "--slurm", "time=10,comment=two hosts", "--submit")
    assert submitted.returncode == 0, submitted.stderr
    assert submitted.stdout == (cluster.folder / "run/job.sbatch").read_text()
    assert submitted.stderr.endswith("Submitted batch job 1\n")

    cluster.wait_for("checkpoint", session=1)
    job = cluster.job()
    assert (job["JobName"], job["NumNodes"], job["Requeue"], job["OverSubscribe"]) == ("run", "2", "1", "NO")
    ready = sorted(cluster.events("node_ready", 1), key=lambda event: event["node"])
    assert [event["host"] for event in ready] == ["h0", "h1"]
    assert [len(event["actor_learners"]) for event in ready] == [max(1, cores() - 1)] * 2

    # As before the end of its time, to the same process by the same way; that would be half a minute from here.
    assert cluster.type("scancel", "--batch", "--signal=USR1", 1).returncode == 0
    cluster.wait_for("stop", session=1)
    (stop,) = cluster.events("stop", 1)
    assert stop["message"] == "asked to stop"
    cluster.wait_for("training", session=2)
    (resume,) = cluster.events("resume", 2)
    assert resume["checkpoint"] == stop["checkpoint"]
    assert (cluster.job()["Restarts"], cluster.job()["JobState"]) == ("1", "RUNNING")
    assert len(cluster.events("node_ready", 2)) == 2

    # TERM to the shell alone: in good order, and for good.
    assert cluster.type("scancel", "--batch", "--signal=TERM", 1).returncode == 0
    wait_until(lambda: cluster.job()["JobState"] not in ("RUNNING", "COMPLETING"), "the job's end")
    assert (cluster.job()["JobState"], cluster.job()["ExitCode"]) == ("FAILED", "143:0"), cluster.output()
    (stop,) = cluster.events("stop", 2)
    checkpoint, path, _ = checkpoints.load_newest(cluster.folder / "run/checkpoints")
    assert (str(path), checkpoint.t) == (stop["checkpoint"], stop["global_steps"])


@pytest.mark.slow
def test_what_slurm_says_is_understood(cluster):
    # Tasks without MPI between them would be as many runs in one directory.
    alone = cluster.train(starter=("srun", "--nodes=2", "--exclusive"))
    assert alone.returncode == 2
    (line,) = [line for line in alone.stderr.splitlines() if not line.startswith("srun: ")]
    assert line.startswith("train.py: srun has started 2 tasks without MPI")
    assert not cluster.folder.exists()
    for text in ("n1", "n[1-3,07],gpu-[008-011]", "r[1-2]n[09-10,3]", "a,b", "x[5],y.z_1", "n[8-11]", "n[08-11,2]"):
        assert expand(text) == cluster.type("scontrol", "show", "hostnames", text).stdout.split(), text
    # Whether its hosts answer is asked by srun.
    ask = "from hsa2c.cluster import allocation as a, hosts; print(*(h.name for h in hosts.answering(a.find().hosts)))"
    asked = cluster.type("salloc", "--nodes=2", "--ntasks-per-node=1", "--exclusive", sys.executable, "-c", ask)
    assert asked.stdout == "h0 h1\n", asked.stderr
    # sbatch reads the lines that we write.
    cluster.train("--slurm", 'time=1-02:03:00,comment=a b|c & (d),mail-type="END,FAIL"')
    assert cluster.type("sbatch", "--hold", cluster.folder / "run/job.sbatch").returncode == 0
    job = cluster.type("scontrol", "show", "job", 3).stdout
    for said in ("TimeLimit=1-02:03:00 ", "Comment=a b|c & (d)", f"StdOut={cluster.folder}/run/slurm.txt\n"):
        assert said in job
