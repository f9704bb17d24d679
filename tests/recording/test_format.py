"""The file of a recording: whatever is cut off or turned over, nothing false is read, and what is whole is."""

from __future__ import annotations

import dataclasses
import json
import resource
import signal
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsa2c.errors import ConfigError
from hsa2c.recording.format import HEAD_BYTES, LAST_BYTES, MAGIC, Ending, Frame, Kind, Recording, Writer, packed
from hsa2c.transport.codec import BLOCK, Encoding, encode
from tests.transport.conformance import delta, same

DIM = 3
ABOUT = {"dim": DIM, "M": 2, "rho": 0.5, "mu": 0.0, "mean_of": None, "max_delay": None}
V, Z = np.array([1, 2, 3], np.float32), np.array([0, -0.0, 4], np.float32)
BEGINNING = [
    Frame(kind=Kind.ABOUT, payload=json.dumps(ABOUT).encode()),
    Frame(kind=Kind.V, t=7, payload=V.tobytes()),
    Frame(kind=Kind.Z, t=7, payload=Z.tobytes()),
]
END = Frame(kind=Kind.END, t=9, payload=b"5 minutes")

frames = st.builds(
    Frame,
    kind=st.sampled_from([Kind.NOTE, Kind.ANSWER, Kind.DELTA, Kind.STEP, Kind.REFUSED]),
    node=st.integers(0, 2**32 - 1),
    t=st.integers(-1, 2**63 - 1),
    since=st.integers(-1, 2**63 - 1),
    count=st.integers(-1, 2**63 - 1),
    number=st.floats(allow_nan=False),
    code=st.integers(0, 255),
    payload=st.binary(max_size=40),
)


def written(path: Path, *more: Frame) -> bytes:
    writer = Writer(path, 1e9)
    for frame in (*BEGINNING, *more):
        assert writer.write(frame)
    writer.close()
    assert writer.size == path.stat().st_size
    return path.read_bytes()


def read(path: Path) -> tuple[Recording, list[Frame]]:
    recording = Recording(path)
    found = list(recording.frames())
    recording.close()
    return recording, found


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("recording") / "recording-1.bin"


@settings(max_examples=30, deadline=None)
@given(more=st.lists(frames, max_size=6))
def test_what_is_read_is_what_was_written(path: Path, more: list[Frame]) -> None:
    written(path, *more, END)
    recording, found = read(path)
    assert found == more
    assert (recording.ending, recording.last) == (Ending.WHOLE, END)
    assert (recording.about, recording.t) == (ABOUT, 7)
    assert same(recording.v, V)
    assert same(recording.z, Z)


@settings(max_examples=50, deadline=None)
@given(more=st.lists(frames, min_size=1, max_size=4), data=st.data())
def test_a_torn_tail_costs_what_is_torn_and_no_more(path: Path, more: list[Frame], data: st.DataObject) -> None:
    whole = written(path, *more, END)
    cut = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:cut] + data.draw(st.sampled_from([b"", bytes(200)])))  # or as it is after a power failure
    ends = np.cumsum([len(MAGIC) + 4] + [HEAD_BYTES + len(frame.payload) for frame in (*BEGINNING, *more)])
    left = int((ends <= cut).sum()) - 1 - len(BEGINNING)
    if left < 0:
        with pytest.raises(ConfigError, match=r"missing|not a recording|unknown"):
            read(path)
        return
    recording, found = read(path)
    assert found[:left] == more[:left]
    for got, wanted in zip(found[left:], more[left:], strict=False):  # a payload that zeros go on with
        assert got.damaged or got == wanted
    assert recording.ending is not Ending.WHOLE


@settings(max_examples=80, deadline=None)
@given(more=st.lists(frames, min_size=1, max_size=4), data=st.data())
def test_no_flipped_bit_is_read_as_something_else(path: Path, more: list[Frame], data: st.DataObject) -> None:
    whole = bytearray(written(path, *more, END))
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    path.write_bytes(whole)
    try:
        recording, found = read(path)
    except ConfigError:
        return
    read_on = [*found, *filter(None, [recording.last])]
    expected = [*more, END]
    assert read_on != expected
    assert len(read_on) == len(expected) or recording.ending in (Ending.DAMAGED, Ending.TORN)
    for got, wanted in zip(read_on, expected, strict=False):  # a damaged payload still has its head
        assert got == wanted or dataclasses.replace(got, payload=wanted.payload, damaged=False) == wanted


