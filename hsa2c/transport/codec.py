"""Deltas in fewer bytes than float32, and what rounding takes from one handed on to the next.

| encoding | bytes | what |
|---|---|---|
| float32 | 4 | as it is |
| bfloat16 | 2 | the upper half of a float32, rounded to nearest, ties away from 0: 8 bits of precision |
| int8 | 1 | w / s rounded to nearest, with one s = max |w| / 127 for each block of 4096 entries |

The scales, float32, come first; they add a thousandth.

A delta whose length is not below 2^29 goes as float32 whatever the encoding, so that NaN and infinity arrive, and are
refused where every other delta's are. Numbers are little-endian, as the machines are.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hsa2c.dpsgd.protocols import Vector

Bytes = npt.NDArray[np.uint8]

BLOCK = 4096
"""Entries that share a scale."""

_CHUNK = 16 * BLOCK  # entries that are worked on at a time: they stay in a core's own cache
_LONGEST = 2.0**29  # of what is rounded: its squared length is then far from a float32's end


class Encoding(enum.IntEnum):
    """How numbers are written. The numbers are on the wire."""

    FLOAT32 = 0
    BFLOAT16 = 1
    INT8 = 3  # 2 was another one's

    def size(self, dim: int) -> int:
        """Bytes of `dim` numbers."""
        return _WIDTH[self] * dim + 4 * self._scales(dim)

    def _scales(self, dim: int) -> int:
        return -(-dim // BLOCK) if self is Encoding.INT8 else 0


_WIDTH = {Encoding.FLOAT32: 4, Encoding.BFLOAT16: 2, Encoding.INT8: 1}


@dataclass(frozen=True, slots=True)
class Encoded:
    """A vector of `dim` numbers as bytes."""

    encoding: Encoding
    dim: int
    data: Bytes

    def decode(self, out: Vector | None = None) -> Vector:
        """The numbers, float32 [dim]: in `out`, or (float32, and no `out`) a view of the bytes."""
        if self.encoding is Encoding.FLOAT32:
            plain_view = self.data.view(np.float32)
            if out is None:
                return plain_view
            np.copyto(out, plain_view)
            return out
        out = np.empty(self.dim, np.float32) if out is None else out
        for part, scales, codes in _parts(self):
            _READ[self.encoding](codes, scales, out[part])
        return out

    def add_to(self, out: Vector) -> None:
        """Add the numbers to `out`, float32 [dim]: chunk by chunk, so that they are never all in memory as float32."""
        if self.encoding is Encoding.FLOAT32:
            out += self.data.view(np.float32)
            return
        numbers = np.empty(min(_CHUNK, self.dim), np.float32)
        for part, scales, codes in _parts(self):
            read = numbers[: codes.size]
            _READ[self.encoding](codes, scales, read)
            out[part] += read


def plain(w: Vector) -> Encoded:
    """A float32 vector as it is; a view."""
    return Encoded(Encoding.FLOAT32, w.size, w.view(np.uint8))


def encode(w: Vector, encoding: Encoding, out: Bytes | None = None) -> Encoded:
    """The vector in this encoding, or as float32 if it cannot be.

    Args:
        w: float32 [dim].
        encoding: Any but float32, for which there is `plain`.
        out: Where the bytes go, at least `encoding.size(dim)`; None for new memory.
    """
    if not fits(w):
        return plain(w.copy())
    encoded = _room(w.size, encoding, out)
    for part, scales, codes in _parts(encoded):
        _WRITE[encoding](w[part], scales, codes)
    return encoded


def fits(w: Vector) -> bool:
    """Whether w can be encoded: it is finite, and not longer than 2^29."""
    return bool(_squared_length(w) < _LONGEST**2)  # false for NaN


def finite(w: Vector) -> bool:
    """Whether every entry is. One pass, and the fastest there is, unless the squares are too large for a float32."""
    return bool(np.isfinite(_squared_length(w))) or bool(np.isfinite(w).all())


def _squared_length(w: Vector) -> np.float32:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.float32(np.dot(w, w))


class Feedback:
    """Encodes one delta after the other, and adds to each what rounding took from those before.

    Error feedback (Seide et al. 2014, Karimireddy et al. 2019): with e the residual, w + e is sent, and
    e <- (w + e) - decode(encode(w + e)). The sum of what arrives is then the sum of the deltas but for the last e, that
    is one rounding, which nobody sends.

    Args:
        encoding: Of the deltas.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._e: Vector | None = None
        self._out: Bytes | None = None

    def encode(self, w: Vector) -> Encoded:
        """The next delta, valid until the one after."""
        if self._encoding is Encoding.FLOAT32 or not fits(w):
            return plain(w)  # e stays as it is: a NaN must not reach it
        if self._e is None or self._out is None:
            self._e = np.zeros(w.size, np.float32)
            self._out = np.empty(self._encoding.size(w.size), np.uint8)
        encoded = _room(w.size, self._encoding, self._out)
        arrives = np.empty(min(_CHUNK, w.size), np.float32)
        for part, scales, codes in _parts(encoded):
            e, read = self._e[part], arrives[: codes.size]
            e += w[part]
            _WRITE[self._encoding](e, scales, codes)
            _READ[self._encoding](codes, scales, read)
            e -= read
        return encoded


