"""A movie file through ffmpeg: what it holds, its frames with their true times, its sound.

Times are seconds from the container's start, which is what a player shows as 0. No stream is ever
given another frame rate: every frame keeps its own presentation time (ISO/IEC 14496-12 calls it
composition time), so a movie of variable frame rate is as right as one of constant rate.
"""

from __future__ import annotations

import hashlib
import queue
import re
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sherlock_data.errors import InputError, or_beside
from sherlock_data.stimulus.ffmpeg import REENCODE, Ffmpeg, Packets

#: steps of a :class:`Frame`'s picture per grey level
LEVEL = 256
#: bytes of sound read at once
SOUND_BYTES = 1 << 18
#: a gap or an overlap of sound packets longer than this is filled or cut, so that later sound
#: stays where its timestamps say
SOUND_TOLERANCE_S = 0.02

#: ffmpeg's own lines; tags of a movie may say anything, but not at the start of a line
_SHOWINFO = "[Parsed_showinfo"
_FRAME = re.compile(r"\bn: *\d+ pts: *(\S+) ")
_DURATION = re.compile(r" duration: *(\d+) ")
_TIME_BASE = re.compile(r"config in time_base: (\d+/\d+)")
_START = re.compile(r"^\[info\] {2,3}Duration: .*?, start: (-?[\d.]+)")


@dataclass(frozen=True)
class MovieProbe:
    """What a movie file holds, from its packets' headers; no picture is decoded.

    Attributes
    ----------
    path : Path
    start_s : Fraction
        Container time that counts as 0, in seconds.
    duration_s : float
        End of the last packet, video or sound, in seconds.
    video_seconds : float
        End of the last frame in seconds.
    frame_rate : Fraction
        Frames per second; the mean where the rate varies.
    width, height : int
        Pixels, before any rotation the file asks for.
    video_codec : str
    has_audio : bool
    sample_rate, channels : int
        Of the first sound stream (Hz); 0 without one.
    audio_codec : str
        Empty without sound.
    sha256 : str
    bytes : int
    """

    path: Path
    start_s: Fraction
    duration_s: float
    video_seconds: float
    frame_rate: Fraction
    width: int
    height: int
    video_codec: str
    has_audio: bool
    sample_rate: int
    channels: int
    audio_codec: str
    sha256: str
    bytes: int

    def describe(self) -> dict[str, Any]:
        """Fields as JSON values, the file by its name only."""
        fields = asdict(self)
        fields["path"] = self.path.name
        return {**fields, "start_s": str(self.start_s), "frame_rate": str(self.frame_rate)}


@dataclass(frozen=True)
class Frame:
    """One frame while it is on the screen.

    Attributes
    ----------
    start_s, end_s : float
        Movie seconds; a frame stays until the next one starts.
    picture : ndarray of uint16, shape (height, width, 3)
        RGB in 1/256 grey level (``LEVEL``), 0 to 255 * 256: averaging areas gives fractions, and
        rounding them in every frame would put up to half a level on the mean.
    """

    start_s: float
    end_s: float
    picture: NDArray[np.uint16]


