"""Checkpoints: round trips, damage of every byte, crashes at every moment of a save, full disks."""

import dataclasses
import errno
import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import save as to_safetensors

from hsa2c.errors import CheckpointError, HSA2CError, StorageError
from hsa2c.run import checkpoint as cp
from hsa2c.run import checkpoint_file

REPOSITORY = Path(__file__).resolve().parents[2]


def make(t=7, dim=3, nodes=2, state_dim=4, **changes):
    """A checkpoint whose numbers all differ and depend on t."""
    values = {
        "v": np.arange(dim, dtype=np.float32) + t,
        "momentum": np.arange(dim, dtype=np.float32) / 8 + 1,
        "optimiser_states": tuple(np.full(state_dim, node + 0.5, np.float32) for node in range(nodes)),
        "t": t,
        "counters": {"agent_steps": 12, "scores": [1.5, -2.0], "best": None},
        "config": {"game": "Pong", "dpsgd": {"momentum": 0.5}},
        "identity": {"game": "Pong", "actions": "6"},
    }
    return cp.Checkpoint(**(values | changes))


def same(a, b):
    """Whether two checkpoints are equal bit for bit."""
    left, right = ((c.v, c.momentum, *c.optimiser_states) for c in (a, b))
    return [(x.dtype, x.shape, x.tobytes()) for x in left] == [(x.dtype, x.shape, x.tobytes()) for x in right] and (
        a.t,
        a.counters,
        a.config,
        a.identity,
    ) == (b.t, b.counters, b.config, b.identity)


def error_of(path):
    """The message of the CheckpointError that loading gives; it must be one line that names the file."""
    with pytest.raises(CheckpointError) as caught:
        cp.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def write(path, tensors, about, digest=None):
    """A file in the checkpoint's layout with a right digest, whatever it says."""
    text = about if isinstance(about, str) else json.dumps(about)
    metadata = {"checkpoint": text, "sha256": digest or checkpoint_file.digest_of(text, tensors)}
    path.write_bytes(to_safetensors(tensors, metadata=metadata))


ABOUT = {"format": 1, "t": 1, "counters": {}, "config": {}, "identity": {}}
V = np.ones(3, np.float32)


# Round trips


@given(
    v=arrays(np.float32, st.integers(0, 5), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
    states=st.integers(0, 4).flatmap(lambda n: st.lists(arrays(np.float32, n), max_size=3)),
    t=st.integers(0, 10**12),
    counters=st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()),
)
@settings(max_examples=40, deadline=None)
def test_round_trip(tmp_path_factory, v, states, t, counters):
    saved = make(v=v, momentum=-v, optimiser_states=tuple(states), t=t, counters=counters)
    path = cp.save(tmp_path_factory.mktemp("c"), saved, keep=1)
    loaded = cp.load(path)
    assert same(saved, loaded)
    assert loaded.v.flags.writeable


def test_zero_momentum_is_not_stored_but_minus_zero_is(tmp_path):
    small, large = np.zeros(1000, np.float32), -np.zeros(1000, np.float32)
    sizes = []
    for momentum in (small, large):
        saved = make(v=small, momentum=momentum)
        path = cp.save(tmp_path, saved, keep=1)
        sizes.append(path.stat().st_size)
        assert same(saved, cp.load(path))
    assert sizes[1] - sizes[0] >= 4000


def test_views_that_are_not_contiguous_are_saved_by_value(tmp_path):
    whole = np.arange(12, dtype=np.float32)
    loaded = cp.load(cp.save(tmp_path, make(v=whole[::4], momentum=whole[::-4]), keep=1))
    assert loaded.v.tolist() == [0, 4, 8]
    assert loaded.momentum.tolist() == [11, 7, 3]


def test_arrays_that_change_while_saving_are_saved_as_one_snapshot(tmp_path, monkeypatch):
    live = make()
    digest = checkpoint_file.digest_of

    def digest_then_race(text, tensors):
        result = digest(text, tensors)
        live.v[:] += 1  # an actor-learner writes between digest and serialisation
        return result

    monkeypatch.setattr(checkpoint_file, "digest_of", digest_then_race)
    path = cp.save(tmp_path, live, keep=1)
    monkeypatch.undo()
    assert cp.load(path).v.tolist() == [7, 8, 9]


def test_best_has_the_parameter_alone(tmp_path):
    path = cp.save_best(tmp_path, make(dim=100, state_dim=1000))
    assert path.stat().st_size < 100 * 4 + 1000
    loaded = cp.load(path)
    assert same(loaded, make(dim=100, momentum=np.zeros(100, np.float32), nodes=0))
    assert cp.best(tmp_path) == path
    assert cp.best(tmp_path / "none") is None


