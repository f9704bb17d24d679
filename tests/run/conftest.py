import pytest

from hsa2c.agents.application import APPLICATION
from hsa2c.run import begin
from hsa2c.run import resolve as rules
from tests.run.runs import ALONE, add_checkpoint


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    monkeypatch.setattr(rules, "share_of_cores", lambda nodes: max(1, 8 // nodes))


@pytest.fixture
def prepare(tmp_path):
    def prepare(config_file=None, world=ALONE, **given):
        given = {dotted.replace("__", "."): value for dotted, value in given.items()}
        return begin.prepare(APPLICATION, {"output.run_dir": str(tmp_path)} | given, config_file, world)

    return prepare


@pytest.fixture
def make_run(prepare):
    """A run that was started and has a checkpoint at t = 10; its directory."""

    def make_run(**given):
        run = prepare(**({"output__name": "old"} | given))
        with run.open():
            pass
        add_checkpoint(run, 10)
        return run.directory

    return make_run


@pytest.fixture
def host_file(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("a\nb slots=2\n")
    return path


@pytest.fixture
def allocated(tmp_path, monkeypatch):
    """This process in an allocation of PBS of such hosts; without any in none."""

    def allocated(*names):
        monkeypatch.delenv("SLURM_JOB_ID", raising=False)
        monkeypatch.delenv("PBS_NODEFILE", raising=False)
        if names:
            file = tmp_path / "nodefile"
            file.write_text("".join(f"{name}\n" for name in names))
            monkeypatch.setenv("PBS_NODEFILE", str(file))

    return allocated