def probe(path: Path) -> MovieProbe:
    """Look into a movie file and hash it.

    Parameters
    ----------
    path : Path
        Of one of the containers that are opened (`sherlock_data.stimulus.ffmpeg.CONTAINERS`).

    Returns
    -------
    MovieProbe

    Raises
    ------
    InputError
        If the file is missing, truncated, no movie, without a video stream or without a frame.
    """
    if not path.is_file():
        remedy = or_beside(path, "check --raw and the catalogue")
        raise InputError("no such movie file", where=path, remedy=remedy)
    start: list[str] = []

    def notice(line: str) -> None:
        start.extend(_START.findall(line))

    packets = ["-map", "0:V:0", "-map", "0:a:0?", "-c", "copy", "-f", "framecrc", "-"]
    with closing(Ffmpeg(path, packets, notice)) as ffmpeg:
        streams = Packets.read(ffmpeg.stdout)
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        ffmpeg.finish(ignore=streams.codecs())
    zero = Fraction(start[0]) if start else Fraction(0)
    ends = [float(streams.end(i) - zero) for i in streams.headers if streams.count.get(i)]
    if not streams.count.get(0):
        raise InputError("a video stream without a frame", where=path, remedy=REENCODE)
    width, _, height = streams.headers[0].get("dimensions", "0x0").partition("x")
    sound = streams.headers.get(1, {})
    return MovieProbe(
        path=path,
        start_s=zero,
        duration_s=max(ends),
        video_seconds=ends[0],
        frame_rate=streams.rate(0),
        width=int(width),
        height=int(height),
        video_codec=streams.headers[0].get("codec_id", ""),
        has_audio=bool(streams.count.get(1)),
        sample_rate=int(sound.get("sample_rate", 0)),
        channels=_channels(sound.get("channel_layout_name", "")),
        audio_codec=sound.get("codec_id", ""),
        sha256=digest.hexdigest(),
        bytes=path.stat().st_size,
    )


def frame_starts(movie: MovieProbe) -> NDArray[np.float64]:
    """Start of every frame, from its packet's header: no picture is decoded.

    Parameters
    ----------
    movie : MovieProbe

    Returns
    -------
    ndarray of float64, shape (frame,)
        Movie seconds, in the order of presentation.

    Raises
    ------
    InputError
        If the file is no movie.
    """
    arguments = ["-map", "0:V:0", "-c", "copy", "-f", "framecrc", "-"]
    with closing(Ffmpeg(movie.path, arguments)) as ffmpeg:
        packets = Packets.read(ffmpeg.stdout)
        ffmpeg.finish(ignore=packets.codecs())
    tick = packets.base(0)
    starts = [float(pts * tick - movie.start_s) for pts in sorted(packets.pictures)]
    return np.array(starts, dtype=np.float64)


def frames(movie: MovieProbe, width: int, height: int) -> Generator[Frame, None, None]:
    """Decode every frame, area-averaged to a size.

    Each frame is turned to 8-bit RGB at its full size first, then every output pixel is the mean
    of the area it covers (libswscale's ``area``). Averaging in YUV would be faster, but differs by
    up to 50 grey levels where a saturated colour leaves the RGB cube.

    Parameters
    ----------
    movie : MovieProbe
    width, height : int
        Pixels; another aspect ratio than the movie's squeezes it, nothing is cropped.

    Yields
    ------
    Frame
        In the order of presentation. Closing the iterator stops ffmpeg.

    Raises
    ------
    InputError
        If a frame cannot be decoded or has no time, or the file changed since the probe.
    """
    times: queue.SimpleQueue[tuple[Fraction, Fraction] | None] = queue.SimpleQueue()
    # libswscale widens 8 to 16 bits by * 256 when it scales, by * 257 when it does not
    scaled = {width, height} != {movie.width, movie.height}
    chain = f"format=gbrp,scale={width}:{height}:flags=area,showinfo=checksum=0"
    arguments = ["-map", "0:V:0", "-vf", chain, "-fps_mode", "passthrough", "-f", "rawvideo"]
    arguments += ["-pix_fmt", "gbrp16le" if scaled else "gbrp", "-"]
    size = width * height * 3 * (2 if scaled else 1)
    pending: tuple[Fraction, Fraction, NDArray[np.uint16]] | None = None
    with closing(Ffmpeg(movie.path, arguments, _Times(times), lambda: times.put(None))) as ffmpeg:
        while len(data := ffmpeg.stdout.read(size)) == size:
            time = times.get()
            if time is None:
                ffmpeg.finish(ignore=(movie.video_codec,))
                raise InputError("a frame has no time", where=movie.path, remedy=REENCODE)
            start = time[0] - movie.start_s
            if pending is not None:
                yield Frame(float(pending[0]), float(start), pending[2])
            pending = start, time[1], _picture(data, (height, width, 3), scaled)
        ffmpeg.finish(ignore=(movie.video_codec,))
        if data:
            raise InputError("it ends within a frame", where=movie.path, remedy=REENCODE)
    if pending is None:
        raise InputError("no frame can be decoded", where=movie.path, remedy=REENCODE)
    last = pending[1] or 1 / movie.frame_rate
    yield Frame(float(pending[0]), float(pending[0] + last), pending[2])