def test_tuples_become_lists_and_other_objects_are_refused(tmp_path):
    assert cp.load(cp.save(tmp_path, make(counters={"a": (1, 2)}), keep=1)).counters == {"a": [1, 2]}
    for value in (float("nan"), float("inf"), Path("x"), np.float32(1)):
        with pytest.raises(HSA2CError, match="not saved: counters, config or identity are not JSON"):
            cp.save(tmp_path, make(t=8, counters={"a": value}), keep=1)
    assert cp.load_newest(tmp_path)[1].name == "step-000000007.safetensors"


# Folders


def test_pruning_keeps_the_newest_the_written_and_the_best(tmp_path):
    cp.save_best(tmp_path, make())
    for t in (100, 2_000_000_000, 9, 10, 11):  # as after going back to an earlier one
        written = cp.save(tmp_path, make(t), keep=2)
        assert written.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "best.safetensors",
        "step-000000010.safetensors",
        "step-000000011.safetensors",
        "step-000000100.safetensors",
        "step-2000000000.safetensors",
    ]
    assert cp.load_newest(tmp_path)[1].name == "step-2000000000.safetensors"
    cp.save(tmp_path, make(101), keep=1)
    assert [cp.load(p).t for p in sorted(tmp_path.glob("step-*"))] == [101, 2_000_000_000]
    with pytest.raises(ValueError, match="keep = 0"):
        cp.save(tmp_path, make(), keep=0)


def test_read(tmp_path):
    run, folder = tmp_path / "run", tmp_path / "run" / "checkpoints"
    with pytest.raises(CheckpointError, match="run: no such run or checkpoint"):
        cp.read(run, prefer="best")
    folder.mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"checkpoints: holds no checkpoint"):
        cp.read(run, prefer="best")
    cp.save(folder, make(1), keep=5)
    last = cp.save(folder, make(2), keep=5)
    for target in (run, folder):
        assert cp.read(target, prefer="best")[1] == last  # there is no best one yet
    top = cp.save_best(folder, make(1))
    for target in (run, folder):
        assert cp.read(target, prefer="best")[1] == top
        assert cp.read(target, prefer="newest")[1] == last
    assert cp.read(last, prefer="best")[1] == last
    with pytest.raises(CheckpointError, match="no such run or checkpoint: File name too long"):
        cp.read(tmp_path / ("x" * 300), prefer="best")


def test_load_newest_skips_what_is_damaged_and_says_why(tmp_path):
    paths = [cp.save(tmp_path, make(t), keep=5) for t in (1, 2, 3, 4)]
    paths[3].write_bytes(paths[3].read_bytes()[:-1])
    content = bytearray(paths[2].read_bytes())
    content[-1] ^= 1
    paths[2].write_bytes(content)
    loaded, path, skipped = cp.load_newest(tmp_path)
    assert same(loaded, make(2))
    assert path == paths[1]
    assert [line.split(": ")[:2] for line in skipped] == [[str(paths[3]), "damaged"], [str(paths[2]), "damaged"]]

    for path in paths:
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"none of 4 checkpoints can be loaded; the newest: .*step-000000004"):
        cp.load_newest(tmp_path)
    for empty in (tmp_path / "none", paths[0]):
        with pytest.raises(CheckpointError, match=r"holds no checkpoint \(step-\*\.safetensors\)"):
            cp.load_newest(empty)


def test_damaged_checkpoints_take_no_places_and_confuse_no_t(tmp_path):
    cp.save(tmp_path, make(1), keep=3)
    for t in (2, 4, 6, 999_999_999):
        (tmp_path / f"step-{t:09d}.safetensors").write_bytes(b"")
    torn = (tmp_path / "step-000000001.safetensors").read_bytes()[:-1]
    for t in (3, 5):
        cp.save(tmp_path, make(t), keep=3)
    assert [t for t in cp.steps(tmp_path) if cp.is_whole(cp.steps(tmp_path)[t])] == [5, 3, 1]
    (tmp_path / "step-000000005.safetensors").write_bytes(torn)  # damaged after it was written
    cp.save(tmp_path, make(7), keep=2)
    assert sorted(cp.steps(tmp_path)) == [3, 4, 5, 6, 7, 999_999_999]
    checkpoint, path, skipped = cp.load_newest(tmp_path)
    assert (checkpoint.t, path.name) == (7, "step-000000007.safetensors")
    assert [line.split(": ")[0] for line in skipped] == [str(tmp_path / "step-999999999.safetensors")]


