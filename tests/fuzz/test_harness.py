import random

import pytest

from tests.fuzz import harness
from tests.fuzz.__main__ import main
from tests.fuzz.harness import content_of, find_reader, fuzz
from tests.fuzz.mutation import mutated

FAULTY = "tests.fuzz.faulty"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("crash", "SIGSEGV"),
        ("exit", "exit code 7"),
        ("error", "ZeroDivisionError: by zero"),
        ("two lines", "a message of 2 lines"),
        ("endless", "SIGALRM: took longer than an input may"),
        ("greedy", "MemoryError"),
    ],
)
def test_what_breaks_a_reader_is_found_and_named(name, what):
    reader = find_reader(FAULTY, name)
    first = next(n for n in range(100) if content_of(reader, 1, n) != b"good")
    outcome = fuzz(FAULTY, name, inputs=2, first=first, seed=1, memory_bytes=256 << 20, input_s=0.5)
    fault = outcome.faults[0]
    assert fault.number == first
    assert fault.content == content_of(reader, 1, first)
    assert what in fault.what
    assert outcome.read + outcome.refused + len(outcome.faults) == 2, "goes on after a fault"


def test_a_careful_reader_has_no_faults():
    outcome = fuzz(FAULTY, "careful", inputs=200, seed=1)
    assert outcome.faults == []
    assert outcome.read + outcome.refused == 200
    assert min(outcome.read, outcome.refused) > 10


def test_many_faults_end_it(monkeypatch):
    monkeypatch.setattr(harness, "MOST_FAULTS", 2)
    assert len(fuzz(FAULTY, "crash", inputs=1000, seed=1).faults) == 2


def test_inputs_repeat_and_differ():
    inputs = [mutated([b"1 2 3\n4 5 6\n"], random.Random(number)) for number in range(500)]
    assert inputs == [mutated([b"1 2 3\n4 5 6\n"], random.Random(number)) for number in range(500)]
    assert len(set(inputs)) > 300
    assert mutated([b""], random.Random(1)) is not None


def test_command(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(harness, "MODULES", (FAULTY,))
    assert main(["careful", "--inputs", "20"]) == 0
    assert capsys.readouterr().out.endswith("0 faults\n")
    assert main(["error", "--inputs", "20", "--keep", str(tmp_path / "kept")]) == 1
    assert "ZeroDivisionError: by zero" in capsys.readouterr().out
    assert list((tmp_path / "kept").iterdir())
