"""Write a run's movie: pictures and sound through ffmpeg into H.264 and AAC."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sherlock_data.stimulus.encode import encode
from sherlock_data.synthetic.pictures import draw
from sherlock_data.synthetic.sizes import Size
from sherlock_data.synthetic.sound import CHANNELS, SAMPLING_RATE, sound_blocks
from sherlock_data.synthetic.tracks import VIDEO_TRACKS, RunTracks

#: black and silent seconds after the run, as real movie files have them
CREDITS_S = 2.0
#: frames drawn at once
BLOCK = 128


def write_movie(
    path: Path,
    tracks: RunTracks,
    size: Size,
    tr_s: float,
    report: Callable[[float], None] = lambda share: None,
) -> None:
    """Write one run's movie.

    Parameters
    ----------
    path : Path
        The mp4 file to write.
    tracks : RunTracks
    size : Size
        Gives the frame rate and the frame.
    tr_s : float
        Seconds.
    report : callable
        Told the share that is done.

    Raises
    ------
    InputError
        If ffmpeg fails.
    """
    end_s = tracks.run.movie_start_s + tracks.run.volumes * tr_s
    total_s = end_s + CREDITS_S
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".sound-") as folder:
        sound = Path(folder) / "sound.s16le"
        with sound.open("wb") as file:
            for block in sound_blocks(tracks, end_s, total_s):
                file.write(block.tobytes())
        frames = _frames(tracks, size, tr_s, end_s, total_s, report)
        encode(_arguments(sound, size), frames, path, path.name)


def _frames(
    tracks: RunTracks,
    size: Size,
    tr_s: float,
    end_s: float,
    total_s: float,
    report: Callable[[float], None],
) -> Iterator[NDArray[np.uint32]]:
    count = round(total_s * size.frame_rate)
    width, height = size.frame
    for first in range(0, count, BLOCK):
        index = np.arange(first, min(first + BLOCK, count))
        seconds: NDArray[np.float64] = (index.astype(np.float64) + 0.5) / size.frame_rate
        frames = draw(tracks.at(seconds, VIDEO_TRACKS), seconds / tr_s, width, height)
        frames[index / size.frame_rate >= end_s] = 0
        yield frames
        report((int(index[-1]) + 1) / count)


def _arguments(sound: Path, size: Size) -> list[str]:
    width, height = size.frame
    pictures = ["-f", "rawvideo", "-pix_fmt", "rgb0", "-s", f"{width}x{height}"]
    pictures += ["-r", f"{size.frame_rate:g}", "-i", "-"]
    audio = ["-f", "s16le", "-ar", str(SAMPLING_RATE), "-ac", str(CHANNELS), "-i", str(sound)]
    h264 = ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "20", "-pix_fmt", "yuv420p"]
    aac = ["-c:a", "aac", "-aac_coder", "fast", "-b:a", "160k"]
    # bitexact: no encoder version and no date in the file
    return [*pictures, *audio, *h264, *aac, "-bitexact"]
