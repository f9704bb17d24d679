"""Text files line by line, plain or packed by gzip, in blocks of bounded size, with errors that name the line."""

from __future__ import annotations

import gzip
import os
import reprlib
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from pathlib import Path

from examples.lda.corpora.progress import reading
from hsa2c.errors import ConfigError

BLOCK_BYTES = 4 << 20
LONGEST_LINE_BYTES = 64 << 20  # a file without line ends must not fill the memory

Stream = BufferedReader | gzip.GzipFile

_GZIP = b"\x1f\x8b"

_short = reprlib.Repr()
_short.maxstring = 60


class Lines:
    """The lines of an open file, given out one by one or in blocks of many."""

    def __init__(self, path: Path, stream: Stream, tick: Callable[[], None], block_bytes: int) -> None:
        """Read `stream`, whose errors are said to be of `path`; `tick` is called after each block."""
        self.path = path
        self.before = 0
        """Lines given out before the line, or the block, that was given out last."""
        self._stream, self._tick, self._block_bytes = stream, tick, block_bytes
        self._given = 0
        self._rest = b""  # read, but not given out
        self._broken: str | None = None

    def line(self) -> bytes | None:
        """The next line without its end; None at the end of the file. For a few: each costs a block's copy."""
        while b"\n" not in self._rest and self._read():
            pass
        if not self._rest:
            return None
        return self._take(self._rest.find(b"\n") + 1 or len(self._rest)).removesuffix(b"\n")

    def blocks(self) -> Iterator[bytes]:
        """All lines that are left, in blocks of whole lines, each with its end, also the last of the file."""
        while True:
            if cut := self._rest.rfind(b"\n") + 1:
                yield self._take(cut)
            elif not self._read():
                break
        if self._rest:
            yield self._take(len(self._rest)) + b"\n"

    def each(self) -> Iterator[tuple[int, bytes]]:
        """All lines that are left: the number, from 1, and the line without its end."""
        for block in self.blocks():
            yield from enumerate(block[:-1].split(b"\n"), self.before + 1)

    def error(self, what: str, number: int) -> ConfigError:
        """That line `number`, counted from 1, is wrong."""
        return ConfigError(f"{self.path}: line {number}: {what}")

    def _take(self, length: int) -> bytes:
        """Give out so many bytes, which are whole lines."""
        text, self._rest = self._rest[:length], self._rest[length:]
        self.before, self._given = self._given, self._given + text.count(b"\n") + (not text.endswith(b"\n"))
        return text

    def _read(self) -> bool:
        """Read about a block more; False at the end of the file. What comes before a damaged place is given first."""
        here = self._given + 1  # the line that goes on in what is read now
        if self._broken is not None:
            raise self.error(self._broken, here)
        if len(self._rest) > LONGEST_LINE_BYTES:
            raise self.error(f"longer than {LONGEST_LINE_BYTES} bytes", here)
        parts: list[bytes] = []
        wanted = self._block_bytes
        try:
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
        self._rest += b"".join(parts)
        return bool(parts) or self._broken is not None


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
    with (
        open_binary(path) as (stream, raw),
        reading(path.name, os.fstat(raw.fileno()).st_size, show=progress) as tick,
    ):
        yield Lines(path, stream, lambda: tick(raw.tell()), block_bytes)


def read_vocabulary(path: Path) -> list[str]:
    """The words of a file that has one on each line.

    Raises:
        ConfigError: It cannot be read, is not UTF-8, has an empty line or no word.
    """
    words = []
    with open_lines(path) as lines:
        for number, line in lines.each():
            try:
                word = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                raise lines.error(f"{shown(line)}: not UTF-8", number) from None
            if not word:
                raise lines.error("empty; must be a word", number)
            words.append(word)
    if not words:
        raise ConfigError(f"{path}: has no words")
    return words


def shown(text: bytes) -> str:
    """Bytes of a file as text for an error's line: in quotation marks, and not too long."""
    return _short.repr(text.decode(errors="backslashreplace"))


def unreadable(path: Path, error: OSError) -> ConfigError:
    """That a file or folder cannot be read, and why."""
    return ConfigError(f"{path}: cannot be read: {error.strerror or error}")
