"""A minute of movie to one 160 x 90 picture per TR: ours, the peer and the limit, in one run.

    python benchmarks/stimulus.py [MOVIE] [--repeats N] [--json OUT]

The limit is ffmpeg decoding to nothing; ffmpeg with its own area scaler stands beside it. The peer
is imageio-ffmpeg's frames averaged with numpy. Without a movie, one of 60 s is made. What counts is
the ratio: machines are noisy, so the best of N repeats is taken, all of them interleaved.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from reference import TR_S

from sherlock_data.stimulus.movie import MovieProbe, probe
from sherlock_data.stimulus.video import tr_pictures
from sherlock_data.timing import overlaps

WIDTH, HEIGHT = 160, 90
SECONDS = 60
GOAL = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("movie", nargs="?", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures there as well")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.movie or synthetic_movie(Path(folder) / "movie.mp4")
        movie = probe(path)
        edges = np.arange(int(movie.video_seconds / TR_S) + 1) * TR_S
        work: dict[str, Callable[[], np.ndarray | None]] = {
            "limit: ffmpeg to nothing": lambda: ffmpeg(movie, "null"),
            "limit: ffmpeg, area scaler": lambda: ffmpeg(
                movie, f"scale={WIDTH}:{HEIGHT}:flags=area"
            ),
            "ours": lambda: ours(movie, edges),
            "peer: imageio + numpy": lambda: peer(movie, edges),
        }
        seconds: dict[str, list[float]] = {name: [] for name in work}
        results = {}
        for _ in range(arguments.repeats):
            for name, task in work.items():
                start = time.perf_counter()
                results[name] = task()
                seconds[name].append(time.perf_counter() - start)
    best = {name: min(times) for name, times in seconds.items()}
    print(
        f"{movie.path.name}: {movie.width} x {movie.height}, {float(movie.frame_rate):.5g} fps,",
        end=" ",
    )
    print(f"{movie.video_seconds:.1f} s to {len(edges) - 1} TRs of {WIDTH} x {HEIGHT}")
    print(f"{'':28}{'seconds':>9}{'x decode':>10}{'x area':>8}")
    nothing, area = (best[name] for name in list(work)[:2])
    for name, value in best.items():
        print(f"{name:28}{value:9.2f}{value / nothing:10.2f}{value / area:8.2f}")
    difference = np.abs(results["ours"] - results["peer: imageio + numpy"])
    print(
        f"ours against peer, grey levels: max {difference.max():.3f}, mean {difference.mean():.3f}"
    )
    print(f"ours / limit {best['ours'] / area:.2f} (goal: at most {GOAL:g}), ", end="")
    print(f"peer / ours {best['peer: imageio + numpy'] / best['ours']:.1f}")
    if arguments.json:
        rows = [{"what": name, "seconds": value} for name, value in best.items()]
        arguments.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


def ours(movie: MovieProbe, edges: np.ndarray) -> np.ndarray:
    pictures = [tr.picture for tr in tr_pictures(movie, edges, WIDTH, HEIGHT)]
    return np.stack(pictures).astype(float)


def peer(movie: MovieProbe, edges: np.ndarray) -> np.ndarray:
    """Average full-size frames over blocks of pixels, then over TRs; constant rate assumed."""
    decoded = imageio_ffmpeg.read_frames(str(movie.path))
    next(decoded)
    rows, columns = movie.height // HEIGHT, movie.width // WIDTH
    total = np.zeros((len(edges) - 1, HEIGHT, WIDTH, 3))
    length = float(1 / movie.frame_rate)
    for n, data in enumerate(decoded):
        frame = np.frombuffer(data, np.uint8).reshape(HEIGHT, rows, WIDTH, columns, 3)
        small = frame.mean(axis=(1, 3))
        shared = overlaps([n * length], [(n + 1) * length], edges)
        for tr, share in zip(shared.target, shared.seconds, strict=True):
            total[tr] += small * share / TR_S
    return total


def ffmpeg(movie: MovieProbe, chain: str) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error"]
    command += ["-i", f"file:{movie.path}", "-map", "0:V:0", "-vf", chain, "-f", "null", "-"]
    subprocess.run(command, check=True)


def synthetic_movie(path: Path) -> Path:
    """Make 60 s of 640 x 360 at 25 fps with a tone."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error"]
    for source in (
        f"testsrc2=s=640x360:r=25:d={SECONDS}",
        f"sine=frequency=440:duration={SECONDS}",
    ):
        command += ["-f", "lavfi", "-i", source]
    command += ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-c:a", "aac"]
    subprocess.run([*command, f"file:{path}"], check=True)
    return path


if __name__ == "__main__":
    main()