def test_checkpoint_of_another_t_than_its_name_says_is_passed_over(tmp_path):
    path = cp.save(tmp_path, make(7), keep=1)
    (tmp_path / "step-000000009.safetensors").write_bytes(path.read_bytes())
    checkpoint, found, skipped = cp.load_newest(tmp_path)
    assert (checkpoint.t, found) == (7, path)
    assert skipped == [f"{tmp_path / 'step-000000009.safetensors'}: holds t = 7, by its name 9"]


@pytest.mark.parametrize("prefer", ["best", "newest"])
def test_read_passes_over_damaged_files(tmp_path, prefer):
    cp.save(tmp_path, make(3), keep=1)
    for name in ("best", "step-000000009", "step-999999999"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
    checkpoint, _, skipped = cp.read(tmp_path, prefer=prefer)
    assert checkpoint.t == 3
    assert len(skipped) == (3 if prefer == "best" else 2)
    with pytest.raises(CheckpointError, match="0 bytes are too few"):
        cp.read(tmp_path / "best.safetensors", prefer=prefer)


# Damage


def test_every_cut_is_refused(tmp_path):
    path = cp.save(tmp_path, make(), keep=1)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        error_of(path)
    path.write_bytes(whole + b"\0")
    error_of(path)


@pytest.mark.parametrize("mask", [0x01, 0x10, 0x80, 0xFF])
def test_every_changed_byte_is_refused_or_means_the_same(tmp_path, mask):
    path = cp.save(tmp_path, make(), keep=1)
    whole = path.read_bytes()
    header = struct.unpack("<Q", whole[:8])[0]
    harmless = 0
    for offset in range(len(whole)):
        content = bytearray(whole)
        content[offset] ^= mask
        path.write_bytes(content)
        try:
            loaded = cp.load(path)
        except CheckpointError as error:
            assert "\n" not in str(error)
        else:
            assert same(loaded, make())
            harmless += 1
            assert offset < 8 + header  # a changed datum is never harmless
    assert harmless <= 8  # the header's padding


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_random_damage_is_refused_or_means_the_same(tmp_path_factory, data):
    path = cp.save(tmp_path_factory.mktemp("c"), make(), keep=1)
    whole = path.read_bytes()
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(whole))] * 2)))
    path.write_bytes(whole[:start] + data.draw(st.binary(max_size=64)) + whole[stop:])
    try:
        loaded = cp.load(path)
    except CheckpointError:
        return
    assert same(loaded, make())


def test_tensors_that_change_names_are_refused(tmp_path):
    """Two nodes' states swapped: each datum is right, the whole is not."""
    path = cp.save(tmp_path, make(), keep=1)
    whole = path.read_bytes()
    first, second = b'"optimiser/000000"', b'"optimiser/000001"'
    path.write_bytes(whole.replace(first, b'"##"').replace(second, first).replace(b'"##"', second))
    assert len(path.read_bytes()) == len(whole)
    assert error_of(path) == "damaged: its content does not match its sha256"


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "damaged: 0 bytes are too few for a checkpoint"),
        (struct.pack("<Q", 2**63) + b"{}", "damaged: 10 bytes that claim a header of 9223372036854775808"),
        (struct.pack("<Q", 3) + b"{}", "damaged: 10 bytes that claim a header of 3"),
        (
            struct.pack("<Q", 17 * 2**20) + b" " * (17 * 2**20),
            "damaged: 17825800 bytes that claim a header of 17825792",
        ),
        (struct.pack("<Q", 2) + b"{}", "not a checkpoint of this project: its metadata lack 'checkpoint'"),
        (to_safetensors({"v": V}), "not a checkpoint of this project: its metadata lack 'checkpoint'"),
    ],
)
def test_other_files_are_refused(tmp_path, content, rule):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    assert error_of(path) == rule