def _room(dim: int, encoding: Encoding, out: Bytes | None) -> Encoded:
    size = encoding.size(dim)
    return Encoded(encoding, dim, np.empty(size, np.uint8) if out is None else out[:size])


_Codes = npt.NDArray[Any]  # uint16, or int8


def _parts(encoded: Encoded) -> Iterator[tuple[slice, Vector, _Codes]]:
    """Whole blocks, many at a time, and then what is left: place in the vector, scales, codes."""
    dim, encoding = encoded.dim, encoded.encoding
    head = encoding.size(dim) - _WIDTH[encoding] * dim
    scales = encoded.data[:head].view(np.float32)
    codes = encoded.data[head:].view(np.int8 if encoding is Encoding.INT8 else np.uint16)
    whole = dim - dim % BLOCK
    starts = [*range(0, whole, _CHUNK), whole] if whole < dim else range(0, whole, _CHUNK)
    for start in starts:
        part = slice(start, min(start + _CHUNK, whole) if start < whole else dim)
        yield part, scales[start // BLOCK : -(-part.stop // BLOCK)], codes[part]


def _rows(w: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return w.reshape(-1, min(BLOCK, w.size))


def _largest(rows: Vector) -> Vector:
    """Of each row, without sign."""
    largest: Vector = np.maximum(rows.max(axis=1), -rows.min(axis=1))
    return largest


def _write_bfloat16(w: Vector, scales: Vector, codes: _Codes) -> None:
    rounded = w.view(np.uint32) + np.uint32(0x8000)
    rounded >>= np.uint32(16)
    np.copyto(codes, rounded, casting="unsafe")


def _read_bfloat16(codes: _Codes, scales: Vector, out: Vector) -> None:
    np.left_shift(codes, 16, out=out.view(np.uint32), dtype=np.uint32)


def _write_int8(w: Vector, scales: Vector, codes: _Codes) -> None:
    rows = _rows(w)
    np.divide(_largest(rows), np.float32(127), out=scales)
    scales[scales < np.finfo(np.float32).tiny] = 0  # whose inverse would be infinite: they stay in e
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)
    scaled = rows * inverse[:, None]
    np.rint(scaled, out=scaled)
    np.copyto(_rows(codes), scaled, casting="unsafe")


def _read_int8(codes: _Codes, scales: Vector, out: Vector) -> None:
    np.multiply(_rows(codes), scales[:, None], out=_rows(out), dtype=np.float32)


_WRITE: dict[Encoding, Callable[[Vector, Vector, _Codes], None]] = {
    Encoding.BFLOAT16: _write_bfloat16,
    Encoding.INT8: _write_int8,
}
_READ: dict[Encoding, Callable[[_Codes, Vector, Vector], None]] = {
    Encoding.BFLOAT16: _read_bfloat16,
    Encoding.INT8: _read_int8,
}
