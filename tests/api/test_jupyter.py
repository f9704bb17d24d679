"""Runs from a real Jupyter kernel: functions of its cells, progress in one output, callbacks, and its stop button."""

import re
import signal
import time

import nbformat
import psutil
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import hsa2c
from tests.api.scripts import PROBLEM
from tests.processes import PATIENCE_S, REPOSITORY, command_line, environment, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the libraries of Jupyter
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
SETUP = PROBLEM.replace("progress=False, ", "")
TRAIN = (
    "run = hsa2c.minimise(model, lambda m: loss(m), evaluate=distance, run_dir={folder!r}, updates={updates}, **how)"
)
CALLBACK = """
class Log(hsa2c.Callback):
    def on_row(self, run, row):
        row["own"] = 1
        print("row", row["updates"])
how["callbacks"] = [Log()]
"""


def executed(*cells, allow_errors=False):
    """A notebook of such cells, after a kernel has executed it."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(notebook, timeout=PATIENCE_S, kernel_name="python3", allow_errors=allow_errors)
    client.execute(env=environment(), cwd=str(REPOSITORY))
    return notebook


def shown(cell, mime="text/html"):
    return [output["data"][mime] for output in cell.outputs if mime in output.get("data", {})]


def streams(cell):
    return "".join(output["text"] for output in cell.outputs if output.output_type == "stream")


def test_a_notebook_trains_shows_and_calls_back(tmp_path):
    train = TRAIN.format(folder=str(tmp_path), updates=4000)
    show = "print(run.reason, model.x.round(decimals=2).tolist(), run.rows()[-1]['own'])"
    again = "run.resume(updates=6000, force=True)"
    notebook = executed(SETUP + CALLBACK, train, show, again)
    [page] = shown(notebook.cells[1])
    assert "minimise: 1 node x 1 actor-learner" in page
    assert re.search(r"4,000 updates", page)
    assert str(tmp_path / "run") in page
    assert "row 4000" in streams(notebook.cells[1])
    assert streams(notebook.cells[2]) == "4,000 updates (limit 4,000) [1.0, 1.0, 1.0] 1\n"
    [page] = shown(notebook.cells[3])
    assert "6,000 updates" in page
    run = hsa2c.Run(tmp_path / "run")
    assert run.rows()[-1]["updates"] == 6000
    assert not [process for process in psutil.process_iter() if str(tmp_path) in " ".join(command_line(process))]


def test_several_nodes_need_a_file(tmp_path):
    how = "how['nodes'] = 2"
    notebook = executed(SETUP, how, TRAIN.format(folder=str(tmp_path), updates=10), allow_errors=True)
    [error] = [output for output in notebook.cells[2].outputs if output.output_type == "error"]
    assert error.ename == "ConfigError"
    assert "other processes cannot find it" in error.evalue
    assert list(tmp_path.iterdir()) == []


def test_the_stop_button_ends_a_run_in_good_order(tmp_path):
    """It sends SIGINT to the kernel, as a callback does here; the kernel goes on."""
    button = f"""
import os, signal
class Press(hsa2c.Callback):
    pressed = False
    def on_checkpoint(self, run, path):  # also of the last one, which a second press would cut off
        if not self.pressed:
            self.pressed = True
            os.kill(os.getpid(), {int(signal.SIGINT)})
how["callbacks"] = [Press()]
"""
    call = TRAIN.format(folder=str(tmp_path), updates=10**9)
    caught = f"try:\n    {call}\nexcept KeyboardInterrupt:\n    print('stopped')"
    after = f"print(hsa2c.Run({str(tmp_path / 'run')!r}).reason)"
    notebook = executed(SETUP + button, caught, after)
    assert streams(notebook.cells[1]).endswith("stopped\n")
    assert streams(notebook.cells[2]) == "asked to stop\n"


def test_nothing_outlives_a_kernel_that_is_killed(tmp_path):
    die = f"""
import os
class Die(hsa2c.Callback):
    def on_checkpoint(self, run, path):
        open({str(tmp_path / "pids")!r}, "w").write(" ".join(map(str, pids())))
        os.kill(os.getpid(), 9)
def pids():
    import psutil
    return [child.pid for child in psutil.Process().children(recursive=True)]
how["callbacks"] = [Die()]
"""
    with pytest.raises((CellExecutionError, RuntimeError)):
        executed(SETUP + die, TRAIN.format(folder=str(tmp_path), updates=10**9))
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) >= 2
    ended = lambda pid: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    began_at = time.monotonic()
    wait_until(lambda: all(ended(pid) for pid in pids), "the end of every process", limit_s=30)
    assert time.monotonic() - began_at < 30
