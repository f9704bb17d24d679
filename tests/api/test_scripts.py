"""Scripts, sessions and threads from which a run is started: with one node as copies of the process, else by name."""

import contextlib
import signal
import tempfile

import psutil
import pytest

import hsa2c
from tests.api.scripts import CALL, DONE, PROBLEM, run, running, write
from tests.processes import PATIENCE_S, wait_until

ENDLESS = "{'updates': 10**9}"
SESSION = PROBLEM + "\nrun = hsa2c.minimise(model, lambda m: loss(m), run_dir=FOLDER, updates=100, **how)\n"
SHOW = "print(run.reason, model.x.round(decimals=2).tolist())\n"


@pytest.mark.slow
def test_a_script_may_have_everything_in_itself(tmp_path):
    script = write(tmp_path / "scripts", before="print('imported')\n")
    out, err = run(script, tmp_path, cwd="/")
    assert out.splitlines() == ["imported", f"104 updates (limit 100) {DONE}"]
    assert err == ""
    assert hsa2c.Run(tmp_path / "run").load().x.tolist() == pytest.approx([1.0] * 3, abs=1e-3), "found by its file"


@pytest.mark.parametrize(
    "way", ["-i", *(pytest.param(way, marks=pytest.mark.slow) for way in ("-c", "code", "stdin", "PYTHONINSPECT"))]
)
@pytest.mark.slow
def test_a_session_has_no_file_and_may_have_lambdas(tmp_path, way):
    source = SESSION.replace("FOLDER", repr(str(tmp_path))) + SHOW
    ways = {"-c": ("-c", source), "stdin": ("-",), "code": ("-m", "code", "-q"), "-i": ("-i", "-q")}
    with tempfile.TemporaryFile("w+") as file:
        file.write(source if way == "stdin" else f"exec({source!r})\n")
        file.seek(0)
        variables = {"PYTHONINSPECT": "1"} if way == "PYTHONINSPECT" else {}
        out, _ = run(*ways.get(way, ()), source=file, **variables)
    assert f"104 updates (limit 100) {DONE}" in out


@pytest.mark.slow
def test_what_had_no_file_is_told_later(tmp_path):
    run("-c", SESSION.replace("FOLDER", repr(str(tmp_path))))
    attempts = ("load(run)", "evaluate(run)", "resume(run, updates=200)")
    code = "import hsa2c, sys; run = sys.argv[1]\n" + "".join(
        f"try: hsa2c.{attempt}\nexcept hsa2c.ConfigError as error: print(error)\n" for attempt in attempts
    )
    lines = run("-c", code, tmp_path / "run")[0].splitlines()
    assert len(lines) >= 2
    told = [line for line in lines if "it has no evaluate" not in line]
    assert told
    assert all("was in the process that began this run; others find only what is in a file" in line for line in told)


#: Several threads, and autograd, before the run.
BUSY = """
torch.set_num_threads(2)
w = torch.randn(300, 300, requires_grad=True)
(w @ w @ w).sum().backward()
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


@pytest.mark.slow
def test_torch_may_have_been_used_with_threads_before(tmp_path):
    script = write(tmp_path, "{'updates': 100, 'p': 2}", before=BUSY)
    assert DONE in run(script, tmp_path)[0]


THREAD = """
import threading
def work():
    run = hsa2c.minimise(model, loss, evaluate=distance, run_dir=sys.argv[1], **(how | {more}))
    print(threading.current_thread().name, model.x.round(decimals=2).tolist())
if __name__ == "__main__":
    thread = threading.Thread(target=work, name="another")
    thread.start()
    thread.join()