def test_files_of_others_are_refused_in_one_line(tmp_path):
    def refused(content: bytes) -> str:
        (tmp_path / "r.bin").write_bytes(content)
        with pytest.raises(ConfigError) as refusal:
            Recording(tmp_path / "r.bin")
        assert "\n" not in str(refusal.value)
        return str(refusal.value).removeprefix(f"{tmp_path / 'r.bin'}: ")

    good = written(tmp_path / "good.bin")
    assert refused(b"") == "not a recording of this project"
    assert refused(b"PNG" * 100) == "not a recording of this project"
    assert refused(MAGIC + struct.pack("<I", 9)) == "format 9 is unknown; this version reads 1"
    assert refused(good[:30]) == "too short: its ABOUT is missing"
    text = good.replace(b'"dim"', b'"dam"')
    at = len(MAGIC) + 4
    size = len(BEGINNING[0].payload)
    payload = text[at + HEAD_BYTES : at + HEAD_BYTES + size]
    head = text[at : at + HEAD_BYTES - 8] + struct.pack("<I", zlib.crc32(payload))
    assert (
        refused(text[:at] + head + struct.pack("<I", zlib.crc32(head)) + text[at + HEAD_BYTES :])
        == "damaged: its ABOUT lacks dim"
    )
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Recording(tmp_path / "none.bin")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        Recording(tmp_path)


def test_a_file_does_not_grow_beyond_its_limit_and_has_room_for_a_last_word(tmp_path):
    for limit in range(500, 900, 7):
        writer = Writer(tmp_path / "r.bin", limit)
        while writer.write(Frame(kind=Kind.NOTE, payload=b"n" * 20)):
            pass
        assert writer.size + LAST_BYTES + HEAD_BYTES + 20 > limit
        assert writer.write(Frame(kind=Kind.END, payload=b"e" * (LAST_BYTES - HEAD_BYTES)), last=True)
        writer.close()
        assert (tmp_path / "r.bin").stat().st_size <= limit


def test_a_write_that_fails_leaves_whole_frames(tmp_path):
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN  # Python's own: a file that is too long is an OSError
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = Writer(tmp_path / "r.bin", 1e9)
    for frame in BEGINNING:
        writer.write(frame)
    note = Frame(kind=Kind.NOTE, payload=b"n" * 100)
    resource.setrlimit(resource.RLIMIT_FSIZE, (writer.size + 250, limits[1]))
    try:
        assert writer.write(note)
        with pytest.raises(OSError, match="too large"):
            writer.write(note)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert writer.write(END)  # there is room again
    writer.close()
    recording, found = read(tmp_path / "r.bin")
    assert (found, recording.last) == ([note], END)


@pytest.mark.parametrize("encoding", list(Encoding))
def test_a_delta_is_kept_as_short_as_it_came_and_to_the_last_bit(encoding):
    dim = 3 * BLOCK + 5
    w = np.random.default_rng(3).standard_normal(dim, np.float32) * np.float32(1e-3)
    came = w if encoding is Encoding.FLOAT32 else encode(w, encoding).decode()
    for numbers in (came, delta(1, dim)):  # any numbers at all, too
        kept = packed(numbers, encoding)
        frame = Frame(kind=Kind.DELTA, code=int(kept.encoding), payload=bytes(kept.data))
        assert same(frame.vector(dim), numbers)
    assert len(packed(came, encoding).data) == encoding.size(dim)
    assert Frame(kind=Kind.DELTA, code=int(encoding), payload=bytes(5)).vector(dim) is None
    assert Frame(kind=Kind.DELTA, code=17, payload=bytes(4 * dim)).vector(dim) is None
