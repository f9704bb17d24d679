"""Text files line by line, plain or packed by gzip, in blocks of bounded size, with errors that name the line."""

from __future__ import annotations

import codecs
import gzip
import os
import reprlib
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from pathlib import Path

from hsa2c.errors import ConfigError
from hsa2c.examples.lda.corpora.progress import reading

BLOCK_BYTES = 4 << 20
LONGEST_LINE_BYTES = 64 << 20  # a file without line ends must not fill the memory

#: What a file packed by gzip may hold: so many times its size, far more than counts of words ever shrink by, and this.
MOST_EXPANSION, ANY_BYTES = 100, 16 << 20

Stream = BufferedReader | gzip.GzipFile

_GZIP = b"\x1f\x8b"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

_short = reprlib.Repr()
_short.maxstring = 60


class Lines:
    """The lines of an open file, given out one by one or in blocks of many, less the mark of UTF-8 before them."""

    def __init__(
        self, path: Path, stream: Stream, tick: Callable[[], None], block_bytes: int, most_bytes: int = sys.maxsize
    ) -> None:
        """Read `stream`, whose errors are said to be of `path`; `tick` is called after each block.

        `most_bytes` is what a file of its size can hold, unpacked.
        """
        self.path = path
        self.most_bytes = most_bytes
        """See `__init__`: what a header says must fit into them."""
        self.before = 0
        """Lines given out before the line, or the block, that was given out last."""
        self._stream, self._tick, self._block_bytes = stream, tick, block_bytes
        self._given = 0
        self._rest, self._at = b"", 0  # read, and how much of that was given out
        self._read_bytes = 0
        self._broken: str | None = None

    def line(self) -> bytes | None:
        """The next line without its end; None at the end of the file."""
        while (end := self._rest.find(b"\n", self._at)) < 0 and self._read():
            pass
        if self._at == len(self._rest):
            return None
        return self._take(end + 1 or len(self._rest)).removesuffix(b"\n")

    def filled(self, comment: bytes | None = None) -> tuple[int, bytes]:
        """The next line that is neither blank nor begins with `comment`, and its number, from 1.

        At the end of the file it is an empty one, with the number that another line would have.
        """
        while (line := self.line()) is not None:
            if line.strip() and not (comment and line.lstrip().startswith(comment)):
                return self.before + 1, line
        return self._given + 1, b""

    def blocks(self) -> Iterator[bytes]:
        """All lines that are left, in blocks of whole lines, each with its end, also the last of the file."""
        while True:
            if (cut := self._rest.rfind(b"\n", self._at) + 1) > 0:
                yield self._take(cut)
            elif not self._read():
                break
        if self._at < len(self._rest):
            yield self._take(len(self._rest)) + b"\n"

    def each(self) -> Iterator[tuple[int, bytes]]:
        """All lines that are left: the number, from 1, and the line without its end."""
        for block in self.blocks():
            yield from enumerate(block[:-1].split(b"\n"), self.before + 1)

    def error(self, what: str, number: int) -> ConfigError:
        """That line `number`, counted from 1, is wrong."""
        return ConfigError(f"{self.path}: line {number}: {what}")

    def _take(self, end: int) -> bytes:
        """Give out what is read up to there, which is whole lines."""
        text, self._at = self._rest[self._at : end], end
        self.before, self._given = self._given, self._given + text.count(b"\n") + (not text.endswith(b"\n"))
        return text

    def _read(self) -> bool:
        """Read about a block more; False at the end of the file. What comes before a damaged place is given first."""
        here = self._given + 1  # the line that goes on in what is read now
        self._rest, self._at = self._rest[self._at :], 0
        if self._broken is not None:
            raise self.error(self._broken, here)
        if len(self._rest) > LONGEST_LINE_BYTES:
            raise self.error(f"longer than {LONGEST_LINE_BYTES} bytes", here)
        if self._read_bytes > self.most_bytes:
            raise self.error(
                f"the file goes on after {self.most_bytes} bytes, more than one of its size may hold", here
            )
        parts: list[bytes] = []
        try:
            if self._read_bytes == 0:
                self._pass_mark()
            wanted = self._block_bytes
            # read1: read would lose what it has when it meets damage, and with it the number of the line.
            while wanted > 0 and (part := self._stream.read1(wanted)):
                parts.append(part)
                wanted -= len(part)
        except EOFError:
            self._broken = "the file, packed by gzip, ends too early"
        except (gzip.BadGzipFile, zlib.error) as error:
            self._broken = f"damaged; what gzip packed does not unpack: {error}"
        except OSError as error:
            raise unreadable(self.path, error) from None
        self._tick()
        more = b"".join(parts)
        self._rest += more
        self._read_bytes += len(more)
        return bool(parts) or self._broken is not None

    def _pass_mark(self) -> None:
        """Pass over a byte order mark, which is no part of the text."""
        beginning = self._stream.peek(len(codecs.BOM_UTF8))
        if beginning.startswith(codecs.BOM_UTF8):
            self._stream.read(len(codecs.BOM_UTF8))
        elif beginning.startswith(_UTF16):
            raise self.error("the file is UTF-16: must be UTF-8", 1)


@contextmanager
def open_binary(path: Path) -> Iterator[tuple[Stream, BufferedReader]]:
    """Open a file; what it begins with, not its name, tells whether gzip has packed it.

    Yields:
        The file's bytes, unpacked, and the file as it is.

    Raises:
        ConfigError: It cannot be opened.
    """
    with ExitStack() as stack:
        try:
            raw = stack.enter_context(path.open("rb"))
            packed = raw.peek(len(_GZIP))[: len(_GZIP)] == _GZIP
        except OSError as error:
            raise unreadable(path, error) from None
        yield stack.enter_context(gzip.GzipFile(fileobj=raw)) if packed else raw, raw


@contextmanager
def open_lines(path: Path, *, progress: bool = False, block_bytes: int = BLOCK_BYTES) -> Iterator[Lines]:
    """Open a file of text, plain or packed by gzip.

    Args:
        path: The file.
        progress: Show a bar if stderr is a terminal.
        block_bytes: Size of a block, apart from the rest of a line.

    Raises:
        ConfigError: It cannot be opened.
    """
    with open_binary(path) as (stream, raw):
        size = os.fstat(raw.fileno()).st_size
        most_bytes = size if stream is raw else MOST_EXPANSION * size + ANY_BYTES
        with reading(path.name, size, show=progress) as tick:
            yield Lines(path, stream, lambda: tick(raw.tell()), block_bytes, most_bytes)


def shown(text: bytes) -> str:
    """Bytes of a file as text for an error's line: in quotation marks, and not too long."""
    return _short.repr(text.decode(errors="backslashreplace"))


def unreadable(path: Path, error: OSError | ValueError) -> ConfigError:
    """That a file or folder cannot be read, and why."""
    return ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}")
