"""A recording of what reached the master: one file, only appended to, no pickle.

The file is `MAGIC`, the format's version, and frames. A frame is a head of fixed length with a checksum of its own, and
a payload, whose checksum is in the head. So a reader knows a torn tail (a ``kill -9``) from damage, and with a damaged
delta still knows whose it is. Numbers are little-endian.

| kind | when | fields | payload |
|---|---|---|---|
| ABOUT | first | | JSON: what the master is called with, and what the run is |
| V, Z | second, third | t | v and z at the start, float32 |
| STATE | after them, where a node's work can be repeated | node | its optimiser's state, float32 |
| NOTE | a node is ready, has lost a process | node | JSON |
| ANSWER | a pull was answered | node, t, since: the t of the v it had (-1: none), number: rate scale | |
| DELTA | a delta has come | node, t, since, count: gradients since its last (-1: not known) | numbers |
| CHANGED | the delta's bytes are others after it was added | node, t, since | numbers |
| REFUSED | it was not used | node, count | why |
| STEP | line 3 was done | t after it, count: m, since: the quorum | checksums of v and z |
| DRAIN | stop was said | t, count: m so far, since: the quorum | |
| END | nothing follows | t, code: whether the run goes on unrecorded | why |

Deltas are kept as they came: in the encoding of the wire where that gives the same numbers back, else as float32.
"""

from __future__ import annotations

import contextlib
import enum
import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hsa2c.dpsgd.protocols import Vector
from hsa2c.errors import ConfigError
from hsa2c.transport.codec import Encoded, Encoding, encode, plain

MAGIC = b"hsa2c recording\n"
FORMAT = 1
"""Version of the layout above. A reader refuses versions it does not know."""

_VERSION = struct.Struct("<I")
HEAD = struct.Struct("<BBxxIqqqdQI")  # kind, code, node, t, since, count, number, bytes and checksum of the payload
CHECK = struct.Struct("<I")  # of the head
_SUMS = struct.Struct("<II")
HEAD_BYTES = HEAD.size + CHECK.size
_MOST_RATE = 1e6  # rho and mu are at most 100
LAST_BYTES = HEAD_BYTES + 256
"""What is kept of a file's limit for a last word."""


def _is_count(value: Any) -> bool:
    return type(value) is int and 1 <= value < 2**31


def _is_rate(value: Any) -> bool:
    return isinstance(value, float) and 0 <= value <= _MOST_RATE


#: What the master was called with: whether a value may be one.
_ABOUT: Mapping[str, Callable[[Any], bool]] = {
    "dim": _is_count,
    "M": _is_count,
    "rho": _is_rate,
    "mu": _is_rate,
    "mean_of": lambda value: value is None or _is_count(value),
    "max_delay": lambda value: value is None or _is_count(value),
}


class Kind(enum.IntEnum):
    """What a frame is. The numbers are in the file."""

    ABOUT = 1
    V = 2
    Z = 3
    NOTE = 4
    ANSWER = 5
    DELTA = 6
    CHANGED = 7
    REFUSED = 8
    STEP = 9
    DRAIN = 10
    END = 11
    STATE = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One entry; what the fields mean depends on the kind, see the module."""

    kind: Kind
    node: int = 0
    t: int = 0
    since: int = 0
    count: int = 0
    number: float = 0.0
    code: int = 0
    payload: bytes | memoryview = b""
    damaged: bool = False
    """The payload is not what was written."""

    def vector(self, dim: int) -> Vector | None:
        """The numbers, float32 [dim]; None if the payload is damaged, or not so many."""
        if self.damaged or self.code not in list(Encoding) or len(self.payload) != Encoding(self.code).size(dim):
            return None
        return Encoded(Encoding(self.code), dim, np.frombuffer(self.payload, np.uint8)).decode()

    def floats(self) -> Vector:
        """The payload as float32s, however many."""
        return np.frombuffer(self.payload, np.float32)

    def sums(self) -> tuple[int, int] | None:
        """Checksums of v and z; None if the payload is none."""
        if len(self.payload) != _SUMS.size:
            return None
        v, z = _SUMS.unpack(self.payload)
        return v, z

    def text(self) -> str:
        """The payload as words."""
        return bytes(self.payload).decode(errors="replace")


def checksum(vector: Vector) -> int:
    """CRC-32 of a vector's bytes."""
    return zlib.crc32(vector.data)


def pack_sums(v: int, z: int) -> bytes:
    """The payload that `Frame.sums` reads."""
    return _SUMS.pack(v, z)


def packed(w: Vector, encoding: Encoding) -> Encoded:
    """A delta in the encoding in which it came, if it is the same numbers then, else as float32."""
    if encoding is not Encoding.FLOAT32:
        short = encode(w, encoding)
        if np.array_equal(short.decode().view(np.uint32), w.view(np.uint32)):
            return short
    return plain(w)


