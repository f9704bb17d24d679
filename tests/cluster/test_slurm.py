"""The file for sbatch: what is in it, and what bash makes of it. `tests/test_slurm.py` gives it to a real Slurm."""

import os
import shlex
import signal
import stat
import subprocess
import sys

import pytest

from hsa2c.cluster.slurm import BatchJob, batch_file, parse, submit
from hsa2c.errors import ConfigError, HSA2CError
from tests.processes import environment, wait_until

LIMIT_S = 30


@pytest.fixture
def job(tmp_path):
    return lambda *command, nodes=2: BatchJob(
        nodes=nodes, directory=tmp_path / "runs/first", folder=tmp_path, command=command or ("true",)
    )


def options_of(text):
    lines = [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH ")]
    return {key: value if equals else None for key, equals, value in (line.partition("=") for line in lines)}


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        (["partition=long,time=1-00:00:00"], {"partition": "long", "time": "1-00:00:00"}),
        (["no-kill,exclude=n[1,3-4]", "account=x"], {"no-kill": None, "exclude": "n[1,3-4]", "account": "x"}),
        (['mail-type="END,FAIL",comment=a b'], {"mail-type": "END,FAIL", "comment": "a b"}),
        (["export=ALL,constraint=a&b|c"], {"export": "ALL", "constraint": "a&b|c"}),
        (["gres=gpu:a100:2,begin=now+1hour"], {"gres": "gpu:a100:2", "begin": "now+1hour"}),
    ],
)
def test_options_of_sbatch(texts, options):
    assert parse(texts) == options


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "--slurm '': must be options of sbatch, partition=NAME,time=1:00:00,..."),
        ("a=b,", "--slurm a=b,: must be options of sbatch, partition=NAME,time=1:00:00,..."),
        ("exclude=n[1", "--slurm exclude=n[1: must be options of sbatch, partition=NAME,time=1:00:00,..."),
        ("--time=1", "--slurm --time=1: must be a long option of sbatch, without its --, such as time=1:00:00"),
        ("time=1,TIME=2", "--slurm TIME=2: must be a long option of sbatch, without its --, such as time=1:00:00"),
        ("p=long", "--slurm p=long: must be a long option of sbatch, not its letter"),
        ("time=1,time=2", "--slurm time=2: time is there twice"),
    ],
)
def test_what_is_no_option(text, line):
    with pytest.raises(ConfigError) as refused:
        parse([text])
    assert str(refused.value) == line


@pytest.mark.parametrize("value", ["", "a\nb", "a'b", "a`b`", "$(a)", "a\\", "ä", "a\x00", 'a"b"', "a\n#SBATCH --x"])
def test_values_are_plain(value):
    with pytest.raises(ConfigError, match=r": the value must be letters, digits and .* on one line$") as refused:
        parse([f"comment={value}"])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("wanted", "line"),
    [
        ("array=1-3", "--slurm array: cannot be, all its tasks would train in one directory"),
        ("chdir=/", "--slurm chdir: cannot be, the job runs in the folder that this command was typed in"),
        ("wrap=ls", "--slurm wrap: cannot be, the file has its own command"),
        ("ntasks=3", "--slurm ntasks: cannot be, there is one task on each node, and their number is --nodes"),
        ("nodes=3", "--slurm nodes=3: must be 2, one for each node of the run"),
        ("ntasks-per-node=2", "--slurm ntasks-per-node=2: must be 1, one for each node of the run"),
        ("signal=USR1@60", "--slurm signal=USR1@60: must be B:USR1@SECONDS, to this file's shell"),
        ("time=soon", "--slurm time=soon: must be minutes, hours:minutes:seconds or days-hours:minutes:seconds"),
    ],
)
def test_what_contradicts_the_job(job, wanted, line):
    with pytest.raises(ConfigError) as refused:
        batch_file(job(), parse([wanted]))
    assert str(refused.value) == line


def test_what_the_job_needs(job, tmp_path):
    asked = options_of(batch_file(job(nodes=40), parse(["partition=long,nodes=40,ntasks=40,comment=a b"])))
    assert asked == {
        "job-name": "first",
        "nodes": "40",
        "ntasks-per-node": "1",
        "signal": "B:USR1@120",
        "output": f"{tmp_path}/runs/first/slurm.txt",
        "open-mode": "append",
        "exclusive": None,
        "requeue": None,
        "partition": "long",
        "comment": '"a b"',
    }
    # A whole node is asked for only where nobody says how much of it.
    assert "exclusive" not in options_of(batch_file(job(), parse(["cpus-per-task=28"])))
    given = batch_file(job(), parse(["no-requeue,signal=B:SIGUSR1@600,output=x"]))
    asked = options_of(given)
    assert (asked["signal"], asked["output"], "requeue" in asked) == ("B:SIGUSR1@600", "x", False)
    assert "scontrol" not in given


