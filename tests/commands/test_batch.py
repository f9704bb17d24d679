"""``train.py --slurm``: the file that is shown and written, and what is refused. `tests/test_slurm.py` submits one."""

import shlex
import stat
import sys
from pathlib import Path

import pytest

from hsa2c.commands import train

TRAIN = str(Path(train.__file__).resolve().parents[2] / "train.py")
ALLOCATION = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]"}


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch, tmp_path):
    def started(*_):
        pytest.fail("a job was started")

    monkeypatch.setattr(train, "launch", started)
    monkeypatch.setattr(train, "join", started)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))  # no sbatch of this machine's
    (tmp_path / "bin").mkdir()
    for name in ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_JOB_ID", "PBS_NODEFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def sbatch(tmp_path):
    path = tmp_path / "bin/sbatch"
    path.write_text('#!/bin/sh\necho "Submitted batch job 7 of $*"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def lines_of(text):
    return text.splitlines()


def command_in(text):
    (line,) = [line for line in lines_of(text) if line.endswith(" &")]
    return shlex.split(line.removesuffix(" &"))


def test_file_is_shown_and_written_where_the_run_will_be(tmp_path, capsys):
    typed = ["--game", "SpaceInvaders", "--nodes", "40", "--B", "8", "--set", "agent={num_envs: 2}"]
    assert train.main([*typed, "--name", "first", "--slurm", "partition=long,time=600", "--slurm=account=a"]) == 0
    out, err = capsys.readouterr()
    assert out == Path("runs/first/job.sbatch").read_text()
    assert err == "written to runs/first/job.sbatch; submit it with: sbatch runs/first/job.sbatch\n"
    asked = ("nodes=40", "ntasks-per-node=1", "partition=long", "time=600", "account=a", "signal=B:USR1@120")
    assert {f"#SBATCH --{option}" for option in asked} <= set(lines_of(out))
    assert command_in(out) == [sys.executable, TRAIN, *typed, "--name", "first", "--go-on"]
    assert f"cd {tmp_path} || exit 2" in lines_of(out)
    assert [path.name for path in Path("runs/first").iterdir()] == ["job.sbatch"]


def test_a_run_without_a_name_gets_one(capsys):
    assert train.main(["--slurm", "time=600", "--nodes", "3", "--spares", "1"]) == 0
    (file,) = Path("runs").glob("*/job.sbatch")
    out = capsys.readouterr().out
    assert command_in(out)[2:] == ["--nodes", "3", "--spares", "1", "--name", file.parent.name, "--go-on"]
    assert "#SBATCH --nodes=4" in lines_of(out), "a host for the spare too"


def test_file_may_be_written_again_until_the_run_has_begun(capsys):
    for limit in ("1", "2"):
        assert train.main(["--name", "first", "--slurm", f"time={limit}"]) == 0
    assert "#SBATCH --time=2" in lines_of(Path("runs/first/job.sbatch").read_text())
    Path("runs/first/config.yaml").touch()
    capsys.readouterr()
    assert train.main(["--name", "first", "--slurm", "time=3"]) == 2
    said = "train.py: runs/first: exists; --resume runs/first goes on with it, --name starts another\n"
    assert capsys.readouterr().err == said


def test_job_that_goes_on_with_a_run(make_run, capsys, tmp_path):
    run = make_run()
    assert train.main(["--resume", str(run), "--slurm", "time=1", "--nodes", "2"]) == 0
    assert command_in(capsys.readouterr().out)[2:] == ["--resume", str(run), "--nodes", "2"]


def test_submitted_when_asked(sbatch, capsys):
    assert train.main(["--name", "first", "--slurm", "time=1", "--submit"]) == 0
    said = "written to runs/first/job.sbatch; Submitted batch job 7 of runs/first/job.sbatch\n"
    assert capsys.readouterr().err == said
    assert "--submit" not in Path("runs/first/job.sbatch").read_text()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--submit", "train.py: --submit: says nothing without --slurm partition=...,time=..."),
        (
            "--slurm time=1 --submit",
            "train.py: --submit: sbatch is not here; without --submit the file is written all the same",
        ),
        (
            "--slurm time=1 --hosts y",
            "train.py: --hosts y: Slurm chooses the hosts (--slurm nodelist=... of some)",
        ),
        (
            "--slurm time=1 --set cluster.hosts=/dev/null --set cluster.nodes=1",
            "train.py: /dev/null: names no host",
        ),
        ("--slurm time=1 --nodes 0", "train.py: cluster.nodes = 0: must be greater than or equal to 1"),
        (
            "--slurm time=1 --game Pogn",
            "train.py: game = 'Pogn': no such game; did you mean Pong, Pooyan or Phoenix?",
        ),
        ("--slurm nodes=3", "train.py: --slurm nodes=3: must be 1, one for each node of the run"),
        ("--slurm array=1-3", "train.py: --slurm array: cannot be, all its tasks would train in one directory"),
        (
            "--slurm time=x",
            "train.py: --slurm time=x: must be minutes, hours:minutes:seconds or days-hours:minutes:seconds",
        ),
        ("--go-on", "train.py: --go-on: needs the run's --name"),
    ],
)
def test_bad_input_is_one_line(refused, arguments, line):
    assert refused(train.main, *arguments.split()) == line


def test_in_a_world_of_mpi_nothing_is_submitted(refused, monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "3")
    assert refused(train.main, "--slurm", "partition=x").startswith("train.py: --slurm: this is a world of MPI already")


def test_tasks_without_mpi_are_told_of_once(refused, monkeypatch, capsys):
    for name, value in (ALLOCATION | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}).items():
        monkeypatch.setenv(name, value)
    assert refused(train.main).startswith("train.py: srun has started 2 tasks without MPI")
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert train.main([]) == 2
    assert capsys.readouterr().err == ""


def test_it_does_not_matter_where_it_is_typed(refused, monkeypatch, capsys, tmp_path):
    for name, value in ALLOCATION.items():
        monkeypatch.setenv(name, value)
    assert train.main(["--name", "first", "--nodes", "5", "--slurm", "time=1"]) == 0
    assert "#SBATCH --nodes=5" in lines_of(capsys.readouterr().out)
    (tmp_path / "hosts").write_text("a\n")
    line = refused(train.main, "--slurm", "time=1", "--set", f"cluster.hosts={tmp_path}/hosts")
    assert line == f"train.py: cluster.hosts = '{tmp_path}/hosts': Slurm chooses the hosts, must be null"
