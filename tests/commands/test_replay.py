import numpy as np
import pytest

from hsa2c.commands import replay, train
from hsa2c.dpsgd.protocols import Push
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.recording.format import MAGIC
from hsa2c.recording.recorder import Recorder
from hsa2c.transport.codec import Encoding


@pytest.fixture
def record(make_run):
    """A run directory with a recording of two steps, each of one delta, and a checkpoint of the second."""

    def record(run=None, *, session=1, app="hsa2c.agents.application", exchange="paper", p=1):
        run = run or make_run(t=2)
        v, step = np.ones(3, np.float32), GlobalStep(1.0, 0.0, 3)
        config = {
            "dpsgd": {"exchange": exchange, "local_updates": 2},
            "cluster": {"processes": p},
        }
        recorder = Recorder(
            run / f"recording-{session}.bin",
            v=v,
            step=step,
            M=1,
            max_delay=None,
            t=0,
            encoding=Encoding.FLOAT32,
            v_encoding=Encoding.FLOAT32,
            about={"app": app, "session": session, "resumed": None, "config": config},
            limit_bytes=1e6,
            tell=pytest.fail,
        )
        for t in (1, 2):
            push = Push(4, np.ones(3, np.float32), t - 1)
            recorder.arrived(push)
            v += push.delta
            recorder.received(push, 0)
            recorder.quorum(1)
            recorder.stepped(t, v)
        recorder.draining()
        recorder.close("2 steps")
        return run

    return record


def test_what_is_the_same_is_said_to_be(record, capsys):
    run = record()
    assert replay.main([str(run)]) == 1  # the checkpoint that `make_run` writes is not of this v
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "recording-1.bin: DIFFERENT after step 2: v is not that of step-000000002.safetensors"
    assert err == ""
    (run / "checkpoints" / "step-000000002.safetensors").unlink()
    assert replay.main([str(run)]) == train.main(["--replay", str(run / "recording-1.bin")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("recording-1.bin: the same, bit for bit, after each step: 2 global steps, 2 deltas of 1")


def test_sessions_in_their_order_and_the_worst_code(record, capsys):
    run = record(record(session=2), session=10)
    content = bytearray((run / "recording-2.bin").read_bytes())
    content[-200] ^= 1  # in the last delta
    (run / "recording-2.bin").write_bytes(content)
    (run / "checkpoints" / "step-000000002.safetensors").write_bytes(b"damaged")
    assert replay.main([str(run)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("recording-2.bin: DIFFERENT ")
    assert lines[1].startswith("recording-2.bin: before that 1 global step, 1 delta of 1 node, all the same")
    assert lines[2].startswith("recording-10.bin: the same, bit for bit")
    assert lines[3].startswith("recording-10.bin: not compared: ")


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"exchange": "overlap"}, "with --exchange overlap"),
        ({"p": 4}, "with p = 4 the processes of a node share u without a lock"),
    ],
)
def test_what_is_not_computed_anew_is_said(record, capsys, monkeypatch, how, why):
    for name in replay.THREAD_CAPS:
        monkeypatch.setenv(name, "1")
    run = record(**how)
    (run / "checkpoints" / "step-000000002.safetensors").unlink()
    assert replay.main([str(run), "--recompute"]) == 0
    assert f"recording-1.bin: deltas are those recorded, not computed anew: {why}" in capsys.readouterr().out


def test_recordings_of_0_1_have_another_module(record, capsys, monkeypatch):
    for name in replay.THREAD_CAPS:
        monkeypatch.setenv(name, "1")
    run = record(app="hsa2c.atari", exchange="overlap")
    (run / "checkpoints" / "step-000000002.safetensors").unlink()
    assert replay.main([str(run), "--recompute"]) == 0
    assert "not computed anew: with --exchange overlap" in capsys.readouterr().out


def test_bad_input_is_one_line(record, refused, tmp_path, monkeypatch):
    for name in replay.THREAD_CAPS:
        monkeypatch.setenv(name, "1")
    run = record(app="hsa2c.examples.lda.application")
    wrong = refused(replay.main, run, "--recompute")
    assert wrong.endswith(
        "is of hsa2c.examples.lda.application, not of hsa2c.agents.application:"
        " needs --app hsa2c.examples.lda.application"
    )
    assert refused(replay.main, tmp_path / "none").endswith("none: no such run or recording: No such file or directory")
    assert refused(train.main, "--replay", tmp_path).endswith(f"{tmp_path}: was not recorded (--record does it)")
    (tmp_path / "text").write_text("no recording")
    assert refused(replay.main, tmp_path / "text").endswith("text: not a recording of this project")
    (tmp_path / "later").write_bytes(MAGIC + b"\x02\0\0\0")
    assert refused(replay.main, tmp_path / "later").endswith("later: format 2 is unknown; this version reads 1")
    assert "takes no other option" in refused(train.main, "--replay", run, "--nodes", 2)
    assert "takes no other option" in refused(train.main, "--replay", run, "--resume", run)
    assert refused(train.main, "--recompute") == "train.py: --recompute: goes with --replay RUN"
    masters = refused(train.main, "--record", "--nodes", 2, "--masters", 2, "--run-dir", tmp_path)
    assert masters == "train.py: output.record = True: 2 masters are not recorded, must be 1 (--masters)"
    assert "output.record_gib = 0" in refused(train.main, "--record", "--set", "output.record_gib=0")