class Writer:
    """Appends frames to a new file.

    Args:
        path: An older file there is replaced.
        limit_bytes: The file does not grow beyond.

    Raises:
        OSError: The file cannot be made.
    """

    def __init__(self, path: Path, limit_bytes: float) -> None:
        self._file = path.open("wb", buffering=0)
        self._limit_bytes = limit_bytes
        self.size = 0
        """Bytes of whole frames."""
        self._put(MAGIC + _VERSION.pack(FORMAT))

    def write(self, frame: Frame, *, last: bool = False, payload_sum: int | None = None) -> bool:
        """Append a frame; False if there is no room for it and a last one.

        Args:
            frame: What to write.
            last: Nothing will follow, so it may take what is kept for a last one.
            payload_sum: The payload's checksum, where it is known.

        Raises:
            OSError: The disk is full, for example.
        """
        payload = memoryview(frame.payload).cast("B")
        if not last and self.size + HEAD_BYTES + payload.nbytes + LAST_BYTES > self._limit_bytes:
            return False
        head = HEAD.pack(
            frame.kind,
            frame.code,
            frame.node,
            frame.t,
            frame.since,
            frame.count,
            frame.number,
            payload.nbytes,
            zlib.crc32(payload) if payload_sum is None else payload_sum,
        )
        self._put(head + CHECK.pack(zlib.crc32(head)), payload)
        return True

    def _put(self, *parts: bytes | memoryview) -> None:
        try:
            for part in parts:
                left = memoryview(part)
                while left:
                    left = left[self._file.write(left) :]
        except OSError:
            with contextlib.suppress(OSError):  # half a frame is a torn tail, which a reader forgives
                self._file.seek(self.size)
                self._file.truncate()
            raise
        self.size += sum(len(part) for part in parts)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()


class Ending(enum.Enum):
    """How a recording ends."""

    WHOLE = enum.auto()
    """With a last word."""
    TORN = enum.auto()
    """Between two frames or inside one: the master was killed."""
    DAMAGED = enum.auto()
    """At a head that is none."""


class Recording:
    """A recording to be read.

    Attributes:
        about: What was recorded, as JSON values.
        dim: Length of v.
        t: Global steps before.
        v: v at the start, float32 [dim].
        z: The velocity at the start, float32 [dim].
        ending: How it ends; None before `frames` has come to the end.
        last: The last frame, where there is a last word.
        offset: Where in the file the next frame begins.

    Raises:
        ConfigError: The file cannot be read, is none of these, of another version, or has no whole beginning.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ending: Ending | None = None
        self.last: Frame | None = None
        self.offset = 0
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        path = self.path
        try:
            self.size = path.stat().st_size
            start = self._file.read(len(MAGIC) + _VERSION.size)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
        if not start.startswith(MAGIC) or len(start) < len(MAGIC) + _VERSION.size:
            raise ConfigError(f"{path}: not a recording of this project")
        (version,) = _VERSION.unpack(start[len(MAGIC) :])
        if version != FORMAT:
            raise ConfigError(f"{path}: format {version} is unknown; this version reads {FORMAT}")
        self.offset = len(start)
        about, v, z = (self._first(kind) for kind in (Kind.ABOUT, Kind.V, Kind.Z))
        self.about = self._understand(about)
        self.dim, self.t = int(self.about["dim"]), v.t
        self.v, self.z = self._numbers(v), self._numbers(z)

    def _first(self, kind: Kind) -> Frame:
        frame = self._next()
        if frame is None or frame.damaged or frame.kind is not kind:
            raise ConfigError(f"{self.path}: {'damaged' if frame else 'too short'}: its {kind.name} is missing")
        return frame

    def _numbers(self, frame: Frame) -> Vector:
        vector = frame.vector(self.dim)
        if vector is None:
            raise ConfigError(f"{self.path}: damaged: its {frame.kind.name} is not of {self.dim} numbers")
        return vector

    def _understand(self, frame: Frame) -> Mapping[str, Any]:
        try:
            about = json.loads(bytes(frame.payload))
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{self.path}: damaged: its ABOUT is not JSON: {error}") from None
        for name, fits in _ABOUT.items():
            if not isinstance(about, dict) or name not in about:
                raise ConfigError(f"{self.path}: damaged: its ABOUT lacks {name}")
            if not fits(about[name]):
                raise ConfigError(f"{self.path}: damaged: its ABOUT has {name} = {about[name]!r}")
        return dict(about)

    def frames(self) -> Iterator[Frame]:
        """What comes after the start, to the last frame that is whole; one whose payload is damaged says so."""
        while (frame := self._next()) is not None:
            if frame.kind is Kind.END:
                self.ending, self.last = (Ending.DAMAGED, None) if frame.damaged else (Ending.WHOLE, frame)
                return
            yield frame

    def _next(self) -> Frame | None:
        try:
            head = self._file.read(HEAD_BYTES)
            if len(head) < HEAD_BYTES or not any(head):  # zeros: a file that grew before its content was on the disk
                self.ending = Ending.TORN
                return None
            kind, code, node, t, since, count, number, size, payload_sum = HEAD.unpack(head[: HEAD.size])
            if CHECK.unpack(head[HEAD.size :])[0] != zlib.crc32(head[: HEAD.size]) or kind not in list(Kind):
                self.ending = Ending.DAMAGED
                return None
            if size > self.size - self.offset - HEAD_BYTES:
                self.ending = Ending.TORN
                return None
            payload = self._file.read(size)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be read: {error.strerror or error}") from None
        self.offset += HEAD_BYTES + size
        return Frame(
            kind=Kind(kind),
            node=node,
            t=t,
            since=since,
            count=count,
            number=number,
            code=code,
            payload=payload,
            damaged=zlib.crc32(payload) != payload_sum,
        )

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()
