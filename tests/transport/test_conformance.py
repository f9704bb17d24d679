"""Every transport passes the same checks: `conformance`. Below them, what only MPI's frames can do wrong."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsa2c.cluster.mpiexec import mpi_starter
from hsa2c.dpsgd.protocols import WorkerPort
from hsa2c.errors import TransportError
from hsa2c.transport import mpi
from hsa2c.transport.codec import Encoding, encode, plain
from hsa2c.transport.inprocess import connect
from hsa2c.transport.master_port import BaseMasterPort
from hsa2c.transport.messages import Kind
from tests.dpsgd.waiting import LIMIT_S
from tests.transport.conformance import MASTER, NODES, Check, checks, delta, same

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_LIMIT_S = 110.0


class QueueCues:
    """Cues between threads."""

    def __init__(self, me: int, boxes: dict[tuple[int, int], queue.SimpleQueue[None]]) -> None:
        self._me = me
        self._boxes = boxes

    def give(self, to: int) -> None:
        self._boxes[self._me, to].put(None)

    def take(self, source: int) -> None:
        self._boxes[source, self._me].get(timeout=LIMIT_S)


def play(check: Check, master: BaseMasterPort, workers: Sequence[WorkerPort]) -> list[str]:
    """Play a check with a thread for each node; gives back the failures, one text for each player that failed."""
    players = range(MASTER, check.nodes)
    boxes = {(a, b): queue.SimpleQueue[None]() for a in players for b in players}
    failures: list[str] = []

    def be(me: int) -> None:
        try:
            cues = QueueCues(me, boxes)
            check.master(master, cues) if me == MASTER else check.node(me, workers[me], cues)
        except BaseException:
            failures.append(f"player {me}\n{traceback.format_exc()}")

    threads = [threading.Thread(target=be, args=(me,), daemon=True) for me in players]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * LIMIT_S)
        if thread.is_alive():
            failures.append("a player did not end")
    return failures


@pytest.mark.timeout(100)
@pytest.mark.parametrize("name", checks("queues"))
def test_queues(name: str) -> None:
    check = checks("queues")[name]()
    failures = play(check, *connect(check.nodes, check.limits, check.encoding))
    assert not failures, "\n".join(failures)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, str | None]]:
    """What each rank says of each check over MPI: None if nothing was wrong; one launch plays all of them."""
    folder = tmp_path_factory.mktemp("ranks")
    with tempfile.TemporaryDirectory() as private:
        starter, extra = mpi_starter(1 + NODES, Path(private))
        command = [*starter, sys.executable, "-m", "tests.transport.mpi_ranks", str(folder)]
        environment = os.environ | extra
        job = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = job.communicate(timeout=LAUNCH_LIMIT_S)
        finally:
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGKILL)
                job.communicate()
    found: dict[str, dict[int, str | None]] = defaultdict(dict)
    for path in folder.glob("*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            said = json.loads(line)
            found[said["check"]][said["rank"]] = said["error"]
    assert job.returncode == 0, f"exit code {job.returncode}\n{output}\n{dict(found)}"
    return found


@pytest.mark.slow
@pytest.mark.timeout(LAUNCH_LIMIT_S + 10)
@pytest.mark.parametrize("name", checks("mpi"))
def test_mpi(name: str, outcomes: dict[str, dict[int, str | None]]) -> None:
    assert sorted(outcomes[name]) == list(range(1 + NODES))
    failures = {rank: error for rank, error in outcomes[name].items() if error}
    assert not failures, "\n".join(f"rank {rank}: {error}" for rank, error in failures.items())


# MPI's frames, in one process: mpi4py is loaded here, but MPI is not started.

RUN = 0x1234_5678_9ABC_DEF0
room = lambda size=4096: np.full(size, 0xEE, dtype=np.uint8)


def test_frame_by_hand() -> None:
    vector = np.array([1.0, -2.5], np.float32)
    data = mpi.encode(room(), RUN, Kind.PUSH, since=-1, number=0.5, vector=plain(vector), text=b"[7]")
    assert data.size == 64 + 8 + 3
    assert data[8:16].tobytes() == bytes.fromhex("f0debc9a78563412")  # the run id, little-endian
    assert data[16:64].view(np.int64).tolist()[:4] == [2, -1, 2, 3]
    assert data[48:56].view(np.float64)[0] == 0.5
    assert data[64:72].tobytes() == bytes.fromhex("0000803f") + bytes.fromhex("000020c0")
    assert data[72:].tobytes() == b"[7]"

    data = mpi.encode(room(), RUN, Kind.PUSH, vector=encode(vector, Encoding.BFLOAT16), text=b"[7]")
    assert data.size == 64 + 4 + 3
    assert data[16:64].view(np.int64).tolist()[2:] == [2, 3, 0, 1]  # 2 numbers, 3 letters; encoding 1 is bfloat16
    assert data[64:68].tobytes() == bytes.fromhex("803f") + bytes.fromhex("20c0")


@given(
    kind=st.sampled_from(sorted(set(Kind) - {Kind.DIED})),
    since=st.integers(-(2**63), 2**63 - 1),
    number=st.floats(allow_nan=False),
    floats=st.none() | st.integers(0, 50),
    text=st.binary(max_size=200),
    encoding=st.sampled_from(list(Encoding)),
)
def test_frame_round_trip(
    kind: Kind, since: int, number: float, floats: int | None, text: bytes, encoding: Encoding
) -> None:
    w = delta(floats or 0, (floats or 0) + 1)[: floats or 0]
    vector = plain(w) if encoding is Encoding.FLOAT32 or not w.size else encode(w, encoding)
    given_vector = None if floats is None else vector
    data = mpi.encode(room(), RUN, kind, since=since, number=number, vector=given_vector, text=text)
    frame = mpi.decode(data.copy(), RUN, "node 1")
    assert (frame.kind, frame.since, frame.number, frame.text) == (kind, since, number, text)
    assert (frame.numbers.encoding, frame.numbers.dim) == (vector.encoding, vector.dim)
    if kind in (Kind.V, Kind.V_STEP):  # their numbers come apart
        assert data.size == 64 + len(text)
    else:
        assert same(frame.numbers.decode(), vector.decode())


def good() -> np.ndarray:
    return mpi.encode(room(), RUN, Kind.PUSH, vector=plain(np.ones(3, np.float32)), text=b"[]").copy()


def field(data: np.ndarray, index: int, value: int) -> np.ndarray:
    data[:64].view(np.int64)[index] = value
    return data


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (good()[:63], "a message of 63 bytes, shorter than a header"),
        (good()[:0], "a message of 0 bytes, shorter than a header"),
        (good()[:-1], "a message of 77 bytes that says it has 78"),
        (np.append(good(), np.uint8(0)), "a message of 79 bytes that says it has 78"),
        (field(good(), 0, 1), "a message of another run or version"),
        (field(good(), 1, RUN + 1), "a message of another run or version"),
        (field(good(), 2, 99), "a message of unknown kind 99"),
        (field(good(), 2, Kind.DIED), "a message of unknown kind 10"),  # a transport's own word, not a node's
        (field(good(), 4, -1), "that says it has"),
        (field(field(good(), 4, -1), 5, 18), "that says it has"),  # together they make the right length
        (field(field(good(), 4, 4), 5, -2), "that says it has"),
        (field(good(), 4, 2**62), "that says it has"),
        (field(good(), 7, Encoding.BFLOAT16), "a message of 78 bytes that says it has 72"),
        (field(good(), 7, Encoding.INT8), "a message of 78 bytes that says it has 73"),
        (field(good(), 7, 4), "numbers in an unknown encoding, 4"),
        (field(good(), 7, -1), "numbers in an unknown encoding, -1"),
        (field(good(), 2, Kind.V), "a message of 78 bytes that says it has 66"),
    ],
)
def test_frame_that_is_not_one(data: np.ndarray, rule: str) -> None:
    with pytest.raises(TransportError, match=rule) as caught:
        mpi.decode(data, RUN, "node 4")
    assert str(caught.value).startswith("node 4: ")
    assert "\n" not in str(caught.value)


def test_message_must_fit() -> None:
    buffer = room(64 + 12 + 2)
    ones = plain(np.ones(3, np.float32))
    mpi.encode(buffer, RUN, Kind.PUSH, vector=ones, text=b"[]")
    with pytest.raises(TransportError, match="a message of 79 bytes, more than 78"):
        mpi.encode(buffer, RUN, Kind.PUSH, vector=ones, text=b"[ ]")
