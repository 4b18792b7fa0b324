"""ffmpeg as a process that is listened to, and its listing of a file's packets.

ffmpeg comes with imageio-ffmpeg. It is run with a list of arguments, reads local files only, and
stops at the first damaged frame.
"""

from __future__ import annotations

import logging
import re
import shlex
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import IO

import imageio_ffmpeg

from sherlock_data.errors import InputError

_LOG = logging.getLogger(__name__)

#: containers that are opened. Not among them: lists of other files (concat, hls, dash), scripts
#: (avisynth), addresses (sdp) and text, which ffmpeg would follow to wherever they point
CONTAINERS = (
    "mov,matroska,avi,mpeg,mpegts,mpegvideo,m4v,h264,hevc,obu,ivf,asf,flv,ogg,mxf,gxf,nut,dv,rm,"
    "wtv,gif,apng,yuv4mpegpipe,wav,mp3,flac,aac"
)
REENCODE = "re-encode it (ffmpeg -i IN -c:v libx264 -c:a aac OUT.mp4) or fetch it again"

_ERROR = re.compile(r"^(\[[^]]*\] )*\[(error|fatal|panic)\]")


def source(path: Path) -> list[str]:
    """Arguments that open a movie: this local file, whatever its name, and nothing it names."""
    allowed = ["-protocol_whitelist", "file,pipe", "-format_whitelist", CONTAINERS]
    return [*allowed, "-i", f"file:{path}"]


@dataclass
class Packets:
    """Streams and packet times out of ffmpeg's ``framecrc`` listing, all by stream number.

    Attributes
    ----------
    headers : dict of dict
        What the listing says of a stream.
    first, last, ends : dict of int
        First and last presentation time and the end of the last packet, in ticks.
    count : dict of int
        Packets.
    pictures : list of int
        Presentation time of every packet of stream 0, the video, in the order of decoding.
    """

    headers: dict[int, dict[str, str]] = field(default_factory=dict)
    first: dict[int, int] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    count: dict[int, int] = field(default_factory=dict)
    pictures: list[int] = field(default_factory=list)

    @classmethod
    def read(cls, lines: IO[bytes]) -> Packets:
        """Read the lines of a listing."""
        found = cls()
        for raw in lines:
            line = raw.decode(errors="replace").strip()
            if header := re.match(r"#(\w+) (\d+): +(.*)", line):
                key, stream, value = header.groups()
                found.headers.setdefault(int(stream), {})[key] = value
            elif not line.startswith("#"):
                found._packet(*(int(part) for part in line.split(",")[:4]))
        return found

    def _packet(self, stream: int, dts: int, pts: int, duration: int) -> None:
        if stream == 0:
            self.pictures.append(pts)
        self.count[stream] = self.count.get(stream, 0) + 1
        self.first[stream] = min(pts, self.first.get(stream, pts))
        self.last[stream] = max(pts, self.last.get(stream, pts))
        self.ends[stream] = max(pts + duration, self.ends.get(stream, pts))

    def base(self, stream: int) -> Fraction:
        """Seconds of a stream's tick."""
        return Fraction(self.headers[stream]["tb"])

    def end(self, stream: int) -> Fraction:
        """End of a stream's last packet in seconds."""
        return self.ends[stream] * self.base(stream)

    def rate(self, stream: int) -> Fraction:
        """Mean frames per second.

        The nearest whole or NTSC (N * 1000 / 1001) rate where the container's rounding of times
        leaves it possible, else the mean as it is.
        """
        count, span = self.count[stream] - 1, self.last[stream] - self.first[stream]
        if not count or not span:
            count, span = 1, max(1, self.ends[stream] - self.first[stream])
        tick = self.base(stream)
        rate = count / (span * tick)
        for usual in (Fraction(round(rate)), Fraction(round(rate * 1001 / 1000) * 1000, 1001)):
            if usual and abs(count / usual - span * tick) <= tick:
                return usual
        return rate.limit_denominator(1001)

    def codecs(self) -> tuple[str, ...]:
        """Names of the streams' codecs."""
        return tuple(header["codec_id"] for header in self.headers.values() if "codec_id" in header)


class Ffmpeg:
    """A running ffmpeg: its output, its messages, and whether it complained."""

    def __init__(
        self,
        path: Path,
        arguments: Sequence[str],
        notice: Callable[[str], None] = lambda line: None,
        end: Callable[[], None] = lambda: None,
    ) -> None:
        self.path, self.complaints, self.notice, self.end = path, list[str](), notice, end
        quiet = ["-hide_banner", "-nostdin", "-nostats", "-loglevel", "repeat+level+info"]
        # -copyts: times as they are in the file, whichever streams are asked for
        opened = ["-xerror", "-copyts", *source(path)]
        command = [imageio_ffmpeg.get_ffmpeg_exe(), *quiet, *opened, *arguments]
        _LOG.debug("running %s", shlex.join(command))
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        if self.process.stdout is None or self.process.stderr is None:
            raise OSError("ffmpeg was started without pipes")
        self.stdout, self.stderr = self.process.stdout, self.process.stderr
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def _listen(self) -> None:
        try:
            for raw in self.stderr:
                line = raw.decode(errors="replace").rstrip()
                if _ERROR.search(line):
                    self.complaints.append(line)
                self.notice(line)
        finally:
            self.end()

    def finish(self, ignore: Sequence[str]) -> None:
        """Wait for the end and raise what went wrong.

        A decoder's own remarks (``ignore``: codecs) are left to ffmpeg to judge: it exits with an
        error when a frame is damaged. Every other error counts, a truncated file is only said so.
        """
        status = self.process.wait()
        self.listener.join()
        if any("matches no streams" in line for line in self.complaints):
            raise InputError("no video stream", where=self.path, remedy="name a movie file")
        if any("not on whitelist" in line for line in self.complaints):
            raise InputError(
                "is no movie, but a list of files, a picture, text or a rare format",
                where=self.path,
                remedy=REENCODE,
            )
        remarks = tuple(f"[{codec} @" for codec in ignore if codec)
        serious = [line for line in self.complaints if not line.startswith(remarks)]
        if status or serious:
            reason = re.sub(r"\[[^]]*\] *", "", (serious or self.complaints or ["no reason"])[0])
            raise InputError(
                f"does not decode ({reason.replace(f'file:{self.path}', 'it')})",
                where=self.path,
                remedy=REENCODE,
            )

    def close(self) -> None:
        """Stop it if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.listener.join()
        self.stdout.close()
        self.stderr.close()