"""


@pytest.mark.slow
def test_a_thread_may_start_a_run(tmp_path):
    script = write(tmp_path, call=THREAD)
    assert f"another {DONE}" in run(script, tmp_path)[0]


@contextlib.contextmanager
def endless(tmp_path, more=ENDLESS):
    """A script that trains for ever, and has written a checkpoint; and all processes of it."""
    script = write(tmp_path / "scripts", more)
    with running(script, tmp_path) as process:
        checkpoints = tmp_path / "run" / "checkpoints"
        wait_until(lambda: process.poll() is not None or list(checkpoints.glob("*.safetensors")), "a checkpoint")
        assert process.poll() is None, process.stderr.read()
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2
        yield process, children
    assert psutil.wait_procs(children, timeout=20)[1] == []


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_a_signal_ends_a_script_in_good_order(tmp_path, signum, code):
    with endless(tmp_path) as (process, _):
        process.send_signal(signum)
        _, err = process.communicate(timeout=PATIENCE_S)
        shell = process.returncode if process.returncode >= 0 else 128 - process.returncode
        assert shell == code, err
    run = hsa2c.Run(tmp_path / "run")
    assert run.reason == "asked to stop"
    before = run.rows()[-1]["updates"]
    again = hsa2c.resume(run, updates=before + 100, progress=False, force=True)
    assert again.rows()[-1]["updates"] >= before + 100


@pytest.mark.slow
def test_nothing_outlives_a_script_that_is_killed(tmp_path):
    with endless(tmp_path, "{'updates': 10**9, 'p': 2}") as (process, children):
        process.kill()
        process.wait(PATIENCE_S)
        assert psutil.wait_procs(children, timeout=20)[1] == []


@pytest.mark.slow
def test_ctrl_c_can_be_caught(tmp_path):
    call = CALL.replace("    run =", "    try: run =").replace(
        "    print", "    except KeyboardInterrupt: print('caught')\n    else: print"
    )
    script = write(tmp_path, ENDLESS, call=call + "    os.kill(os.getpid(), 0); print('goes on')\n")
    with running(script, tmp_path) as process:
        wait_until(lambda: list(tmp_path.glob("run/checkpoints/*.safetensors")), "a checkpoint")
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=PATIENCE_S)[0].splitlines() == ["caught", "goes on"]
        assert process.returncode == 0


@pytest.mark.slow
def test_two_nodes_find_the_functions_of_a_script_and_what_lies_beside_it(tmp_path):
    """Over MPI, and from another current directory than the script's."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "beside.py").write_text("def target():\n    return 1.0\n")
    problem = PROBLEM.replace("import hsa2c", "from beside import target\nimport hsa2c").replace("- 1.0", "- target()")
    script = write(
        tmp_path / "scripts", "{'updates': 1000, 'nodes': 2, 'lr': 0.01, 'exchange': 'paper'}", problem=problem
    )
    out, _ = run(script, tmp_path, cwd="/")
    values = out.rpartition("[")[2].rstrip("]\n").split(",")
    assert [float(value) for value in values] == pytest.approx([1.0] * 3, abs=0.1)
    assert hsa2c.Run(tmp_path / "run").config.problem.loss == f"{script}:loss"


@pytest.mark.slow
def test_two_nodes_find_the_functions_of_a_module_beside_a_script(tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "own_problem.py").write_text(PROBLEM)
    script = write(
        tmp_path / "scripts", "{'updates': 300, 'nodes': 2}", problem="import sys\nfrom own_problem import *\n"
    )
    run(script, tmp_path, cwd="/")
    assert hsa2c.Run(tmp_path / "run").config.problem.loss == "own_problem:loss"


UNGUARDED = CALL.replace('if __name__ == "__main__":', "if True:")


@pytest.mark.slow
def test_a_script_without_its_guard_is_told(tmp_path):
    script = write(tmp_path / "scripts", "{'updates': 100, 'nodes': 2}", call=UNGUARDED)
    _, err = run(script, tmp_path, code=1)
    assert 'own_script.py: calls hsa2c.minimise when it is imported: must do so under if __name__ == "__main__":' in err


@pytest.mark.slow
def test_a_script_that_ranks_cannot_import_is_told(tmp_path):
    before = "if __name__ != '__main__': raise LookupError('no data in ranks')\n"
    script = write(tmp_path / "scripts", "{'updates': 100, 'nodes': 2}", before=before)
    _, err = run(script, tmp_path, code=1)
    assert "LookupError: no data in ranks" in err
