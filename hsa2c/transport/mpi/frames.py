"""A message as bytes: a header of eight int64, then numbers (`hsa2c.transport.codec`), then text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hsa2c.errors import TransportError
from hsa2c.transport.codec import Encoded, Encoding
from hsa2c.transport.messages import Kind

Bytes = npt.NDArray[np.uint8]


_MAGIC = 0x48534132_4320_0002  # "HSA2C ", version 2 of the frame


HEADER = 64


_TEXT_LIMIT = 1 << 20


_HUGE = 4 << 20


_KINDS = frozenset(Kind) - {Kind.DIED}


APART = frozenset({Kind.V, Kind.V_STEP})  # whose numbers are a message of their own


_ENCODINGS = frozenset(Encoding)


@dataclass(frozen=True, slots=True)
class Frame:
    """What a buffer of bytes says; `number` is v's rate scale or a push's wait in seconds.

    The numbers' bytes are a view of it, and empty where they come apart.
    """

    kind: Kind
    since: int
    number: float
    numbers: Encoded
    text: bytes


def encode(
    buffer: Bytes,
    run_id: int,
    kind: int,
    *,
    since: int = 0,
    number: float = 0.0,
    vector: Encoded | None,
    text: bytes,
) -> Bytes:
    """Write a message into `buffer`; gives back the part of it that is to be sent."""
    floats = 0 if vector is None else vector.dim
    encoding = Encoding.FLOAT32 if vector is None else vector.encoding
    end = HEADER + (0 if vector is None or kind in APART else vector.data.size)
    if end + len(text) > buffer.size:
        raise TransportError(f"a message of {end + len(text)} bytes, more than {buffer.size}")
    header = buffer[:HEADER].view(np.int64)
    header[:] = (_MAGIC, run_id, kind, since, floats, len(text), 0, encoding)
    buffer[48:56].view(np.float64)[0] = number
    if vector is not None and end > HEADER:
        buffer[HEADER:end] = vector.data
    buffer[end : end + len(text)] = np.frombuffer(text, dtype=np.uint8)
    return buffer[: end + len(text)]


def decode(data: Bytes, run_id: int, who: str) -> Frame:
    """Read a message.

    Raises:
        TransportError: It is not a whole message of this run.
    """
    if data.size < HEADER:
        raise TransportError(f"{who}: a message of {data.size} bytes, shorter than a header")
    magic, run, kind, since, floats, letters, _, code = (int(x) for x in data[:HEADER].view(np.int64))
    if magic != _MAGIC or run != run_id:
        raise TransportError(f"{who}: a message of another run or version (run id {run:#x}, here {run_id:#x})")
    if code not in _ENCODINGS:
        raise TransportError(f"{who}: numbers in an unknown encoding, {code}")
    encoding = Encoding(code)
    end = HEADER + (0 if kind in APART else encoding.size(floats))
    if floats < 0 or letters < 0 or data.size != end + letters:
        raise TransportError(f"{who}: a message of {data.size} bytes that says it has {end + letters}")
    if kind not in _KINDS:
        raise TransportError(f"{who}: a message of unknown kind {kind}")
    number = float(data[48:56].view(np.float64)[0])
    return Frame(Kind(kind), since, number, Encoded(encoding, floats, data[HEADER:end]), data[end:].tobytes())


def buffer_for(floats: int) -> Bytes:
    """Room for a message of so many float32 and the longest text."""
    # The master touches its largest buffer only as far as a message goes: untouched pages cost nothing.
    return memory(HEADER + 4 * floats, _TEXT_LIMIT)


def memory(size: int, more: int = 0) -> Bytes:
    """`size` + `more` bytes that are quick to copy where `size` is large."""
    # numpy asks for huge pages where an array has 4 MiB. From those the kernel copies a delta to another process in two
    # thirds of the time.
    room = size + more
    return np.empty(max(room, _HUGE) if size >= _HUGE // 4 else room, dtype=np.uint8)[:room]
