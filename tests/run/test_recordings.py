"""How a run begins to record: where, what of it, and what it is told when there is no room."""

import numpy as np
import pytest

from hsa2c.dpsgd.protocols import Push
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.recording.format import Kind, Recording
from hsa2c.recording.replay import replay
from hsa2c.run import recordings
from tests.faulty_application import APPLICATION, DIM


@pytest.fixture
def record(tmp_path):
    """Records steps of one delta each; gives back what was told, and the recording."""
    opened = []

    def record(steps=3, *, states=(), **sections):
        v, step, told = np.zeros(DIM, np.float32), GlobalStep(1.0, 0.0, DIM), []
        recorder = recordings.begin(
            recordings.Session(
                app="own.application",
                config=APPLICATION.build_config({"output": {"record": True}} | sections),
                directory=tmp_path,
                number=3,
                resumed=None,
                rounds_v=True,
            ),
            v=v,
            step=step,
            M=1,
            t=0,
            states=states,
            tell=told.append,
        )
        for t in range(1, steps + 1):
            push = Push(0, np.full(DIM, t, np.float32), t - 1)
            recorder.arrived(push)
            v += push.delta
            recorder.received(push, 0)
            recorder.quorum(1)
            recorder.stepped(t, v)
        recorder.draining()
        recorder.close("enough")
        opened.append(Recording(tmp_path / "recording-3.bin"))
        return told, opened[-1]

    yield record
    for recording in opened:
        recording.close()


def test_a_session_says_what_it_was(record, tmp_path):
    told, recording = record(dpsgd={"delta_dtype": "int8"})
    assert told == []
    about = recording.about
    assert (about["session"], about["resumed"], about["app"]) == (3, None, "own.application")
    assert (about["encoding"], about["v_encoding"]) == ("INT8", "INT8")
    assert APPLICATION.build_config(about["config"]).dpsgd.delta_dtype == "int8"
    assert (replay(recording).difference, recording.last.text()) == (None, "enough")
    assert recordings.find(tmp_path) == [tmp_path / "recording-3.bin"]


def test_a_recording_has_as_many_gib_as_the_run_allows(record):
    told, recording = record(100, output={"record": True, "record_gib": 3e-6})
    assert told == [
        "recording ends: recording-3.bin has 0.00 GiB, and output.record_gib allows no more; training goes on"
    ]
    assert recording.size <= 3e-6 * 2**30
    outcome = replay(recording)
    assert (outcome.difference, outcome.cut) == (None, True)
    assert 0 < outcome.steps < 100


@pytest.mark.parametrize(
    ("sections", "kept"),
    [
        ({"dpsgd": {"exchange": "paper"}}, True),
        ({"dpsgd": {"exchange": "overlap"}}, False),
        ({"dpsgd": {"exchange": "paper", "local_updates": "auto"}}, False),
        ({"dpsgd": {"exchange": "paper"}, "cluster": {"processes": 2}}, False),
    ],
)
def test_optimisers_states_are_kept_where_nodes_can_be_repeated(record, sections, kept):
    _, recording = record(states=(np.ones(5, np.float32), np.zeros(5, np.float32)), **sections)
    states = [frame.floats().tolist() for frame in recording.frames() if frame.kind is Kind.STATE]
    assert states == ([[1.0] * 5, [0.0] * 5] if kept else [])
