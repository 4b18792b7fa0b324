"""Files that look like the published Sherlock dataset in all that `inspect` and the clock see.

    python tests/docs/lookalike.py RAW

17 subjects x 1,976 volumes on a coarse grid over the MNI brain. Names, run lengths, the wrong TR in
the headers, subject 5's stuck tail, the movie's length and the sheet's columns are the published
ones; values are noise.

"""

from __future__ import annotations

import argparse
import itertools
import subprocess
from pathlib import Path

import imageio_ffmpeg
import nibabel
import numpy as np
import pandas as pd
from isal import igzip

SUBJECTS, VOLUMES, TR_S = range(1, 18), (946, 1030), 1.5
STUCK = {5: 51}
MOVIE_S = 1426
#: the published grid has 3 mm
MM = 21
ORIGIN_MM, EXTENT = (-90.0, -126.0, -72.0), (183, 219, 183)
SEGMENTS = (482, 518)


def header() -> nibabel.Nifti1Header:
    """Header of one subject's file; it says a TR of 1.0 s."""
    shape = tuple(length // MM for length in EXTENT)
    affine = np.diag([MM, MM, MM, 1.0])
    affine[:3, 3] = ORIGIN_MM
    image = nibabel.Nifti1Image(np.zeros(shape, np.float32), affine)
    image.header.set_data_shape((*shape, sum(VOLUMES)))
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_sform(affine, 4)
    image.header["pixdim"][4] = 1.0
    image.header["vox_offset"], image.header["magic"] = 352, b"n+1"
    return image.header


def scans(folder: Path) -> None:
    """One concatenated file per subject: noise that follows one shared course in time."""
    folder.mkdir(parents=True)
    head = header()
    shape = head.get_data_shape()
    shared = np.random.default_rng(0).normal(size=(shape[3], 1)).astype(np.float32)
    for subject in SUBJECTS:
        path = folder / f"sherlock_movie_s{subject}.nii.gz"
        with igzip.open(path, "wb", compresslevel=0) as file:
            file.write(head.binaryblock.ljust(352, b"\0"))
            file.write(noise(subject, shape, shared).data)


def noise(subject: int, shape: tuple[int, ...], shared: np.ndarray) -> np.ndarray:
    """Values of one subject, (time, voxel); a stuck tail repeats its first volume."""
    series = np.random.default_rng(subject).normal(size=(shape[3], int(np.prod(shape[:3]))))
    series += shared
    if subject in STUCK:
        series[-STUCK[subject] :] = series[-STUCK[subject]]
    return series.astype(np.float32)


def movie(path: Path) -> None:
    """Part 1, of its length; its pictures few and small."""
    picture = f"testsrc=size=64x36:rate=5:duration={MOVIE_S}"
    tone = f"sine=frequency=440:sample_rate=22050:duration={MOVIE_S}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", "-f", "lavfi", "-i", picture]
    command += [
        "-f",
        "lavfi",
        "-i",
        tone,
        "-ac",
        "2",
        "-preset",
        "ultrafast",
        "-pix_fmt",
        "yuv420p",
    ]
    subprocess.run([*command, str(path)], check=True)


def sheet(path: Path) -> None:
    """1,000 segments in seconds that begin again at run 2, and in TRs; two rows have no TRs."""
    starts, rows = 0, []
    for volumes, count in zip(VOLUMES, SEGMENTS, strict=True):
        edges = np.linspace(0, volumes, count + 1).astype(int)
        for first, last in itertools.pairwise(edges):
            rows.append((first * TR_S, last * TR_S, starts + first + 1, starts + last))
        starts += volumes
    names = ["Start Time (s) ", "End Time (s) ", "Start Time (TRs, 1.5s)", "End Time (TRs, 1.5s)"]
    table = pd.DataFrame(rows, columns=names)
    table.loc[[481, 999], names[2:]] = np.nan
    table["Space-In/Outdoor"] = np.where(np.arange(len(table)) % 3, "Indoor", "Outdoor")
    table["Music Presence "] = np.where(np.arange(len(table)) % 2, "Yes", "No")
    table["Arousal - Rater 1"] = 1 + np.arange(len(table)) % 5
    table.to_excel(path, index=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw", type=Path)
    given = parser.parse_args()
    scans(given.raw / "sherlock_nii")
    movie(given.raw / "stimuli_Sherlock.m4v")
    sheet(given.raw / "annotations.xlsx")
