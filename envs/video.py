"""One whole game as a video, in the colours and shapes of the screen rather than the agent's 84x84 grey.

The game is played twice at once with the same seed and actions: by the environments the agent always sees, and by
one more emulator that gives the colours. Emulators are deterministic, so the video shows exactly the game that an
evaluation with that seed plays, no-op start and sticky actions included.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Self

import numpy as np
import numpy.typing as npt

from hsa2c.envs.atari import AtariEnvs, GameResult, open_native, screen_size
from hsa2c.envs.emulators import FRAMES_PER_AGENT_STEP
from hsa2c.envs.names import Game
from hsa2c.envs.settings import EnvConfig
from hsa2c.errors import ConfigError, HSA2CError

#: The console's 60 frames/s, one image for each agent step: real time.
IMAGES_PER_S = 60 / FRAMES_PER_AGENT_STEP

#: Side of the square that a screen pixel becomes, by nearest neighbour, so that edges stay sharp. Even, because MP4
#: keeps one colour for each 2x2 pixels.
SCALE = 2

_ENLARGE = f"scale=iw*{SCALE}:ih*{SCALE}:flags=neighbor"

#: Options of ffmpeg by suffix. A GIF gets a palette for each image: no screen has more than its 256 colours.
FORMATS = {
    ".mp4": ["-vf", _ENLARGE, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20"],
    ".gif": ["-vf", f"{_ENLARGE},split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1:dither=none"],
}

Act = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.int64]]
Image = npt.NDArray[np.uint8]


def record(game: Game, config: EnvConfig, act: Act, path: Path, *, seed: int) -> GameResult:
    """Play one whole game and write it to `path`, which appears only when it is complete.

    Args:
        game: Which one.
        config: How it is played; its frame cap bounds the video too.
        act: uint8 observations [1, 4, 84, 84] to int64 actions [1].
        path: Ends in .mp4 or .gif; an existing file is replaced.
        seed: Of the game.

    Returns:
        What was played.

    Raises:
        ConfigError: The suffix is another, the extra ``video`` is not installed, or `path` cannot be written.
        HSA2CError: The video writer failed.
    """
    check_recordable(path)
    with AtariEnvs(game, config, 1, seed=seed) as envs, _ColourScreen(game, config) as screen:
        obs = envs.reset()
        first = screen.reset(seed)
        with _video(path, first) as write:
            while True:
                actions = act(obs)
                step = envs.step(actions)
                image, over = screen.step(actions)
                if over != bool(step.games):
                    raise HSA2CError(f"{path}: the two emulators of the video no longer play the same game")
                write(image)
                if over:
                    return step.games[0]
                obs = step.obs


def check_recordable(path: Path) -> None:
    """Find out before any playing whether `record` could write to `path`.

    Raises:
        ConfigError: As `record`.
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


class _ColourScreen:
    """The emulator that gives the colours: images [height, 160, 3], max-pooled over the last two frames.

    Without the pooling, what a game draws in every other frame only would be missing from each image or from none.
    """

    def __init__(self, game: Game, config: EnvConfig) -> None:
        height, width = screen_size(game)
        self._native = open_native(
            game, config, 1, img_height=height, img_width=width, grayscale=False, stack_num=1, maxpool=True
        )

    def reset(self, seed: int) -> Image:
        """The first image of a new game."""
        obs, _ = self._native.reset(seed=seed)
        return obs[0, 0]  # type: ignore[no-any-return]

    def step(self, actions: npt.NDArray[np.int64]) -> tuple[Image, bool]:
        """The next image, and whether the game is over."""
        obs, _, terminated, truncated, _ = self._native.step(actions)
        return obs[0, 0], bool(terminated[0] or truncated[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        del self._native


@contextlib.contextmanager
def _video(path: Path, first: Image) -> Iterator[Callable[[Image], None]]:
    """A function that adds an image; `first` is in already. The file gets its name when all went well."""
    unfinished = path.absolute().with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    height, width, _ = first.shape
    command = [_ffmpeg(), "-y", "-loglevel", "error"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{IMAGES_PER_S:g}", "-i", "-"]
    command += [*FORMATS[path.suffix.lower()], str(unfinished)]
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
