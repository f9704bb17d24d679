"""A film, MP4 or GIF, image by image: by the ffmpeg that imageio brings."""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from hsa2c.errors import ConfigError, HSA2CError

#: Options of ffmpeg by suffix. An MP4 keeps one colour for each 2x2 pixels, so its sides are even. A GIF gets a palette
#: for each image.
FORMATS = {
    ".mp4": ["-vf", "{larger},pad=ceil(iw/2)*2:ceil(ih/2)*2", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20"],
    ".gif": ["-vf", "{larger},split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1:dither=none"],
}

Image = npt.NDArray[np.uint8]
"""[height, width, 3]."""


def check_recordable(path: Path) -> None:
    """Find out before any playing whether `film` could write to `path`.

    Raises:
        ConfigError: As `film`; or there is no folder for it that can be written to.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"video = {str(path)!r}: must end in {' or '.join(FORMATS)}")
    _ffmpeg()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"video = {str(path)!r}: {error.strerror}") from None
    if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigError(f"video = {str(path)!r}: must be a file in a folder that can be written to")


@contextlib.contextmanager
def film(path: Path, first: Image, *, images_per_s: float, enlarge: int = 1) -> Iterator[Callable[[Image], None]]:
    """A function that adds an image. The file gets its name when all went well.

    Args:
        path: Ends in .mp4 or .gif; an existing file is replaced.
        first: The first image, which is in already; all others are as large.
        images_per_s: How fast it is shown.
        enlarge: Side of the square that a pixel becomes, by nearest neighbour, so that edges stay sharp.

    Raises:
        ConfigError: The suffix is another, or the extra ``video`` is not installed.
        HSA2CError: The video writer failed.
    """
    unfinished = path.absolute().with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    height, width, _ = first.shape
    command = [_ffmpeg(), "-y", "-loglevel", "error"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{images_per_s:g}", "-i", "-"]
    larger = f"scale=iw*{enlarge}:ih*{enlarge}:flags=neighbor"
    command += [option.format(larger=larger) for option in FORMATS[path.suffix.lower()]] + [str(unfinished)]
    try:
        with _running(path, command) as pipe:
            pipe.write(first.tobytes())

            def write(image: Image) -> None:
                pipe.write(image.tobytes())

            yield write
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def _running(path: Path, command: list[str]) -> Iterator[IO[bytes]]:
    """Standard input of a command, which must end well. An error meanwhile ends it at once."""
    with tempfile.TemporaryFile() as complaints:
        try:
            # A session of its own: an interrupt from the terminal is for us to handle.
            with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=complaints, start_new_session=True) as process:
                assert process.stdin is not None
                try:
                    yield process.stdin
                except BrokenPipeError:
                    raise  # It has ended by itself: let it say why.
                except BaseException:
                    process.kill()
                    raise
        except BrokenPipeError:
            if not process.returncode:
                raise
        if process.returncode:
            complaints.seek(0)
            why = complaints.read().decode(errors="replace").split("\n")[0] or f"exit status {process.returncode}"
            raise HSA2CError(f"{path}: ffmpeg failed: {why}")


def _ffmpeg() -> str:
    """The ffmpeg that imageio brings."""
    try:
        return str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        raise ConfigError("a video needs ffmpeg: pip install 'hsa2c[video]'") from None