def test_claims_of_huge_tensors_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    for shape in ([2**40], [2**62, 4]):
        entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}
        header = json.dumps({"__metadata__": {"checkpoint": json.dumps(ABOUT)}, "v": entry}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
        assert error_of(path).startswith("damaged: ")


@pytest.mark.parametrize(
    ("about", "rule"),
    [
        (ABOUT | {"format": 2}, "format 2 is unknown; this version reads 1"),
        ([], "format None is unknown; this version reads 1"),
        ("{", "damaged: its metadata are not JSON: Expecting property name"),
        ("[" * 100_000, "damaged: its metadata are not JSON: maximum recursion depth"),
        (ABOUT | {"t": -1}, "t is -1, must not be negative"),
        (ABOUT | {"t": True}, "damaged: its metadata lack t (int)"),
        (ABOUT | {"counters": []}, "damaged: its metadata lack counters (dict)"),
        (ABOUT | {"identity": {"game": 3}}, "identity holds game: 3, must be text"),
    ],
)
def test_metadata_are_checked(tmp_path, about, rule):
    path = tmp_path / "x.safetensors"
    write(path, {"v": V}, about)
    assert error_of(path).startswith(rule)


@pytest.mark.parametrize(
    ("tensors", "rule"),
    [
        ({"w": V}, "not a checkpoint of this project: its tensors are w"),
        ({"v": V, "x": V}, "not a checkpoint of this project: its tensors are v, x"),
        ({"v": V, "optimiser/000001": V}, "not a checkpoint of this project: its tensors are optimiser/000001, v"),
        ({"v": V.astype(np.float64)}, "v is float64 [3], must be a float32 vector"),
        ({"v": V.reshape(1, 3)}, "v is float32 [1, 3], must be a float32 vector"),
        ({"v": V, "momentum": V[:2].copy()}, "momentum has 2 entries, must have 3"),
        (
            {"v": V, "optimiser/000000": V, "optimiser/000001": V[:2].copy()},
            "optimiser state 1 has 2 entries, must have 3",
        ),
        ({"v": np.array([1, np.nan, np.inf], np.float32)}, "v has 2 of 3 entries that are not finite"),
        ({"v": V, "momentum": np.full(3, -np.inf, np.float32)}, "momentum has 3 of 3 entries that are not finite"),
    ],
)
def test_arrays_are_checked_when_read_and_when_written(tmp_path, tensors, rule):
    path = tmp_path / "x.safetensors"
    write(path, tensors, ABOUT)
    assert error_of(path) == rule
    if rule.startswith("not a checkpoint"):
        return
    states = tuple(array for name, array in tensors.items() if name.startswith("optimiser"))
    momentum = tensors.get("momentum", np.zeros_like(tensors["v"]))
    with pytest.raises(HSA2CError) as caught:
        cp.save(tmp_path, make(1, v=tensors["v"], momentum=momentum, optimiser_states=states), keep=1)
    assert str(caught.value) == f"{tmp_path / 'step-000000001.safetensors'}: not saved: {rule}"
    assert list(tmp_path.iterdir()) == [path]


def test_a_type_that_numpy_lacks_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    metadata = {"checkpoint": json.dumps(ABOUT), "sha256": ""}
    header = json.dumps({"__metadata__": metadata, "v": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}})
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(4))
    assert error_of(path) == "damaged: data type 'bfloat16' not understood"