@pytest.mark.parametrize(
    ("limit", "notice"),
    [("1", 30), ("2:30", 75), ("3", 90), ("10", 120), ("0:0:20", 10), ("1-0", 120), ("0-0:1", 30), ("UNLIMITED", 120)],
)
def test_notice_is_at_most_half_the_time(job, limit, notice):
    assert options_of(batch_file(job(), {"time": limit}))["signal"] == f"B:USR1@{notice}"


# What bash makes of it.

_TRAINING = """
import os, signal, sys, time
from pathlib import Path
code = [0]
def stop(number, _):
    code[0] = 128 + number
for name in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(name, stop)
Path("arguments").write_text(repr(sys.argv[1:]))
Path("threads").write_text(os.environ["OMP_NUM_THREADS"])
deadline = time.monotonic() + 20
while not code[0] and time.monotonic() < deadline:
    time.sleep(0.01)
time.sleep(0.3)  # a stop takes its time
sys.exit(code[0])
"""


@pytest.fixture
def started(job, tmp_path, monkeypatch):
    """The file run by bash, as Slurm does, with a scontrol that writes down what it is told."""
    scontrol = tmp_path / "bin/scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\n')
    scontrol.chmod(scontrol.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "training.py").write_text(_TRAINING)
    script = tmp_path / "job.sbatch"
    variables = environment(PATH=f"{scontrol.parent}:{os.environ['PATH']}", SLURM_JOB_ID="7")
    running = []

    def started(*arguments):
        script.write_text(batch_file(job(sys.executable, "training.py", *arguments), {}))
        shell = subprocess.Popen(["bash", script], cwd="/", env=variables)
        running.append(shell)
        wait_until((tmp_path / "threads").exists, "the start", LIMIT_S)
        return shell

    yield started
    for shell in running:
        shell.kill()
        shell.wait()


def checkpoint(tmp_path):
    file = tmp_path / "runs/first/checkpoints/step-000000001.safetensors"
    file.parent.mkdir(parents=True)
    file.touch()


def test_job_is_queued_again_after_its_notice(started, tmp_path):
    arguments = ["--name", "a b", "$HOME", "it's", '"', "*", "\\", "`ls`", "new\nline", ""]
    checkpoint(tmp_path)
    shell = started(*arguments)
    shell.send_signal(signal.SIGUSR1)
    assert shell.wait(LIMIT_S) == 138
    assert (tmp_path / "told").read_text() == "requeue 7\n"
    assert (tmp_path / "arguments").read_text() == repr(arguments)
    assert (tmp_path / "threads").read_text() == "1"


@pytest.mark.parametrize(("number", "there"), [(signal.SIGTERM, True), (signal.SIGUSR1, False)])
def test_job_is_not_queued_again_when_cancelled_or_without_a_checkpoint(started, tmp_path, number, there):
    if there:
        checkpoint(tmp_path)
    shell = started()
    shell.send_signal(number)
    assert shell.wait(LIMIT_S) == 128 + number
    assert not (tmp_path / "told").exists()


def test_sbatch_is_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"^--submit: sbatch is not here; without --submit the file is written"):
        submit(tmp_path / "job")
    sbatch = tmp_path / "sbatch"
    sbatch.write_text('#!/bin/sh\necho "Submitted batch job 7 of $1"\n')
    sbatch.chmod(sbatch.stat().st_mode | stat.S_IXUSR)
    assert submit(tmp_path / "a b") == f"Submitted batch job 7 of {tmp_path}/a b"
    sbatch.write_text("#!/bin/sh\necho 'sbatch: error: invalid\npartition' >&2\nexit 1\n")
    with pytest.raises(HSA2CError, match=r"job: sbatch: error: invalid partition$") as refused:
        submit(tmp_path / "job")
    assert refused.value.exit_code == 1


def test_folder_is_quoted(tmp_path):
    folder = tmp_path / "it's (here) $HOME"
    text = batch_file(BatchJob(nodes=1, directory=tmp_path / "x", folder=folder, command=("true",)), {})
    assert f"cd {shlex.quote(str(folder))} || exit 2\n" in text
    with pytest.raises(ConfigError, match=r": no name for a file of sbatch$") as refused:
        batch_file(BatchJob(nodes=1, directory=tmp_path / "a\n#SBATCH", folder=folder, command=("true",)), {})
    assert "\n" not in str(refused.value)
