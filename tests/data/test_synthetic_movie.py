"""The movie that ``synth`` makes carries its tracks, in pictures and in sound."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

from sherlock_data.synthetic.sound import SAMPLING_RATE
from sherlock_data.synthetic.tracks import AUDIO_TRACKS, TRACKS, VIDEO_TRACKS
from sherlock_data.timing import overlaps


@pytest.fixture(scope="module")
def tiny(tiny_raw: Path) -> Path:
    """Folder of raw files of size ``tiny``."""
    return tiny_raw


def decode(movie: Path, *options: str) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(movie), *options, "-"]
    return subprocess.run(command, capture_output=True, check=True).stdout


def mean_pictures(movie: Path, volumes: int) -> np.ndarray:
    """TR-mean pictures of 160 x 90, shape (time, value)."""
    scale = ("-vf", "scale=160:90:flags=area", "-f", "rawvideo", "-pix_fmt", "rgb24")
    frames = np.frombuffer(decode(movie, *scale), "u1").reshape(-1, 90 * 160 * 3)[:, ::7]
    start = np.arange(len(frames)) / 25
    return overlaps(start, start + 1 / 25, np.arange(volumes + 1) * 1.5).mean(frames)


def band_power(movie: Path, volumes: int) -> np.ndarray:
    """Sound of every TR in 20 bands of both channels in dB, shape (time, 40)."""
    samples = np.frombuffer(decode(movie, "-f", "f32le"), "f4").reshape(-1, 2)
    length = round(1.5 * SAMPLING_RATE)
    power = np.abs(np.fft.rfft(samples[: length * volumes].reshape(volumes, length, 2), axis=1))
    frequency = np.fft.rfftfreq(length, 1 / SAMPLING_RATE)
    band = np.digitize(frequency, np.geomspace(50, 16_000, 21))
    bands = [10 * np.log10(np.square(power[:, band == b]).mean(axis=1)) for b in range(1, 21)]
    return np.concatenate(bands, axis=1)


@pytest.mark.parametrize(
    ("read", "names", "least"),
    [
        pytest.param(mean_pictures, VIDEO_TRACKS, 0.9, id="video"),
        pytest.param(band_power, AUDIO_TRACKS, 0.8, id="audio"),
    ],
)
def test_tracks_are_read_from_the_movie(tiny: Path, read, names, least) -> None:
    """Ridge from what the stimulus store keeps, fitted on run 1, finds every track in run 2."""
    columns = [TRACKS.index(name) for name in names]
    first, second = np.split(np.load(tiny / "features.npy")[:, columns], 2)
    seen, unseen = read(tiny / "run-1.mp4", 60), read(tiny / "run-2.mp4", 60)
    ridge = RidgeCV(np.logspace(-1, 6, 15)).fit(seen - seen.mean(0), first)
    found = ridge.predict(unseen - unseen.mean(0))
    r = [np.corrcoef(found[:, i], second[:, i])[0, 1] for i in range(len(names))]
    assert not {name: value for name, value in zip(names, r, strict=True) if not value > least}


def test_the_movie_outlasts_its_run_and_has_sound(tiny: Path) -> None:
    frames = np.frombuffer(decode(tiny / "run-1.mp4", "-f", "rawvideo", "-pix_fmt", "gray"), "u1")
    frames = frames.reshape(-1, 180, 320)
    assert len(frames) == (60 * 1.5 + 2) * 25
    assert frames[-1].max() < 20 < frames[0].max()  # the credits are black
    samples = np.frombuffer(decode(tiny / "run-1.mp4", "-f", "f32le"), "f4")
    assert 90 <= len(samples) / 2 / SAMPLING_RATE < 92.1
    assert 0.01 < samples.std() < 0.2
