"""The doctor over emulated hosts, healthy ones and such with faults."""

import json
import re
import subprocess
import sys
from pathlib import Path

import ale_py
import pytest

import hsa2c
from bench.testbed.emulated_hosts import EmulatedHosts, why_not
from tests.doctor.conftest import TINY
from tests.processes import environment

WHY_NOT = why_not()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(200),
    pytest.mark.skipif(WHY_NOT is not None, reason=f"hosts cannot be emulated: {WHY_NOT}"),
]


IMPATIENT = """
import sys
from hsa2c.commands import doctor
from hsa2c.doctor import examination
examination.FIRST_S, examination.TRIAL_S = 12.0, 1.0
sys.exit(doctor.main(sys.argv[1:]))
"""


def examine(hosts, tmp_path, *options):
    """The doctor's exit code, its object, and the lines of its findings, run on the first host."""
    file = tmp_path / "hosts"
    file.write_text("".join(f"{name}\n" for name in hosts.names))
    command = [sys.executable, "-c", IMPATIENT, "--hosts", file, "--run-dir", tmp_path / "runs", "--json"]
    run = subprocess.run(
        [*hosts.inside("h0"), *map(str, command), *TINY, "--p", "1", *options],
        env=environment(**hosts.environment),
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert run.returncode in {0, 1}, run.stderr
    return run.returncode, json.loads(run.stdout), run.stderr


def of(found, check):
    return {each["host"]: (each["level"], each["text"]) for each in found["findings"] if each["check"] == check}


def on(hosts, name, *command):
    subprocess.run([*hosts.inside(name), *map(str, command)], check=True, timeout=30)


def test_healthy_hosts(tmp_path):
    with EmulatedHosts(2) as hosts:
        hosts.shape("h1", bits_per_s=1e8)
        code, found, lines = examine(hosts, tmp_path)
        assert [hosts.processes(name) for name in hosts.names] == [[], []]
        assert [hosts.shared_memory(name) for name in hosts.names] == [[], []]
    assert code == 0 and found["safe"], lines
    assert of(found, "hosts")[""] == ("ok", "all 2 answer")
    for check in ("ranks", "code", "versions", "game", "run directory"):
        assert of(found, check)[""][1].endswith("on 2 hosts")
    assert of(found, "clock")[""][0] == "ok"
    # 2.7 MB there and back in 432 ms at least.
    assert 0.4 < found["prediction"]["links"]["h1"]["trip_s"] < 1.0
    assert re.search(r"\(0\.(09\d?|1) Gbit/s, latency", of(found, "network")[""][1])
    assert found["prediction"]["agent_steps_per_s"] > 0
    assert not (tmp_path / "runs").exists(), "what it made is gone"


def test_faults_are_found_on_the_hosts_that_have_them(tmp_path):
    runs, package = tmp_path / "runs", Path(hsa2c.__file__).parent
    runs.mkdir()
    other = tmp_path / "errors.py"
    other.write_text((package / "errors.py").read_text() + "# changed\n")
    with EmulatedHosts(6) as hosts:
        on(hosts, "h1", "mount", "--bind", other, package / "errors.py")
        on(hosts, "h2", "mount", "-t", "tmpfs", "none", runs)
        on(hosts, "h3", "mount", "-t", "tmpfs", "none", Path(ale_py.__file__).parent / "roms")
        on(hosts, "h4", "sh", "-c", f"mount --bind {runs} {runs} && mount -o remount,bind,ro {runs}")
        hosts.kill_host("h5")
        code, found, lines = examine(hosts, tmp_path)
    assert code == 1 and not found["safe"]
    assert of(found, "host") == {"h5": ("problem", "does not answer")}
    assert of(found, "ranks")[""] == ("ok", "start on 5 hosts")
    ((name, (level, text)),) = of(found, "code").items()
    assert (name, level) == ("h1", "problem") and text.startswith("differs from this host's (")
    assert of(found, "run directory") == {
        "h2": ("problem", f"{runs}: is not the launcher's"),
        "h4": ("problem", f"{runs}: cannot be written: Read-only file system"),
    }
    ((name, (level, text)),) = of(found, "game").items()
    assert (name, level) == ("h3", "problem") and "no such game" in text
    assert "problem  h5, host: does not answer; see that `ssh HOST true` works" in lines
    assert set(found["prediction"]["links"]) == {"h0", "h2", "h3", "h4"}, "the others are measured all the same"
    assert of(found, "exchanges")[""][0] == "ok"
    assert list(runs.iterdir()) == []


def test_host_that_mpiexec_cannot_start_a_rank_on(tmp_path):
    """ssh's stand-in needs no network, so the host answers; but what starts there cannot report back."""
    with EmulatedHosts(2) as hosts:
        on(hosts, "h1", "ip", "link", "set", "eth0", "down")
        code, found, _ = examine(hosts, tmp_path)
    assert code == 1
    assert of(found, "hosts")[""] == ("ok", "all 2 answer")
    level, text = of(found, "ranks")["h1"]
    assert level == "problem" and text.startswith("mpiexec cannot start one there: ")
    assert set(found["prediction"]["links"]) == {"h0"}, "the other is looked at all the same"