def sound(movie: MovieProbe, channels: int) -> Generator[NDArray[np.float32], None, None]:
    """Decode the first sound stream at its own sampling rate.

    Parameters
    ----------
    movie : MovieProbe
    channels : int
        Fewer than the movie has: mixed down by ffmpeg's matrix.

    Yields
    ------
    ndarray of float32, shape (channel, sample)
        Full scale is 1. The first sample is movie time 0: sound that starts later is preceded by
        silence, gaps between packets are silence.

    Raises
    ------
    InputError
        If the movie has no sound or a packet cannot be decoded.
    """
    if not movie.has_audio:
        raise InputError("no sound stream", where=movie.path)
    first = round(movie.start_s * movie.sample_rate)
    filters = f"aresample=async=1:min_hard_comp={SOUND_TOLERANCE_S}:first_pts={first}"
    arguments = ["-map", "0:a:0", "-af", filters, "-ac", str(channels), "-f", "f32le", "-"]
    size = SOUND_BYTES // (4 * channels) * 4 * channels
    with closing(Ffmpeg(movie.path, arguments)) as ffmpeg:
        while data := ffmpeg.stdout.read(size):
            whole = len(data) // (4 * channels) * channels
            yield np.frombuffer(data, "<f4", whole).reshape(-1, channels).T
        ffmpeg.finish(ignore=(movie.audio_codec,))


def check_decodes(movie: MovieProbe) -> None:
    """Decode the first frame, so that a movie ffmpeg cannot decode is refused before any work.

    Raises
    ------
    InputError
    """
    with closing(frames(movie, 2, 2)) as first:
        next(first)


def _picture(data: bytes, shape: tuple[int, int, int], scaled: bool) -> NDArray[np.uint16]:
    """Turn planes of green, blue and red into RGB, a view with the planes still apart."""
    height, width, _ = shape
    planes = np.frombuffer(data, "<u2" if scaled else "u1").reshape(3, height, width)[[2, 0, 1]]
    values = planes if scaled else planes.astype(np.uint16) * np.uint16(LEVEL)
    return values.transpose(1, 2, 0)


def _channels(layout: str) -> int:
    """Channels of an ffmpeg layout name: ``mono``, ``stereo``, ``5.1(side)``, ``3 channels``."""
    named = {"": 0, "mono": 1, "stereo": 2, "downmix": 2, "quad": 4, "hexagonal": 6, "octagonal": 8}
    if layout in named:
        return named[layout]
    numbers = re.match(r"\d+(?:\.\d+)*", layout)
    return sum(int(n) for n in numbers.group().split(".")) if numbers else 2


class _Times:
    """Takes the frames' times out of ``showinfo``'s lines."""

    def __init__(self, times: queue.SimpleQueue[tuple[Fraction, Fraction] | None]) -> None:
        self.times, self.base = times, Fraction(0)

    def __call__(self, line: str) -> None:
        if not line.startswith(_SHOWINFO):
            return
        if base := _TIME_BASE.search(line):
            self.base = Fraction(base.group(1))
        elif found := _FRAME.search(line):
            pts, duration = found.group(1), _DURATION.search(line)
            known = pts.lstrip("-").isdigit()
            length = int(duration.group(1)) if duration else 0
            self.times.put((int(pts) * self.base, length * self.base) if known else None)