def test_what_is_no_readable_file_is_refused(tmp_path, monkeypatch):
    assert error_of(tmp_path / "none") == "no such checkpoint"
    assert error_of(tmp_path) == "not a regular file"
    os.mkfifo(tmp_path / "pipe")
    assert error_of(tmp_path / "pipe") == "not a regular file"  # rather than waiting for a writer

    path = cp.save(tmp_path, make(), keep=1)

    def denied(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", denied)
    assert error_of(path) == "cannot be read: Permission denied"


def test_check_identity():
    checkpoint = make(identity={"application": "atari", "game": "Pong", "actions": "6"})
    cp.check_identity(checkpoint, {"application": "atari", "game": "Pong"})
    wanted = {"application": "atari", "game": "Boxing", "actions": "18"}
    with pytest.raises(CheckpointError) as caught:
        cp.check_identity(checkpoint, wanted, source=Path("runs/x"))
    assert str(caught.value) == "checkpoint runs/x is of game 'Pong', this run is of 'Boxing'"
    with pytest.raises(CheckpointError, match=r"^the checkpoint names no network, this run is of 'small'$"):
        cp.check_identity(checkpoint, {"network": "small"})


# Writing that fails


class HalfWritten:
    """A file that takes half of what it is given; then the disk is full."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.file.close()

    def write(self, content):
        self.file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail(code):
    def raising(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    return raising


def disk_full(monkeypatch):
    opened = Path.open
    full = lambda path, mode: HalfWritten(opened(path, mode)) if "w" in mode else opened(path, mode)
    monkeypatch.setattr(Path, "open", full)
    return "No space left on device"


def disk_full_at_sync(monkeypatch):
    monkeypatch.setattr(os, "fsync", fail(errno.ENOSPC))
    return "No space left on device"


def read_only(monkeypatch):
    monkeypatch.setattr(Path, "open", fail(errno.EROFS))
    return "Read-only file system"


def rename_denied(monkeypatch):
    monkeypatch.setattr(Path, "replace", fail(errno.EACCES))
    return "Permission denied"


@pytest.mark.parametrize("failure", [disk_full, disk_full_at_sync, read_only, rename_denied])
def test_a_failed_save_names_path_and_reason_and_keeps_what_was_there(tmp_path, monkeypatch, failure):
    step, top = cp.save(tmp_path, make(1), keep=1), cp.save_best(tmp_path, make(1))
    reason = failure(monkeypatch)
    with pytest.raises(HSA2CError) as caught:
        cp.save(tmp_path, make(2), keep=1)
    assert str(caught.value) == f"{tmp_path / 'step-000000002.safetensors'}: cannot be written: {reason}"
    with pytest.raises(HSA2CError, match=rf"best\.safetensors: cannot be written: {reason}"):
        cp.save_best(tmp_path, make(2))
    monkeypatch.undo()
    assert sorted(tmp_path.iterdir()) == [top, step]
    assert [cp.load(p).t for p in (top, step)] == [1, 1]


@pytest.fixture
def little_room(tmp_path, monkeypatch):
    """A folder, and what limits the files in it to so many whole checkpoints; a write beyond meets a full disk."""

    def limit(checkpoints):
        size = (tmp_path / "step-000000001.safetensors").stat().st_size
        synced = os.fsync

        def fsync(descriptor):
            if sum(p.stat().st_size for p in tmp_path.iterdir()) > checkpoints * size + 100:
                fail(errno.ENOSPC)()
            synced(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)

    return tmp_path, limit


def names(folder):
    return sorted(p.name.removesuffix(".safetensors") for p in folder.iterdir())


def test_oldest_goes_first_where_there_is_no_room(little_room):
    folder, limit = little_room
    told = []
    for t in (1, 2, 3):
        cp.save(folder, make(t), keep=3)
    limit(2)
    for t in (4, 5):
        cp.save(folder, make(t), keep=3, tell=told.append)
        assert cp.load_newest(folder)[0].t == t
    assert names(folder) == ["step-000000004", "step-000000005"]
    assert told[0] == "no room for step-000000004.safetensors: step-000000001.safetensors was removed for it"
    assert len(told) == 3


def test_only_whole_checkpoint_is_not_removed_for_another(little_room):
    folder, limit = little_room
    cp.save(folder, make(1), keep=3)
    limit(1)
    (folder / "step-000000002.safetensors").write_bytes(b"")
    with pytest.raises(StorageError, match=r"step-000000003\.safetensors: cannot be written: No space left"):
        cp.save(folder, make(3), keep=3)
    assert names(folder) == ["step-000000001"]  # what is damaged was in the way


def test_best_makes_room_too_and_is_never_removed(little_room):
    folder, limit = little_room
    cp.save_best(folder, make(1, nodes=0))
    for t in (1, 2, 3):
        cp.save(folder, make(t), keep=3)
    limit(3)
    cp.save_best(folder, make(4, dim=40))
    assert cp.load(folder / "best.safetensors").t == 4
    assert "step-000000003" in names(folder)
    assert "step-000000001" not in names(folder)


_TMPFS = """
import sys
from pathlib import Path
import numpy as np
from hsa2c.run import checkpoint as cp

for t in range(1, 7):
    v = np.full(250_000, t, np.float32)
    state = cp.Checkpoint(v=v, momentum=v, optimiser_states=(), t=t, counters={}, config={}, identity={})
    cp.save(Path(sys.argv[1]), state, keep=3, tell=print)
"""


def test_newest_state_wins_on_a_file_system_that_is_really_full(tmp_path):
    mounted = ["unshare", "--mount", "--map-root-user", "sh", "-c"]  # a namespace of its own: gone with it
    mount = f"mount -t tmpfs -o size=5m tmpfs '{tmp_path}'"
    if subprocess.run([*mounted, mount], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    script = f"{mount} && '{sys.executable}' -c \"$0\" '{tmp_path}' && ls '{tmp_path}'"
    run = subprocess.run([*mounted, script, _TMPFS], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-2:] == ["step-000000005.safetensors", "step-000000006.safetensors"], run.stdout
    assert "no room for step-000000003" in run.stdout


def test_a_file_in_the_folders_place_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HSA2CError, match="cannot be written: File exists"):
        cp.save(tmp_path / "file", make(), keep=1)


def test_a_directory_that_cannot_be_synced_is_no_error(tmp_path, monkeypatch):
    sync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: fail(errno.EINVAL)() if Path(f"/proc/self/fd/{fd}").is_dir() else sync(fd)
    )
    assert same(cp.load(cp.save(tmp_path, make(), keep=1)), make())


def test_leftovers_of_dead_writers_are_removed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    ours, alive = os.getpid(), os.getppid()
    gone = [f".step-000000009.safetensors.{pid}.tmp" for pid in (dead.pid, ours, 10**30)]
    kept = [f".best.safetensors.{alive}.tmp", ".mine.1.tmp", "notes.txt"]
    for name in gone + kept:
        (tmp_path / name).touch()
    path = cp.save(tmp_path, make(), keep=1)
    assert {p.name for p in tmp_path.iterdir()} == {*kept, path.name}


# Writers that die

CRASHES = """
import os, sys
from pathlib import Path
import numpy as np
from hsa2c.run import checkpoint as cp
from hsa2c.run import checkpoint_file

def checkpoint(t):
    a = np.full(1000, t, np.float32)
    return cp.Checkpoint(v=a, momentum=a, optimiser_states=(a,), t=t, counters={}, config={}, identity={})

def dies_in(module, name, call):
    real, calls = getattr(module, name), []
    def dying(*args, **kwargs):
        calls.append(name)
        if len(calls) == call:
            if name == "open" and args[1:] == ("wb",):
                real(args[0], "wb", 0).write(bytes(3000))  # a torn file
            os._exit(9)
        return real(*args, **kwargs)
    setattr(module, name, dying)

root = Path(sys.argv[1])
moments = [(Path, "open", 1), (os, "fsync", 1), (Path, "replace", 1)]
moments += [(os, "fsync", 2), (Path, "unlink", 1), (Path, "unlink", 2)]
for place, (module, name, call) in enumerate(moments):
    directory = root / f"{place}-{name}-{call}"
    cp.save(directory, checkpoint(1), keep=1)
    if (pid := os.fork()) == 0:
        dies_in(module, name, call)
        cp.save(directory, checkpoint(2), keep=1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9, directory
"""

LOOP = """
import sys
from itertools import count
from pathlib import Path
import numpy as np
from hsa2c.run import checkpoint as cp
from hsa2c.run import checkpoint_file

start = cp.load_newest(Path(sys.argv[1]))[0].t + 1
for t in count(start):
    a = np.full(300_000, t, np.float32)
    cp.save(Path(sys.argv[1]), cp.Checkpoint(
        v=a, momentum=a, optimiser_states=(a,), t=t, counters={}, config={}, identity={}), keep=2)
"""


def script(text, *arguments):
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen([sys.executable, "-W", "error", "-c", textwrap.dedent(text), *arguments], env=environment)


def test_a_writer_that_dies_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    with script(CRASHES, str(tmp_path)) as child:
        assert child.wait(60) == 0
    ts = {}
    for directory in sorted(tmp_path.iterdir()):
        loaded, _, skipped = cp.load_newest(directory)
        assert loaded.v.tolist() == [loaded.t] * 1000
        assert skipped == []
        ts[directory.name] = loaded.t
        cp.save(directory, dataclasses.replace(loaded, t=3), keep=1)
        assert [p.name for p in directory.iterdir()] == ["step-000000003.safetensors"]
    assert ts == {
        "0-open-1": 1,
        "1-fsync-1": 1,
        "2-replace-1": 1,
        "3-fsync-2": 2,
        "4-unlink-1": 2,
        "5-unlink-2": 2,
    }


def test_a_writer_killed_in_a_loop_of_saves_leaves_a_whole_checkpoint(tmp_path):
    cp.save(tmp_path, make(0), keep=2)
    t = 0
    for delay_s in (0.0, 0.007, 0.018):
        with script(LOOP, str(tmp_path)) as child:
            deadline_s = time.monotonic() + 30
            while max(cp.steps(tmp_path)) <= t + 1 and time.monotonic() < deadline_s:
                time.sleep(0.001)
            time.sleep(delay_s)
            child.send_signal(signal.SIGKILL)
        assert child.returncode == -signal.SIGKILL
        loaded, _, skipped = cp.load_newest(tmp_path)
        assert skipped == []
        assert loaded.t > t
        assert set(loaded.v.tolist()) == {loaded.t}
        t = loaded.t
