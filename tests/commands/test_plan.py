"""The command that plans clusters: table, picture, JSON, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from hsa2c.commands import plan

PNG = b"\x89PNG\r\n\x1a\n"
SMALL = [
    "--nodes",
    "2,20",
    "--cores",
    "2",
    "--B",
    "1,auto",
    "--masters",
    "1,4",
    "--minutes",
    "0.2",
    "--exchanges",
    "500",
]
ONE = ["--masters", "1", "--B", "1"]  # of each; the last of two options counts


@pytest.mark.slow
def test_table_and_picture(tmp_path, capsys):
    output = tmp_path / "out" / "plan.png"
    assert plan.main([*SMALL, "--output", str(output)]) == 0
    out, err = capsys.readouterr()
    head, *lines, last = out.splitlines()
    assert head.split()[:3] == ["masters", "B", "nodes"]
    assert [line.split()[:3] for line in lines] == [
        [masters, B, nodes] for masters in ("1", "4") for B in ("1", "auto") for nodes in ("2", "20")
    ]
    assert "help no more beyond 9: the master's processor; an exchange takes longer than B updates" in lines[1]
    assert "help up to" in lines[0]
    assert last == str(output)
    assert output.read_bytes().startswith(PNG)
    assert [line.split()[:3] for line in err.splitlines()] == [[str(done), "of", "8"] for done in range(1, 9)]
    assert err.count(": 20 nodes, B = auto, masters = 4: ") == 1


def test_the_table_is_the_same_however_many_processes_there_are(tmp_path, capsys):
    tables = []
    for jobs in ("1", "3"):
        assert (
            plan.main([*SMALL, *ONE, "--exchanges", "200", "--jobs", jobs, "--output", str(tmp_path / "plan.png")]) == 0
        )
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]


def test_no_picture_unless_asked_for(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--nodes", "2", "--cores", "2", "--B", "8", "--masters", "1", "--minutes", "0.1"]
    assert plan.main(arguments) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert plan.main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["picture"] is None
    assert not list(tmp_path.iterdir())


def test_json_is_one_object(tmp_path, capsys):
    output = tmp_path / "plan.svg"
    assert plan.main([*SMALL, *ONE, "--json", "--node-ms", "0", "--output", str(output)]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(word))
    assert found["picture"] == str(output)
    line = found["lines"][0]
    assert (line["nodes"], line["B"], line["masters"], line["ended"]) == (2, 1, 1, None)
    assert line["then_busy"] == "master's processor"
    assert 0 < line["speed_share"] <= 1.05
    assert line["agent_steps_per_s"] == pytest.approx(2 * 2 * 48 / 0.03, rel=0.05)


def test_measured_times_of_updates(tmp_path, capsys):
    times = tmp_path / "times.txt"
    times.write_text("10\n20.0\n30\n")
    arguments = ["--nodes", "2", "--cores", "2", "--B", "8", "--masters", "1", "--minutes", "0.5", "--json"]
    assert plan.main([*arguments, "--update-times", str(times), "-o", str(tmp_path / "plan.png")]) == 0
    (line,) = json.loads(capsys.readouterr().out)["lines"]
    assert line["agent_steps_per_s"] == pytest.approx(2 * 2 * 48 / 0.02, rel=0.03)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--nodes", "0"], "--nodes 0: must be whole numbers from 1 to 100000 with commas between, '0' is not"),
        (["--nodes", "40,,4"], "--nodes 40,,4: must be whole numbers from 1 to 100000 with commas between, '' is not"),
        (
            ["--masters", "auto"],
            "--masters auto: must be whole numbers from 1 to 1000 with commas between, 'auto' is not",
        ),
        (["--B", "x"], "--B x: must be whole numbers or auto from 1 to 1000000 with commas between, 'x' is not"),
        (["--link", "10Gbit"], "--link 10Gbit: must be such as 10Gbit,0.1ms or 100Mbit,2ms"),
        (["--link", "10GB,1ms"], "--link 10GB,1ms: must be such as 10Gbit,0.1ms or 100Mbit,2ms"),
        (["--link", "0Gbit,1ms"], "--link 0Gbit,1ms: must be such as 10Gbit,0.1ms or 100Mbit,2ms"),
        (["--link", "nanGbit,1ms"], "--link nanGbit,1ms: must be such as 10Gbit,0.1ms or 100Mbit,2ms"),
        (["--master-link", "fast"], "--master-link fast: must be such as 40Gbit"),
        (["--update-ms", "0"], "--update-ms 0: must be at least 0.001, at most 1e+07"),
        (["--jobs", "0"], "--jobs 0: must be at least 1, at most 1000"),
        (["--minutes", "nan"], "--minutes nan: must be at least 0.001, at most 100000"),
        (["--stragglers", "0.1"], "--stragglers 0.1: must be 2 numbers with a comma between"),
        (["--stragglers", "2,3"], "--stragglers 2: must be at least 0, at most 1"),
        (["--output", "plan.xyz"], "plan.xyz: cannot write .xyz; known are"),
        (["--update-times", "nowhere"], "nowhere: cannot be read: No such file or directory"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert plan.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"hsa2c plan: {line}")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_without_greenlet_it_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setattr(plan.importlib.util, "find_spec", lambda name: None)
    assert plan.main([]) == 2
    assert capsys.readouterr().err == "hsa2c plan: needs greenlet: pip install 'hsa2c[plan]'\n"


@pytest.fixture
def ctrl_c_is_heard():
    """Where the tests run in the background of a script, Ctrl-C is ignored there, and so by every child."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    "everybody",
    [
        pytest.param(True, id="a terminal tells everybody"),
        pytest.param(False, id="one is told", marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("ctrl_c_is_heard")
def test_ctrl_c_is_one_line(tmp_path, everybody):
    command = [sys.executable, "-m", "hsa2c", "plan", "--jobs", "2", "--exchanges", "1000000000", "--nodes", "9,4000"]
    process = subprocess.Popen(
        [*command, "-o", str(tmp_path / "plan.png")], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        children: list[psutil.Process] = []
        while len(children) < 2:
            assert process.poll() is None
            children = psutil.Process(process.pid).children()
        (os.killpg if everybody else os.kill)(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert err == "hsa2c plan: interrupted\n"
    assert not any(child.is_running() for child in children)
    assert not (tmp_path / "plan.png").exists()
